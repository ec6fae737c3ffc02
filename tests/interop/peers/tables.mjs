// Arrow tables, told in JSON and made, with the apache-arrow package.

import {
  Bool,
  DataType,
  DateDay,
  Dictionary,
  Field,
  Float64,
  Int32,
  Int64,
  List,
  RecordBatchReader,
  Struct,
  Table,
  TimestampMicrosecond,
  TimestampMillisecond,
  Utf8,
  Vector,
  vectorFromArray,
} from "apache-arrow";

/** The table in Arrow IPC, of either format; an error if it is not all there, or not sound. */
export function readTable(bytes) {
  const reader = RecordBatchReader.from(bytes).open();
  const { schema } = reader;
  if (!schema) throw new TypeError("no schema");
  const batches = reader.readAll();
  const table = new Table(schema, batches);
  for (const { data } of batches) checkOffsets(data);
  return table;
}

/** apache-arrow believes what a sender says of where values begin and end. */
function checkOffsets(data) {
  if (!data?.length) return;
  const { type, length, values, valueOffsets, children, dictionary } = data;
  if (valueOffsets && !DataType.isUnion(type)) {
    const end = children.length ? children[0].length : values.length;
    const isSound = valueOffsets
      .subarray(0, length + 1)
      .every((offset, i) => offset >= (i ? valueOffsets[i - 1] : 0) && offset <= end);
    if (!isSound || valueOffsets.length <= length) throw new TypeError("offsets that lead nowhere");
  }
  if (DataType.isDictionary(type)) {
    const words = dictionary.length;
    if (values.subarray(0, length).some((i) => i < 0 || i >= words)) {
      throw new TypeError("indices that lead nowhere");
    }
    dictionary.data.forEach(checkOffsets);
  }
  children.forEach(checkOffsets);
}

/** Each column's values: times as numbers in their unit, decimals unscaled, bytes as hex. */
export function columns(table) {
  const fields = table.schema.fields.map(({ name }, i) => {
    return [name, table.getChildAt(i).data.flatMap(cells)];
  });
  return Object.fromEntries(fields);
}

function cells(data) {
  // Of a column without rows, apache-arrow has no children.
  if (!data?.length) return [];
  const read = reader(data);
  return Array.from({ length: data.length }, (_, i) => (data.getValid(i) ? read(i) : null));
}

/** A function that gives the i-th value. Vector.get rounds times to milliseconds in a double. */
function reader(data) {
  const { type, values, valueOffsets } = data;
  const children = data.children.map(cells);
  if (DataType.isDictionary(type)) {
    const words = data.dictionary.data.flatMap(cells);
    return (i) => words[values[i]];
  }
  if (DataType.isList(type) || DataType.isLargeList(type) || DataType.isMap(type)) {
    return (i) => children[0].slice(Number(valueOffsets[i]), Number(valueOffsets[i + 1]));
  }
  if (DataType.isFixedSizeList(type)) {
    return (i) => children[0].slice(i * type.listSize, (i + 1) * type.listSize);
  }
  if (DataType.isStruct(type)) {
    return (i) => Object.fromEntries(type.children.map(({ name }, k) => [name, children[k][i]]));
  }
  if (DataType.isTimestamp(type) || DataType.isTime(type) || DataType.isDate(type)) {
    return (i) => values[i];
  }
  const vector = new Vector([data]);
  if (DataType.isDecimal(type)) return (i) => unscaled(vector.get(i));
  return (i) => {
    const value = vector.get(i);
    return value instanceof Uint8Array ? hex(value) : value;
  };
}

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The whole number in the 32-bit words of a decimal, the lowest first. */
function unscaled(words) {
  const number = words.reduceRight((sum, word) => (sum << 32n) | BigInt(word), 0n);
  return BigInt.asIntN(words.length * 32, number);
}

/** A table as a program in JavaScript makes it. */
export function sampleTable() {
  const list = new List(new Field("item", new Int32(), true));
  const struct = new Struct([new Field("x", new Float64(), true), new Field("y", list, true)]);
  return new Table({
    whole: vectorFromArray([1, null, -3], new Int32()),
    large: vectorFromArray([2n ** 62n, -1n, null], new Int64()),
    real: vectorFromArray([0.5, -1e300, null], new Float64()),
    flag: vectorFromArray([true, null, false], new Bool()),
    text: vectorFromArray(["", "Grüße 🙂", null], new Utf8()),
    word: vectorFromArray(["on", "off", "on"], new Dictionary(new Utf8(), new Int32())),
    day: vectorFromArray([new Date("2026-03-13"), null, new Date(0)], new DateDay()),
    milli: vectorFromArray([1773385370443, null, -1], new TimestampMillisecond("UTC")),
    micro: vectorFromArray([1773385370443, 0, null], new TimestampMicrosecond()),
    list: vectorFromArray([[1, 2], null, []], list),
    nested: vectorFromArray([{ x: 1.5, y: [1] }, { x: null, y: null }, null], struct),
  });
}
