// What runs inside the page: it keeps every RTCPeerConnection the page makes, and reads their statistics.

/** Goes into each page before its own scripts. Nothing the page sees changes, but the connections can be asked from outside. */
export function keepConnections() {
  const Original = globalThis.RTCPeerConnection;
  globalThis.keptConnections = [];
  globalThis.RTCPeerConnection = class RTCPeerConnection extends Original {
    constructor(...options) {
      super(...options);
      globalThis.keptConnections.push(this);
    }
  };
}

/**
 * What the page receives now, over its connected RTCPeerConnections: frames and samples since they began, and the candidate
 * pair in use, as `type/protocol[/relay protocol]` and address of either end.
 */
export async function readMedia() {
  const media = { connections: 0, framesDecoded: 0, frameWidth: 0, audioPackets: 0, audioEnergy: 0, bytesReceived: 0, pairs: [] };

  for (const connection of globalThis.keptConnections) {
    if (connection.connectionState !== 'connected') continue;
    media.connections += 1;

    const reports = [...(await connection.getStats()).values()];
    const byId = new Map(reports.map((report) => [report.id, report]));

    for (const report of reports) {
      if (report.type === 'inbound-rtp' && report.kind === 'video') {
        media.framesDecoded += report.framesDecoded ?? 0;
        media.frameWidth = Math.max(media.frameWidth, report.frameWidth ?? 0);
      }
      if (report.type === 'inbound-rtp' && report.kind === 'audio') {
        media.audioPackets += report.packetsReceived ?? 0;
        media.audioEnergy += report.totalAudioEnergy ?? 0;
      }
      if (report.type === 'inbound-rtp') media.bytesReceived += report.bytesReceived ?? 0;
    }

    // Chromium names the pair in the transport's report; Firefox marks the pair itself.
    const chosen = new Set(reports.map((report) => report.type === 'transport' && report.selectedCandidatePairId));
    for (const pair of reports) {
      if (pair.type !== 'candidate-pair' || !(chosen.has(pair.id) || pair.selected)) continue;
      const [local, remote] = [byId.get(pair.localCandidateId), byId.get(pair.remoteCandidateId)];
      media.pairs.push({
        local: [local?.candidateType, local?.protocol, local?.relayProtocol].filter(Boolean).join('/'),
        remote: [remote?.candidateType, remote?.protocol].filter(Boolean).join('/'),
        localAddress: local?.address ?? null,
        remoteAddress: remote?.address ?? null,
      });
    }
  }
  return media;
}
