"""An encoder that publishes by WHIP (RFC 9725): aiortc's ICE, DTLS, RTP and codecs, and urllib.

Takes the endpoint, the access token and a codec (`VP8` or `H264`); says `in` once media may flow, and `out` with the status of the
DELETE when its standard input ends, or `lost` when the server ends the session.
"""

import asyncio
import sys
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import Request, urlopen

import aioice.ice
from aiortc import AudioStreamTrack, RTCPeerConnection, RTCRtpSender, RTCSessionDescription, VideoStreamTrack

# It would leave out the one interface this machine may have.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"] if use_ipv4 else []


async def ask(method: str, url: str, token: str, body: str | None = None):
    """Status, headers and body of an answer."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
    request = Request(url, method=method, headers=headers, data=body and body.encode())

    def answered():
        try:
            with urlopen(request) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except HTTPError as error:
            return error.code, error.headers, error.read().decode()

    return await asyncio.to_thread(answered)


async def main(endpoint: str, token: str, codec: str) -> None:
    connection = RTCPeerConnection()
    connected, closed = asyncio.Event(), asyncio.Event()

    @connection.on("connectionstatechange")
    def told() -> None:
        if connection.connectionState == "connected":
            connected.set()
        if connection.connectionState in ("closed", "failed"):
            closed.set()

    connection.addTransceiver(AudioStreamTrack(), direction="sendonly")
    video = connection.addTransceiver(VideoStreamTrack(), direction="sendonly")
    codecs = RTCRtpSender.getCapabilities("video").codecs
    video.setCodecPreferences([one for one in codecs if one.mimeType == f"video/{codec}"])
    await connection.setLocalDescription(await connection.createOffer())
    # One hash of its certificate is enough.
    lines = connection.localDescription.sdp.splitlines(keepends=True)
    offer = "".join(line for line in lines if not line.startswith(("a=fingerprint:sha-384", "a=fingerprint:sha-512")))
    status, headers, answer = await ask("POST", endpoint, token, offer)
    if status != 201:
        sys.exit(f"{status} {answer}")
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await connected.wait()
    print("in", flush=True)

    asked = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    lost = asyncio.create_task(closed.wait())
    done, _ = await asyncio.wait([asked, lost], return_when=asyncio.FIRST_COMPLETED)
    if lost in done:
        print("lost", flush=True)
        return
    status, _, _ = await ask("DELETE", urljoin(endpoint, headers["Location"]), token)
    print(f"out {status}", flush=True)
    await connection.close()


asyncio.run(main(*sys.argv[1:]))
