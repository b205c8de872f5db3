// What runs inside the page: it keeps every RTCPeerConnection the page makes, and reads their statistics.

/** Goes into each page before its own scripts. Nothing the page sees changes, but the connections can be asked from outside. */
export function keepConnections() {
  const Original = globalThis.RTCPeerConnection;
  globalThis.keptConnections = [];
  globalThis.keptFailures = 0;
  globalThis.RTCPeerConnection = class RTCPeerConnection extends Original {
    constructor(...options) {
      super(...options);
      globalThis.keptConnections.push(this);
      this.addEventListener('connectionstatechange', () => { if (this.connectionState === 'failed') globalThis.keptFailures += 1; });
    }
  };
}

/** Goes in as well where many encode on one machine: cameras are small and slow. */
export function smallPictures() {
  const { mediaDevices } = navigator;
  const open = mediaDevices?.getUserMedia.bind(mediaDevices);
  if (!open) return;
  mediaDevices.getUserMedia = ({ video, ...rest }) => open({ ...rest, ...(video && { video: { width: 320, height: 180, frameRate: 10 } }) });
}

/**
 * What the page receives now, one entry for each RTCPeerConnection that is connected: frames, packets and loudness since it
 * began, and the candidate pair in use, each end as `type/protocol[/protocol to the relay]`.
 */
export async function readMedia() {
  const connections = [];
  for (const [index, connection] of globalThis.keptConnections.entries()) {
    if (connection.connectionState !== 'connected') continue;
    const media = { index, framesDecoded: 0, audioPackets: 0, audioEnergy: 0, local: null, remote: null, localAddress: null, remoteAddress: null, relayUrl: null };
    connections.push(media);

    const reports = [...(await connection.getStats()).values()];
    const byId = new Map(reports.map((report) => [report.id, report]));
    for (const report of reports) {
      if (report.type !== 'inbound-rtp') continue;
      if (report.kind === 'video') media.framesDecoded += report.framesDecoded ?? 0;
      if (report.kind === 'audio') media.audioPackets += report.packetsReceived ?? 0;
      if (report.kind === 'audio') media.audioEnergy += report.totalAudioEnergy ?? 0;
    }

    // Chromium names the pair in the transport's report; Firefox marks the pair itself.
    const chosen = new Set(reports.map((report) => report.type === 'transport' && report.selectedCandidatePairId));
    const pair = reports.find((report) => report.type === 'candidate-pair' && (chosen.has(report.id) || report.selected));
    const [local, remote] = [byId.get(pair?.localCandidateId), byId.get(pair?.remoteCandidateId)];
    media.local = [local?.candidateType, local?.protocol, local?.relayProtocol].filter(Boolean).join('/');
    media.remote = [remote?.candidateType, remote?.protocol].filter(Boolean).join('/');
    media.localAddress = local?.address ?? null;
    media.remoteAddress = remote?.address ?? null;
    media.relayUrl = local?.candidateType === 'relay' ? (local.url ?? null) : null;
  }
  return connections;
}
