// PROTOCOL.md, section 7: value specs, from which values are made and in which they are told.

import { Table } from "apache-arrow";

import { fromBase64 } from "./envelope.mjs";
import { sha256 } from "./plik.mjs";
import { utf8 } from "./strictjson.mjs";
import { columns, readTable, sampleTable } from "./tables.mjs";

/** A text that is longer is told by size and digest. */
const MAX_TEXT = 10_000;

/** The value that a spec stands for. */
export function valueOf(spec) {
  if (spec === null || typeof spec !== "object" || Array.isArray(spec)) return spec;
  if ("special" in spec) return special(spec.special);
  if (spec.as) {
    const { as, ...plain } = spec;
    const value = valueOf(plain);
    if (as === "text_stream") return new Blob([value]).stream();
    // This peer takes bytes, but no streams of them.
    return typeof value === "string" ? utf8(value) : value;
  }
  if ("text" in spec) return spec.text;
  if ("repeat" in spec) return spec.repeat.repeat(spec.times);
  if ("json" in spec) return expand(spec.json);
  if ("base64" in spec) return fromBase64(spec.base64);
  if ("pattern" in spec) return pattern(spec.pattern);
  if ("table" in spec) return sampleTable();
  if ("arrow" in spec) return readTable(fromBase64(spec.arrow.base64));
  throw new TypeError(`no value spec: ${Object.keys(spec)}`);
}

/** `value` with {"repeat", "times"} and {"special"} objects replaced, at any depth. */
export function expand(value) {
  if (Array.isArray(value)) return value.map(expand);
  if (value === null || typeof value !== "object") return value;
  const keys = Object.keys(value).join();
  if (keys === "repeat,times") return value.repeat.repeat(value.times);
  if (keys === "special") return special(value.special);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, expand(item)]));
}

function pattern(length) {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i += 1) bytes[i] = i ^ (i >> 8) ^ (i >> 16);
  return bytes;
}

/** A value that JSON cannot state. An object's keys are always strings: a Map has others. */
function special(name) {
  const cycle = [];
  cycle.push(cycle);
  class Foreign {}
  return {
    nan: NaN,
    inf: Infinity,
    minus_inf: -Infinity,
    nested_nan: { a: [1, NaN] },
    object: new Foreign(),
    nested_object: { a: [new Foreign()] },
    int_key: new Map([[1, "a"]]),
    null_key: new Map([[null, "a"]]),
    nested_bytes: ["a", utf8("b")],
    set: new Set([1]),
    cycle,
    lone_surrogate: "\ud800",
    tuple: Object.freeze([1, Object.freeze([2])]),
    table_nan: [{ a: NaN }],
    table_int_key: [new Map([[1, "a"]])],
    table_bytes: [{ a: utf8("b") }],
  }[name];
}

/** A value that was received, in the form of a result: see tests/conformance/vectors.py. */
export async function describe(value, payloadType) {
  if (payloadType === "dictionary" || payloadType === "jsontable") return { json: value };
  if (value instanceof Table) return { arrow: columns(value) };
  if (typeof value === "string" && value.length <= MAX_TEXT) return { text: value };
  const bytes = typeof value === "string" ? utf8(value) : value;
  return { size: bytes.length, sha256: await sha256(bytes) };
}
