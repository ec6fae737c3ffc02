// smartsend and smartreceive of this peer: PROTOCOL.md, with a NATS connection.

import {
  checkLabels,
  checkLength,
  envelopeFields,
  isSubject,
  readEnvelope,
  writeEnvelope,
} from "./envelope.mjs";
import { BridgeError } from "./errors.mjs";
import { deserialize, serialize } from "./payload.mjs";
import { UrlRule, download, remove, sha256, toRemove, upload } from "./plik.mjs";

const SIZE_THRESHOLD = 500_000;

/**
 * Publish `data`, a list of [dataname, value, payload type]; returns what was sent.
 *
 * peer: {nc, name, id, broker, fileserver}.
 * options: envelope fields, size_threshold, fileserver_url, fallback_direct, odd (see writeEnvelope).
 */
export async function send(peer, subject, data, options = {}) {
  const threshold = options.size_threshold ?? SIZE_THRESHOLD;
  if (!Number.isInteger(threshold) || threshold < 0) {
    throw new BridgeError("INVALID_ARGUMENT", "size_threshold is no number of bytes");
  }
  const who = { sender_name: peer.name, sender_id: peer.id, broker_url: peer.broker };
  const fields = envelopeFields(subject, { ...who, ...options });
  checkLabels(data.map(([dataname]) => dataname));
  const payloads = data.map(([dataname, value, payloadType]) => {
    return { dataname, payloadType, bytes: serialize(value, payloadType) };
  });
  const base = (options.fileserver_url ?? peer.fileserver).replace(/\/+$/, "");
  const removable = Boolean(fields.receiver_id || fields.receiver_name);
  const links = [];

  async function toLink(payload) {
    const { url, token } = await upload(base, payload.dataname, payload.bytes, removable);
    links.push([url, token]);
    Object.assign(payload, { url, removable, sha256: await sha256(payload.bytes) });
  }

  try {
    const most = peer.nc.info.max_payload;
    // What could not be uploaded goes with the message, if that fits.
    let failure;
    for (const payload of payloads.filter(({ bytes }) => bytes.length >= threshold)) {
      await toLink(payload).catch((e) => {
        failure = e;
      });
    }
    if (failure && options.fallback_direct === false) throw failure;
    let message = writeEnvelope(fields, payloads, options.odd);
    while (message.length > most) {
      const direct = payloads.filter(({ url, bytes }) => !url && bytes.length);
      if (failure) throw failure;
      if (!direct.length) throw new BridgeError("PAYLOAD_TOO_LARGE", `over ${most} bytes`);
      await toLink(direct.reduce((a, b) => (b.bytes.length > a.bytes.length ? b : a)));
      message = writeEnvelope(fields, payloads, options.odd);
    }
    const reply = isSubject(fields.reply_to) ? fields.reply_to : undefined;
    peer.nc.publish(subject, message, { reply });
    await peer.nc.flush();
  } catch (e) {
    await Promise.all(links.map(([url, token]) => remove(url, token)));
    throw e;
  }
  return payloads;
}

/**
 * What a message brings: {fields, error, payloads}, each payload with its `value`.
 *
 * options: fileserver_url, allowed_urls, max_payload_size, max_retries, base_delay, max_delay.
 */
export async function receive(peer, message, options = {}) {
  const maxPayloadSize = options.max_payload_size;
  const envelope = readEnvelope(message, maxPayloadSize);
  const rule = new UrlRule(options.fileserver_url ?? peer.fileserver, options.allowed_urls);
  const links = envelope.payloads.filter(({ url }) => url !== undefined);
  for (const link of links) {
    const bytes = await download(link, rule, {
      maxPayloadSize,
      attempts: options.max_retries,
      baseDelay: options.base_delay,
      maxDelay: options.max_delay,
    });
    checkLength(bytes.length, link.size, maxPayloadSize);
    link.value = deserialize(bytes, link.payloadType);
  }
  for (const link of links) {
    const url = toRemove(link, envelope.fields, peer);
    if (url) await remove(url);
  }
  return envelope;
}
