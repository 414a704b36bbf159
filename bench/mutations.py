#!/usr/bin/env python3
"""Damaged SIP over UDP and TCP, session descriptions, RTP and RTCP over real sockets, by the hundred thousand.

    bench/mutations.py target/release/tandem [--count 1000000] [--seconds 600] [--seed 4711]

The node must stay up, its memory flat, and calls must be answered and heard while and after. Ends at `--seconds` with
what it had sent by then.
"""
import argparse
import os
import pathlib
import random
import re
import secrets
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "interop"))
from hostile import metric, rtp  # noqa: E402
from sip import Call, header, sdp, status  # noqa: E402
from tandem import Tandem  # noqa: E402
from test_inbound import number_on_trunk  # noqa: E402

# After every fifty or so of a kind.
PAUSE = 0.008
TORTURE = pathlib.Path(__file__).parent.parent / "crates/signaling/tests/rfc4475"
TOKENS = [b"\r\n", b"\n", b"\r\n ", b"\0", b"\xff", b";", b",", b"<", b">", b'"', b"\\", b":", b"@", b"%00", b"=", b"tag=", b"branch=", b"Via: ", b"v: ", b"4294967296", b"-1",
          b"Content-Length: 99999999\r\n", b"l: 0\r\n", b"CSeq: 1 INVITE\r\n", b"SIP/2.0", b"sips:", b"tel:+1", b"[::1]", b"*", b"INVITE ", b"ACK ", b"CANCEL ",
          b"Replaces: a;to-tag=b;from-tag=c\r\n", b"Session-Expires: 1\r\n", b"Require: x\r\n", b"m=audio ", b"a=crypto:1 ", b"inline:", b"a=rtpmap:", b"0.0.0.0", b"224.0.0.1"]


def damage(r, data, tokens=TOKENS):
    data = bytearray(data)
    for _ in range(r.randint(1, 6)):
        at = r.randrange(len(data) + 1)
        kind = r.randrange(6)
        if kind == 0 and at < len(data):
            data[at] = r.randrange(256)
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << r.randrange(8)
        elif kind == 2:
            del data[at:at + r.randint(1, 30)]
        elif kind == 3:
            data[at:at] = tokens[r.randrange(len(tokens))]
        elif kind == 4:
            data[at:at] = data[at:at + r.randint(1, 60)]
        else:
            data[at:at] = r.randbytes(r.randint(1, 12))
    return bytes(data)


def requests(agent, ip, port):
    """Whole messages to begin with: of every method, and those of RFC 4475."""
    offers = [sdp(ip, 40000), sdp(ip, 40000, "RTP/SAVP", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20|1:4\r\na=ptime:30\r\na=sendonly\r\n")]
    made = []
    for method in ("INVITE", "INVITE", "INVITE", "OPTIONS", "REGISTER", "BYE", "CANCEL", "ACK", "UPDATE", "INFO", "REFER", "PRACK", "NOTIFY", "SUBSCRIBE", "MESSAGE"):
        body = offers[len(made) % 2] if method in ("INVITE", "UPDATE") else ""
        made.append((f"{method} sip:{agent}@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {ip}:{port};branch=z9hG4bK{secrets.token_hex(6)};rport\r\nMax-Forwards: 70\r\n"
                     f'From: "a" <sip:+14155550111@{ip}>;tag={secrets.token_hex(4)}\r\nTo: <sip:{agent}@127.0.0.1>{";tag=x" if method in ("BYE", "UPDATE", "INFO", "PRACK") else ""}\r\n'
                     f"Call-ID: {secrets.token_hex(8)}\r\nCSeq: 1 {method}\r\nContact: <sip:x@{ip}:{port}>\r\nSupported: 100rel, timer\r\nSession-Expires: 1800\r\nRefer-To: <sip:a@b>\r\n"
                     f"{'Content-Type: application/sdp' + chr(13) + chr(10) if body else ''}Content-Length: {len(body)}\r\n\r\n{body}").encode())
    made.append(b"SIP/2.0 200 OK\r\n" + made[0].split(b"\r\n", 1)[1])
    return made + [p.read_bytes() for p in sorted(TORTURE.glob("*")) if p.is_file()]


class Sender(threading.Thread):
    """Sends its share of one kind, and counts."""

    def __init__(self, count, deadline, seed):
        super().__init__(daemon=True)
        self.count, self.deadline, self.r, self.sent = count, deadline, random.Random(seed), 0

    def run(self):
        while self.sent < self.count and time.monotonic() < self.deadline:
            self.some()
            # What is sent faster than it is read is lost before anybody has seen it.
            time.sleep(PAUSE)


class OverUdp(Sender):
    def __init__(self, node, agent, *rest, descriptions=False):
        super().__init__(*rest)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.connect(node)
        self.socket.setblocking(False)
        self.descriptions = descriptions
        self.base = requests(agent, *self.socket.getsockname())

    def some(self):
        for _ in range(50):
            if self.descriptions:
                # A good INVITE of its own with a damaged description, which is read to its end.
                head, _, body = self.base[self.r.randrange(3)].partition(b"\r\n\r\n")
                body = damage(self.r, body)
                for name in (b"branch=z9hG4bK", b"Call-ID: "):
                    head = head.replace(name, name + self.r.randbytes(4).hex().encode())
                head = head[:head.rindex(b"Content-Length")] + b"Content-Length: %d" % len(body)
                data = head + b"\r\n\r\n" + body
            else:
                data = damage(self.r, self.base[self.r.randrange(len(self.base))])
            try:
                self.socket.send(data[:65000])
                self.sent += 1
            except OSError:
                time.sleep(0.001)
        try:
            while True:
                self.hang_up(self.socket.recv(65535))
        except OSError:
            pass

    def hang_up(self, data):
        """What is answered is ended, so that its place is free again."""
        text = data.decode(errors="replace")
        if not text.startswith("SIP/2.0 200") or " INVITE" not in (header(text, "CSeq") or ""):
            return
        number = header(text, "CSeq").split()[0]
        for method, cseq in (("ACK", number), ("BYE", "2000000000")):
            self.socket.send((f"{method} sip:x@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{self.socket.getsockname()[1]};branch=z9hG4bK{self.r.randbytes(6).hex()}\r\nMax-Forwards: 70\r\n"
                              f"From: {header(text, 'From')}\r\nTo: {header(text, 'To')}\r\nCall-ID: {header(text, 'Call-ID')}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n").encode("utf-8", "replace"))


class OverTcp(Sender):
    def __init__(self, node, agent, *rest):
        super().__init__(*rest)
        self.node, self.base, self.socket = node, requests(agent, "127.0.0.1", 9), None

    def some(self):
        try:
            if self.socket is None:
                # Another address than the calls': what a lost connection was to carry goes to its host's next one.
                self.socket = socket.create_connection(self.node, 5, source_address=("127.0.0.5", 0))
                self.socket.settimeout(1)
            for _ in range(20):
                self.socket.sendall(damage(self.r, self.base[self.r.randrange(len(self.base))])[:65000])
                self.sent += 1
            self.socket.setblocking(False)
            while self.socket.recv(65535):
                pass
            self.socket = None
        except BlockingIOError:
            self.socket.settimeout(1)
        except OSError:
            if self.socket:
                self.socket.close()
            self.socket = None


class OverRtp(Sender):
    """Into live calls, from the true source and from a stranger's."""

    def __init__(self, node, agent, *rest):
        super().__init__(*rest)
        self.calls = [Call(node, agent) for _ in range(4)]
        assert all(call.final() == 200 for call in self.calls)
        self.stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.stranger.bind(("127.0.0.66", 0))
        report = b"\x81\xc8\x00\x0c" + b"\7" * 48 + b"\x81\xca\x00\x03" + bytes(4) + b"\1\2ab" + bytes(4)
        self.base = [lambda n: rtp(b"\xd5" * 160, n, n * 160, 7), lambda n: rtp(bytes([5, 0x8A, 3, 32]), n, n * 160, 7, 101), lambda n: report,
                     lambda n: report + b"\x81\xcb\x00\x01" + bytes(4), lambda n: b"\x80\xcc\x00\x02" + bytes(4) + b"name" + b"\x80\xcf\x00\x01" + bytes(4)]

    def some(self):
        for _ in range(50):
            call = self.calls[self.r.randrange(4)]
            data = damage(self.r, self.base[self.r.randrange(5)](self.sent), [b"\xff" * 4, b"\x80\0", bytes(40), struct.pack("!BBH", 0x9F, 200, 65535)])
            to = (call.rtp.remote[0], call.rtp.remote[1] + self.r.randrange(2))
            (self.stranger if self.r.randrange(4) == 0 else call.rtp.socket).sendto(data[:1500], to)
            self.sent += 1
        for call in self.calls:
            call.rtp.socket.setblocking(False)
            try:
                while True:
                    call.rtp.socket.recv(2048)
            except OSError:
                pass


def whole_call(t, agent, transport="udp"):
    """A call that is answered and hears its tone; how long the 200 took."""
    begun = time.monotonic()
    call = Call(getattr(t, transport), agent, transport)
    got = call.final(10)
    assert got == 200, call.answer if got else "no answer"
    took = time.monotonic() - begun
    call.rtp.talk(440, 0.4)
    heard = len(call.rtp.received)
    assert heard > 10, heard
    hang_up(call)
    return took


def hang_up(call):
    """BYE, and its answer. What the node itself asks meanwhile, such as a BYE that crosses ours, is answered."""
    call.socket.send(call.request("BYE", 2, branch=secrets.token_hex(6)))
    deadline = time.monotonic() + 10
    while (left := deadline - time.monotonic()) > 0 and (message := call.socket.receive(left)):
        if not message.startswith("SIP/2.0"):
            call.socket.send(response(message))
        elif header(message, "CSeq").endswith(" BYE"):
            assert status(message) in (200, 481), message
            return
    raise AssertionError("no answer to BYE")


def response(request):
    """200 to a request, over the way that it came."""
    vias = "".join(f"Via: {via}\r\n" for via in re.findall(r"^Via\s*:\s*(.*?)\r?$", request, re.M | re.I))
    copied = "".join(f"{name}: {header(request, name)}\r\n" for name in ("From", "To", "Call-ID", "CSeq"))
    return f"SIP/2.0 200 OK\r\n{vias}{copied}Content-Length: 0\r\n\r\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=4711)
    a = parser.parse_args()
    with Tandem(a.binary, ["media.ports=20000-29999", "media.initial_timeout_s=2"]) as t:
        # What is answered and cannot be hung up on is soon over: the calls beside it need their places.
        # A source that a trunk lists is read to the end; a stranger's messages are dropped before that.
        number_on_trunk(t, ["127.0.0.0/8"])
        agent = t.deployed()
        whole_call(t, agent)
        started, deadline = time.monotonic(), time.monotonic() + a.seconds
        share = lambda percent: a.count * percent // 100
        senders = {
            "SIP over UDP": OverUdp(t.udp, agent, share(35), deadline, a.seed),
            "SIP over TCP": OverTcp(t.tcp, agent, share(20), deadline, a.seed + 1),
            "SDP": OverUdp(t.udp, agent, share(15), deadline, a.seed + 2, descriptions=True),
            "RTP and RTCP": OverRtp(t.udp, agent, share(30), deadline, a.seed + 3),
        }
        for sender in senders.values():
            sender.start()
        # Memory is judged from when every table has been filled once.
        marks, calls, worst = [], 0, 0.0
        while any(s.is_alive() for s in senders.values()):
            # By TCP: this peer repeats nothing, and a full socket buffer loses datagrams.
            worst, calls = max(worst, whole_call(t, agent, "tcp")), calls + 1
            marks.append(t.rss())
            time.sleep(1)
        sent = sum(s.sent for s in senders.values())
        seconds = time.monotonic() - started
        time.sleep(35)
        after = whole_call(t, agent)
        print(", ".join(f"{name} {s.sent}" for name, s in senders.items()))
        print(f"{sent} mutations in {seconds:.0f} s ({sent / seconds:.0f}/s); {calls} calls meanwhile all answered and heard, the slowest after {worst * 1e3:.0f} ms; the next one after {after * 1e3:.0f} ms")
        tenth = marks[len(marks) // 10] if marks else 0
        print(f"memory: {marks[0] / 1024:.0f} MiB at first, {tenth / 1024:.0f} after a tenth, {max(marks) / 1024:.0f} at most, {t.rss() / 1024:.0f} when the last transactions were over")
        print(f"messages read {metric(t, 'sip_messages_received_total'):.0f}, dropped {metric(t, 'sip_rx_dropped_total'):.0f}, refused {metric(t, 'sip_rejected_total'):.0f}; RTP dropped {metric(t, 'rtp_dropped_total'):.0f}")
        good = t.process.poll() is None and not any("panicked" in line for line in t.log) and sent >= a.count
        print("holds" if good else "DOES NOT HOLD")
        return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
