/** What a receiver (or sender) reports: one of PROTOCOL.md's codes, and what it means here. */
export class BridgeError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** The result of `action`; what it throws becomes a BridgeError of this code. */
export function orCode(code, action) {
  try {
    return action();
  } catch (e) {
    throw e instanceof BridgeError ? e : new BridgeError(code, e.message);
  }
}
