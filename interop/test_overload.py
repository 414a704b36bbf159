"""A node that is given more than it can do, and peers that are gone from one moment to the next."""
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import threading
import time

from hostile import Raw, metric
from sip import Call, header, sdp, status
from tandem import Tandem, alone, wait_for
from test_inbound import number_on_trunk

NUMBER = "+14155550100"


class Slowed:
    """A node that has a fifth of the time: stopped for 80 ms of every 100, as a quota on its processor does."""

    def __init__(self, t):
        self.pid, self.over = t.process.pid, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.over.is_set():
            os.kill(self.pid, signal.SIGSTOP)
            self.over.wait(0.08)
            os.kill(self.pid, signal.SIGCONT)
            self.over.wait(0.02)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


class Callers:
    """Many callers behind one socket: each INVITE is its own call, and ends it once it is answered."""

    def __init__(self, node):
        self.raw, self.over = Raw(node, "127.0.0.2"), threading.Event()
        self.raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.answers = {}
        self.refused = None
        # More and more of them, until it is enough.
        self.rate, self.enough = 500, threading.Event()
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self.call, self.listen)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def call(self):
        pattern = self.raw.request("INVITE", NUMBER, call_id="CALL", branch="BRANCH", from_tag="TAG")
        begun = time.monotonic()
        while not self.over.is_set():
            self.over.wait(0.01)
            if not self.enough.is_set():
                self.rate = min(self.rate * 1.01, 20_000)
            elapsed, begun = time.monotonic() - begun, time.monotonic()
            for _ in range(int(self.rate * elapsed)):
                one = secrets.token_hex(8)
                self.raw.send(pattern.replace("CALL", one, 1).replace("BRANCH", one, 1).replace("TAG", one, 1))

    def listen(self):
        quiet = 0
        while quiet < 3:
            answer = self.raw.receive(0.5)
            quiet = quiet + 1 if answer is None and self.over.is_set() else 0
            if answer is None or not answer.startswith("SIP/2.0") or not header(answer, "CSeq").endswith("INVITE") or status(answer) < 200:
                continue
            code = status(answer)
            self.answers[code] = self.answers.get(code, 0) + 1
            line = lambda method, cseq: (f"{method} {self.raw.uri} SIP/2.0\r\nVia: SIP/2.0/UDP {self.raw.ip}:{self.raw.port};branch=z9hG4bK{secrets.token_hex(6)};rport\r\nMax-Forwards: 70\r\n"
                                         f"From: {header(answer, 'From')}\r\nTo: {header(answer, 'To')}\r\nCall-ID: {header(answer, 'Call-ID')}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n")
            if code == 200:
                self.raw.send(line("ACK", 1))
                self.raw.send(line("BYE", 2))
            elif code == 503:
                self.refused = answer


def in_time(call, request, seconds):
    """How long a request takes to its final answer, sent again as RFC 3261 has it."""
    begun, wait = time.monotonic(), 0.5
    while time.monotonic() - begun < seconds:
        call.socket.send(request)
        again = time.monotonic() + wait
        while (left := again - time.monotonic()) > 0:
            answer = call.socket.receive(left)
            if answer and answer.startswith("SIP/2.0") and status(answer) >= 200 and header(answer, "CSeq") in request:
                return time.monotonic() - begun, answer
        wait = min(wait * 2, 4)
    raise AssertionError(f"no answer within {seconds} s")


@alone
def test_a_node_that_is_behind_turns_new_calls_away_and_keeps_those_it_has(binary):
    with Tandem(binary, ["media.ports=20000-31999", "limits.max_calls=100000"]) as t:
        trunk = number_on_trunk(t, ["127.0.0.0/8"])
        held = [Call(t.udp, NUMBER, source="127.0.0.3") for _ in range(8)]
        assert [call.final() for call in held] == [200] * 8
        over = lambda: metric(t, "sip_rejected_total", reason="overload")
        with Slowed(t):
            # Slow as it is, it keeps up with a few calls.
            for _ in range(10):
                call = Call(t.udp, NUMBER, source="127.0.0.4")
                assert call.final() == 200
                call.bye()
            assert over() == 0
            with Callers(t.udp) as callers:
                wait_for("new calls are turned away", 15, over)
                callers.enough.set()
                worst = 0.0
                for call in held:
                    took, answer = in_time(call, call.request("INVITE", 2, call.body, secrets.token_hex(6)), 8)
                    assert status(answer) == 200, answer
                    call.socket.send(call.request("ACK", 2, branch=secrets.token_hex(6)))
                    worst = max(worst, took)
                for call in held[:4]:
                    took, answer = in_time(call, call.request("BYE", 3, branch=secrets.token_hex(6)), 8)
                    assert status(answer) == 200, answer
                    worst = max(worst, took)
                print(f"at {callers.rate:.0f} calls/s answered {callers.answers}, within the calls after {worst * 1e3:.0f} ms at most")
        assert callers.refused and 1 <= int(header(callers.refused, "Retry-After")) <= 5, callers.answers
        # With time again it takes calls again, and those from before are up still.
        after = wait_for("a call", 5, lambda: (lambda c: c if c.final() == 200 else None)(Call(t.udp, NUMBER, source="127.0.0.6")))
        after.bye()
        for call in held[4:]:
            call.rtp.talk(440, 0.3)
            assert call.rtp.received, "it is over"
            assert status(in_time(call, call.request("BYE", 3, branch=secrets.token_hex(6)), 8)[1]) == 200
        decision = next(d for d in t.ok("GET", f"/core/trunks/{trunk}/decisions") if d["status"] == 503)
        assert decision["reason"] == "node_overloaded" and "processor" in decision["advice"], decision
        wait_for("the end of all calls", 20, lambda: metric(t, "calls_active") <= 1)


@alone
def test_peers_that_vanish_in_mid_call_leave_nothing_behind(binary):
    """sipp dies with all its calls: their media times out, and every port, descriptor and place comes back."""
    calls = int(os.environ.get("VANISHED_CALLS", "200"))
    with Tandem(binary, ["media.ports=20000-31999", "media.timeout_s=2", "media.initial_timeout_s=5"]) as t, tempfile.TemporaryDirectory() as home:
        agent = t.deployed({"runtime": {"type": "play", "tones": [{"hz": 440, "ms": 20000}] * 3}})
        call = Call(t.udp, agent)
        assert call.final() == 200
        call.bye()
        idle = lambda: metric(t, "calls_active") == 0
        # Of 12,000 ports every second one carries RTP.
        ports = 6_000
        wait_for("the first call's end", 3, lambda: idle() and metric(t, "rtp_ports_free") == ports)
        descriptors = lambda: len(os.listdir(f"/proc/{t.process.pid}/fd"))
        open_before, before = descriptors(), t.rss()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            media = free.getsockname()[1] & ~1
        p = subprocess.Popen(["sipp", "-sn", "uac", "-s", agent, "%s:%d" % t.udp, "-i", "127.0.0.1", "-r", "100", "-m", str(calls), "-l", str(calls), "-d", "600000", "-rtp_echo",
                              "-mp", str(media), "-nostdin"], cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for("all calls", 10 + calls / 100, lambda: metric(t, "calls_active") == calls)
            received = metric(t, "rtp_packets_total", direction="received")
            wait_for("their media", 5, lambda: metric(t, "rtp_packets_total", direction="received") > received + 10 * calls)
            taken, used = metric(t, "rtp_ports_free"), descriptors()
            assert taken == ports - calls and used >= calls, (taken, ports, used)
        finally:
            p.kill()
            p.wait()
        killed = time.monotonic()
        wait_for("their end", 10, idle)
        ended = time.monotonic() - killed
        wait_for("ports and descriptors", 10, lambda: metric(t, "rtp_ports_free") == ports and descriptors() <= open_before + 5)
        assert time.monotonic() - killed < 90
        wait_for("the records", 5, lambda: t.ok("GET", "/core/conversations?status=in_progress&limit=1") == [])
        page = t.ok("GET", "/core/conversations?limit=100")
        assert all(c["status"] == "completed" for c in page), [(c["status"], c["reason"]) for c in page]
        assert {c["reason"] for c in page if c["ended_by"] == "system"} == {"media_timeout"}, page[0]
        again = Call(t.udp, agent)
        assert again.final() == 200
        again.bye()
        print(f"{calls} calls ended {ended:.1f} s after their peer, memory {(t.rss() - before) / 1024:+.1f} MiB")


def test_a_stranger_is_told_of_what_we_can_in_no_more_bytes_than_it_sent(binary):
    """A forged source must not get more from us than its forger sends; whoever cannot have one hears everything."""
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.2"])
        raw = Raw(t.udp, "127.0.0.66")
        capabilities = ("Allow", "Accept", "Supported")
        told = []
        for length in range(0, 400, 20):
            request = raw.request("OPTIONS", "100", "User-Agent: " + "friendly-scanner" * 30 + "\r\n")
            request = request.replace("friendly-scanner" * 30, ("friendly-scanner" * 30)[:length + 1])
            answer = raw.ask(request)
            assert status(answer) == 200 and len(answer) <= len(request), (request, answer)
            told.append([name for name in capabilities if header(answer, name)])
        assert told[0] == [] and told[-1] == list(capabilities) and told == sorted(told, key=len), told
        # What they are refused with, all in all.
        sent = received = 0
        for method, user in (("INVITE", "+14155550100"), ("INVITE", "100"), ("INVITE", "01890000-0000-7000-8000-000000000000"), ("REGISTER", "100"), ("BYE", "100"), ("SUBSCRIBE", "100"), ("FOO", "100")):
            request = raw.request(method, user)
            answer = raw.ask(request)
            assert raw.silence() == [] and (status(answer) != 405 or "INVITE" in header(answer, "Allow")), answer
            sent, received = sent + len(request), received + len(answer)
        assert received < sent, (received, sent)
        known = Raw(t.udp, "127.0.0.2")
        answers = [known.ask(known.request("OPTIONS", "100"))]
        with socket.socket() as s:
            s.bind(("127.0.0.66", 0))
            s.connect(t.tcp)
            s.sendall(Raw(t.tcp, "127.0.0.66").request("OPTIONS", "100").replace("SIP/2.0/UDP", "SIP/2.0/TCP").encode())
            s.settimeout(3)
            answers.append(s.recv(65535).decode())
        assert all(header(answer, name) for name in capabilities for answer in answers), answers


@alone
def test_offers_of_no_use_fill_no_memory_and_are_answered_once(binary):
    """Whoever calls an agent's address with codecs that we have not, and acknowledges nothing."""
    with Tandem(binary) as t:
        agent = t.deployed()
        bad = sdp("127.0.0.66", 40000).replace(" 0 101", " 18").replace("0 PCMU", "18 G729")
        raw = Raw(t.udp, "127.0.0.66")
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        first = raw.request("INVITE", agent, body=bad)
        answers = [raw.ask(first), raw.ask(first)]
        assert [status(a) for a in answers] == [488, 488] and header(answers[0], "To") == header(answers[1], "To"), answers
        assert "no common codec" in header(answers[0], "Warning")
        pattern = raw.request("INVITE", agent, call_id="CALL", branch="BRANCH", from_tag="TAG", body=bad)

        def send(count):
            for n in range(count):
                one = secrets.token_hex(8)
                raw.send(pattern.replace("CALL", one, 1).replace("BRANCH", one, 1).replace("TAG", one, 1))
                if n % 50 == 0:
                    time.sleep(0.01)
        send(2_000)
        before = t.rss()
        send(10_000)
        grown = t.rss() - before
        assert grown < 16 << 10, f"{grown} KiB more"
        # Nothing is repeated: a forged source gets one answer to what its forger sends once.
        time.sleep(1.5)
        assert len(raw.silence()) <= 12_000
        time.sleep(1.5)
        assert raw.silence() == []
        assert wait_for("a call", 3, lambda: Call(t.udp, agent).final() == 200)
        assert metric(t, "decisions_skipped_total") > 0


def test_a_forged_invite_makes_no_stream_of_an_agents_speech(binary):
    """Source and description name the victim: until somebody there acknowledges or speaks, five seconds are sent."""
    with Tandem(binary) as t:
        agent = t.deployed({"runtime": {"type": "play", "tones": [{"hz": 440, "ms": 20000}]}})
        counts = {}
        for acknowledges in (False, True):
            raw = Raw(t.udp, "127.0.0.66")
            victim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            victim.bind(("127.0.0.66", 0))
            raw.send(raw.request("INVITE", agent, body=sdp("127.0.0.66", victim.getsockname()[1])))
            while status(answer := raw.receive()) < 200:
                pass
            victim.settimeout(0.5)
            packets, begun = 0, time.monotonic()
            if acknowledges:
                raw.send(f"ACK {raw.uri} SIP/2.0\r\nVia: SIP/2.0/UDP {raw.ip}:{raw.port};branch=z9hG4bK{secrets.token_hex(6)};rport\r\nMax-Forwards: 70\r\n"
                         f"From: {header(answer, 'From')}\r\nTo: {header(answer, 'To')}\r\nCall-ID: {header(answer, 'Call-ID')}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n")
            while time.monotonic() - begun < 7:
                try:
                    packets += victim.recv(2048) is not None
                except socket.timeout:
                    pass
            counts[acknowledges] = packets
        assert 100 < counts[False] <= 252 and counts[True] > 300, counts
