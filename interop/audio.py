"""G.711 µ-law, tones and their measure, and RTP/RTCP packets, for the tests of audio."""
import math
import struct
import time


def ulaw_encode(sample):
    sign, magnitude = (0x80, -sample) if sample < 0 else (0, sample)
    magnitude = min(magnitude, 32635) + 0x84
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | (magnitude >> (exponent + 3)) & 15) & 0xFF


def _decode(byte):
    byte = ~byte & 0xFF
    value = ((((byte & 15) << 3) + 0x84) << (byte >> 4 & 7)) - 0x84
    return -value if byte & 0x80 else value


ULAW = [_decode(b) for b in range(256)]


def decode(payload):
    return [ULAW[b] for b in payload]


def tone(hz, frame, level=8000, rate=8000, size=160):
    return bytes(ulaw_encode(int(level * math.sin(2 * math.pi * hz * (frame * size + n) / rate))) for n in range(size))


def level_db(samples, hz, rate=8000):
    """Level of a tone against a full-scale sine (Goertzel)."""
    step = 2 * math.pi * hz / rate
    c, last, before = 2 * math.cos(step), 0.0, 0.0
    for s in samples:
        last, before = s + c * last - before, last
    power = last * last + before * before - c * last * before
    return 20 * math.log10(max(2 * math.sqrt(max(power, 0)) / max(len(samples), 1) / 32768, 1e-6))


def total_db(samples):
    square = sum(s * s for s in samples) / max(len(samples), 1)
    return 20 * math.log10(max(math.sqrt(2 * square) / 32768, 1e-6))


def rtp(payload_type, sequence, timestamp, ssrc, payload, marker=False):
    return struct.pack("!BBHII", 0x80, payload_type | (0x80 if marker else 0), sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + payload


def pace(start, frame):
    while (left := start + frame * 0.02 - time.monotonic()) > 0:
        time.sleep(left)
