"""Two aiortc peers, another implementation of ICE, DTLS, SRTP and SCTP than any browser's, call each other through the relay alone.

In: the ICE servers of a `welcome`, as JSON, on standard input. Out: one line of JSON with what arrived.
"""

import asyncio
import json
import sys

from aiortc import RTCConfiguration, RTCIceServer, RTCIceTransportPolicy, RTCPeerConnection
from aiortc.mediastreams import MediaStreamError, VideoStreamTrack

MESSAGES = 50
FRAMES = 30
PATIENCE = 60


async def main() -> None:
    configuration = RTCConfiguration(
        iceServers=[RTCIceServer(**server) for server in json.load(sys.stdin)],
        iceTransportPolicy=RTCIceTransportPolicy.RELAY,
    )
    caller, callee = RTCPeerConnection(configuration), RTCPeerConnection(configuration)
    messages, frames = asyncio.Queue(), asyncio.Queue()

    channel = caller.createDataChannel("echo")
    channel.on("open", lambda: [channel.send(f"message {n}") for n in range(MESSAGES)])
    channel.on("message", messages.put_nowait)
    callee.on("datachannel", lambda incoming: incoming.on("message", incoming.send))

    caller.addTrack(VideoStreamTrack())
    callee.on("track", lambda track: asyncio.ensure_future(watch(track, frames)))

    await caller.setLocalDescription(await caller.createOffer())
    await callee.setRemoteDescription(caller.localDescription)
    await callee.setLocalDescription(await callee.createAnswer())
    await caller.setRemoteDescription(callee.localDescription)

    echoed = [await messages.get() for _ in range(MESSAGES)]
    for _ in range(FRAMES):
        await frames.get()

    descriptions = [caller.localDescription.sdp, callee.localDescription.sdp]
    types = {line.split(" typ ")[1].split()[0] for sdp in descriptions for line in sdp.splitlines() if line.startswith("a=candidate")}
    print(json.dumps({
        "echoed_in_order": echoed == [f"message {n}" for n in range(MESSAGES)],
        "frames": FRAMES,
        "candidate_types": sorted(types),
    }))
    await asyncio.gather(caller.close(), callee.close())


async def watch(track, frames: asyncio.Queue) -> None:
    try:
        while True:
            frames.put_nowait(await track.recv())
    except MediaStreamError:
        pass  # The call is over.


asyncio.run(asyncio.wait_for(main(), PATIENCE))
