"""Somebody at a telephone behind a carrier, whom tandem calls: rings, answers, talks and listens, hangs up."""
import re
import secrets
import threading
import types

from phone import Phone
from sip import Carrier, header
from tandem import wait_for


class Human(Phone):
    """Answers the calls of `carrier`, one after the other, after `answers.wait()`, or with `refuses` at once."""

    def __init__(self, hz, refuses=None, patient=False):
        self.hz, self.refuses, self.heard, self.running = hz, refuses, [], False
        self.answers, self.rings, self.gone = threading.Event(), threading.Event(), threading.Event()
        if not patient:
            self.answers.set()
        self.pending = None
        self.carrier = Carrier(self.script)
        self.call = types.SimpleNamespace(rtp=self.carrier.rtp)

    def script(self, carrier, request):
        method = request.split(" ", 1)[0]
        if method == "INVITE":
            self.invite = request
            self.rings.set()
            if self.refuses:
                return carrier.reply(request, self.refuses)
            carrier.reply(request, "180 Ringing")
            self.peer = carrier.socket.peer
            threading.Thread(target=self.answer, args=(request,), daemon=True).start()
        elif method == "CANCEL":
            carrier.reply(request, "200 OK")
            carrier.reply(self.invite, "487 Request Terminated")
            self.gone.set()
        elif method == "BYE":
            carrier.reply(request, "200 OK")
            self.stop()
            self.gone.set()

    def answer(self, request):
        self.answers.wait(30)
        if self.gone.is_set() or request is not self.invite:
            return
        self.carrier.socket.peer = self.peer
        self.carrier.accept(request)
        self.running = True
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def hang_up(self):
        self.stop()
        uri = re.search(r"<([^>]+)>", header(self.invite, "Contact")).group(1)
        ip, port = self.carrier.address
        self.carrier.socket.peer = self.peer
        self.carrier.socket.send(
            f"BYE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {ip}:{port};branch=z9hG4bK{secrets.token_hex(6)}\r\nMax-Forwards: 70\r\n"
            f"From: {header(self.invite, 'To')};tag=carrier\r\nTo: {header(self.invite, 'From')}\r\nCall-ID: {header(self.invite, 'Call-ID')}\r\n"
            f"CSeq: 1 BYE\r\nContact: <sip:carrier@{ip}:{port}>\r\nContent-Length: 0\r\n\r\n")

    def speaks(self):
        wait_for("the human's answer", 5, lambda: self.running)
        return self
