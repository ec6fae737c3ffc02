// PROTOCOL.md, section 2: the payload types, and the bytes that stand for their values.

import { Table, tableToIPC } from "apache-arrow";

import { BridgeError, orCode } from "./errors.mjs";
import { Members, fromUtf8, parse, stringify, toValue, utf8 } from "./strictjson.mjs";
import { readTable } from "./tables.mjs";

export const PAYLOAD_TYPES = [
  ...["text", "dictionary", "jsontable", "arrowtable"],
  ...["image", "audio", "video", "binary"],
];

/** The bytes of a value. Any type may also be given as its bytes. */
export function serialize(value, payloadType) {
  return orCode("INVALID_PAYLOAD_TYPE", () => {
    if (!PAYLOAD_TYPES.includes(payloadType)) throw new TypeError(`no type ${payloadType}`);
    if (value instanceof Uint8Array) return value;
    switch (payloadType) {
      case "text":
        if (typeof value !== "string" || !value.isWellFormed()) throw new TypeError("no text");
        return utf8(value);
      case "jsontable":
        if (!isTable(value)) throw new TypeError("no list of objects");
        return utf8(stringify(value));
      case "dictionary":
        return utf8(stringify(value));
      case "arrowtable":
        if (!(value instanceof Table)) throw new TypeError("no Arrow table");
        return tableToIPC(value, "stream");
      default:
        throw new TypeError("no bytes");
    }
  });
}

function isTable(value) {
  const isRow = (row) => row instanceof Object && !Array.isArray(row);
  return Array.isArray(value) && value.every(isRow);
}

/** The value of bytes that were received. */
export function deserialize(bytes, payloadType) {
  return orCode("DESERIALIZATION_ERROR", () => {
    switch (payloadType) {
      case "text":
        return fromUtf8(bytes);
      case "dictionary":
      case "jsontable":
        return fromTree(parse(bytes), payloadType);
      case "arrowtable":
        return readTable(bytes);
      default:
        return bytes;
    }
  });
}

/** The value of a dictionary or jsontable of which the JSON was read. */
export function fromTree(tree, payloadType) {
  return orCode("DESERIALIZATION_ERROR", () => {
    const isRow = (row) => row instanceof Members;
    if (payloadType === "jsontable" && !(Array.isArray(tree) && tree.every(isRow))) {
      throw new TypeError("no list of objects");
    }
    return toValue(tree);
  });
}
