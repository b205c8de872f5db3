// Mailboxes and settings of the fake server, as docs/calls.v1.md tells them, "Mailboxes and settings".

import { ulid } from "../ulid.js";

export class Telephony {
  #server;
  /** Newest first: `{entry, users}`. */
  #messages = [];
  #settings = new Map();

  constructor(server) {
    this.#server = server;
  }

  /** A caller leaves a message for these Users, who share a mailbox. */
  leave(users, { from = "tel:+15550100", name = null, queue, millis = 4_000, left_at = Date.now(), heard = false } = {}) {
    const entry = { voicemail: ulid(), ...(queue && { queue }), call: ulid(), peer: { user: from, name }, left_at, millis, heard };
    this.#messages.unshift({ entry, users });
    this.#tell(users, { entry });
    return entry.voicemail;
  }

  /** @returns {["ok"|"error", object]} */
  answer({ user }, type, data) {
    const mine = this.#messages.filter(({ users }) => users.includes(user));
    const found = mine.find(({ entry }) => entry.voicemail === data.voicemail);
    switch (type) {
      case "voicemail.list":
        return ["ok", page(mine.map(({ entry }) => entry), data)];
      case "phone.settings":
        return ["ok", this.settingsOf(user)];
      case "phone.set":
        return this.#set(user, data);
    }
    if (!found) return ["error", { code: "unknown_voicemail", message: "no such message" }];
    if (type === "voicemail.heard") {
      found.entry = { ...found.entry, heard: true };
      this.#tell(found.users, { entry: found.entry });
    } else {
      this.#messages = this.#messages.filter((message) => message !== found);
      this.#tell(found.users, { deleted: data.voicemail });
    }
    return ["ok", {}];
  }

  settingsOf(user) {
    const forward = { always: null, busy: null, no_answer: null, offline: null };
    return this.#settings.get(user) ?? { do_not_disturb: false, call_waiting: true, ring_seconds: 30, voicemail: true, forward };
  }

  #set(user, settings) {
    if (!this.#server.canDial) return ["error", { code: "forbidden", message: "no grant phone" }];
    const numbers = Object.values(settings.forward).flatMap((to) => to?.number ?? []);
    const wrong = numbers.find((number) => !/^[+\d][\d ]*$/.test(number));
    if (wrong !== undefined) return ["error", { code: "bad_data", message: `\`${wrong}\` is no number` }];
    this.#settings.set(user, settings);
    return ["ok", settings];
  }

  /** After what is answered now, as the server does. */
  #tell(users, news) {
    setTimeout(() => {
      for (const user of users) {
        const mine = this.#messages.filter((message) => message.users.includes(user));
        const unheard = mine.filter(({ entry }) => !entry.heard).length;
        for (const session of this.#server.sessionsOf(user)) this.#server.send(session, "voicemail", { ...news, unheard });
      }
    }, 0);
  }
}

function page(all, { before, limit = 100 }) {
  const start = Number(before ?? 0);
  const end = start + limit;
  const unheard = all.filter(({ heard }) => !heard).length;
  return { voicemails: all.slice(start, end), ...(end < all.length && { next: String(end) }), unheard };
}
