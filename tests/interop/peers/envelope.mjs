// PROTOCOL.md, sections 1, 3, 5 and 6: the envelope, written and read. No socket is used here.

import { BridgeError, orCode } from "./errors.mjs";
import { PAYLOAD_TYPES, deserialize, fromTree } from "./payload.mjs";
import { MAX_DEPTH, Members, Numeral, parse, stringify, toValue, utf8 } from "./strictjson.mjs";

export const MAX_PAYLOADS = 64;
/** UTF-8 bytes of a string field, a link's URL and a subject. */
export const MAX_STRING = 1024;
export const MAX_METADATA = 4096;
const MAX_SIZE = 2n ** 53n;

const STRINGS = [
  ...["correlation_id", "msg_id", "timestamp", "send_to", "msg_purpose"],
  ...["sender_name", "sender_id", "receiver_name", "receiver_id"],
  ...["reply_to", "reply_to_msg_id", "broker_url"],
];
const ENVELOPE_KEYS = [...STRINGS, "metadata", "payloads", "error"];
const PAYLOAD_KEYS = [
  ...["id", "dataname", "payload_type", "transport", "encoding", "size", "data", "metadata"],
];
/** The encodings that go with a transport, the default first; and with which types, if not all. */
const ENCODINGS = {
  direct: {
    base64: PAYLOAD_TYPES,
    "arrow-ipc": ["arrowtable"],
    json: ["text", "dictionary", "jsontable"],
  },
  link: { none: PAYLOAD_TYPES },
};

const invalid = (message) => new BridgeError("INVALID_ENVELOPE", message);
const unusable = (message) => new BridgeError("INVALID_ARGUMENT", message);

// ---------------------------------------------------------------- writing

/** True if a message can be published to this subject. */
export function isSubject(subject) {
  return (
    typeof subject === "string" &&
    utf8(subject).length <= MAX_STRING &&
    !/[\s\u0000-\u0020\u007f]/.test(subject) &&
    !subject.split(".").some((token) => ["", "*", ">"].includes(token))
  );
}

/** The envelope's keys but `payloads`, in order, with what was not given filled in. */
export function envelopeFields(subject, given) {
  if (!isSubject(subject)) throw unusable("no subject to publish to");
  const fields = {};
  const defaults = {
    correlation_id: crypto.randomUUID(),
    msg_id: crypto.randomUUID(),
    timestamp: new Date().toISOString(),
    send_to: subject,
    msg_purpose: "chat",
  };
  for (const key of STRINGS) {
    fields[key] = given[key] ?? defaults[key] ?? "";
    if (typeof fields[key] !== "string" || !fields[key].isWellFormed()) {
      throw unusable(`${key} is no text`);
    }
    if (utf8(fields[key]).length > MAX_STRING) throw unusable(`${key} is too long`);
  }
  fields.metadata = given.metadata ?? {};
  const text = orCode("INVALID_ARGUMENT", () => stringify(fields.metadata, MAX_DEPTH - 1));
  if (!text.startsWith("{") || utf8(text).length > MAX_METADATA) {
    throw unusable("metadata is no object, or too long");
  }
  return fields;
}

/** Refuse labels that no receiver takes, and too many of them. */
export function checkLabels(names) {
  if (names.length > MAX_PAYLOADS) throw unusable(`more than ${MAX_PAYLOADS} payloads`);
  for (const name of names) {
    if (typeof name !== "string" || !name.isWellFormed()) throw unusable("a dataname is no text");
    if (utf8(name).length > MAX_STRING) throw unusable("a dataname is too long");
  }
}

/**
 * The JSON text of an envelope, in UTF-8.
 *
 * payloads: {dataname, payloadType, bytes}, and for a link {url, sha256, removable} besides.
 * odd: spell it as nobody here does, but as the protocol allows: keys backwards, so that `data`
 *   comes before what says what it is, white space, escapes, and keys that no version knows.
 */
export function writeEnvelope(fields, payloads, odd = false) {
  const envelope = { ...fields, payloads: payloads.map(payloadObject) };
  return utf8(odd ? oddly(envelope) : stringify(envelope));
}

function payloadObject({ dataname, payloadType, bytes, url, sha256, removable }) {
  const size = bytes.length;
  return {
    id: crypto.randomUUID(),
    dataname,
    payload_type: payloadType,
    transport: url ? "link" : "direct",
    encoding: url ? "none" : "base64",
    size,
    data: url ?? toBase64(bytes),
    metadata: { payload_bytes: size, ...(url ? { sha256, removable } : {}) },
  };
}

function oddly(value, isKnown = true) {
  if (typeof value === "string") return stringify(value).replaceAll("/", "\\/");
  if (Array.isArray(value)) {
    return `[\n${value.map((item) => oddly(item, isKnown)).join(" ,\t")} ]`;
  }
  if (value === null || typeof value !== "object") return stringify(value);
  const pairs = Object.entries(value).reverse();
  // In the application's own objects, every key means something.
  if (isKnown) pairs.unshift(["x-unknown", [{ a: [null, 1.5e3] }, "}"]]);
  const members = pairs.map(([key, item]) => {
    const first = key.charCodeAt(0).toString(16).padStart(4, "0");
    const spelled = key ? `"\\u${first}${stringify(key.slice(1)).slice(1)}` : '""';
    return `${spelled} : ${oddly(item, isKnown && key === "payloads")}`;
  });
  return `\r\n{ ${members.join("\n, ")} }`;
}

// ---------------------------------------------------------------- reading

/**
 * What a message says: {fields, error, payloads}.
 *
 * Each payload is {dataname, payloadType, transport, size, sha256, removable} with `value` if it
 * came with the message, or with `url`.
 */
export function readEnvelope(message, maxPayloadSize = Infinity) {
  const tree = orCode("INVALID_ENVELOPE", () => parse(message));
  const envelope = known(tree, ENVELOPE_KEYS, "the message");
  const fields = {};
  for (const key of STRINGS) fields[key] = text(envelope, key) ?? "";
  fields.metadata = object(envelope, "metadata") ?? {};
  const given = present(envelope, "payloads");
  if (given !== undefined && !Array.isArray(given)) throw invalid("payloads is no list");
  if (given?.length > MAX_PAYLOADS) throw invalid(`more than ${MAX_PAYLOADS} payloads`);
  const error = readError(envelope);
  if (error ? given?.length : !given) throw invalid("neither payloads nor error, or both");
  const payloads = (given ?? []).map((payload) => readPayload(payload, maxPayloadSize));
  return { fields, error, payloads };
}

function readError(envelope) {
  const found = present(envelope, "error");
  if (found === undefined) return undefined;
  const error = known(found, ["code", "message", "details"], "error");
  const code = text(error, "code");
  if (!code) throw invalid("an error without code");
  return { code, message: text(error, "message") ?? "", details: object(error, "details") ?? {} };
}

function readPayload(tree, maxPayloadSize) {
  const payload = known(tree, PAYLOAD_KEYS, "a payload");
  text(payload, "id");
  const dataname = required(payload, "dataname");
  const payloadType = required(payload, "payload_type");
  const transport = required(payload, "transport");
  if (!PAYLOAD_TYPES.includes(payloadType)) {
    throw new BridgeError("INVALID_PAYLOAD_TYPE", `no type ${payloadType}`);
  }
  if (!Object.hasOwn(ENCODINGS, transport)) {
    throw new BridgeError("INVALID_TRANSPORT", `no transport ${transport}`);
  }
  const encodings = ENCODINGS[transport];
  const encoding = text(payload, "encoding") || Object.keys(encodings)[0];
  if (!Object.hasOwn(encodings, encoding) || !encodings[encoding].includes(payloadType)) {
    throw invalid(`encoding ${encoding} for a ${transport} ${payloadType}`);
  }
  const size = readSize(present(payload, "size"), maxPayloadSize);
  const head = { dataname, payloadType, transport, size, ...readMetadata(payload) };
  if (transport === "link") return { ...head, url: required(payload, "data") };
  if (encoding === "json") return { ...head, value: embedded(payload, head, maxPayloadSize) };
  const bytes = fromBase64(required(payload, "data", Infinity));
  checkLength(bytes.length, size, maxPayloadSize);
  return { ...head, value: deserialize(bytes, payloadType) };
}

function readSize(numeral, maxPayloadSize) {
  if (numeral === undefined) return undefined;
  const digits = numeral instanceof Numeral && /^[0-9]+$/.test(numeral.text);
  if (!digits || BigInt(numeral.text) > MAX_SIZE) throw invalid("size is no number of bytes");
  const size = Number(numeral.text);
  if (size > maxPayloadSize) throw new BridgeError("PAYLOAD_TOO_LARGE", `${size} bytes`);
  return size;
}

function readMetadata(payload) {
  const found = present(payload, "metadata");
  if (found === undefined) return {};
  const metadata = known(found, ["sha256", "removable"], "a payload's metadata");
  const sha256 = text(metadata, "sha256");
  if (sha256 !== undefined && !/^[0-9a-fA-F]{64}$/.test(sha256)) throw invalid("no SHA-256");
  const removable = present(metadata, "removable");
  if (![true, false, undefined].includes(removable)) throw invalid("removable is no boolean");
  return { sha256: sha256?.toLowerCase(), removable };
}

/** The value under encoding `json`: `data` itself, or its JSON text. */
function embedded(payload, { payloadType, size }, maxPayloadSize) {
  if (payload.count("data") === 0) throw invalid("no data");
  const data = payload.get("data");
  const isText = typeof data === "string";
  if (payloadType === "text" && !isText) throw invalid("a text that is no string");
  const bytes = utf8(isText ? data : stringify(data));
  if (bytes.length > maxPayloadSize) throw new BridgeError("PAYLOAD_TOO_LARGE", "a value");
  if (bytes.length > size) throw new BridgeError("INTEGRITY_ERROR", "longer than its size");
  return isText ? deserialize(bytes, payloadType) : fromTree(data, payloadType);
}

/** Refuse a number of bytes that is not the promised one, or that is too much. */
export function checkLength(length, size, maxPayloadSize) {
  if (length > maxPayloadSize) throw new BridgeError("PAYLOAD_TOO_LARGE", `${length} bytes`);
  if (size !== undefined && length !== size) {
    throw new BridgeError("INTEGRITY_ERROR", `${length} bytes in place of ${size}`);
  }
}

/** `tree` as an object in which no known key comes twice. */
function known(tree, keys, what) {
  if (!(tree instanceof Members)) throw invalid(`${what} is no object`);
  const twice = keys.find((key) => tree.count(key) > 1);
  if (twice) throw invalid(`${twice} comes twice`);
  return tree;
}

/** A key's tree; undefined if the key is absent or null. */
const present = (members, key) => members.get(key) ?? undefined;

function text(members, key, limit = MAX_STRING) {
  const value = present(members, key);
  if (value === undefined) return undefined;
  if (typeof value !== "string") throw invalid(`${key} is no string`);
  if (limit !== Infinity && utf8(value).length > limit) throw invalid(`${key} is too long`);
  return value;
}

function required(members, key, limit = MAX_STRING) {
  const value = text(members, key, limit);
  if (value === undefined) throw invalid(`no ${key}`);
  return value;
}

function object(members, key) {
  const tree = present(members, key);
  if (tree === undefined) return undefined;
  if (!(tree instanceof Members)) throw invalid(`${key} is no object`);
  if (utf8(stringify(tree)).length > MAX_METADATA) throw invalid(`${key} is too long`);
  return orCode("INVALID_ENVELOPE", () => toValue(tree));
}

// ---------------------------------------------------------------- base64

export function toBase64(bytes) {
  let binary = "";
  for (let at = 0; at < bytes.length; at += 0x8000) {
    binary += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return btoa(binary);
}

/** The bytes of base64 as the protocol has it; atob alone also takes spaces and no padding. */
export function fromBase64(data) {
  if (data.length % 4 || !/^[A-Za-z0-9+/]*={0,2}$/.test(data)) {
    throw new BridgeError("DESERIALIZATION_ERROR", "no base64");
  }
  return Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
}
