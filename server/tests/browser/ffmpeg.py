"""FFmpeg as an encoder that publishes by WHIP: HTTP, ICE, DTLS, SRTP and RTP are those of its muxer, x264 and Opus its encoders.

Takes the endpoint and the access token; says `in` once media flows, and `out` when its standard input has ended and so has the session.
"""

import array
import fractions
import math
import select
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import av
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

WIDTH, HEIGHT, FRAME_RATE = 320, 180, 15
COLOUR = (80, 200, 100)
SAMPLE_RATE, SAMPLES = 48_000, 960
TONE_HZ, TONE_PEAK = 440, 8_000


def certificate(folder: Path) -> dict[str, str]:
    """Options with a certificate of P-256: FFmpeg over GnuTLS would make one of a curve that no browser has."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "encoder")])
    now = datetime.now(timezone.utc)
    built = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files = {"cert_file": built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), "key_file": secret}
    for option, content in files.items():
        (folder / option).write_bytes(content)
    return {option: str(folder / option) for option in files}


def picture(number: int) -> av.VideoFrame:
    """A plain colour, with a white bar that wanders."""
    frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
    for plane, value in zip(frame.planes, COLOUR):
        plane.update(bytes([value]) * plane.buffer_size)
    luma = frame.planes[0]
    rows = bytearray(bytes(luma))
    top = number * 4 % (HEIGHT - 8) * luma.line_size
    rows[top : top + 8 * luma.line_size] = bytes([235]) * (8 * luma.line_size)
    luma.update(bytes(rows))
    frame.pts, frame.time_base = number, fractions.Fraction(1, FRAME_RATE)
    return frame


def sound(number: int) -> av.AudioFrame:
    """A tone on both channels."""
    at = range(number * SAMPLES, (number + 1) * SAMPLES)
    tone = [round(TONE_PEAK * math.sin(math.tau * TONE_HZ * n / SAMPLE_RATE)) for n in at for _ in range(2)]
    frame = av.AudioFrame(format="s16", layout="stereo", samples=SAMPLES)
    frame.planes[0].update(array.array("h", tone).tobytes())
    frame.pts, frame.sample_rate, frame.time_base = number * SAMPLES, SAMPLE_RATE, fractions.Fraction(1, SAMPLE_RATE)
    return frame


def main(endpoint: str, token: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        options = {"authorization": token, **certificate(Path(folder))}
        out = av.open(endpoint, "w", format="whip", options=options)
        x264 = {"profile": "baseline", "preset": "ultrafast", "tune": "zerolatency", "g": str(FRAME_RATE)}
        video = out.add_stream("libx264", rate=FRAME_RATE, options=x264)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = out.add_stream("libopus", rate=SAMPLE_RATE, layout="stereo")
        # Answers when the session is up.
        out.start_encoding()
        print("in", flush=True)
        began = time.monotonic()
        sent = {video: 0, audio: 0}
        while not select.select([sys.stdin], [], [], 0.01)[0]:
            passed = time.monotonic() - began
            for stream, make, rate in ((video, picture, FRAME_RATE), (audio, sound, SAMPLE_RATE / SAMPLES)):
                while sent[stream] <= passed * rate:
                    out.mux(stream.encode(make(sent[stream])))
                    sent[stream] += 1
        out.close()
    print("out", flush=True)


main(*sys.argv[1:])
