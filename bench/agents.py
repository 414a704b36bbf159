#!/usr/bin/env python3
"""Concurrent media_stream calls, phones and bots on this machine: every frame of every bot is timed at the phone, and
the server's CPU is stated beside an echo call's.

    bench/agents.py target/release/tandem [calls] [seconds]
"""
import base64
import hashlib
import multiprocessing
import os
import select
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))
from sip import Call  # noqa: E402
from tandem import Tandem  # noqa: E402


def bots(port):
    """Takes every call and says 20 ms every 20 ms; what is heard is read and counted by its bytes."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port.send(listener.getsockname()[1])
    body = b'{"event":"media","media":{"payload":"' + base64.b64encode(b"\x55" * 160) + b'"}}'
    message = b"\x81\x7e" + struct.pack("!H", len(body)) + body
    poll, connections, received = select.epoll(), {}, 0
    poll.register(listener.fileno(), select.EPOLLIN)
    slot = time.monotonic()
    while True:
        for fd, _ in poll.poll(max(0, slot - time.monotonic())):
            if fd == listener.fileno():
                one, _ = listener.accept()
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += one.recv(4096)
                key = next(l for l in head.split(b"\r\n") if l.lower().startswith(b"sec-websocket-key")).split(b":")[1].strip()
                answer = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                one.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + answer + b"\r\n\r\n")
                one.setblocking(False)
                poll.register(one.fileno(), select.EPOLLIN)
                connections[one.fileno()] = [one, False, time.monotonic()]
            else:
                try:
                    data = connections[fd][0].recv(65536)
                    received += len(data)
                    if not connections[fd][1]:
                        # The first bytes are connected and start.
                        connections[fd][1] = True
                    if not data:
                        raise ConnectionError
                except BlockingIOError:
                    pass
                except OSError:
                    poll.unregister(fd)
                    connections.pop(fd)[0].close()
        if port.poll():
            port.recv()
            port.send(received)
        now = time.monotonic()
        if now >= slot:
            slot += 0.02
            for one, started, _ in list(connections.values()):
                if started:
                    try:
                        one.send(message)
                    except OSError:
                        pass


def phones(t, agent, calls, seconds):
    legs = []
    for _ in range(calls):
        leg = Call(t.udp, agent)
        assert leg.final(20) == 200, leg.answer
        legs.append(leg)
    poll, index, arrivals, silent = select.epoll(), {}, [[] for _ in legs], 0
    for n, leg in enumerate(legs):
        leg.rtp.socket.setblocking(False)
        poll.register(leg.rtp.socket.fileno(), select.EPOLLIN)
        index[leg.rtp.socket.fileno()] = n

    def drain(patience):
        nonlocal silent
        for fd, _ in poll.poll(patience):
            n = index[fd]
            try:
                while True:
                    packet = legs[n].rtp.socket.recv(2048)
                    # A neighbour's RTCP comes to the port above its own.
                    if packet[1] & 0x7F:
                        continue
                    arrivals[n].append((time.monotonic(), struct.unpack("!H", packet[2:4])[0]))
                    silent += packet[12] == 0xFF
            except BlockingIOError:
                pass

    # What came while the other calls were set up has waited here, and says nothing of the server.
    drain(0)
    silent = 0
    for frames in arrivals:
        frames.clear()
    payload, cpu, start = os.urandom(160), t.cpu(), time.monotonic()
    for slot in range(seconds * 50):
        for n, leg in enumerate(legs):
            leg.rtp.socket.sendto(struct.pack("!BBHII", 0x80, 0, slot & 0xFFFF, slot * 160, n + 1) + payload, leg.rtp.remote)
            if n % 20 == 19:
                drain(0)
        while (left := start + (slot + 1) * 0.02 - time.monotonic()) > 0:
            drain(left)
    took = time.monotonic() - start
    cores = (t.cpu() - cpu) / took / calls * 100
    gone = 0
    for leg in legs:
        try:
            leg.bye()
        except (AssertionError, IndexError, ValueError):
            # Its answer is a BYE of the other side's: the call had ended.
            gone += 1
    late = []
    for frames in arrivals:
        base, last, cycles, own = None, None, 0, []
        for at, seq in frames:
            if last is not None and seq < last - 30000:
                cycles += 65536
            last = seq
            own.append(at - (seq + cycles) * 0.02)
        # On time is what the quickest hundredth of the call's frames was.
        base = sorted(own)[len(own) // 100] if own else 0
        late += [x - base for x in own]
    late.sort()
    frames = sum(map(len, arrivals))
    quantile = lambda q: 1000 * late[min(len(late) - 1, int(len(late) * q))] if late else float("nan")
    return cores, took, frames, silent, gone, quantile


def main():
    calls, seconds = (int(sys.argv[2]) if len(sys.argv) > 2 else 200), (int(sys.argv[3]) if len(sys.argv) > 3 else 20)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=bots, args=(theirs,), daemon=True)
    process.start()
    port = ours.recv()
    with Tandem(sys.argv[1], ["media.ports=20000-29999"]) as t:
        for name, runtime in (("echo", {"type": "echo"}), ("media_stream", {"type": "media_stream", "url": f"ws://127.0.0.1:{port}/"})):
            cores, took, frames, silent, gone, quantile = phones(t, t.deployed({"runtime": runtime}), calls, seconds)
            print(f"{calls} {name} calls for {took:.1f} s: {frames} frames back ({silent} silent, {gone} calls gone), late p50 {quantile(.5):.1f} p99 {quantile(.99):.1f} p99.9 {quantile(.999):.1f} max {quantile(1):.1f} ms, "
                  f"{cores:.3f} cores per 100 calls, RSS {t.rss() // 1024} MiB", flush=True)


if __name__ == "__main__":
    main()
