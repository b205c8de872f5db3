/**
 * How a Call is connected, read from `RTCPeerConnection.getStats()`.
 *
 * @typedef {object} Connection
 * @property {"direct"|"relayed"|null} path null while nothing is connected
 * @property {"udp"|"tcp"|"tls"|null} protocol towards the relay when we use one, else towards the other side
 * @property {string|null} localType host, srflx, prflx or relay
 * @property {string|null} remoteType
 * @property {number|null} rtt in milliseconds
 * @property {number} bitrateIn of audio and video, in bits per second, since the last reading
 * @property {number} bitrateOut
 * @property {number} bytesIn of audio and video, since the beginning
 * @property {number} bytesOut
 * @property {number|null} lossIn the share of packets lost since the last reading, 0 to 1
 * @property {number|null} lossOut as the other side reports it
 * @property {string[]} codecs in use, such as `opus` and `VP8`
 * @property {number} framesDecoded
 * @property {number} framesPerSecond
 * @property {number|null} frameWidth
 * @property {number|null} frameHeight
 * @property {number} audioPacketsIn
 */

/** @typedef {{at: number, bytesIn: number, bytesOut: number, packetsIn: number, packetsLost: number}} Reading */

/** Reads the connection; keeps the last reading to tell rates. */
export class ConnectionReader {
  /** @type {Reading|null} */
  #last = null;

  /**
   * @param {Iterable<any>|null} report the values of an RTCStatsReport
   * @returns {Connection}
   */
  read(report) {
    const stats = [...(report ?? [])];
    const byId = new Map(stats.map((stat) => [stat.id, stat]));
    const pair = selectedPair(stats, byId);
    const local = byId.get(pair?.localCandidateId);
    const remote = byId.get(pair?.remoteCandidateId);
    const inbound = stats.filter(({ type }) => type === "inbound-rtp");
    const outbound = stats.filter(({ type }) => type === "outbound-rtp");
    const lossReports = stats.filter(({ type }) => type === "remote-inbound-rtp");
    const video = inbound.find(({ kind }) => kind === "video");
    const relayed = [local, remote].some((candidate) => candidate?.candidateType === "relay");

    const now = {
      at: Math.max(0, ...[...inbound, ...outbound].map(({ timestamp }) => timestamp)),
      // Counted in the streams: Firefox brings the counters of the pair up to date only now and then.
      bytesIn: sum(inbound, "bytesReceived") + sum(inbound, "headerBytesReceived"),
      bytesOut: sum(outbound, "bytesSent") + sum(outbound, "headerBytesSent"),
      packetsIn: sum(inbound, "packetsReceived"),
      packetsLost: sum(inbound, "packetsLost"),
    };
    const rates = this.#ratesSince(now);

    return {
      path: pair ? (relayed ? "relayed" : "direct") : null,
      protocol: (local?.candidateType === "relay" ? local.relayProtocol : local?.protocol) ?? null,
      localType: local?.candidateType ?? null,
      remoteType: remote?.candidateType ?? null,
      rtt: pair?.currentRoundTripTime === undefined ? null : pair.currentRoundTripTime * 1000,
      ...rates,
      bytesIn: now.bytesIn,
      bytesOut: now.bytesOut,
      lossOut: lossReports.length ? Math.max(...lossReports.map(({ fractionLost }) => fractionLost ?? 0)) : null,
      codecs: codecsOf([...inbound, ...outbound], byId),
      framesDecoded: video?.framesDecoded ?? 0,
      framesPerSecond: video?.framesPerSecond ?? 0,
      frameWidth: video?.frameWidth ?? null,
      frameHeight: video?.frameHeight ?? null,
      audioPacketsIn: sum(
        inbound.filter(({ kind }) => kind === "audio"),
        "packetsReceived",
      ),
    };
  }

  /** @param {Reading} now */
  #ratesSince(now) {
    const last = this.#last;
    this.#last = now;
    const seconds = last ? (now.at - last.at) / 1000 : 0;
    // A stream that ended takes its counters with it.
    const isComparable = last !== null && seconds > 0 && now.bytesIn >= last.bytesIn && now.bytesOut >= last.bytesOut;
    if (!isComparable) return { bitrateIn: 0, bitrateOut: 0, lossIn: null };

    const lost = Math.max(0, now.packetsLost - last.packetsLost);
    const expected = lost + Math.max(0, now.packetsIn - last.packetsIn);
    return {
      bitrateIn: Math.round(((now.bytesIn - last.bytesIn) * 8) / seconds),
      bitrateOut: Math.round(((now.bytesOut - last.bytesOut) * 8) / seconds),
      lossIn: expected ? lost / expected : null,
    };
  }
}

/** Chromium names the pair in the transport, Firefox marks it. @param {any[]} stats @param {Map<string, any>} byId */
function selectedPair(stats, byId) {
  const transport = stats.find(({ type, selectedCandidatePairId }) => type === "transport" && selectedCandidatePairId);
  if (transport) return byId.get(transport.selectedCandidatePairId);
  const pairs = stats.filter(({ type, state }) => type === "candidate-pair" && state === "succeeded");
  return pairs.find(({ selected }) => selected) ?? pairs.find(({ nominated }) => nominated);
}

/** @param {any[]} streams @param {Map<string, any>} byId */
function codecsOf(streams, byId) {
  const types = streams.map(({ codecId }) => byId.get(codecId)?.mimeType).filter(Boolean);
  return [...new Set(types.map((type) => type.split("/")[1]))];
}

/** @param {any[]} stats @param {string} field */
function sum(stats, field) {
  return stats.reduce((total, stat) => total + (stat[field] ?? 0), 0);
}

/** When something was decoded last; 0: never. @param {RTCRtpReceiver} receiver */
export function newestIn(receiver) {
  return Math.max(0, ...receiver.getSynchronizationSources().map(({ timestamp }) => timestamp));
}
