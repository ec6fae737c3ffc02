// JSON as PROTOCOL.md sections 1, 5 and 6 want it read and written. JSON.parse forgets what a
// receiver must know: how a number is spelled, which keys came twice, how deep it went. So a text
// becomes a tree first (strings, true, false, null, arrays, and the two classes below), and what
// is needed of it a value.

/** A number as it is spelled. */
export class Numeral {
  constructor(text) {
    this.text = text;
  }
}

/** An object: its [key, tree] pairs, in order, with those that came twice. */
export class Members {
  constructor(pairs) {
    this.pairs = pairs;
  }

  get(key) {
    return this.pairs.find(([name]) => name === key)?.[1];
  }

  count(key) {
    return this.pairs.filter(([name]) => name === key).length;
  }
}

export const MAX_DEPTH = 32;
export const MAX_NUMERAL = 64;

const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const UNESCAPED = /[^"\\\u0000-\u001f]*/y;
const ESCAPES = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };
const WORDS = { true: true, false: false, null: null };

const encoder = new TextEncoder();

export const utf8 = (text) => encoder.encode(text);

/** The text in these bytes; an error if they are not UTF-8. A byte order mark is kept. */
export function fromUtf8(bytes) {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
}

/** The tree of one strict JSON text in UTF-8. Raises SyntaxError, or TypeError for the bytes. */
export function parse(bytes, maxDepth = MAX_DEPTH) {
  const text = fromUtf8(bytes);
  let at = 0;

  function take(pattern) {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0] ?? "";
    at += found.length;
    return found;
  }

  function fail(what) {
    throw new SyntaxError(`${what} at character ${at}`);
  }

  function expect(character) {
    take(SPACE);
    if (text[at] !== character) fail(`no ${character}`);
    at += 1;
  }

  /** True if the next character is this one, which is then taken. */
  function skip(character) {
    take(SPACE);
    if (text[at] !== character) return false;
    at += 1;
    return true;
  }

  function string() {
    expect('"');
    let value = "";
    for (;;) {
      value += take(UNESCAPED);
      const end = text[at++];
      if (end === '"') break;
      if (end !== "\\") fail("a string without end, or with a control character");
      const kind = text[at++];
      if (kind === "u") {
        const digits = text.slice(at, at + 4);
        if (!/^[0-9a-fA-F]{4}$/.test(digits)) fail("a bad escape");
        value += String.fromCharCode(parseInt(digits, 16));
        at += 4;
      } else if (Object.hasOwn(ESCAPES, kind)) {
        value += ESCAPES[kind];
      } else {
        fail("a bad escape");
      }
    }
    if (!value.isWellFormed()) fail("a lone surrogate");
    return value;
  }

  function any(depth) {
    take(SPACE);
    const first = text[at];
    if (first === '"') return string();
    if (first === "{" || first === "[") {
      if (depth === maxDepth) fail(`more than ${maxDepth} levels`);
      at += 1;
      return first === "{" ? members(depth + 1) : items(depth + 1);
    }
    const numeral = take(NUMBER);
    if (numeral.length > MAX_NUMERAL) fail(`a number of over ${MAX_NUMERAL} characters`);
    if (numeral) return new Numeral(numeral);
    const word = Object.keys(WORDS).find((name) => text.startsWith(name, at));
    if (!word) fail("no JSON");
    at += word.length;
    return WORDS[word];
  }

  function members(depth) {
    const pairs = [];
    if (skip("}")) return new Members(pairs);
    do {
      take(SPACE);
      const key = string();
      expect(":");
      pairs.push([key, any(depth)]);
    } while (skip(","));
    expect("}");
    return new Members(pairs);
  }

  function items(depth) {
    const list = [];
    if (skip("]")) return list;
    do list.push(any(depth));
    while (skip(","));
    expect("]");
    return list;
  }

  const tree = any(0);
  take(SPACE);
  if (at !== text.length) fail("more than one text");
  return tree;
}

/** The value of a tree. Whole numbers stay exact; one that no double holds is a RangeError. */
export function toValue(tree) {
  if (tree instanceof Numeral) return number(tree.text);
  if (tree instanceof Members) {
    // Not by assignment: "__proto__" is a key like any other.
    return Object.fromEntries(tree.pairs.map(([key, value]) => [key, toValue(value)]));
  }
  return Array.isArray(tree) ? tree.map(toValue) : tree;
}

function number(text) {
  const value = Number(text);
  if (!Number.isFinite(value)) throw new RangeError(`${text} is too large`);
  return /^-?\d+$/.test(text) && !Number.isSafeInteger(value) ? BigInt(text) : value;
}

/** The compact JSON text of a tree, or of a value. Raises TypeError for what JSON cannot state. */
export function stringify(value, maxDepth = MAX_DEPTH) {
  if (value instanceof Numeral) return value.text;
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "number" || typeof value === "bigint") return numeral(value);
  if (typeof value === "string") {
    if (!value.isWellFormed()) throw new TypeError("a lone surrogate");
    return JSON.stringify(value);
  }
  if (maxDepth === 0) throw new TypeError("too many levels");
  if (Array.isArray(value)) {
    return `[${Array.from(value, (item) => stringify(item, maxDepth - 1)).join(",")}]`;
  }
  const isPlain = value && [Object.prototype, null].includes(Object.getPrototypeOf(value));
  if (!isPlain && !(value instanceof Members)) throw new TypeError(`${typeof value} is no JSON`);
  const pairs = value instanceof Members ? value.pairs : Object.entries(value);
  const members = pairs.map(([key, item]) => `${stringify(key)}:${stringify(item, maxDepth - 1)}`);
  return `{${members.join(",")}}`;
}

function numeral(value) {
  const text = Object.is(value, -0) ? "-0.0" : String(value);
  if (!/^-?[0-9]/.test(text)) throw new TypeError(`${text} is no JSON number`);
  if (text.length > MAX_NUMERAL) throw new TypeError(`a number of over ${MAX_NUMERAL} characters`);
  return text;
}
