#!/usr/bin/env python3
"""Concurrent echo calls at 50 packets a second: what comes back is compared bit for bit, and how late it is, loss and CPU
are printed.

    bench/echo.py target/release/tandem [calls] [seconds] [--denoised N] [--mode standard|high]

300 calls for 10 s when nothing is said. `--denoised` adds calls of a trunk with noise cancellation, whose audio is not
compared. Arrival is the kernel's time, so that this program's own hold-ups do not count; a plain packet is as late as it
takes from being sent, a denoised one as it is behind the middle of its own call's packets. The last line says whether at
most one in a thousand was more than 20 ms late, which means something on a quiet machine only.
"""
import argparse
import os
import select
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))
from sip import Call  # noqa: E402
from tandem import Tandem  # noqa: E402

NUMBER = "+14155550123"
SO_TIMESTAMPNS = 35
SETTLED = 50  # packets of a call before the first that counts as late: its buffer has settled by then


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("binary")
    arguments.add_argument("calls", nargs="?", type=int, default=300)
    arguments.add_argument("seconds", nargs="?", type=int, default=10)
    arguments.add_argument("--denoised", type=int, default=0)
    arguments.add_argument("--mode", default="standard")
    options = arguments.parse_args()
    calls, seconds = options.calls, options.seconds
    with Tandem(options.binary, ["media.ports=20000-29999", f"media.noise_cancellation={options.mode}"]) as t:
        agent = t.deployed()
        if options.denoised:
            config = {"allowed_addresses": ["127.0.0.1"], "enable_noise_cancellation": True}
            trunk = t.ok("POST", "/core/trunks", {"name": "noisy", "inbound_config": config})["id"]
            t.ok("POST", "/core/phone-numbers", {"phone_number": NUMBER, "trunk_id": trunk})
            t.agent({"runtime": {"type": "echo"}}, [NUMBER])
        legs = [Call(t.udp, agent) for _ in range(calls)] + [Call(t.udp, NUMBER) for _ in range(options.denoised)]
        assert all(leg.final() == 200 for leg in legs)
        payloads = [os.urandom(160) for _ in legs]
        poll, index, count = select.epoll(), {}, {"sent": 0, "back": 0, "wrong": 0}
        left_at = [[0.0] * (seconds * 50) for _ in legs]
        came = [[] for _ in legs]
        for n, leg in enumerate(legs):
            leg.rtp.socket.setblocking(False)
            leg.rtp.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            poll.register(leg.rtp.socket.fileno(), select.EPOLLIN)
            index[leg.rtp.socket.fileno()] = n

        def drain(patience):
            for fd, _ in poll.poll(patience):
                n = index[fd]
                try:
                    while True:
                        packet, extra, _, _ = legs[n].rtp.socket.recvmsg(2048, 64)
                        if 192 <= packet[1] <= 223:
                            continue  # RTCP of the leg whose port is the one below
                        count["back"] += 1
                        came[n].append((packet[2:8], extra[0][2]))
                        count["wrong"] += n < calls and packet[12:] != payloads[n]
                except BlockingIOError:
                    pass

        cpu, start = t.cpu(), time.monotonic()
        for slot in range(seconds * 50):
            for n, leg in enumerate(legs):
                left_at[n][slot] = time.time()
                leg.rtp.socket.sendto(struct.pack("!BBHII", 0x80, 0, slot & 0xFFFF, slot * 160, n + 1) + payloads[n], leg.rtp.remote)
                count["sent"] += 1
                if n % 30 == 29:
                    drain(0)
            while (left := start + (slot + 1) * 0.02 - time.monotonic()) > 0:
                drain(left)
        end = time.monotonic() + 0.5
        while (left := end - time.monotonic()) > 0:
            drain(left)
        took = time.monotonic() - start
        kinds = f"{calls} plain" + (f" and {options.denoised} denoised ({options.mode})" if options.denoised else "")
        print(f"{kinds} echo calls for {took:.1f} s: {count['sent']} packets sent, {count['back']} back, {count['wrong']} not bit for bit, "
              f"{(t.cpu() - cpu) / took / len(legs) * 100:.3f} cores per 100 calls, RSS {t.rss() // 1024} MiB")
    late = lateness(came, left_at, calls)
    print("late by, ms: " + ", ".join(f"{name} median {percentile(part, 50):.2f}, 99 % {percentile(part, 99):.2f}, 99.9 % {percentile(part, 99.9):.2f}, most {max(part):.1f}"
                                      for name, part in late.items() if part))
    sent_late = sorted(1000 * (at - first[0] - 0.02 * slot) for first in left_at for slot, at in enumerate(first))
    print(f"this program sent its own packets late by, ms: 99.9 % {percentile(sent_late, 99.9):.2f}; load average {os.getloadavg()[0]:.2f}")
    good = all(percentile(part, 99.9) <= 20 for part in late.values() if part)
    print(f"{'ok  ' if good else 'MISS'} at most one packet in a thousand more than 20 ms late")
    sys.exit(0 if good and count["wrong"] == 0 else 1)


def lateness(came, left_at, calls):
    """Milliseconds for each packet, plain and denoised."""
    late = {"plain": [], "denoised": []}
    for n, packets in enumerate(came):
        arrivals = []
        for head, stamp in packets:
            sequence, timestamp = struct.unpack("!HI", head)
            seconds, nanos = struct.unpack("qq", stamp)
            arrivals.append((sequence, timestamp, seconds + nanos / 1e9))
        if n < calls:
            # An echo shifts both by what it began with; the first packet back is the first sent.
            first = min(a[1] for a in arrivals) if arrivals else 0
            slots = [(((ts - first) & 0xFFFFFFFF) // 160, at) for _, ts, at in arrivals]
            late["plain"] += [1000 * (at - left_at[n][slot]) for slot, at in slots if slot < len(left_at[n])]
        else:
            first = arrivals[0][1] if arrivals else 0
            behind = [1000 * (at - ((ts - first) & 0xFFFFFFFF) / 8000) for _, ts, at in arrivals][SETTLED:]
            if behind:
                middle = sorted(behind)[len(behind) // 2]
                late["denoised"] += [b - middle for b in behind]
    return {name: sorted(part) for name, part in late.items()}


def percentile(ordered, share):
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))] if ordered else 0.0


if __name__ == "__main__":
    main()
