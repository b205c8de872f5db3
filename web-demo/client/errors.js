/**
 * What every rejected promise and every `error` event of this package carries.
 *
 * `code` is stable and meant for programs: a code of docs/calls.v1.md, or one of ours: `network`, `aborted`,
 * `closed`, `insecure_context`, `media_failed`, `fingerprint_mismatch`, `bad_signature`, `commitment_mismatch`, `bad_key`,
 * `bad_number`.
 * `message` is for people.
 */
export class OffhookError extends Error {
  /**
   * @param {string} code
   * @param {string} [message]
   * @param {Record<string, any>} [details] what the server sent along, such as `state` with a conflict
   */
  constructor(code, message = code, details = {}) {
    super(message);
    this.name = "OffhookError";
    this.code = code;
    this.details = details;
  }

  /**
   * Wraps anything that was thrown, keeping an OffhookError as it is.
   * @param {unknown} thrown
   * @param {string} code the code for what is not an OffhookError yet
   */
  static from(thrown, code) {
    if (thrown instanceof OffhookError) return thrown;
    return new OffhookError(code, thrown instanceof Error ? thrown.message : String(thrown));
  }
}
