import { OffhookError } from "./errors.js";
import { named } from "./numbers.js";

/** @import { PhoneSettings, VoicemailEntry } from "./types.js" */

/**
 * What a User has of telephony besides Calls: messages in their mailboxes, those of their Queues included, and how they want to be
 * called by phone.
 */
export class Telephony {
  #command;
  #options;

  /**
   * @internal
   * @param {import("./types.js").Command} command
   * @param {import("./client.js").ClientOptions} options
   */
  constructor(command, options) {
    this.#command = command;
    this.#options = options;
  }

  /**
   * @param {{before?: string, limit?: number}} [page]
   * @returns {Promise<{voicemails: VoicemailEntry[], next?: string, unheard: number}>} newest first
   */
  async voicemails(page = {}) {
    const { voicemails, ...rest } = await this.#command("voicemail.list", page);
    return { ...rest, voicemails: voicemails.map(withPeerNamed) };
  }

  /** Says that a message was heard, to all whose mailbox it is in. @param {string} voicemail */
  async heard(voicemail) {
    await this.#command("voicemail.heard", { voicemail });
  }

  /** Deletes a message, for all whose mailbox it is in. @param {string} voicemail */
  async delete(voicemail) {
    await this.#command("voicemail.delete", { voicemail });
  }

  /**
   * What was said. Rejects with `network`, or with what the server says: `unknown_voicemail`, `token_expired`.
   * @param {string} voicemail
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<Blob>} for an `<audio>`
   */
  async sound(voicemail, { signal } = {}) {
    const { token, url = "/v1/calls" } = this.#options;
    const headers = { authorization: `Bearer ${typeof token === "function" ? await token() : token}` };
    // Beside the address of the WebSocket, by HTTP.
    const address = new URL(`voicemail/${voicemail}`, new URL(url, globalThis.location?.href));
    address.protocol = address.protocol.replace("ws", "http");
    try {
      const response = await fetch(address, { headers, signal });
      if (response.ok) return await response.blob();
      const { code, detail, message } = await response.json().catch(() => ({}));
      throw new OffhookError(code ?? "internal", detail ?? message ?? `the server answered ${response.status}`);
    } catch (error) {
      if (signal?.aborted) throw new OffhookError("aborted", "loading was aborted");
      throw OffhookError.from(error, "network");
    }
  }

  /** How this User wants to be called. @returns {Promise<PhoneSettings>} */
  async settings() {
    return this.#command("phone.settings");
  }

  /**
   * Changes how this User wants to be called, all of it; it holds within seconds. Takes the grant `phone`. Rejects with `bad_data` a
   * number that is none.
   * @param {PhoneSettings} settings
   * @returns {Promise<PhoneSettings>} as the server has understood it
   */
  async set(settings) {
    return this.#command("phone.set", settings);
  }
}

/** @param {VoicemailEntry} entry @returns {VoicemailEntry} */
function withPeerNamed(entry) {
  return { ...entry, peer: named(entry.peer) };
}
