#!/usr/bin/env python3
"""Speech over a bad line: what comes back from an echo agent is scored (PESQ, P.862) against the clean voice, beside what
plain silence in the place of lost packets scores; and on a clean line it is compared bit for bit.

    bench/loss.py target/release/tandem [--loss 10] [--jitter 60] [--runs 3] [--packages DIR] [--virtual EXAMPLE]

With `--virtual target/release/examples/hear` the calls run in the example's virtual time instead: what the machine is
busy with does not count then, and no node is asked but for the clean line.

Needs what `bench/noise/run.py` needs. Each run is a voice of 10 s through its own losses and delays (uniform up to
`--jitter` ms, which reorders), the same for both; the calls of a run are in progress at once. The silence filling is
spared its jitter buffer: every packet that arrives counts as in time.
"""
import argparse
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import soundfile
from pesq import PesqError, pesq

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "noise"), str(HERE.parent / "interop")]
import corpus  # noqa: E402
from audio import decode, rtp, ulaw_encode  # noqa: E402
from sip import Call  # noqa: E402
from tandem import Tandem  # noqa: E402

# Silence in the place of what the buffer may hold back when it begins, and at the end.
LEAD, TRAIL = 10, 25


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("binary")
    arguments.add_argument("--loss", type=float, default=10, help="percent")
    arguments.add_argument("--jitter", type=float, default=60, help="milliseconds")
    arguments.add_argument("--runs", type=int, default=3, help="for each voice")
    arguments.add_argument("--packages", type=Path, default=HERE / "out" / "noise" / "packages", help="where bench/noise keeps its packages")
    arguments.add_argument("--virtual", help="an example `hear` that is built already")
    options = arguments.parse_args()
    options.packages.mkdir(parents=True, exist_ok=True)
    voices = {name: samples for name, samples in corpus.voices(corpus.fetch(options.packages)).items() if not name.startswith("words")}
    payloads = {name: encoded(samples) for name, samples in voices.items()}
    ours, silence = [], []
    with Tandem(options.binary) as t:
        agent = t.deployed()
        for run in range(options.runs):
            found = {}
            threads = []
            for number, name in enumerate(voices):
                dice = random.Random(1000 * run + number)
                network = [None if LEAD < n < len(payloads[name]) and dice.random() < options.loss / 100 else dice.random() * options.jitter / 1000
                           for n in range(len(payloads[name]) + TRAIL)]
                found[name, "network"] = network
                if options.virtual:
                    found[name] = heard_in(options.virtual, voices[name], network)
                    continue
                leg = Call(t.udp, agent)
                assert leg.final() == 200, leg.answer
                threads.append(threading.Thread(target=lambda *a: found.__setitem__(a[0], echo(a[1], payloads[a[0]], a[2])), args=(name, leg, network)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for name, clean in voices.items():
                network = found[name, "network"]
                filled = [decode(p) if network[n] is not None else [0] * 160 for n, p in enumerate(payloads[name])]
                silence.append(score(clean, np.concatenate(filled)))
                ours.append(score(clean, found[name] if options.virtual else whole(found[name])))
                print(f"run {run} {name:12} silence {silence[-1]:.2f}  ours {ours[-1]:.2f}", flush=True)
        leg = Call(t.udp, agent)
        assert leg.final() == 200
        name = next(iter(voices))
        back = echo(leg, payloads[name], [0.0] * len(payloads[name]))
        exact = [p for *_, p in back] == payloads[name]
    gain = float(np.mean(ours) - np.mean(silence))
    print(f"{len(ours)} calls, {options.loss:g} % lost, {options.jitter:g} ms of jitter: silence {np.mean(silence):.2f}, ours {np.mean(ours):.2f}")
    print(f"{'ok  ' if gain >= 0.5 else 'MISS'} PESQ gain {gain:.2f} (at least 0.5)")
    print(f"{'ok  ' if exact else 'MISS'} bit for bit without loss: {len(back)} of {len(payloads[name])} packets came back")
    sys.exit(0 if exact and gain >= 0.5 else 1)


def heard_in(example, samples, network):
    """The same in virtual time."""
    with tempfile.TemporaryDirectory() as directory:
        said, heard = f"{directory}/said.wav", f"{directory}/heard.wav"
        soundfile.write(said, samples, corpus.RATE, subtype="PCM_16")
        delays = ",".join("-" if delay is None else f"{1000 * delay:.3f}" for delay in network)
        subprocess.run([example, said, heard, delays], check=True)
        return soundfile.read(heard)[0] * 32768


def encoded(samples):
    levels = [int(s) for s in np.clip(np.round(samples * 32767), -32768, 32767)]
    return [bytes(ulaw_encode(s) for s in levels[i:i + 160]) for i in range(0, len(levels) - 159, 160)]


def echo(leg, payloads, network):
    """Sends the payloads through a network of delays in seconds, `None` for a loss; silence follows. Returns timestamps
    and payloads of what came back."""
    back, done, sock = [], threading.Event(), leg.rtp.socket
    sock.settimeout(0.1)

    def listen():
        while not done.is_set():
            try:
                data = sock.recv(2048)
            except socket.timeout:
                continue
            if data[1] & 0x7F == 0:
                back.append((struct.unpack("!I", data[4:8])[0], data[12:]))

    listener = threading.Thread(target=listen)
    listener.start()
    silent = bytes([0xFF]) * 160
    sends = sorted((n * 0.02 + delay, n) for n, delay in enumerate(network) if delay is not None)
    start = time.monotonic() + 0.1
    for at, n in sends:
        if (left := start + at - time.monotonic()) > 0:
            time.sleep(left)
        sock.sendto(rtp(0, n, n * 160, 77, payloads[n] if n < len(payloads) else silent), leg.rtp.remote)
    time.sleep(0.5)
    done.set()
    listener.join()
    leg.bye()
    return back


def whole(back):
    """What came back on its own time line; silence where nothing came."""
    audio = dict(back)
    first = back[0][0]
    times = range(first, first + max((t - first) & 0xFFFFFFFF for t in audio) + 160, 160)
    return np.concatenate([decode(audio[t & 0xFFFFFFFF]) if t & 0xFFFFFFFF in audio else [0] * 160 for t in times])


def score(clean, heard):
    """PESQ of what was heard, shifted to where it fits best."""
    heard = np.asarray(heard, float) / 32768
    size = 1 << (len(clean) + len(heard)).bit_length()
    lags = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(clean, size)), size)
    lag = int(np.argmax(lags[:corpus.RATE]))
    heard = heard[lag:lag + len(clean)]
    try:
        return float(pesq(corpus.RATE, clean[:len(heard)], heard, "nb"))
    except PesqError:
        return 1.0


if __name__ == "__main__":
    main()
