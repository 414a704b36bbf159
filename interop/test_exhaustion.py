"""What runs out is refused in words, and comes back."""
import socket
import threading
import time

from hostile import Raw, metric
from sip import Call, header, status
from tandem import Tandem, wait_for
from test_inbound import number_on_trunk

NUMBER = "+14155550100"


def test_the_last_rtp_port_is_told_and_given_back(binary):
    with Tandem(binary, ["media.ports=26100-26103"]) as t:
        trunk = number_on_trunk(t, ["127.0.0.0/8"])
        calls = [Call(t.udp, NUMBER) for _ in range(2)]
        assert [c.final() for c in calls] == [200, 200]
        for _ in range(5):
            third = Call(t.udp, NUMBER)
            assert third.final() == 503 and header(third.answer, "Retry-After"), third.answer
        assert metric(t, "rtp_ports_exhausted_total") == 5
        decision = wait_for("the decision", 3, lambda: t.ok("GET", f"/core/trunks/{trunk}/decisions"))[0]
        assert decision["reason"] == "no_rtp_port" and "media.ports" in decision["advice"], decision
        # Those that are live go on, and what they leave is used again.
        calls[0].rtp.talk(440, 0.3)
        assert calls[0].rtp.received == calls[0].rtp.sent
        calls[1].bye()
        assert wait_for("the port", 3, lambda: Call(t.udp, NUMBER).final() == 200)


def test_who_never_reads_is_closed_and_holds_nobody_up(binary):
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.0/8"])
        options = Raw(t.tcp).request("OPTIONS", "x").replace("SIP/2.0/UDP", "SIP/2.0/TCP").encode()
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(20)
        deaf.connect(t.tcp)
        before, closed, slowest, begun = t.rss(), threading.Event(), 0.0, time.monotonic()

        def ask():
            try:
                while True:
                    deaf.sendall(options * 50)
            except OSError:
                closed.set()
        threading.Thread(target=ask, daemon=True).start()
        while not closed.is_set() and time.monotonic() - begun < 60:
            asked = time.monotonic()
            assert Call(t.tcp, NUMBER, "tcp").final() == 200
            slowest = max(slowest, time.monotonic() - asked)
            closed.wait(0.05)
        assert closed.is_set() and slowest < 2, slowest
        assert t.rss() - before < 32 << 10, t.rss() - before
        raw = Raw(t.udp)
        assert status(raw.ask(raw.request("OPTIONS", "x"))) == 200
