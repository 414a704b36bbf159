#!/usr/bin/env python3
"""A bot's audio sent at twice and at 0.98 times real time: how long it plays, whether it clicks, what memory it takes.

    bench/pace.py target/release/tandem [seconds]
"""
import asyncio
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))
from bots import Bots, Stream, hears, tone, ulaw  # noqa: E402
from phone import Phone  # noqa: E402
from tandem import Tandem  # noqa: E402

HZ, AMPLITUDE = 500, 8000
# What the tone itself steps from sample to sample at most is 2π·500/8000·8000 = 3,142.
CLICK = 4200


def main():
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    audio, seen = ulaw(tone(HZ, 1.0, amplitude=AMPLITUDE)), {}

    async def script(socket):
        stream = await Stream(socket).begin()
        reader = asyncio.ensure_future(stream.rest())
        for pace in (2.0, 0.98):
            await asyncio.sleep(0.5)
            start = seen[pace, "start"] = time.monotonic()
            for n in range(seconds * 50):
                at = n % 50 * 160
                await stream.say(audio[at:at + 160])
                await asyncio.sleep(max(0, start + (n + 1) * 0.02 / pace - time.monotonic()))
            await stream.mark(str(pace))
            while str(pace) not in stream.marks:
                await asyncio.sleep(0.01)
            seen[pace, "end"] = time.monotonic()
        seen["done"] = True
        await reader
    bots = Bots(script)
    with Tandem(sys.argv[1]) as t:
        phone = Phone(t.udp, t.deployed({"runtime": {"type": "media_stream", "url": bots.url}})).answered()
        time.sleep(1)
        memory = [t.rss()]
        while "done" not in seen:
            time.sleep(1)
            bots.check()
            memory.append(t.rss())
        phone.hang_up()
        for pace in (2.0, 0.98):
            start, end = seen[pace, "start"], seen[pace, "end"]
            samples = phone.samples(start + 0.2, end - 0.2)
            hears(samples, 8000, HZ)
            steepest = max(abs(a - b) for a, b in zip(samples, samples[1:]))
            expected = seconds / min(pace, 1)
            print(f"{seconds} s sent at {pace} times real time: its mark came after {end - start:.2f} s ({expected:.2f} expected), "
                  f"steepest step {steepest} ({'a click' if steepest > CLICK else 'no click'})", flush=True)
            # Arrivals as the kernel had them: whether the clock that paces them is even.
            arrivals = [at for at, *_ in phone.heard if start + 0.2 < at < end - 0.2]
            gaps = sorted(b - a for a, b in zip(arrivals, arrivals[1:]))
            print(f"    gaps between packets: median {1000 * gaps[len(gaps) // 2]:.2f} ms, p99 {1000 * gaps[int(len(gaps) * 0.99)]:.2f} ms, longest {1000 * gaps[-1]:.2f} ms")
        stamps = [(seq, stamp) for _, seq, stamp, _ in phone.heard]
        whole = all((b[0] - a[0]) & 0xFFFF == 1 and (b[1] - a[1]) & 0xFFFFFFFF == 160 for a, b in zip(stamps, stamps[1:]))
        print(f"{len(stamps)} packets, timestamps {'without a gap' if whole else 'WITH GAPS'}; RSS {memory[0]} KiB at the beginning, {max(memory)} at most, {memory[-1]} at the end")


if __name__ == "__main__":
    main()
