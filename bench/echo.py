#!/usr/bin/env python3
"""300 concurrent echo calls at 50 packets a second: what comes back is compared bit for bit, loss and CPU are printed.

    bench/echo.py target/release/tandem [calls] [seconds]
"""
import os
import select
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))
from sip import Call  # noqa: E402
from tandem import Tandem  # noqa: E402


def main():
    calls, seconds = (int(sys.argv[2]) if len(sys.argv) > 2 else 300), (int(sys.argv[3]) if len(sys.argv) > 3 else 10)
    with Tandem(sys.argv[1]) as t:
        agent = t.deployed()
        legs = [Call(t.udp, agent) for _ in range(calls)]
        assert all(leg.final() == 200 for leg in legs)
        payloads = [os.urandom(160) for _ in legs]
        poll, index, count = select.epoll(), {}, {"sent": 0, "back": 0, "wrong": 0}
        for n, leg in enumerate(legs):
            leg.rtp.socket.setblocking(False)
            poll.register(leg.rtp.socket.fileno(), select.EPOLLIN)
            index[leg.rtp.socket.fileno()] = n

        def drain(patience):
            for fd, _ in poll.poll(patience):
                n = index[fd]
                try:
                    while True:
                        packet = legs[n].rtp.socket.recv(2048)
                        if 192 <= packet[1] <= 223:
                            continue  # RTCP of the leg whose port is the one below
                        count["back"] += 1
                        count["wrong"] += packet[12:] != payloads[n]
                except BlockingIOError:
                    pass

        cpu, start = t.cpu(), time.monotonic()
        for slot in range(seconds * 50):
            for n, leg in enumerate(legs):
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
        print(f"{calls} echo calls for {took:.1f} s: {count['sent']} packets sent, {count['back']} back, {count['wrong']} not bit for bit, "
              f"{(t.cpu() - cpu) / took / calls * 100:.3f} cores per 100 calls, RSS {t.rss() // 1024} MiB")


if __name__ == "__main__":
    main()
