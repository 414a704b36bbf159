"""Noise cancellation over real sockets: a trunk's callers in hiss, in hum and with a voice, against an echo agent."""
import math
import random
import secrets
import struct
import time

from sip import Call, decode_ulaw, encode_ulaw
from tandem import Tandem, alone

NUMBER = "+14155550123"


def tandem(binary, mode, enable=True):
    t = Tandem(binary, [f"media.noise_cancellation={mode}"])
    trunk = t.ok("POST", "/core/trunks", {"name": "noisy", "inbound_config": {"allowed_addresses": ["127.0.0.1"], "enable_noise_cancellation": enable}})["id"]
    t.ok("POST", "/core/phone-numbers", {"phone_number": NUMBER, "trunk_id": trunk})
    t.agent({"runtime": {"type": "echo"}}, [NUMBER])
    return t


def call(t):
    caller = Call(t.udp, NUMBER)
    assert caller.final() == 200, caller.answer
    return caller


def say(rtp, payloads, events=()):
    """Sends 20 ms payloads in time; `events` are (after which packet, event payload). Returns what came: audio, events."""
    ssrc, start, sequence = secrets.randbits(32), time.monotonic(), 0
    audio, digits = [], []

    def listen(until):
        while (left := until - time.monotonic()) > 0:
            rtp.socket.settimeout(left)
            try:
                packet = rtp.socket.recv(2048)
            except TimeoutError:
                return
            (audio if packet[1] & 0x7F == 0 else digits).append(packet[12:])

    for n, payload in enumerate(payloads):
        for _, event in (e for e in events if e[0] == n):
            rtp.socket.sendto(struct.pack("!BBHII", 0x80, 101, sequence, n * 160, ssrc) + event, rtp.remote)
            sequence += 1
        rtp.socket.sendto(struct.pack("!BBHII", 0x80, 0, sequence, n * 160, ssrc) + payload, rtp.remote)
        sequence += 1
        listen(start + (n + 1) * 0.02)
    listen(time.monotonic() + 0.15)
    return audio, digits


def encoded(samples):
    return [bytes(encode_ulaw(int(s)) for s in samples[i:i + 160]) for i in range(0, len(samples) - 159, 160)]


def hiss(seconds):
    dice = random.Random(1)
    return [dice.gauss(0, 600) for _ in range(8000 * seconds)]


def hum(seconds):
    dice = random.Random(2)
    parts = [(50 * k, dice.uniform(0, 6), 900 / k ** 0.5) for k in range(6, 41)]
    table = [sum(a * math.sin(2 * math.pi * hz * n / 8000 + phase) for hz, phase, a in parts) / 3 for n in range(160)]
    return table * 50 * seconds


def voice(seconds):
    """Syllables of harmonics with moving formants."""
    samples, phase = [], 0.0
    for n in range(8000 * seconds):
        t = n / 8000
        phase += (130 + 25 * math.sin(5.6 * t)) / 8000
        opened = max(math.sin(12.6 * t), 0) ** 0.5
        centre = 6 + 2.5 * math.sin(4.4 * t)
        samples.append(opened * 5000 * sum(math.sin(6.2832 * k * phase) / (1 + abs(k - centre) + 0.3 * k) for k in range(1, 20)))
    return samples


def level(payloads):
    samples = [decode_ulaw(b) for payload in payloads for b in payload]
    return 10 * math.log10(sum(s * s for s in samples) / len(samples) + 1)


DIGIT = [(60, bytes([5, 10, 0, 160])), (61, bytes([5, 10, 1, 64])), (62, bytes([5, 0x8A, 1, 224])), (62, bytes([5, 0x8A, 1, 224]))]


@alone
def test_standard_takes_hiss_down_and_leaves_a_voice_and_digits(binary):
    with tandem(binary, "standard") as t:
        caller = call(t)
        noise = encoded(hiss(4))
        audio, digits = say(caller.rtp, noise, DIGIT)
        assert digits == [event for _, event in DIGIT], digits
        assert len(audio) > 190, f"{len(audio)} packets came for 200"
        down = level(noise[125:]) - level(audio[125:])
        assert down > 10, f"hiss went down {down:.1f} dB"
        caller.bye()

        caller = call(t)
        said = encoded(voice(3))
        audio, _ = say(caller.rtp, said)
        change = level(audio[50:]) - level(said[50:])
        assert abs(change) < 4, f"a voice changed by {change:.1f} dB"
        caller.bye()
        notes = [note for c in t.ok("GET", "/core/conversations") for note in c["notes"]]
        assert notes == ["noise_cancellation: standard"] * 2, notes


@alone
def test_high_takes_hum_down(binary):
    with tandem(binary, "high") as t:
        caller = call(t)
        noise = encoded(hum(3))
        audio, _ = say(caller.rtp, noise)
        down = level(noise[75:]) - level(audio[75:])
        assert down > 12, f"hum went down {down:.1f} dB"
        caller.bye()


def test_off_is_bit_exact(binary):
    with tandem(binary, "high", enable=False) as t:
        caller = call(t)
        noise = encoded(hiss(1))
        audio, _ = say(caller.rtp, noise)
        assert audio == noise[:len(audio)] and len(audio) >= len(noise) - 1, f"{len(audio)} of {len(noise)} packets came back"
        caller.bye()
