import { fingerprintsOf } from "./code.js";

/**
 * Makes the DTLS certificate of one Call before anything is said, so that its fingerprint can be committed to.
 * @returns {Promise<{certificate: RTCCertificate, fingerprint: string}>}
 */
export async function makeCertificate() {
  const ecdsa = /** @type {EcKeyGenParams} */ ({ name: "ECDSA", namedCurve: "P-256" });
  const certificate = await RTCPeerConnection.generateCertificate(ecdsa);
  return { certificate, fingerprint: await fingerprintOf(certificate) };
}

/** @param {RTCCertificate} certificate @returns {Promise<string>} `sha-256 aa:bb:…` */
async function fingerprintOf(certificate) {
  const known = certificate.getFingerprints?.().find(({ algorithm }) => algorithm === "sha-256");
  if (known) return `${known.algorithm} ${known.value}`.toLowerCase();

  // Firefox tells it in an offer only.
  const pc = new RTCPeerConnection({ certificates: [certificate] });
  try {
    pc.createDataChannel("");
    const { sdp = "" } = await pc.createOffer();
    return fingerprintsOf(sdp)[0];
  } finally {
    pc.close();
  }
}
