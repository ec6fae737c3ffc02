// A peer that does as it is told over NATS: on the subject `orders` it answers requests, each one
// a JSON object with `do`. test_peers.py gives the orders.

import { BridgeError } from "./errors.mjs";
import { receive, send } from "./exchange.mjs";
import { sha256 } from "./plik.mjs";
import { describe, expand, valueOf } from "./specs.mjs";
import { parse, stringify, toValue, utf8 } from "./strictjson.mjs";

/** Milliseconds to wait for a message that was published before. */
const ARRIVES_MS = 10_000;
/** Orders and answers are about values of any depth. */
const DEEPEST = 200;

class Peer {
  constructor(nc, settings) {
    // name, id, broker, fileserver.
    this.settings = settings;
    this.nc = nc;
    this.subscriptions = new Map();
  }

  as(who = {}) {
    return { nc: this.nc, ...this.settings, ...who };
  }

  /** Listen on a subject from now on. */
  async subscribe({ subject }) {
    if (!this.subscriptions.has(subject)) {
      this.subscriptions.set(subject, this.nc.subscribe(subject)[Symbol.asyncIterator]());
    }
    await this.nc.flush();
    return { listening: subject };
  }

  async next(subject) {
    const { promise, timer } = timeout(`no message on ${subject}`);
    try {
      const { value } = await Promise.race([this.subscriptions.get(subject).next(), promise]);
      return value.data;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Take the next message there, and tell what it brought. */
  async receive({ subject, options, who }) {
    const message = await this.next(subject);
    const { fields, error, payloads } = await receive(this.as(who), message, options);
    const told = payloads.map(async ({ dataname, value, payloadType }) => {
      return [dataname, await describe(value, payloadType), payloadType];
    });
    return {
      fields: error ? { ...fields, error } : fields,
      payloads: await Promise.all(told),
      transports: payloads.map(({ transport }) => transport),
    };
  }

  /** Send what value specs stand for, and tell what went. */
  async send({ subject, data, options, who }) {
    if (!Array.isArray(data)) throw new BridgeError("INVALID_ARGUMENT", "data is no list");
    const values = data.map((payload) => {
      if (!Array.isArray(payload) || payload.length !== 3) {
        throw new BridgeError("INVALID_ARGUMENT", "a payload is no list of three");
      }
      const [dataname, spec, payloadType] = payload;
      return [expand(dataname), valueOf(spec), expand(payloadType)];
    });
    return this.publish(subject, values, options, who);
  }

  /** Take the next message there, and send its values on, serialized anew. */
  async forward({ subject, to, options }) {
    const { payloads } = await receive(this.as(), await this.next(subject), options);
    const values = payloads.map(({ dataname, value, payloadType }) => {
      return [dataname, value, payloadType];
    });
    return this.publish(to, values, options);
  }

  async publish(subject, values, options, who) {
    const sent = await send(this.as(who), expand(subject), values, expand(options ?? {}));
    const told = sent.map(async ({ dataname, payloadType, bytes, url }) => {
      const about = { size: bytes.length, sha256: await sha256(bytes) };
      return [dataname, { ...about, transport: url ? "link" : "direct" }, payloadType];
    });
    return { sent: await Promise.all(told) };
  }
}

function timeout(message) {
  let timer;
  const promise = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(message)), ARRIVES_MS);
  });
  return { promise, timer };
}

/** Obey the orders that come on this subject until one says stop. */
export async function serve(nc, orders, settings) {
  const peer = new Peer(nc, settings);
  const subscription = nc.subscribe(orders);
  await nc.flush();
  for await (const msg of subscription) {
    const order = toValue(parse(msg.data, DEEPEST));
    if (order.do === "stop") {
      msg.respond("{}");
      break;
    }
    msg.respond(utf8(stringify(await obey(peer, order), DEEPEST)));
  }
  await nc.drain();
}

async function obey(peer, order) {
  try {
    if (!["subscribe", "receive", "send", "forward"].includes(order.do)) {
      throw new TypeError(`no order: ${order.do}`);
    }
    return await peer[order.do](order);
  } catch (e) {
    if (e instanceof BridgeError) return { error: e.code, message: e.message };
    return { error: "FAULT", message: e.stack };
  }
}
