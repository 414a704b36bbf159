"""The hostile internet, and telling why."""
import socket
import time

from hostile import Raw, authorization, challenges, metric, status
from sip import Call
from tandem import Tandem, wait_for
from test_inbound import number_on_trunk

NUMBER = "+14155550100"


def with_digest(t, allowed=("127.0.0.0/8",)):
    auth = {"auth_username": "carrier", "auth_password": "pa\"ss, word"}
    return number_on_trunk(t, list(allowed) if allowed else None, inbound=auth)


def test_a_trunk_with_a_password_challenges_and_takes_both_algorithms(binary):
    with Tandem(binary) as t:
        trunk = with_digest(t)
        for algorithm in ("SHA-256", "MD5"):
            raw = Raw(t.udp)
            first = raw.ask(raw.request("INVITE", NUMBER))
            assert status(first) == 401
            offered = challenges(first)
            assert list(offered) == ["SHA-256", "MD5"] and all(c["qop"] == "auth" and "stale" not in c for c in offered.values()), first
            good = authorization(offered[algorithm], "carrier", "pa\"ss, word", raw.uri)
            request = raw.request("INVITE", NUMBER, good, cseq=2, call_id=raw.call_id)
            assert status(raw.ask(request)) == 200
            # The captured credentials again, in a call of their own, and from another address.
            replayed = raw.ask(raw.request("INVITE", NUMBER, good))
            assert status(replayed) == 401 and challenges(replayed)["MD5"]["stale"] == "true"
            elsewhere = Raw(t.udp, "127.0.0.7")
            stolen = elsewhere.ask(elsewhere.request("INVITE", NUMBER, good.replace("nc=00000001", "nc=00000002")))
            assert status(stolen) == 401 and challenges(stolen)["MD5"]["stale"] == "true"
            # The nonce goes on for its minute with a count that rises.
            again = authorization(offered[algorithm], "carrier", "pa\"ss, word", raw.uri, count=2)
            assert status(raw.ask(raw.request("INVITE", NUMBER, again))) == 200
        reasons = lambda: {d["reason"] for d in t.ok("GET", f"/core/trunks/{trunk}/decisions")}
        wait_for("decisions", 3, lambda: reasons() >= {"challenged", "nonce_stale"})


def test_wrong_credentials_are_refused_ten_times_and_then_ignored(binary):
    with Tandem(binary) as t:
        trunk = with_digest(t)
        raw = Raw(t.udp)
        fresh = lambda: challenges(raw.ask(raw.request("INVITE", NUMBER)))["SHA-256"]
        uri = f"sip:{NUMBER}@{t.udp[0]}:{t.udp[1]}"
        good = lambda **changes: authorization(fresh(), "carrier", "pa\"ss, word", uri, **changes)
        wrong = [
            authorization(fresh(), "carrier", "guess", uri), authorization(fresh(), "other", "pa\"ss, word", uri),
            authorization(fresh(), "carrier", "pa\"ss, word", "sip:+19005550100@127.0.0.1"), good(qop="auth-int"), good(nc="1"), good(response=""),
            good(algorithm="MD5"), good() + good(), good(algorithm="X" * 900),
        ]
        for line in wrong:
            answer = raw.ask(raw.request("INVITE", NUMBER, line))
            assert status(answer) == 401 and "stale" not in challenges(answer)["MD5"], (line, answer)
        # None of ours: a challenge, and no guess.
        for line in ("Authorization: Basic Y2Fycmllcjpw\r\n", "Authorization: Digest\r\n", "Authorization:\r\n", good(realm="asterisk"), good(nonce="00"), good(nonce="0" * 64)):
            assert status(raw.ask(raw.request("INVITE", NUMBER, line))) == 401, line
        assert status(raw.ask(raw.request("INVITE", NUMBER, authorization(fresh(), "carrier", "guess", uri)))) == 401
        right = Raw(t.udp, "127.0.0.9")
        assert raw.ask(raw.request("INVITE", NUMBER), 0.5) is None, "the source is ignored now"
        answer = right.ask(right.request("INVITE", NUMBER))
        line = authorization(challenges(answer)["SHA-256"], "carrier", "pa\"ss, word", uri)
        assert status(right.ask(right.request("INVITE", NUMBER, line))) == 200, "another source is not"
        assert metric(t, "digest_refused_total", reason="wrong") == 10
        found = wait_for("decision", 3, lambda: [d for d in t.ok("GET", f"/core/trunks/{trunk}/decisions") if d["reason"] == "credentials_guessed"])
        assert found[0]["status"] == 0 and found[0]["sip_call_id"] == raw.call_id
        assert t.process.poll() is None and not any("pa\"ss" in line for line in t.log)


def test_an_open_trunk_with_a_password_is_served_in_drop_mode(binary):
    with Tandem(binary, ["sip.unknown_sources=drop"]) as t:
        with_digest(t, None)
        raw = Raw(t.udp)
        answer = raw.ask(raw.request("INVITE", NUMBER))
        line = authorization(challenges(answer)["MD5"], "carrier", "pa\"ss, word", raw.uri)
        assert status(raw.ask(raw.request("INVITE", NUMBER, line))) == 200
        for number in range(40):
            raw.send(raw.request("INVITE", f"+1999555{number:04}"))
        time.sleep(0.3)
        assert raw.silence() == []


def test_strangers_get_nothing_at_all_in_drop_mode(binary):
    with Tandem(binary, ["sip.unknown_sources=drop"]) as t:
        trunk = number_on_trunk(t, ["127.0.0.2"])
        agent = t.deployed()
        raw = Raw(t.udp, "127.0.0.3")
        nobody = "01890000-0000-7000-8000-000000000000"
        for method in ("REGISTER", "OPTIONS", "SUBSCRIBE", "MESSAGE", "NOTIFY", "INFO", "PUBLISH", "REFER", "BYE", "CANCEL", "ACK", "PRACK", "UPDATE", "FOO"):
            raw.send(raw.request(method, NUMBER))
            raw.send(raw.request(method, NUMBER, to_tag=";tag=guessed"))
        for user in (NUMBER, nobody, "100", "admin", "+19995550000"):
            raw.send(raw.request("INVITE", user))
            raw.send(raw.request("INVITE", user, to_tag=";tag=guessed"))
        invite = raw.request("INVITE", NUMBER)
        for junk in (invite[:100], invite.replace("CSeq: 1", "CSeq: x"), invite.replace("Content-Length: ", "Content-Length: 9"), invite.replace("SIP/2.0\r\nVia", "SIP/9.0\r\nVia", 1),
                     invite.replace("\r\n", "\n"), invite.replace("To:", "To:\r\n "), "SIP/2.0 200 OK\r\n" + invite.split("\r\n", 1)[1], "\r\n\r\n", "\x00" * 600, "INVITE", ""):
            raw.send(junk)
        before = metric(t, "sip_rx_dropped_total")
        for number in range(200):
            raw.send(raw.request("OPTIONS", "sipvicious"))
        wait_for("the counter", 3, lambda: metric(t, "sip_rx_dropped_total", reason="src_not_allowed") >= 200 and metric(t, "sip_rx_dropped_total") >= before + 200)
        # Over TCP the handshake is the kernel's; no byte of ours follows it.
        for data in (raw.request("OPTIONS", "x"), raw.request("REGISTER", NUMBER), invite, "\r\n\r\n", "junk\r\n\r\n", invite.replace("CSeq: 1", "CSeq: x")):
            with socket.socket() as c:
                c.bind(("127.0.0.3", 0))
                c.connect(t.tcp)
                c.sendall(data.encode())
                c.settimeout(0.25)
                try:
                    assert c.recv(100) == b"", data
                except (socket.timeout, ConnectionResetError):
                    pass
        assert raw.silence() == []
        # The call from the carrier's own address, and why the stranger's was refused.
        assert Call(t.udp, NUMBER, source="127.0.0.2").final() == 200
        found = wait_for("decision", 3, lambda: t.ok("GET", f"/core/trunks/{trunk}/decisions"))
        assert found[0]["reason"] == "src_not_allowed" and found[0]["status"] == 0 and "allowed_addresses" in found[0]["advice"]
        # An agent's address is open to all: its caller is no stranger.
        assert Call(t.udp, agent, source="127.0.0.3").final() == 200


def test_a_flood_of_refusals_does_not_lock_out_who_would_be_accepted(binary):
    with Tandem(binary, ["sip.refusals=20/10s"]) as t:
        agent = t.deployed()
        number_on_trunk(t, ["127.0.0.2"])
        raw = Raw(t.udp, "127.0.0.3")
        for _ in range(60):
            raw.send(raw.request("INVITE", "+19995550000"))
        time.sleep(0.5)
        assert len(raw.silence()) == 20
        assert raw.ask(raw.request("OPTIONS", "x"), 0.4) is None
        assert Call(t.udp, agent, source="127.0.0.3").final() == 200
        assert Call(t.udp, NUMBER, source="127.0.0.2").final() == 200
        lines = [l for l in t.log if "call refused" in l]
        assert len(lines) <= 1, lines
