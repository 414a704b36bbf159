"""SRTP legs on libsrtp: what tandem protects is opened by somebody else's code, and the other way round."""
import base64
import os
import re
import socket

import pylibsrtp

# Suite: libsrtp's profile, bytes of key and salt, bytes a packet grows by.
SUITES = {
    "AEAD_AES_256_GCM": (pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 44, 16),
    "AEAD_AES_128_GCM": (pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 28, 16),
    "AES_CM_128_HMAC_SHA1_80": (pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30, 10),
    "AES_CM_128_HMAC_SHA1_32": (pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_32, 30, 4),
}


def session(suite, key, inbound):
    kind = pylibsrtp.Policy.SSRC_ANY_INBOUND if inbound else pylibsrtp.Policy.SSRC_ANY_OUTBOUND
    policy = pylibsrtp.Policy(key, kind, srtp_profile=SUITES[suite][0])
    policy.window_size = 1024
    return pylibsrtp.Session(policy)


class Key:
    """One side's line."""

    def __init__(self, suite="AES_CM_128_HMAC_SHA1_80", tag=1):
        self.suite, self.tag, self.bytes = suite, tag, os.urandom(SUITES[suite][1])

    def line(self, more="", padding=True):
        text = base64.b64encode(self.bytes).decode()
        return f"a=crypto:{self.tag} {self.suite} inline:{text if padding else text.rstrip('=')}{more}\r\n"


def lines(sdp):
    """Tag, suite and key of each line of a description."""
    found = re.findall(r"^a=crypto:(\d+) (\S+) inline:([A-Za-z0-9+/=]+)\r?$", sdp, re.M)
    return [(int(tag), suite, base64.b64decode(key)) for tag, suite, key in found]


def profile(sdp):
    return re.search(r"^m=audio \d+ (\S+)", sdp, re.M).group(1)


class Secure:
    """A socket that protects what it sends and opens what it receives; `raw` is what was on the wire."""

    def __init__(self, inner, ours, theirs):
        self.inner, self.raw, self.sent, self.unopened = inner, [], [], 0
        self.key(ours, theirs)

    def key(self, ours, theirs):
        self.outbound, self.inbound = session(ours.suite, ours.bytes, False), session(ours.suite, theirs, True)

    def sendto(self, packet, to):
        self.sent.append(self.outbound.protect(packet))
        self.inner.sendto(self.sent[-1], to)

    def recv(self, size):
        packet = self.inner.recv(size)
        if 192 <= packet[1] <= 223:
            return self.recv(size)
        self.raw.append(packet)
        try:
            return self.inbound.unprotect(packet)
        except pylibsrtp.Error:
            self.unopened += 1
            raise socket.timeout from None

    def settimeout(self, seconds):
        self.inner.settimeout(seconds)

    def getsockname(self):
        return self.inner.getsockname()


def secure(rtp, ours, answer):
    """Makes a leg secure by the line of the other side that takes ours up; returns its tag."""
    (tag, suite, theirs), = lines(answer)
    assert suite == ours.suite, (suite, ours.suite)
    if isinstance(rtp.socket, Secure):
        rtp.socket.key(ours, theirs)
    else:
        rtp.socket = Secure(rtp.socket, ours, theirs)
    return tag


def spy(rtp):
    """Keeps what comes in on a plain leg as it was on the wire."""
    class Spy(Secure):
        def key(self, *_):
            pass

        def sendto(self, packet, to):
            self.inner.sendto(packet, to)

        def recv(self, size):
            self.raw.append(self.inner.recv(size))
            return self.raw[-1]
    rtp.socket = Spy(rtp.socket, None, None)


def on_the_wire(rtp):
    """`clear` or `encrypted`: whether any payload that was heard stands in a packet as it came."""
    assert rtp.received, "nothing came"
    said = set(rtp.sent) | set(rtp.received)
    return "clear" if any(packet[12:] in said or any(s in packet for s in said) for packet in rtp.socket.raw) else "encrypted"

