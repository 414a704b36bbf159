#!/usr/bin/env python3
"""A flood of INVITEs from addresses no trunk allows, beside 20 calls/s of the carrier's.

    bench/flood.py target/release/tandem [--seconds 20] [--rate 30000] [--mode drop|reject] [--to nobody|number]

Prints what the flood reached, how the carrier's calls fared, how much memory the node took, and what the strangers got.
"""
import argparse
import ctypes
import multiprocessing
import os
import secrets
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))
from hostile import metric  # noqa: E402
from sip import Socket, header, sdp, status  # noqa: E402
from tandem import Tandem  # noqa: E402
from test_inbound import number_on_trunk  # noqa: E402

NUMBER = "+14155550100"
SOURCES = 250
BATCH = 50
libc = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Header(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("iov", ctypes.POINTER(Iovec)), ("iov_length", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t), ("flags", ctypes.c_int), ("_pad", ctypes.c_int), ("length", ctypes.c_uint32), ("_pad2", ctypes.c_uint32)]


def invite(user, node, ip, port):
    body = sdp(ip, 40000)
    return (f"INVITE sip:{user}@{node[0]}:{node[1]} SIP/2.0\r\nVia: SIP/2.0/UDP {ip}:{port};branch=z9hG4bK{secrets.token_hex(8)};rport\r\nMax-Forwards: 70\r\n"
            f"From: \"a\" <sip:100@{ip}>;tag={secrets.token_hex(4)}\r\nTo: <sip:{user}@{node[0]}>\r\nCall-ID: {secrets.token_hex(12)}\r\nCSeq: 1 INVITE\r\n"
            f"Contact: <sip:100@{ip}:{port}>\r\nUser-Agent: friendly-scanner\r\nContent-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode()


def flood(node, user, rate, seconds, result):
    """Sends at a rate from many addresses with sendmmsg, and counts what comes back."""
    sockets = []
    for n in range(SOURCES):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind((f"127.66.{n // 200}.{n % 200 + 1}", 0))
        s.connect(node)
        s.setblocking(False)
        batches = (Header * BATCH)()
        keep = []
        for i in range(BATCH):
            data = ctypes.create_string_buffer(invite(user if user else f"{secrets.randbelow(10**6)}", node, *s.getsockname()))
            vector = Iovec(ctypes.cast(data, ctypes.c_void_p), len(data) - 1)
            batches[i].iov, batches[i].iov_length = ctypes.pointer(vector), 1
            keep.append((data, vector))
        sockets.append((s, batches, keep))
    start, sent, turn = time.monotonic(), 0, 0
    while (now := time.monotonic()) - start < seconds:
        due = int((now - start) * rate) - sent
        if due < BATCH:
            time.sleep(0.0005)
            continue
        s, batches, _ = sockets[turn % SOURCES]
        turn += 1
        done = libc.sendmmsg(s.fileno(), batches, BATCH, 0)
        sent += max(done, 0)
    took = time.monotonic() - start
    time.sleep(0.5)
    replies = 0
    for s, *_ in sockets:
        try:
            while s.recv(2048):
                replies += 1
        except OSError:
            pass
    result.put((sent, took, replies))


def legitimate(node, seconds, rate=20):
    """Calls at a rate from the carrier's address: how many were answered, and how long the 200 took."""
    times, failed, threads = [], [], []

    def one():
        s = Socket(source="127.0.0.2")
        s.connect(node)
        ip, port = s.address()
        call_id, tag = secrets.token_hex(8), secrets.token_hex(4)
        uri = f"sip:{NUMBER}@{node[0]}:{node[1]}"
        line = lambda method, cseq, branch, to, body="": (
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {ip}:{port};branch=z9hG4bK{branch};rport\r\nMax-Forwards: 70\r\nFrom: <sip:+14155550111@{ip}>;tag={tag}\r\nTo: {to}\r\n"
            f"Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContact: <sip:x@{ip}:{port}>\r\n{'Content-Type: application/sdp' + chr(13) + chr(10) if body else ''}Content-Length: {len(body)}\r\n\r\n{body}")
        request = line("INVITE", 1, secrets.token_hex(6), f"<{uri}>", sdp(ip, 40000))
        begun, wait = time.monotonic(), 0.5
        s.send(request)
        while time.monotonic() - begun < 16:
            answer = s.receive(wait)
            if answer is None:
                wait = min(wait * 2, 4)
                s.send(request)
                continue
            if status(answer) >= 200:
                (times if status(answer) == 200 else failed).append(time.monotonic() - begun)
                to = header(answer, "To")
                s.send(line("ACK", 1, secrets.token_hex(6), to))
                s.send(line("BYE", 2, secrets.token_hex(6), to))
                s.receive(1)
                return
        failed.append(None)

    start = time.monotonic()
    for n in range(int(seconds * rate)):
        time.sleep(max(0, start + n / rate - time.monotonic()))
        thread = threading.Thread(target=one)
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()
    return sorted(times), failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=int, default=30000)
    parser.add_argument("--mode", default="drop")
    parser.add_argument("--to", default="nobody", choices=["nobody", "number"])
    a = parser.parse_args()
    with Tandem(a.binary, [f"sip.unknown_sources={a.mode}"]) as t:
        number_on_trunk(t, ["127.0.0.2"])
        t.deployed()
        # Warm: the first calls make what every later one uses.
        legitimate(t.udp, 2)
        quiet, _ = legitimate(t.udp, 3)
        before, cpu = t.rss(), t.cpu()
        result = multiprocessing.Queue()
        process = multiprocessing.Process(target=flood, args=(t.udp, NUMBER if a.to == "number" else "", a.rate, a.seconds, result))
        process.start()
        time.sleep(1)
        peak = before
        times, failed = legitimate(t.udp, a.seconds - 2)
        peak = max(peak, t.rss())
        sent, took, replies = result.get()
        process.join()
        after, cpu = t.rss(), t.cpu() - cpu
        dropped = metric(t, "sip_rx_dropped_total")
        p = lambda times, q: times[min(len(times) - 1, int(len(times) * q))] * 1000 if times else float("nan")
        print(f"flood: {sent} INVITEs in {took:.1f} s = {sent / took:.0f}/s from {SOURCES} addresses, mode {a.mode}, to {a.to}; {replies} answers to strangers; {dropped:.0f} dropped by name")
        print(f"legitimate: {len(times)} of {len(times) + len(failed)} calls answered, setup p50 {p(times, 0.5):.1f} ms, p99 {p(times, 0.99):.1f} ms (without the flood {p(quiet, 0.5):.1f} / {p(quiet, 0.99):.1f})")
        print(f"node: {cpu:.1f} CPU s in {took:.1f} s, memory {before} -> {after} KiB ({(after - before) / 1024:+.1f} MiB, {(peak - before) / 1024:+.1f} at its end)")
        good = not failed and p(times, 0.99) < 100 and after - before < 8 << 10 and (a.mode != "drop" or replies == 0)
        print("holds" if good else "DOES NOT HOLD")
        return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
