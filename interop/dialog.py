"""A peer that goes on inside its dialog: re-INVITE, UPDATE, REFER and what tandem asks of it; tones in both G.711 laws."""
import math
import re
import secrets
import socket
import struct
import threading
import time

import sip
from sip import Call, Rtp, header, status


def encode_alaw(sample):
    sign = 0x80 if sample >= 0 else 0
    magnitude = min(abs(sample), 32635)
    exponent = max(magnitude.bit_length() - 8, 0)
    mantissa = (magnitude >> (exponent + 3 if exponent else 4)) & 15
    return (sign | exponent << 4 | mantissa) ^ 0x55


def decode_alaw(byte):
    byte ^= 0x55
    exponent, mantissa = byte >> 4 & 7, byte & 15
    magnitude = (mantissa << 4) + 8 if exponent == 0 else ((mantissa << 4) + 0x108) << (exponent - 1)
    return magnitude if byte & 0x80 else -magnitude


LAWS = {0: (sip.encode_ulaw, sip.decode_ulaw, "PCMU"), 8: (encode_alaw, decode_alaw, "PCMA")}


class Ear(Rtp):
    """An RTP leg that speaks and hears one payload type, in a thread where it is to go on meanwhile."""

    def __init__(self, payload_type=0, source="127.0.0.1"):
        super().__init__(source)
        self.payload_type = payload_type
        self.numbers = [secrets.randbits(31), 0]
        self.others = 0

    def say(self, hz, seconds):
        encode = LAWS[self.payload_type][0]
        (ssrc, begun), start = self.numbers, time.monotonic()
        self.received = []
        for n in range(begun, begun + int(seconds * 50)):
            payload = bytes(encode(int(12000 * math.sin(2 * math.pi * hz * (n * 160 + i) / 8000))) for i in range(160))
            self.socket.sendto(struct.pack("!BBHII", 0x80, self.payload_type, n & 0xFFFF, n * 160, ssrc) + payload, self.remote)
            self.numbers[1] = n + 1
            self.hear(start + (n - begun + 1) * 0.02)
        self.hear(time.monotonic() + 0.08)

    def hear(self, until):
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                packet = self.socket.recv(2048)
            except socket.timeout:
                return
            if packet[1] & 0x7F == self.payload_type:
                self.received.append(packet[12:])
            else:
                self.others += 1

    def hears(self, hz):
        """In at least half of the stretches of 100 ms: a busy machine makes gaps, and never another tone."""
        decode = LAWS[self.payload_type][1]
        samples = [decode(b) for payload in self.received[8:] for b in payload]
        assert len(samples) > 1600, f"only {len(self.received)} packets came"
        found = []
        for at in range(0, len(samples) - 799, 800):
            stretch = samples[at:at + 800]
            re_, im = (sum(s * f(2 * math.pi * hz * n / 8000) for n, s in enumerate(stretch)) for f in (math.cos, math.sin))
            loud = 2 * math.hypot(re_, im) / len(stretch)
            total = math.sqrt(2 * sum(s * s for s in stretch) / len(stretch)) or 1
            found.append(loud > 1000 and loud > 0.7 * total)
        assert sum(found) * 2 >= len(found), f"{hz} Hz in {sum(found)} of {len(found)} stretches"


def both_say(one, hz_one, other, hz_other, seconds):
    thread = threading.Thread(target=other.say, args=(hz_other, seconds))
    thread.start()
    one.say(hz_one, seconds)
    thread.join()


def offer(ip, port, payload_type=0, direction="sendrecv", connection=None, version=1):
    name = LAWS[payload_type][2]
    return (f"v=0\r\no=- 1 {version} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {connection or ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP {payload_type} 101\r\n"
            f"a=rtpmap:{payload_type} {name}/8000\r\na=rtpmap:101 telephone-event/8000\r\na={direction}\r\n")


def media_of(message):
    return re.search(r"^c=IN IP4 (\S+)", message, re.M).group(1), int(re.search(r"^m=audio (\d+)", message, re.M).group(1))


class Peer(Call):
    """A caller that goes on in its dialog. `waiting` keeps what came while it waited for something else."""

    def __init__(self, node, user, headers="", **more):
        self.extra, self.cseq, self.waiting = headers, 1, []
        super().__init__(node, user, **more)

    def request(self, method, cseq, body="", branch=None, extra=None, kind="application/sdp"):
        text = super().request(method, cseq, body, branch)
        head, _, rest = text.partition("\r\n\r\n")
        extra = self.extra if extra is None and method == "INVITE" else extra or ""
        head = head.replace("Content-Type: application/sdp", f"Content-Type: {kind}")
        return head + "\r\n" + extra.rstrip() + ("\r\n" if extra else "") + "\r\n" + rest

    def next(self, seconds=5):
        return self.waiting.pop(0) if self.waiting else self.socket.receive(seconds)

    def wait(self, wanted, seconds=5):
        """The next message that `wanted` takes; others are kept."""
        kept, deadline = [], time.monotonic() + seconds
        try:
            while (left := deadline - time.monotonic()) > 0:
                message = self.next(left)
                if message and wanted(message):
                    return message
                if message:
                    kept.append(message)
            raise AssertionError(f"nothing wanted came; instead {[m.splitlines()[0] for m in kept]}")
        finally:
            self.waiting = kept + self.waiting

    def asked(self, method, seconds=5):
        return self.wait(lambda m: m.startswith(f"{method} "), seconds)

    def ask(self, method, body="", extra="", kind="application/sdp", seconds=5):
        """A request in the dialog and its final response; the ACK of an INVITE is sent."""
        self.cseq += 1
        cseq = self.cseq
        self.target()
        self.socket.send(self.request(method, cseq, body, secrets.token_hex(6), extra, kind))
        final = lambda m: m.startswith("SIP/2.0 ") and status(m) >= 200 and header(m, "CSeq") == f"{cseq} {method}"
        answer = self.wait(final, seconds)
        if method == "INVITE" and status(answer) < 300:
            self.ack = lambda body="": self.socket.send(self.request("ACK", cseq, body, secrets.token_hex(6), ""))
        return answer

    def target(self):
        contact = header(self.answer, "Contact")
        if contact:
            self.uri = re.search(r"<([^>]+)>", contact).group(1)

    def reply(self, request, line, extra="", body=""):
        vias = "".join(f"Via: {v}\r\n" for v in re.findall(r"^Via\s*:\s*(.*?)\r?$", request, re.M))
        kind = "Content-Type: application/sdp\r\n" if body else ""
        self.socket.send(f"SIP/2.0 {line}\r\n{vias}From: {header(request, 'From')}\r\nTo: {header(request, 'To')}\r\nCall-ID: {header(request, 'Call-ID')}\r\n"
                         f"CSeq: {header(request, 'CSeq')}\r\nContact: {self.contact}\r\n{extra}{kind}Content-Length: {len(body)}\r\n\r\n{body}")

    def notify(self, fragment, state="active;expires=60"):
        answer = self.ask("NOTIFY", fragment + "\r\n", f"Event: refer\r\nSubscription-State: {state}\r\n", "message/sipfrag;version=2.0")
        assert status(answer) == 200, answer

    def ears(self):
        """The audio of the answered call."""
        ear = Ear()
        ear.socket.close()
        ear.socket, ear.port = self.rtp.socket, self.rtp.port
        ear.to(*media_of(self.answer))
        return ear
