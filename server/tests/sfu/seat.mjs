// Somebody in a Room whose media is done by a peer that is not ours: the Session that says for it what calls.v1 wants said.

import { Session } from '../browser/lib/device.mjs';

export class Seat {
  #session;
  #peer;
  #room;
  #generation = 1;
  /** What each slot carries, by `mid`. */
  #slots = new Map();
  /** Users and sources, by Track. */
  #tracks = new Map();
  /** What it sends: `{mid, source, track}`. */
  #own = [];

  /** Joins the Room called `room` of a server in demo mode. `media` is what `offer` takes. */
  static async take(server, { name, room, peer, media }) {
    const signedIn = await fetch(`${server.url}/demo/sign-in`, {
      method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ name }),
    });
    const { token } = await signedIn.json();
    const seat = new Seat(await Session.open(`${server.url.replace(/^http/, 'ws')}/v1/calls`, token), peer, name);
    await seat.#join(room, media);
    return seat;
  }

  constructor(session, peer, name) {
    this.#session = session;
    this.#peer = peer;
    this.name = name;
    session.on('room.slots', ({ slots }) => this.#fill(slots));
    session.on('room.participant', ({ participant }) => this.#note(participant));
  }

  /**
   * What it decodes of the others now: an entry for each slot that carries something, with whose Track it is besides what the peer
   * says of it.
   */
  async receives() {
    const { streams } = await this.#peer.ask('received');
    return streams.flatMap((stream) => {
      const track = this.#slots.get(stream.mid);
      return track ? [{ ...stream, track, ...this.#tracks.get(track) }] : [];
    });
  }

  /** Says how high, in pixels, the picture of `user` is shown. */
  async wants(user, height) {
    const [track] = [...this.#tracks].find(([, of]) => of.user === user && of.source === 'camera');
    await this.#session.command('room.want', { room: this.#room, automatic: true, wishes: [{ track, wanted: true, height }] });
  }

  async mutes(source, muted) {
    await this.#session.command('room.mute', { room: this.#room, track: this.#ownTrack(source), muted });
  }

  /** Sends more than before; `media` is what `offer` takes. */
  async adds(media) {
    await this.#exchange('room.offer', await this.#peer.ask('offer', { audio_slots: 0, video_slots: 0, ...media }));
  }

  /** Looks for another way to the server. */
  async restarts() {
    await this.#exchange('room.offer', await this.#peer.ask('restart'));
  }

  async leaves() {
    await this.#session.command('room.leave', { room: this.#room });
    this.#session.close();
  }

  async #join(name, media) {
    const joined = await this.#exchange('room.join', await this.#peer.ask('offer', media), name);
    this.#room = joined.state.room;
    for (const participant of joined.state.participants) this.#note(participant);
  }

  async #exchange(command, { sdp, tracks }, room = this.#room) {
    const offered = tracks.map((track) => ({ ...track, muted: false }));
    const answer = await this.#session.command(command, { room, generation: this.#generation, sdp, tracks: offered });
    this.#generation += 1;
    this.#own = tracks.map((track) => ({ ...track, ...answer.tracks.find(({ mid }) => mid === track.mid) }));
    this.#fill(answer.slots);
    await this.#peer.ask('accept', { sdp: answer.sdp });
    return answer;
  }

  #fill(slots) {
    for (const { mid, track } of slots) this.#slots.set(mid, track);
  }

  #note({ user, tracks }) {
    for (const { track, source } of tracks) this.#tracks.set(track, { user, source });
  }

  #ownTrack(source) {
    return this.#own.find((track) => track.source === source).track;
  }
}
