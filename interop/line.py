"""Lines whose impairment is known exactly: which packets are lost and how late each one is are lists made beforehand, and
what RFC 3550 and ITU-T G.107 make of them is computed from when packets really left and came."""
import heapq
import itertools
import math
import random
import re
import select
import socket
import struct
import time

from phone import SO_TIMESTAMPNS
from sip import Call

# Payload type, rtpmap, clock rate, 20 ms of silence, and its robustness to loss in the E-model (G.113; Opus: docs/audio.md).
CODECS = {
    "PCMU": (0, "PCMU/8000", 8000, b"\xff" * 160, 25.1),
    "PCMA": (8, "PCMA/8000", 8000, b"\xd5" * 160, 25.1),
    "G722": (9, "G722/8000", 8000, b"\x7a" * 160, 25.1),
    "opus": (111, "opus/48000/2", 48000, b"\xf8\xff\xfe", 30.0),
}
REPORTS = 0.5


def lost(packets, percent, burst, seed):
    """The numbers that are lost, exactly so many, in bursts of `burst` on the average; never the first nor the last."""
    dice, count, numbers = random.Random(seed), round(packets * percent / 100), set()
    while len(numbers) < count:
        at, length = dice.randrange(1, packets - 1), min(round(dice.expovariate(1 / burst)) or 1 if burst > 1 else 1, count - len(numbers))
        # A burst stays clear of the others, or it would be a longer one.
        if burst == 1 or not numbers & set(range(at - 1, at + length + 1)):
            numbers |= {n for n in range(at, at + length) if n < packets - 1}
    return numbers


def late(packets, most, seed):
    """Each packet's delay in seconds, up to `most` milliseconds."""
    dice = random.Random(seed)
    # What overtakes the first packet is before the beginning, and nobody counts it.
    return [0.0] + [dice.uniform(0, most / 1000) for _ in range(packets - 1)]


def burst_ratio(numbers, packets):
    """G.107: the mean burst against that of as many losses by chance."""
    if not numbers:
        return 1.0
    bursts = sum(n - 1 not in numbers for n in numbers)
    return max(1.0, len(numbers) / bursts * (1 - len(numbers) / packets))


def jitter(arrivals):
    """The mean difference of transit times (RFC 3550 6.4.1) of (time in seconds, timestamp in seconds), in milliseconds."""
    pairs = itertools.pairwise(sorted(arrivals))
    differences = [abs((b - a) - (y - x)) for (a, x), (b, y) in pairs]
    return 1000 * sum(differences) / len(differences)


def mos(codec, percent, ratio, delay):
    """G.107 with its defaults, of loss in percent and a one-way delay in milliseconds."""
    ro, root = 94.77, lambda x: x / 2 + math.sqrt(x * x / 4 + 100)
    terv = 65 - 40 * math.log10((1 + delay / 10) / (1 + delay / 150)) + 6 * math.exp(-0.3 * delay ** 2)
    talker = (root(ro - (80 + 2.5 * (terv - 14))) - 1) * (1 - math.exp(-delay))
    listener = root(ro - 10.5 * 117 * (2 * delay + 1) ** -0.25)
    absolute, x = 0, math.log2(max(delay, 100) / 100)
    if delay > 100:
        absolute = 25 * ((1 + x ** 6) ** (1 / 6) - 3 * (1 + (x / 3) ** 6) ** (1 / 6) + 2)
    rating = 93.35 - talker - listener - absolute - 95 * percent / (percent / ratio + CODECS[codec][4])
    return 1.0 if rating <= 6.5 else min(4.5, 1 + 0.035 * rating + rating * (rating - 60) * (100 - rating) * 7e-6)


class Line:
    """A call whose peer is at the end of such a line, both ways: it loses and delays what it sends, and what it receives
    before it counts it for its receiver reports, `trip` milliseconds away."""

    def __init__(self, node, user, codec="PCMU", loss=0, burst=1, delay=0, trip=0, packets=600, seed=1):
        self.codec, self.trip, self.packets = codec, trip / 1000, packets
        self.lost, self.late = lost(packets, loss, burst, seed), late(packets, delay, seed + 1)
        # The way back has its own lists, and goes on for longer than what is sent.
        self.lost_back, self.late_back = lost(2 * packets, loss, burst, seed + 2), late(2 * packets, delay, seed + 3)
        self.kind, rtpmap, self.clock, self.payload, _ = CODECS[codec]
        self.rtp, self.control = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for sock in (self.rtp, self.control):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        port, control = (sock.getsockname()[1] for sock in (self.rtp, self.control))
        body = (f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP {self.kind}\r\n"
                f"a=rtpmap:{self.kind} {rtpmap}\r\na=rtcp:{control}\r\n")
        self.call = Call(node, user, body=body)
        assert self.call.final() == 200, self.call.answer
        self.remote = self.call.rtp.remote
        given = re.search(r"^a=rtcp:(\d+)", self.call.answer, re.M)
        self.remote_control = (self.remote[0], int(given.group(1)) if given else self.remote[1] + 1)
        self.sent, self.counted, self.report, self.ssrc = [], [], None, None
        self.first, self.highest, self.smoothed, self.before, self.reports = None, None, 0.0, None, []

    def waits(self):
        """How long a buffer waits for nearly every packet, in milliseconds: for all but one in thirty."""
        late = sorted(at - due for at, due in self.sent)
        return 1000 * (late[len(late) * 29 // 30] - late[0]) + 7

    def receive(self, sock):
        """Datagrams and when the kernel had them."""
        clocks = time.monotonic() - time.time()
        try:
            while True:
                data, ancillary, _, _ = sock.recvmsg(2048, 64)
                stamps = [struct.unpack("qq", d[:16]) for level, kind, d in ancillary if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS]
                yield data, (stamps[0][0] + stamps[0][1] / 1e9 + clocks if stamps else time.monotonic())
        except BlockingIOError:
            return

    def say(self, n):
        units = n * self.clock // 50
        packet = struct.pack("!BBHII", 0x80, self.kind, n & 0xFFFF, units, 77) + self.payload
        at = time.monotonic()
        self.rtp.sendto(packet, self.remote)
        self.sent.append((at, n / 50))

    def arrivals(self):
        """What has come, each when the line lets it arrive."""
        for data, at in self.receive(self.rtp):
            sequence, stamp, self.ssrc = struct.unpack("!HII", data[2:12])
            if self.first is None:
                self.first = sequence
            n = (sequence - self.first) & 0xFFFF
            if n < len(self.late_back) and n not in self.lost_back:
                yield at + self.late_back[n], lambda n=n, stamp=stamp, at=at + self.late_back[n]: self.count(n, stamp, at)
        for data, at in self.receive(self.control):
            if data[1] == 200:
                ntp = struct.unpack("!Q", data[8:16])[0] >> 16 & 0xFFFFFFFF
                yield at + self.trip / 2, lambda ntp=ntp, at=at + self.trip / 2: setattr(self, "report", (ntp, at))

    def count(self, n, stamp, at):
        """A packet has arrived at the far end (RFC 3550 A.3, A.8)."""
        self.counted.append((at, n))
        self.highest = max(n, self.highest or 0)
        transit = at - stamp / self.clock
        if self.before is not None:
            # The timestamp may wrap; a difference of hours is that.
            difference = abs(transit - self.before)
            if difference < 3600:
                self.smoothed += (difference - self.smoothed) / 16
        self.before = transit

    def tell(self):
        """The report that leaves the far end now is here half a round trip later."""
        if self.highest is None:
            return None
        gone = self.highest + 1 - len(self.counted)
        ntp, since = self.report or (0, 0)
        waited = max(0, int((time.monotonic() - since) * 65536)) if ntp else 0
        block = struct.pack("!IIIIII", self.ssrc, max(gone, 0) & 0xFFFFFF, (self.first + self.highest) & 0xFFFFFFFF, int(self.smoothed * self.clock), ntp, waited)
        self.reports.append((self.smoothed * 1000, max(gone, 0), self.highest + 1))
        return lambda: self.control.sendto(struct.pack("!BBHI", 0x81, 201, 7, 99) + block, self.remote_control)


def run(lines):
    """Lets all of them talk at once until each has sent what it has to send and what is late has come."""
    order, due = itertools.count(), []
    later = lambda at, work: heapq.heappush(due, (at, next(order), work))
    start = time.monotonic() + 0.1
    end = start + max(line.packets for line in lines) / 50 + 0.5
    for line in lines:
        for n in range(line.packets):
            if n not in line.lost:
                later(start + n / 50 + line.late[n], lambda line=line, n=n: line.say(n))
        for n in range(1, int((end - start) / REPORTS)):
            def tell(line=line):
                if send := line.tell():
                    later(time.monotonic() + line.trip / 2, send)
            later(start + n * REPORTS, tell)
    owners = {sock: line for line in lines for sock in (line.rtp, line.control)}
    while (now := time.monotonic()) < end:
        while due and due[0][0] <= now:
            heapq.heappop(due)[2]()
        ready, _, _ = select.select(list(owners), [], [], max(0, min(end, due[0][0] if due else end) - time.monotonic()))
        for line in {owners[sock] for sock in ready}:
            for at, work in line.arrivals():
                later(at, work)
