"""A phone that talks and listens for as long as its call lasts, so that a test can look at what was heard when."""
import math
import select
import socket
import struct
import threading
import time

from sip import Call, decode_ulaw, encode_ulaw
from tandem import wait_for

SO_TIMESTAMPNS = 35
TABLE = [decode_ulaw(b) for b in range(256)]


class Phone:
    """Dials `user` and, once answered, says `hz` (None: silence) in 20 ms packets and keeps what it hears."""

    def __init__(self, node, user, hz=None, **call):
        self.call = Call(node, user, **call)
        self.hz, self.heard, self.running = hz, [], False

    def answered(self, expected=200, seconds=12):
        status = self.call.final(seconds)
        assert status == expected, (status, getattr(self.call, "answer", None))
        if status == 200:
            self.running = True
            self.thread = threading.Thread(target=self.run, daemon=True)
            self.thread.start()
        return self

    def run(self):
        rtp, start, n, phase = self.call.rtp.socket, time.monotonic(), 0, 0.0
        rtp.setblocking(False)
        # When the kernel had the packet, not when this thread got its turn.
        rtp.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        clocks = time.monotonic() - time.time()
        while self.running:
            now = time.monotonic()
            if now >= start + n * 0.02:
                if self.hz:
                    step = 2 * math.pi * self.hz / 8000
                    payload = bytes(encode_ulaw(int(12000 * math.sin(phase + step * i))) for i in range(160))
                    phase = (phase + step * 160) % (2 * math.pi)
                else:
                    payload = b"\xff" * 160
                rtp.sendto(struct.pack("!BBHII", 0x80, 0, n & 0xFFFF, n * 160, 7) + payload, self.call.rtp.remote)
                n += 1
            select.select([rtp], [], [], max(0, start + n * 0.02 - time.monotonic()))
            try:
                while True:
                    packet, ancillary, _, _ = rtp.recvmsg(2048, 64)
                    kind, seq, stamp = packet[1] & 127, *struct.unpack("!HI", packet[2:8])
                    if kind == 0:
                        arrived = [struct.unpack("qq", data[:16]) for level, kind, data in ancillary if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS]
                        at = arrived[0][0] + arrived[0][1] / 1e9 + clocks if arrived else time.monotonic()
                        self.heard.append((at, seq, stamp, packet[12:]))
            except BlockingIOError:
                pass

    def press(self, digit, sequence=50000):
        """A telephone-event with its end packets."""
        event = "0123456789*#ABCD".index(digit)
        stamp = sequence * 160
        for n, (end, duration) in enumerate([(0, 160), (0, 480), (0x80, 800), (0x80, 800), (0x80, 800)]):
            self.call.rtp.socket.sendto(struct.pack("!BBHIIBBH", 0x80, 101, (sequence + n) & 0xFFFF, stamp, 7, event, end | 10, duration), self.call.rtp.remote)

    def samples(self, since=0.0, until=float("inf")):
        return [TABLE[b] for at, _, _, payload in list(self.heard) if since <= at < until for b in payload]

    def hears_until(self, at):
        """Waits until what came by then is here."""
        wait_for("the audio after it", 5 + max(0, at - time.monotonic()), lambda: self.heard and self.heard[-1][0] > at)

    def loud(self, payload):
        return max(abs(TABLE[b]) for b in payload) > 500

    def hang_up(self):
        self.stop()
        self.call.bye()

    def stop(self):
        self.running = False
        if hasattr(self, "thread"):
            self.thread.join()

    def bye_came(self, seconds=5):
        """Waits for the other side's BYE and answers it."""
        deadline = time.monotonic() + seconds
        self.call.socket.socket.settimeout(seconds)
        while (left := deadline - time.monotonic()) > 0:
            try:
                message = self.call.socket.receive(left)
            except socket.timeout:
                break
            if message and message.startswith("BYE "):
                head = message.split("\r\n\r\n")[0].split("\r\n")[1:]
                keep = [l for l in head if l.split(":")[0] in ("Via", "From", "To", "Call-ID", "CSeq")]
                self.call.socket.send("SIP/2.0 200 OK\r\n" + "\r\n".join(keep) + "\r\nContent-Length: 0\r\n\r\n")
                self.stop()
                return True
        return False
