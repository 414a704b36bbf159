#!/usr/bin/env python3
"""Prints the hashes that tests/g722.rs compares with: what libg722, which passes the ITU's digital test sequences bit for
bit, makes of the test's samples.

    pip install g722==1.2.8 && crates/media/tests/reference/g722.py
"""
import hashlib
import struct

from G722 import G722


def samples():
    """The same as in the test: noise of four levels, full-scale squares, silence and a ramp."""
    state, made = 1, []
    for n in range(32000):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        noise = (state >> 16) - 0x10000 if state & 0x80000000 else state >> 16
        square = lambda period: 32767 if n // period % 2 == 0 else -32768
        ramp = (n * 37 + 0x8000) % 0x10000 - 0x8000
        made.append([noise >> 8, noise, square(8), 0, (noise >> 4) + square(20) // 4, noise >> 2, ramp, noise >> 1][n // 4000])
    return made


def main():
    said = samples()
    codec = G722(16000, 64000)
    coded = bytes(codec.encode(said))
    print("encoded", len(coded), hashlib.sha256(coded).hexdigest())
    # Every value a byte may have, in an order that no encoder makes.
    wild, state = [], 7
    for _ in range(16000):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        wild.append(state >> 24)
    for name, stream in (("decoded", coded), ("decoded from noise", bytes(wild))):
        heard = list(G722(16000, 64000).decode(stream))
        print(name, len(heard), hashlib.sha256(struct.pack(f"<{len(heard)}h", *heard)).hexdigest())


if __name__ == "__main__":
    main()
