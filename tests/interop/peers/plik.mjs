// PROTOCOL.md, section 4: claim checks, with fetch, as Node.js and browsers have it.
//
// A browser is not told where a redirect leads, sends its own User-Agent and Accept-Encoding, keeps
// answers unless told not to, and is let in by Plik only on a page of the same origin.

import { BridgeError } from "./errors.mjs";
import { stringify } from "./strictjson.mjs";

const HEADERS = { "User-Agent": "plik_client/natsbridge-peer", "Accept-Encoding": "identity" };
const TTL_S = 86400;
const MAX_REDIRECTS = 3;
const REDIRECTS = [301, 302, 303, 307, 308];
const TRY_AGAIN = [408, 429, 500, 502, 503, 504];

const failed = (message) => new BridgeError("DOWNLOAD_FAILED", message);

export async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ---------------------------------------------------------------- sending

/** Upload one payload: {url, token}. */
export async function upload(base, dataname, bytes, removable) {
  try {
    const options = { ttl: TTL_S, removable, oneShot: false };
    const created = await answerOf(`${base}/upload`, {
      method: "POST",
      headers: { ...HEADERS, "Content-Type": "application/json" },
      body: stringify(options),
    });
    const name = fileName(dataname);
    const body = new FormData();
    body.append("file", new Blob([bytes]), name);
    const token = created.uploadToken;
    const headers = { ...HEADERS, "X-UploadToken": token };
    const file = await answerOf(`${base}/file/${created.id}`, { method: "POST", headers, body });
    const url = `${created.downloadDomain || base}/file/${created.id}/${file.id}/${name}`;
    if (file.fileSize !== bytes.length) {
      await remove(url, token);
      throw new Error(`${file.fileSize} bytes arrived of ${bytes.length}`);
    }
    return { url, token };
  } catch (e) {
    throw new BridgeError("UPLOAD_FAILED", e.message);
  }
}

async function answerOf(url, request) {
  const answer = await fetch(url, { ...request, redirect: "error", cache: "no-store" });
  if (answer.status !== 200) throw new Error(`${url} answered ${answer.status}`);
  return answer.json();
}

function fileName(dataname) {
  const name = dataname.replace(/[^A-Za-z0-9._-]/gu, "_").slice(0, 64);
  return name.replace(/^\.+/, (dots) => "_".repeat(dots.length)) || "payload";
}

/** Delete a file. That it fails is no error: it expires. */
export async function remove(url, token) {
  const headers = token ? { ...HEADERS, "X-UploadToken": token } : HEADERS;
  await fetch(url, { method: "DELETE", headers, redirect: "manual" }).catch(() => {});
}

// ---------------------------------------------------------------- the URL rule

const URL_PARTS = /^(https?):\/\/([^/?#]*)([^?#]*)(\?[^#]*)?$/i;
const AUTHORITY = /^([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?$/;
const NEVER = /[\s\u0000-\u0020\u007f\\]/;
const NEVER_IN_PATH = /%(2f|5c|[01][0-9a-f]|7f)|%(?![0-9a-f]{2})/i;

/** The parts of a URL that may be requested: {origin, path, query}; undefined for any other. */
export function urlParts(url) {
  const [, scheme, authority, path = "", query = ""] = URL_PARTS.exec(url) ?? [];
  const [, host, port] = AUTHORITY.exec(authority ?? "") ?? [];
  if (!host || NEVER.test(url) || NEVER_IN_PATH.test(path)) return undefined;
  const number = Number(port ?? (scheme.toLowerCase() === "https" ? 443 : 80));
  if (number < 1 || number > 65535) return undefined;
  const origin = `${scheme}://${host}`.toLowerCase() + `:${number}`;
  return { origin, path: encodeURI(resolved(path)).replaceAll("%25", "%"), query };
}

/** A path without dot segments. */
function resolved(path) {
  const segments = [];
  const given = path.split("/").slice(1);
  given.forEach((segment, i) => {
    const dots = segment.replace(/%2e/gi, ".");
    if (dots === "..") segments.pop();
    if (dots !== ".." && dots !== ".") segments.push(segment);
    else if (i === given.length - 1) segments.push("");
  });
  return `/${segments.join("/")}`;
}

function lies(url, allowed) {
  const top = urlParts(allowed);
  const below = top?.path.replace(/\/$/, "");
  return top?.origin === url.origin && (url.path === below || url.path.startsWith(`${below}/`));
}

/** Decides what may be requested, for one message. */
export class UrlRule {
  constructor(fileserver, allowed = []) {
    this.fileserver = fileserver;
    this.allowed = [fileserver, ...allowed];
    this.config = undefined;
  }

  /** The parts of `url`; an error if it is outside the allowed. */
  async check(url) {
    const parts = urlParts(url);
    if (parts && this.allowed.some((allowed) => lies(parts, allowed))) return parts;
    if (parts) {
      this.config ??= this.domains();
      if ((await this.config).some((allowed) => lies(parts, allowed))) return parts;
    }
    throw new BridgeError("URL_NOT_ALLOWED", `${url} is not allowed: allow it, if it is trusted`);
  }

  /** The download domains that the receiver's own file server names. */
  async domains() {
    try {
      const config = await answerOf(`${this.fileserver}/config`, { headers: HEADERS });
      const found = [config.downloadDomain, ...(config.downloadDomainAlias ?? [])];
      return found.filter((domain) => typeof domain === "string" && domain);
    } catch {
      return [];
    }
  }
}

// ---------------------------------------------------------------- receiving

/** The verified bytes of a link. */
export async function download(payload, rule, options) {
  const { maxPayloadSize = Infinity, attempts = 5, baseDelay = 100, maxDelay = 5000 } = options;
  let parts = await rule.check(payload.url);
  for (let attempt = 1; ; attempt += 1) {
    try {
      const bytes = await once(parts, payload, rule, maxPayloadSize);
      if (payload.size !== undefined && bytes.length !== payload.size) {
        throw new BridgeError("INTEGRITY_ERROR", `${bytes.length} bytes of ${payload.size}`);
      }
      if (payload.sha256 !== undefined && (await sha256(bytes)) !== payload.sha256) {
        throw new BridgeError("INTEGRITY_ERROR", "another SHA-256");
      }
      return bytes;
    } catch (e) {
      if (e instanceof BridgeError) throw e;
      if (attempt >= attempts) throw failed(e.message);
    }
    const delay = Math.min(baseDelay * 2 ** (attempt - 1), maxDelay);
    await new Promise((resolve) => setTimeout(resolve, delay));
  }
}

/** One attempt. What another one may mend is thrown as another error than BridgeError. */
async function once(parts, payload, rule, maxPayloadSize) {
  let answer;
  for (let redirects = 0; ; redirects += 1) {
    const url = parts.origin + parts.path + parts.query;
    answer = await fetch(url, { headers: HEADERS, redirect: "manual", cache: "no-store" });
    if (answer.type === "opaqueredirect") throw failed("a redirect, which no browser may follow");
    if (!REDIRECTS.includes(answer.status)) break;
    await answer.body?.cancel();
    const location = answer.headers.get("Location");
    if (!location || redirects === MAX_REDIRECTS) throw failed("too many redirects, or to nowhere");
    parts = await rule.check(absolute(location, parts));
  }
  const { status, headers, body } = answer;
  try {
    if (TRY_AGAIN.includes(status)) throw new Error(`answered ${status}`);
    if (status !== 200) throw failed(`answered ${status}`);
    const coding = headers.get("Content-Encoding") ?? "identity";
    if (coding.toLowerCase() !== "identity") throw failed(`encoded as ${coding}`);
    const length = headers.get("Content-Length");
    if (length !== null && payload.size !== undefined && Number(length) !== payload.size) {
      throw new BridgeError("INTEGRITY_ERROR", `${length} bytes in place of ${payload.size}`);
    }
    return await readAtMost(body, Math.min(payload.size ?? Infinity, maxPayloadSize), payload);
  } finally {
    await body?.cancel().catch(() => {});
  }
}

async function readAtMost(body, most, { size }) {
  const pieces = [];
  let length = 0;
  if (body) {
    const reader = body.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      length += value.length;
      pieces.push(value);
      if (length > most) {
        await reader.cancel();
        const code = length > size ? "INTEGRITY_ERROR" : "PAYLOAD_TOO_LARGE";
        throw new BridgeError(code, `more than ${most} bytes`);
      }
    }
  }
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

/** A redirect's target: a URL, or what is relative to the one that was asked. */
function absolute(location, parts) {
  if (/^[a-z][a-z0-9+.-]*:/i.test(location)) return location;
  if (location.startsWith("//")) return parts.origin.split("//")[0] + location;
  if (location.startsWith("/")) return parts.origin + location;
  if (location.startsWith("?")) return parts.origin + parts.path + location;
  return parts.origin + parts.path.replace(/[^/]*$/, "") + location;
}

/** The URL of a file that this receiver may delete, now that the message is verified. */
export function toRemove({ url, size, sha256: digest, removable }, fields, { name, id }) {
  const forUs = fields.receiver_id
    ? fields.receiver_id === id
    : fields.receiver_name !== "" && fields.receiver_name === name;
  const { origin, path } = urlParts(url);
  const isFile = /^\/file\/[^/]+\/[^/]+\/[^/]+$/.test(path) && !url.includes("?");
  const isVerified = size !== undefined && digest !== undefined;
  return forUs && removable === true && isVerified && isFile ? origin + path : undefined;
}
