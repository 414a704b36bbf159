"""A small SIP user agent on real sockets, and an RTP leg with a tone to say and an ear."""
import hashlib
import math
import os
import re
import secrets
import socket
import struct
import threading
import time


def header(message, name):
    found = re.search(rf"^{name}\s*:\s*(.*)$", message, re.M | re.I)
    return found.group(1).strip() if found else None


def status(message):
    return int(message.split(" ", 2)[1])


class Socket:
    """One UDP socket or TCP connection that carries whole messages."""

    def __init__(self, transport="udp", source="127.0.0.1", connection=None):
        self.transport = transport
        self.buffer = b""
        if connection:
            self.socket = connection
        else:
            kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
            self.socket = socket.socket(socket.AF_INET, kind)
            self.socket.bind((source, 0))
        self.peer = None

    def address(self):
        return self.socket.getsockname()

    def connect(self, peer):
        self.peer = peer
        if self.transport == "tcp":
            self.socket.connect(peer)

    def send(self, text):
        data = text.encode() if isinstance(text, str) else text
        self.socket.sendto(data, self.peer) if self.transport == "udp" else self.socket.sendall(data)

    def receive(self, seconds=5):
        self.socket.settimeout(seconds)
        try:
            if self.transport == "udp":
                data, self.peer = self.socket.recvfrom(65535)
                return data.decode(errors="replace")
            while True:
                head, sep, rest = self.buffer.partition(b"\r\n\r\n")
                if sep:
                    length = int(header(head.decode(), "Content-Length"))
                    if len(rest) >= length:
                        self.buffer = rest[length:]
                        return (head + sep + rest[:length]).decode()
                data = self.socket.recv(65535)
                if not data:
                    return None
                self.buffer += data
        except socket.timeout:
            return None


def sdp(ip, port, profile="RTP/AVP", extra=""):
    return f"v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} {profile} 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n{extra}"


class Call:
    """An outgoing call towards tandem."""

    def __init__(self, node, user, transport="udp", source="127.0.0.1", from_host=None, body=None, host=None, contact=None):
        self.socket = Socket(transport, source)
        self.socket.connect(node)
        self.rtp = Rtp(source)
        ip, port = self.socket.address()
        self.host = host or f"{node[0]}:{node[1]}"
        self.uri = f"sip:{user}@{self.host}"
        self.id, self.tag, self.branch = secrets.token_hex(8), secrets.token_hex(4), secrets.token_hex(6)
        self.from_line = f"<sip:+14155550111@{from_host or ip}>;tag={self.tag}"
        self.contact = contact or f"<sip:peer@{ip}:{port}>"
        self.to_line = f"<{self.uri}>"
        self.via = f"SIP/2.0/{transport.upper()} {ip}:{port};rport"
        self.body = sdp(ip, self.rtp.port) if body is None else body
        self.socket.send(self.request("INVITE", 1, self.body))

    def request(self, method, cseq, body="", branch=None):
        kind = "Content-Type: application/sdp\r\n" if body else ""
        return (f"{method} {self.uri} SIP/2.0\r\nVia: {self.via};branch=z9hG4bK{branch or self.branch}\r\nMax-Forwards: 70\r\nFrom: {self.from_line}\r\n"
                f"To: {self.to_line}\r\nCall-ID: {self.id}\r\nCSeq: {cseq} {method}\r\nContact: {self.contact}\r\n{kind}Content-Length: {len(body)}\r\n\r\n{body}")

    def final(self, seconds=5):
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            answer = self.socket.receive(left)
            if answer and status(answer) >= 200:
                self.to_line = header(answer, "To")
                self.answer = answer
                if status(answer) < 300:
                    self.socket.send(self.request("ACK", 1, branch=secrets.token_hex(6)))
                    remote = re.search(r"^m=audio (\d+)", answer, re.M)
                    self.rtp.to(re.search(r"^c=IN IP4 (\S+)", answer, re.M).group(1), int(remote.group(1)))
                else:
                    self.socket.send(self.request("ACK", 1))
                return status(answer)
        return None

    def bye(self):
        self.socket.send(self.request("BYE", 2, branch=secrets.token_hex(6)))
        answer = self.socket.receive()
        assert answer and status(answer) == 200, answer


def encode_ulaw(sample):
    sign, magnitude = (0x80, -sample) if sample < 0 else (0, sample)
    magnitude = min(magnitude, 32635) + 132
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | (magnitude >> (exponent + 3)) & 15) & 0xFF


def decode_ulaw(byte):
    byte = ~byte & 0xFF
    magnitude = (((byte & 15) << 3) + 132 << (byte >> 4 & 7)) - 132
    return -magnitude if byte & 0x80 else magnitude


class Rtp:
    def __init__(self, source="127.0.0.1"):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((source, 0))
        self.port = self.socket.getsockname()[1]
        self.sent, self.received = [], []

    def to(self, ip, port):
        self.remote = (ip, port)

    def talk(self, hz, seconds=1.0, agent_speaks=False):
        """Says a tone in 20 ms packets while listening; returns the received payloads."""
        ssrc, start = secrets.randbits(32), time.monotonic()
        for n in range(int(seconds * 50)):
            payload = bytes(encode_ulaw(int(12000 * math.sin(2 * math.pi * hz * (n * 160 + i) / 8000))) for i in range(160))
            self.socket.sendto(struct.pack("!BBHII", 0x80, 0, n, n * 160, ssrc) + payload, self.remote)
            self.sent.append(payload)
            self.listen(start + (n + 1) * 0.02)
        self.listen(time.monotonic() + 0.1)
        return self.received

    def listen(self, until):
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                packet = self.socket.recv(2048)
                self.received.append(packet[12:])
            except socket.timeout:
                return

    def hears(self, hz):
        samples = [decode_ulaw(b) for payload in self.received[5:] for b in payload]
        assert len(samples) > 2000, f"only {len(self.received)} packets came"
        re_, im = (sum(s * f(2 * math.pi * hz * n / 8000) for n, s in enumerate(samples)) for f in (math.cos, math.sin))
        tone = 2 * math.hypot(re_, im) / len(samples)
        total = math.sqrt(2 * sum(s * s for s in samples) / len(samples))
        assert tone > 1000 and tone > 0.7 * total, f"{hz} Hz at {tone:.0f} of {total:.0f}"


class Carrier:
    """Takes calls from tandem in a thread: `script(carrier, invite)` says what to do with each INVITE."""

    def __init__(self, script, transport="udp"):
        self.transport, self.script, self.requests = transport, script, []
        self.rtp = Rtp()
        self.failure = None
        if transport == "udp":
            self.socket = Socket()
            self.address = self.socket.address()
        else:
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.address = self.listener.getsockname()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            if self.transport == "tcp":
                self.listener.settimeout(40)
                self.socket = Socket("tcp", connection=self.listener.accept()[0])
            while (request := self.socket.receive(40)) is not None:
                self.requests.append(request)
                if self.script(self, request) == "end":
                    return
        except Exception as error:
            self.failure = error

    def reply(self, request, line, extra="", body=""):
        vias = "".join(f"Via: {v}\r\n" for v in re.findall(r"^Via\s*:\s*(.*?)\r?$", request, re.M))
        to = header(request, "To")
        to = to if "tag=" in to or line.startswith("100") else f"{to};tag=carrier"
        kind = "Content-Type: application/sdp\r\n" if body else ""
        ip, port = self.address
        self.socket.send(f"SIP/2.0 {line}\r\n{vias}From: {header(request, 'From')}\r\nTo: {to}\r\nCall-ID: {header(request, 'Call-ID')}\r\nCSeq: {header(request, 'CSeq')}\r\n"
                         f"Contact: <sip:carrier@{ip}:{port}>\r\n{extra}{kind}Content-Length: {len(body)}\r\n\r\n{body}")

    def accept(self, request):
        remote = re.search(r"^m=audio (\d+)", request, re.M)
        self.rtp.to(re.search(r"^c=IN IP4 (\S+)", request, re.M).group(1), int(remote.group(1)))
        self.reply(request, "200 OK", body=sdp("127.0.0.1", self.rtp.port))

    def verify(self, value, algorithm, username, password, method):
        digest = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}[algorithm]
        h = lambda *parts: digest(":".join(parts).encode()).hexdigest()
        get = lambda name: re.search(rf'\b{name}="?([^",]+)"?', value).group(1)
        expected = h(h(username, get("realm"), password), get("nonce"), get("nc"), get("cnonce"), "auth", h(method, get("uri")))
        assert get("response") == expected, value
