#!/usr/bin/env python3
"""The delay an echo call adds, off and with noise cancellation: noise bursts go out by the clock, and what comes back is
laid on the same clock by the kernel's time of arrival; where both fit best is the delay.

    bench/delay.py target/release/tandem

Needs numpy. The raw path is loopback, which adds some hundredths of a millisecond. What is measured is a packet's whole
way: through the node, its buffers and its denoiser, both directions of one leg.
"""
import os
import random
import socket
import struct
import sys
import time

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))
from audio import decode, rtp, ulaw_encode  # noqa: E402
from sip import Call  # noqa: E402
from tandem import Tandem  # noqa: E402

NUMBER = "+14155550123"
SECONDS = 8
SO_TIMESTAMPNS = 35
BARS = {"off": 40.0, "standard": 55.0, "high": None}


def main():
    misses = 0
    for mode, bar in BARS.items():
        delays = [measure(sys.argv[1], mode) for _ in range(3)]
        delay = sorted(delays)[1]
        verdict = "    " if bar is None else "ok  " if delay <= bar else "MISS"
        misses += verdict == "MISS"
        limit = "no bar" if bar is None else f"at most {bar:g}"
        print(f"{verdict} noise cancellation {mode:9} {delay:6.1f} ms of delay ({limit}; three calls: {', '.join(f'{d:.1f}' for d in delays)})", flush=True)
    sys.exit(1 if misses else 0)


def measure(binary, mode):
    settings = [] if mode == "off" else [f"media.noise_cancellation={mode}"]
    with Tandem(binary, settings) as t:
        config = {"allowed_addresses": ["127.0.0.1"], "enable_noise_cancellation": mode != "off"}
        trunk = t.ok("POST", "/core/trunks", {"name": "delay", "inbound_config": config})["id"]
        t.ok("POST", "/core/phone-numbers", {"phone_number": NUMBER, "trunk_id": trunk})
        t.agent({"runtime": {"type": "echo"}}, [NUMBER])
        leg = Call(t.udp, NUMBER)
        assert leg.final() == 200, leg.answer
        sent, heard = talk(leg)
        leg.bye()
    return lag(sent, heard)


def talk(leg):
    """Voice-like bursts for some seconds; both streams, each sample at the time it was on the wire."""
    sock, remote = leg.rtp.socket, leg.rtp.remote
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setblocking(False)
    said = voice(SECONDS)
    payloads = [bytes(ulaw_encode(s) for s in said[n:n + 160]) for n in range(0, len(said) - 159, 160)]
    start, origin = time.monotonic(), time.time()
    sent, heard = np.zeros((SECONDS + 2) * 8000), np.zeros((SECONDS + 2) * 8000)

    def lay(stream, at, payload):
        place = round((at - origin) * 8000)
        # What came before the first word was said is left out.
        if 0 <= place <= len(stream) - 160:
            stream[place:place + 160] = decode(payload)

    def drain():
        while True:
            try:
                data, extra, _, _ = sock.recvmsg(2048, 64)
            except BlockingIOError:
                return
            seconds, nanos = struct.unpack("qq", extra[0][2])
            if data[1] & 0x7F == 0:
                lay(heard, seconds + nanos / 1e9, data[12:])

    for n, payload in enumerate(payloads):
        while (left := start + n * 0.02 - time.monotonic()) > 0:
            time.sleep(min(left, 0.005))
            drain()
        lay(sent, time.time(), payload)
        sock.sendto(rtp(0, n, n * 160, 77, payload), remote)
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        time.sleep(0.005)
        drain()
    return sent, heard


def voice(seconds):
    """Syllables of harmonics with moving pitch and formants, which denoisers leave alone."""
    dice = random.Random(3)
    t = np.arange(seconds * 8000) / 8000
    phase = np.cumsum(130 + 25 * np.sin(5.6 * t + dice.random())) / 8000
    opened = np.sqrt(np.maximum(np.sin(12.6 * t), 0))
    centre = 6 + 2.5 * np.sin(4.4 * t)
    sound = sum(np.sin(2 * np.pi * k * phase) / (1 + np.abs(k - centre) + 0.3 * k) for k in range(1, 20))
    return (opened * 5000 * sound).astype(int).tolist()


def lag(sent, heard):
    """Milliseconds from one to the other, by the envelope's and the wave's best fit in the second half, when the buffer
    has settled."""
    half = len(sent) // 2
    size = 1 << (2 * half).bit_length()
    fit = np.fft.irfft(np.fft.rfft(heard[half:], size) * np.conj(np.fft.rfft(sent[half:], size)), size)
    return int(np.argmax(fit[:4000])) / 8


if __name__ == "__main__":
    main()
