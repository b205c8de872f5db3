"""Two TURN endpoints of aioice on one relay send each other numbered messages, and one of them talks with a peer that echoes.

In, as JSON on standard input: `transport` ("udp", "tcp" or "tls") and `port` on 127.0.0.1, `username`, `password`, and the port of
the `peer`. Out: one line of JSON with how many messages came back, in order.
"""

import asyncio
import json
import ssl
import sys

from aioice.turn import create_turn_endpoint

MESSAGES = 50
PATIENCE = 60


class Mailbox(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.put_nowait((data, addr))

    def error_received(self, exc: Exception) -> None:
        self.received.put_nowait((repr(exc), None))


async def main() -> None:
    asked = json.load(sys.stdin)
    (alice, for_alice), (bob, for_bob) = [
        await create_turn_endpoint(
            Mailbox,
            server_addr=("127.0.0.1", asked["port"]),
            username=asked["username"],
            password=asked["password"],
            ssl=ssl.create_default_context() if asked["transport"] == "tls" else None,
            transport="udp" if asked["transport"] == "udp" else "tcp",
        )
        for _ in range(2)
    ]
    at_alice, at_bob = alice.get_extra_info("sockname"), bob.get_extra_info("sockname")

    # Each has a Channel to the other once both have sent; what came before may be lost.
    while for_alice.received.empty() or for_bob.received.empty():
        alice.sendto(b"hello", at_bob)
        bob.sendto(b"hello", at_alice)
        await asyncio.sleep(0.2)
    for mailbox in (for_alice, for_bob):
        while not mailbox.received.empty():
            mailbox.received.get_nowait()

    between = from_peer = 0
    peer = ("127.0.0.1", asked["peer"])
    for number in range(MESSAGES):
        message = b"x" * number * 20
        alice.sendto(message, at_bob)
        between += await for_bob.received.get() == (message, at_alice)
        alice.sendto(message, peer)
        from_peer += await for_alice.received.get() == (message, peer)

    print(json.dumps({"between_relayed": between, "from_peer": from_peer}))
    for endpoint in (alice, bob):
        endpoint.close()
    await asyncio.sleep(0.5)


asyncio.run(asyncio.wait_for(main(), PATIENCE))
