"""A peer of aiortc, another implementation of ICE, DTLS, SRTP, RTP and RTCP than any browser's, that does what it is told.

In, a line of JSON each: `{"do": "offer", "sends": [source, ...], "audio_slots": n, "video_slots": n, "colour": [y, u, v]}`,
`{"do": "accept", "sdp": ...}`, `{"do": "received"}`, `{"do": "close"}`. Out: a line of JSON for each. What `received` answers is
told in peer.mjs.
"""

import array
import asyncio
import fractions
import json
import math
import sys

import aioice.ice
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.sdp import candidate_from_sdp
from av import AudioFrame, VideoFrame

WIDTH, HEIGHT, FRAME_RATE = 320, 180, 15
SAMPLE_RATE, SAMPLES = 48_000, 960
TONE_HZ, TONE_PEAK = 440, 8_000
# What is louder than this is no silence.
LOUD_PEAK = 500
WHITE = 235

# It would leave out the one interface this machine may have.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"] if use_ipv4 else []


class Paced(MediaStreamTrack):
    """A Track whose next frame is due at a fixed rate."""

    def __init__(self, rate: int, step: int) -> None:
        super().__init__()
        self.number = 0
        self.rate = rate
        self.step = step
        self.began = None

    async def next_pts(self) -> int:
        loop = asyncio.get_running_loop()
        if self.began is None:
            self.began = loop.time()
        pts = self.number * self.step
        self.number += 1
        await asyncio.sleep(self.began + pts / self.rate - loop.time())
        return pts


class Camera(Paced):
    """A plain colour, with a white bar that wanders."""

    kind = "video"

    def __init__(self, colour: list[int]) -> None:
        super().__init__(90_000, 90_000 // FRAME_RATE)
        self.colour = colour

    async def recv(self) -> VideoFrame:
        pts = await self.next_pts()
        frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
        for plane, value in zip(frame.planes, self.colour):
            plane.update(bytes([value]) * plane.buffer_size)
        luma = frame.planes[0]
        rows = bytearray(bytes(luma))
        top = self.number * 4 % (HEIGHT - 8) * luma.line_size
        rows[top : top + 8 * luma.line_size] = bytes([WHITE]) * (8 * luma.line_size)
        luma.update(bytes(rows))
        frame.pts, frame.time_base = pts, fractions.Fraction(1, 90_000)
        return frame


class Microphone(Paced):
    """A tone."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__(SAMPLE_RATE, SAMPLES)
        waves = SAMPLES * TONE_HZ // SAMPLE_RATE
        tone = [round(TONE_PEAK * math.sin(math.tau * waves * n / SAMPLES)) for n in range(SAMPLES)]
        self.samples = array.array("h", tone).tobytes()

    async def recv(self) -> AudioFrame:
        pts = await self.next_pts()
        frame = AudioFrame(format="s16", layout="mono", samples=SAMPLES)
        frame.planes[0].update(self.samples)
        frame.pts, frame.sample_rate, frame.time_base = pts, SAMPLE_RATE, fractions.Fraction(1, SAMPLE_RATE)
        return frame


class Peer:
    def __init__(self) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        # By `mid`, once something came in.
        self.received: dict[str, dict] = {}
        self.slots: list = []
        self.watchers: list[asyncio.Task] = []

    async def offer(self, sends: list[str], audio_slots: int, video_slots: int, colour: list[int]) -> dict:
        sections = []
        for source in sends:
            track = Microphone() if source == "microphone" else Camera(colour)
            sections.append((source, self.connection.addTransceiver(track, direction="sendonly")))
        kinds = ["audio"] * audio_slots + ["video"] * video_slots
        self.slots = [self.connection.addTransceiver(kind, direction="recvonly") for kind in kinds]
        await self.connection.setLocalDescription(await self.connection.createOffer())
        tracks = [{"mid": transceiver.mid, "source": source} for source, transceiver in sections]
        return {"sdp": self.connection.localDescription.sdp, "tracks": tracks}

    async def accept(self, sdp: str) -> dict:
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        # They are in the first section alone (RFC 8843 §7.1.3), and aiortc takes those of the last one it bundles.
        for line in sdp.splitlines():
            if line.startswith("a=candidate:"):
                candidate = candidate_from_sdp(line.removeprefix("a=candidate:"))
                candidate.sdpMLineIndex = 0
                await self.connection.addIceCandidate(candidate)
        self.watchers = [asyncio.ensure_future(self.watch(slot.mid, slot.receiver.track)) for slot in self.slots]
        return {}

    async def watch(self, mid: str, track: MediaStreamTrack) -> None:
        try:
            while True:
                self.note(mid, await track.recv())
        except MediaStreamError:
            pass  # It has closed.

    def note(self, mid: str, frame: VideoFrame | AudioFrame) -> None:
        seen = self.received.setdefault(mid, {"mid": mid, "frames": 0, "loud": 0})
        seen["frames"] += 1
        if isinstance(frame, AudioFrame):
            peak = max(map(abs, array.array("h", bytes(frame.planes[0]))))
            seen["loud"] += peak > LOUD_PEAK
        else:
            middle = [bytes(plane)[plane.height // 2 * plane.line_size + plane.width // 2] for plane in frame.planes]
            seen.update(width=frame.width, height=frame.height, colour=middle)

    async def close(self) -> dict:
        for watcher in self.watchers:
            watcher.cancel()
        for ended in await asyncio.gather(*self.watchers, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended  # Being cancelled is none.
        await self.connection.close()
        return {}


async def main() -> None:
    peer = Peer()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        asked = json.loads(line)
        what = asked.pop("do")
        if what == "received":
            answer = {"state": peer.connection.connectionState, "streams": list(peer.received.values())}
        else:
            answer = await getattr(peer, what)(**asked)
        print(json.dumps(answer), flush=True)
        if what == "close":
            return


asyncio.run(main())
