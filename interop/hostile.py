"""What attackers, and carriers with a password, send: raw requests, digest answers, sprays."""
import hashlib
import re
import secrets
import socket
import struct
import urllib.request

from sip import sdp, status


class Raw:
    """A UDP socket that sends requests of any kind and keeps no dialog."""

    def __init__(self, node, source="127.0.0.1"):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((source, 0))
        self.node = node
        self.ip, self.port = self.socket.getsockname()

    def request(self, method, user, extra="", body=None, cseq=1, call_id=None, branch=None, to_tag="", uri=None, from_tag=None):
        uri = uri or f"sip:{user}@{self.node[0]}:{self.node[1]}"
        body = (sdp(self.ip, 40000) if method == "INVITE" else "") if body is None else body
        kind = "Content-Type: application/sdp\r\n" if body else ""
        self.call_id, self.uri = call_id or secrets.token_hex(8), uri
        self.from_tag = from_tag or secrets.token_hex(4)
        return (f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {self.ip}:{self.port};branch=z9hG4bK{branch or secrets.token_hex(6)};rport\r\nMax-Forwards: 70\r\n"
                f"From: <sip:+14155550111@{self.ip}>;tag={self.from_tag}\r\nTo: <{uri}>{to_tag}\r\nCall-ID: {self.call_id}\r\nCSeq: {cseq} {method}\r\n"
                f"Contact: <sip:x@{self.ip}:{self.port}>\r\n{extra}{kind}Content-Length: {len(body)}\r\n\r\n{body}")

    def send(self, data):
        self.socket.sendto(data.encode() if isinstance(data, str) else data, self.node)

    def receive(self, seconds=2.0):
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(65535).decode(errors="replace")
        except socket.timeout:
            return None

    def ask(self, data, seconds=2.0):
        """Sends, and returns the first final answer."""
        self.send(data)
        while (answer := self.receive(seconds)) is not None:
            if status(answer) >= 200:
                return answer
        return None

    def silence(self):
        """Takes what has come until now: nothing, if all is well."""
        self.socket.setblocking(False)
        came = []
        try:
            while True:
                came.append(self.socket.recv(65535))
        except BlockingIOError:
            return came


HASHES = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


def challenges(answer):
    """The challenges of a 401, by algorithm."""
    values = re.findall(r"^WWW-Authenticate:\s*(.*?)\r?$", answer, re.M)
    parsed = [dict(re.findall(r'(\w+)="?([^",]*)"?', value.split(" ", 1)[1])) for value in values]
    return {c["algorithm"]: c for c in parsed}


def authorization(challenge, username, password, uri, method="INVITE", count=1, **changes):
    """The Authorization header line that answers a challenge; `changes` are what is to be wrong."""
    h = lambda *parts: HASHES[challenge["algorithm"]](":".join(parts).encode()).hexdigest()
    a = {"username": username, "realm": challenge["realm"], "nonce": challenge["nonce"], "uri": uri, "nc": f"{count:08x}", "cnonce": "c0ffee",
         "qop": "auth", "algorithm": challenge["algorithm"]}
    a["response"] = h(h(username, a["realm"], password), a["nonce"], a["nc"], a["cnonce"], a["qop"], h(method, uri))
    a.update(changes)
    plain = ("nc", "qop", "algorithm")
    return "Authorization: Digest " + ", ".join(f"{k}={v}" if k in plain else f'{k}="{v}"' for k, v in a.items()) + "\r\n"


def rtp(payload, sequence=1, timestamp=160, ssrc=0x6666, payload_type=0):
    return struct.pack("!BBHII", 0x80, payload_type, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + payload


def metric(t, name, **labels):
    """A counter's value, over all its labels that are not named."""
    text = urllib.request.urlopen(t.http + "/metrics", timeout=10).read().decode()
    total = 0
    for line in text.splitlines():
        found = re.match(rf"(?:tandem_)?{name}(?:\{{(.*?)\}})? (\S+)$", line)
        if found and all(f'{k}="{v}"' in (found.group(1) or "") for k, v in labels.items()):
            total += float(found.group(2))
    return total
