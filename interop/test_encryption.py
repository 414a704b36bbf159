"""SRTP with SDES keys: the policy matrix both ways, on the wire, against libsrtp and baresip."""
import os
import re
import secrets
import socket
import struct
import threading
import time
import urllib.request

from baresip import Baresip
from sip import Call, Carrier, Rtp, header, sdp, status
from srtp import SUITES, Key, lines, on_the_wire, profile, secure, session, spy
from tandem import Tandem, alone, wait_for
from test_transports import tls_node
from transports import Authority, Call as StreamCall, TlsCarrier

ECHO = {"runtime": {"type": "echo"}}
CM_80 = "AES_CM_128_HMAC_SHA1_80"
POLICIES = ["DISABLE", "ALLOW", "REQUIRE"]
NUMBERS = dict(zip(POLICIES, ["+14155550100", "+14155550101", "+14155550102"]))
# What is offered, and what comes of it under each policy.
OFFERS = {
    ("RTP/AVP", None): ["plain", "plain", 488],
    ("RTP/AVP", "good"): ["plain", "srtp", "srtp"],
    ("RTP/AVP", "unknown"): ["plain", "plain", 488],
    ("RTP/SAVP", "good"): [488, "srtp", "srtp"],
    ("RTP/SAVP", "unknown"): [488, 488, 488],
    ("RTP/SAVP", None): [488, 488, 488],
    ("RTP/SAVPF", "good"): [488, "srtp", "srtp"],
    ("RTP/AVPF", "good"): ["plain", "srtp", "srtp"],
}
UNKNOWN = "a=crypto:1 AES_SUPER_CRYPTO inline:bjYTFCVuLIlGw3v3JWQtwDGbyFUTPKxh+iXTgVp2\r\n"


def inbound_trunks(t):
    for policy, number in NUMBERS.items():
        trunk = t.ok("POST", "/core/trunks", {"name": policy, "inbound_config": {"media_encryption": f"SIP_MEDIA_ENCRYPT_{policy}"}})["id"]
        t.ok("POST", "/core/phone-numbers", {"phone_number": number, "trunk_id": trunk})
    t.agent(ECHO, NUMBERS.values())


class TlsCall(StreamCall):
    """A call over TLS with the offer of its class."""

    def request(self, method, cseq, body="", branch=None):
        return super().request(method, cseq, self.offer if method == "INVITE" else body, branch)


def call_with(t, number, transport, key, offered="RTP/SAVP", crypto=None, source="127.0.0.1"):
    """A call whose offer names the port of its own leg."""
    rtp = Rtp(source)
    body = sdp(source, rtp.port, offered, crypto if crypto is not None else key.line())
    if transport == "tls":
        connection = t.authority.client().wrap_socket(socket.create_connection(t.tls, 5), server_hostname="localhost")
        call = type("Offering", (TlsCall,), {"offer": body})(t.tls, number, "tls", connection)
    else:
        call = Call(getattr(t, transport), number, transport, source, body=body)
    call.rtp.socket.close()
    call.rtp = rtp
    return call


def test_what_an_operator_is_told(binary):
    with Tandem(binary) as t:
        inbound_trunks(t)
        for policy, offered, reason in [("DISABLE", "RTP/SAVP", "encryption_disabled"), ("REQUIRE", "RTP/AVP", "encryption_required"), ("ALLOW", "RTP/SAVP", "no_usable_crypto")]:
            crypto = UNKNOWN if policy == "ALLOW" else ""
            assert Call(t.udp, NUMBERS[policy], body=sdp("127.0.0.1", 4000, offered, crypto)).final() == 488
            trunk = next(i["id"] for i in t.ok("GET", "/core/trunks") if i["name"] == policy)
            record = wait_for("decision", 3, lambda: t.ok("GET", f"/core/trunks/{trunk}/decisions"))[0]
            assert record["reason"] == reason and "media_encryption" in record["advice"] + "media_encryption" * (policy == "ALLOW"), record
            notes = " ".join(t.ok("GET", f"/core/trunks/{trunk}/health")["notes"])
            assert ("keys" in notes) == (policy == "REQUIRE"), notes


def agreed(call, key):
    assert call.final() == 200, call.answer
    return secure(call.rtp, key, call.answer)


def echoes(rtp, count=12):
    before = len(rtp.received)
    rtp.talk(440, count / 50)
    deadline = time.monotonic() + 3
    while len(rtp.received) < before + count and time.monotonic() < deadline:
        rtp.listen(time.monotonic() + 0.05)
    assert rtp.received[before:] == rtp.sent[-count:], (len(rtp.received) - before, count)


def test_the_matrix_of_offers_to_us(binary):
    authority = Authority()
    with tls_node(binary, authority) as t:
        t.authority = authority
        inbound_trunks(t)
        for transport in ("udp", "tcp", "tls"):
            for (offered, kind), outcomes in OFFERS.items():
                for policy, outcome in zip(POLICIES, outcomes):
                    case = (transport, policy, offered, kind)
                    key = Key(secrets.choice(list(SUITES)), tag=secrets.choice([1, 7, 999_999_999]))
                    crypto = {None: "", "good": key.line(), "unknown": UNKNOWN}[kind]
                    call = call_with(t, NUMBERS[policy], transport, key, offered, crypto)
                    got = call.final()
                    if outcome == 488:
                        assert got == 488 and "Warning" in call.answer, (case, call.answer)
                        continue
                    assert got == 200 and profile(call.answer) == offered, (case, call.answer)
                    assert len(lines(call.answer)) == (outcome == "srtp"), (case, call.answer)
                    if outcome == "srtp":
                        assert secure(call.rtp, key, call.answer) == key.tag, case
                    else:
                        spy(call.rtp)
                    echoes(call.rtp)
                    assert on_the_wire(call.rtp) == ("encrypted" if outcome == "srtp" else "clear"), case
                    call.bye()
                    id = header(call.request("BYE", 9), "Call-ID")
                    suite = key.suite if outcome == "srtp" else "none"
                    wait_for(f"{case} on record", 3, lambda: any(c["sip_call_id"] == id and c["media_encryption"] == suite for c in t.ok("GET", "/core/conversations?status=completed")))


def test_the_matrix_of_calls_without_an_offer(binary):
    with Tandem(binary) as t:
        inbound_trunks(t)
        expected = {"DISABLE": ("RTP/AVP", False), "ALLOW": ("RTP/AVP", True), "REQUIRE": ("RTP/SAVP", True)}
        for policy, (offered, with_keys) in expected.items():
            for answered in ("srtp", "plain") if with_keys else ("plain",):
                call = Call(t.tcp, NUMBERS[policy], "tcp", body="")
                ok = call.socket.receive()
                while status(ok) < 200:
                    ok = call.socket.receive()
                assert profile(ok) == offered and bool(lines(ok)) == with_keys, (policy, ok)
                call.to_line = header(ok, "To")
                call.rtp.to("127.0.0.1", int(re.search(r"^m=audio (\d+)", ok, re.M).group(1)))
                extra = ""
                if answered == "srtp":
                    tag, suite, theirs = lines(ok)[-1]
                    key = Key(suite, tag)
                    extra = key.line()
                    secure(call.rtp, key, [l for l in ok.splitlines(True) if l.startswith(f"a=crypto:{tag} ")][0])
                body = sdp("127.0.0.1", call.rtp.socket.getsockname()[1], offered, extra)
                call.socket.send(call.request("ACK", 1, body, secrets.token_hex(6)))
                if policy == "REQUIRE" and answered == "plain":
                    bye = call.socket.receive()
                    assert bye.startswith("BYE "), bye
                    wait_for("failed", 3, lambda: [c for c in t.ok("GET", "/core/conversations?status=failed") if c["reason"] == "encryption_required"])
                else:
                    echoes(call.rtp)
                    call.bye()


def outbound(t, policy, carrier, transport="UDP"):
    trunk = t.ok("POST", "/core/trunks", {"name": "x", "outbound_config": {
        "address": "%s:%d" % carrier.address, "auth_username": "acc", "auth_password": "p", "transport": f"SIP_TRANSPORT_{transport}",
        "media_encryption": f"SIP_MEDIA_ENCRYPT_{policy}"}})["id"]
    number = f"+1415556{secrets.randbelow(10_000):04}"
    while t.request("POST", "/core/phone-numbers", {"phone_number": number, "trunk_id": trunk})[0] != 200:
        number = f"+1415556{secrets.randbelow(10_000):04}"
    agent = t.agent(ECHO)
    return t.ok("POST", "/core/conversations", {"channel": "telephone", "user_id": "+14155550199", "agent_id": agent, "agent_number": number})["conversation"]["id"]


def taker(answered, kind, refuses=None):
    """A carrier that answers with a profile and a line of a kind; SRTP is refused with a status when one is given."""
    def script(carrier, request):
        method = request.split(" ", 1)[0]
        if method == "INVITE" and refuses and profile(request) == "RTP/SAVP":
            carrier.reply(request, f"{refuses} No")
        elif method == "INVITE":
            offered = lines(request)
            token = answered or profile(request)
            carrier.rtp.to("127.0.0.1", int(re.search(r"^m=audio (\d+)", request, re.M).group(1)))
            extra = {None: "", "unknown": UNKNOWN}.get(kind, "")
            if kind == "good" and offered:
                tag, suite, _ = offered[-1]
                carrier.key = Key(suite, tag)
                extra = carrier.key.line()
                secure(carrier.rtp, carrier.key, [l for l in request.splitlines(True) if l.startswith(f"a=crypto:{tag} ")][0])
            else:
                spy(carrier.rtp)
            carrier.reply(request, "200 OK", body=sdp("127.0.0.1", carrier.rtp.port, token, extra))
        elif method == "BYE":
            carrier.reply(request, "200 OK")
            return "end"
    return script


# What a carrier answers: profile (None repeats the offer's), line, status it refuses SRTP with; the outcome a policy.
ANSWERS = {
    (None, "good", None): ["plain", "srtp", "srtp"],
    ("RTP/SAVPF", "good", None): ["bad_answer", "srtp", "srtp"],
    ("RTP/AVP", None, None): ["plain", "plain", "encryption_required"],
    ("RTP/SAVP", "unknown", None): ["bad_answer", "bad_answer", "encryption_required"],
    ("RTP/SAVP", None, None): ["bad_answer", "bad_answer", "encryption_required"],
    (None, None, 488): ["plain", "plain", "488 No"],
    (None, None, 415): ["plain", "plain", "415 No"],
    (None, None, 606): ["plain", "plain", "606 No"],
}


def test_the_matrix_of_our_offers(binary):
    authority = Authority()
    certificate = authority.sign("carrier", "127.0.0.1")
    with tls_node(binary, authority) as t:
        for transport in ("UDP", "TCP", "TLS"):
            for (answered, kind, refuses), outcomes in ANSWERS.items():
                for policy, outcome in zip(POLICIES, outcomes):
                    case = (transport, policy, answered, kind, refuses)
                    script = taker(answered, kind, refuses)
                    carrier = TlsCarrier(script, authority.server(*certificate)) if transport == "TLS" else Carrier(script, transport.lower())
                    id = outbound(t, policy, carrier, transport)
                    if outcome in ("plain", "srtp"):
                        t.conversation(id, "in_progress")
                        echoes(carrier.rtp)
                        assert on_the_wire(carrier.rtp) == ("encrypted" if outcome == "srtp" else "clear"), case
                        t.ok("POST", f"/core/conversations/{id}/end")
                        call = t.conversation(id, "completed")
                        assert call["media_encryption"] == (carrier.key.suite if outcome == "srtp" else "none"), (case, call)
                    else:
                        call = t.conversation(id, "failed")
                        assert call["reason"] == outcome, (case, call)
                    invites = [r for r in carrier.requests if r.startswith("INVITE ")]
                    offers = [(profile(r), bool(lines(r))) for r in invites]
                    secured, plain = ("RTP/SAVP", True), ("RTP/AVP", False)
                    first = plain if policy == "DISABLE" else secured
                    assert offers == ([secured, plain] if refuses and policy == "ALLOW" else [first]), (case, offers)
                    assert all(len(r) < 1300 for r in invites) or transport != "UDP", [len(r) for r in invites]
                    if not outcome.endswith(" No"):
                        wait_for(f"{case} BYE", 3, lambda: any(r.startswith("BYE ") for r in carrier.requests))
                    assert carrier.failure is None, (case, carrier.failure)


def test_every_suite_by_tone_with_wraps_and_new_streams(binary):
    with Tandem(binary) as t:
        agent = t.deployed()
        for suite in SUITES:
            key = Key(suite)
            call = call_with(t, agent, "udp", key, crypto=key.line("|2^31 WSH=128", padding=False))
            agreed(call, key)
            call.rtp.talk(440, 0.6)
            call.rtp.hears(440)
            # Another stream that begins just below the wrap, and then one more.
            for start in (65_530, 3):
                call.rtp.received.clear()
                ssrc, sent = secrets.randbits(32), []
                for n in range(12):
                    sent.append(os.urandom(160))
                    call.rtp.socket.sendto(struct.pack("!BBHII", 0x80, 0, (start + n) % 65536, n * 160, ssrc) + sent[-1], call.rtp.remote)
                    call.rtp.listen(time.monotonic() + 0.02)
                call.rtp.listen(time.monotonic() + 0.1)
                assert call.rtp.received == sent, suite
            assert call.rtp.socket.unopened == 0 and on_the_wire(call.rtp) == "encrypted"
            call.bye()


def reinvite(call, cseq, body):
    branch = secrets.token_hex(6)
    call.socket.send(call.request("INVITE", cseq, body, branch))
    answer = call.socket.receive()
    while answer and (status(answer) < 200 or header(answer, "CSeq") != f"{cseq} INVITE"):
        answer = call.socket.receive()
    call.socket.send(call.request("ACK", cseq, branch=secrets.token_hex(6) if status(answer) < 300 else branch))
    return answer


def test_keys_that_stay_and_new_ones(binary):
    with Tandem(binary) as t:
        agent = t.deployed()
        key = Key()
        call = call_with(t, agent, "udp", key)
        agreed(call, key)
        echoes(call.rtp)
        theirs = lines(call.answer)[0][2]
        again = reinvite(call, 2, call.body)
        assert status(again) == 200 and lines(again)[0][2] == theirs, again
        # The contexts of both sides go on: the same libsrtp sessions read each other.
        ssrc = secrets.randbits(32)
        replayed = list(call.rtp.socket.sent)
        for n in range(10):
            call.rtp.socket.sendto(struct.pack("!BBHII", 0x80, 0, n, n * 160, ssrc) + bytes(160), call.rtp.remote)
        call.rtp.received.clear()
        call.rtp.listen(time.monotonic() + 0.3)
        assert len(call.rtp.received) == 10
        for packet in replayed:
            call.rtp.socket.inner.sendto(packet, call.rtp.remote)
        call.rtp.received.clear()
        call.rtp.listen(time.monotonic() + 0.2)
        assert not call.rtp.received
        # A new key, of another suite even: both contexts begin anew.
        old = call.rtp.socket.outbound
        key = Key("AEAD_AES_128_GCM", 4)
        rekeyed = reinvite(call, 3, sdp("127.0.0.1", call.rtp.port, "RTP/SAVP", key.line()))
        assert status(rekeyed) == 200 and lines(rekeyed)[0][2] != theirs, rekeyed
        assert secure(call.rtp, key, rekeyed) == 4
        echoes(call.rtp)
        call.rtp.received.clear()
        for n in range(10):
            call.rtp.socket.inner.sendto(old.protect(struct.pack("!BBHII", 0x80, 0, n + 500, n * 160, ssrc) + bytes(160)), call.rtp.remote)
        call.rtp.listen(time.monotonic() + 0.2)
        assert not call.rtp.received
        # What cannot be taken up leaves everything as it was.
        assert status(reinvite(call, 4, sdp("127.0.0.1", call.rtp.port, "RTP/SAVP", UNKNOWN))) == 488
        echoes(call.rtp)
        call.socket.send(call.request("BYE", 5, branch=secrets.token_hex(6)))


def test_crypto_lines_of_all_kinds(binary):
    good = "WbTBosdVUZqEb6Htqhn+m3z7wUh4RJVR8nE15GbN"
    accepted = [f"1 {CM_80} inline:{good}", f"1 AES_CM_128_HMAC_SHA1_32 inline:{good}|2^32", f"1 {CM_80} inline:{good}|1900000", f"0 {CM_80} inline:{good}", f"1 aes_Cm_128_hmac_sha1_80 INLINE:{good}",
                "1 AEAD_AES_128_GCM inline:" + "A" * 38, "1 AEAD_AES_128_GCM inline:" + "A" * 38 + "=="]
    declined = ["", "1", f"{CM_80} inline:{good}", f"FOO {CM_80} inline:{good}", f"100000000000 {CM_80} inline:{good}", f"1000000000 {CM_80} inline:{good}", f"1 AES_SUPER_CRYPTO inline:{good}",
                f"1 inline:{good}", f"1 {CM_80}", f"1 {CM_80} inline:", f"1 {CM_80} inline:Ar/jYxzGz1lLcR", f"1 {CM_80} inline:{good}AA", f"1 {CM_80} {good}", f"1 {CM_80} inline{good}",
                f"1 {CM_80} inline:{good}|2^19", f"1 {CM_80} inline:{good}|1048575", f"1 {CM_80} inline:{good}|monkeys!", f"1 {CM_80} inline:{good}||1:4", f"1 {CM_80} inline:{good}|2^32|weasels!:4",
                f"1 {CM_80} inline:{good}|2^32|2", f"1 {CM_80} inline:{good} UNENCRYPTED_SRTP", f"1 {CM_80} inline:{good} UNENCRYPTED_SRTCP", f"1 {CM_80} inline:{good} UNAUTHENTICATED_SRTP", f"1 {CM_80} inline:{good} WHATEVER=1",
                f"1 {CM_80} inline:" + "!" * 40]
    with Tandem(binary) as t:
        agent = t.deployed()
        for expected, values in ((200, accepted), (488, declined)):
            for value in values:
                call = Call(t.udp, agent, body=sdp("127.0.0.1", 4000, "RTP/SAVP", f"a=crypto:{value}\r\n"))
                assert call.final() == expected, (value, call.answer)
                if expected == 200:
                    assert lines(call.answer)[0][0] == int(value.split()[0]), call.answer
                    call.bye()
                # Beside a good line a bad one is passed over.
                key = Key(tag=77)
                beside = Call(t.udp, agent, body=sdp("127.0.0.1", 4000, "RTP/SAVP", f"a=crypto:{value}\r\n{key.line()}"))
                assert beside.final() == 200 and (expected == 200 or lines(beside.answer)[0][0] == 77), (value, beside.answer)
                beside.bye()
        # No key is in what operators read.
        assert good not in "".join(t.log) and good not in str(t.ok("GET", "/core/conversations"))


def dropped(t, reason):
    with urllib.request.urlopen(t.http + "/metrics", timeout=5) as answer:
        return int(re.search(rf'^tandem_rtp_dropped_total{{.*reason="{reason}".*}} (\d+)', answer.read().decode(), re.M).group(1))


@alone
def test_a_flood_of_packets_without_the_key_changes_nothing(binary):
    with Tandem(binary) as t:
        agent = t.deployed()
        for suite in ("AEAD_AES_256_GCM", CM_80):
            key = Key(suite)
            call = call_with(t, agent, "udp", key)
            agreed(call, key)
            echoes(call.rtp)
            wrong, recorded = Key(suite), list(call.rtp.socket.sent)
            stranger = session(suite, wrong.bytes, False)
            packet = lambda n, kind: struct.pack("!BBHII", 0x80, kind, n % 65536, n * 160, 7) + bytes(160)
            forged = [stranger.protect(packet(n, 0)) for n in range(400)] + recorded + [packet(n, 0) for n in range(100)]
            forged += [packet(n, 101)[:16] for n in range(100)] + [p[:n % len(p)] for n, p in enumerate(recorded * 8)]
            stop, sprayed = threading.Event(), [0]

            def spray():
                # From the signalled address itself, as one who can forge it would.
                begun = time.monotonic()
                while not stop.is_set():
                    for n in range(100):
                        call.rtp.socket.inner.sendto(forged[(sprayed[0] + n) % len(forged)], call.rtp.remote)
                    sprayed[0] += 100
                    time.sleep(max(0, begun + sprayed[0] / 10_000 - time.monotonic()))
            thread = threading.Thread(target=spray)
            thread.start()
            call.rtp.received.clear()
            call.rtp.sent.clear()
            begun = time.monotonic()
            call.rtp.talk(440, 2.5)
            seconds = time.monotonic() - begun
            stop.set()
            thread.join()
            assert sprayed[0] > 5_000 * seconds, sprayed
            call.rtp.hears(440)
            missing = len(call.rtp.sent) - len(call.rtp.received)
            assert missing <= 1 and set(call.rtp.received) <= set(call.rtp.sent), missing
            call.bye()
            counted = {reason: dropped(t, reason) for reason in ("srtp_auth", "srtp_replay")}
            assert counted["srtp_auth"] > 1_000 and counted["srtp_replay"] > 100, counted


def test_baresip_calls_and_is_called_with_srtp(binary):
    with Tandem(binary) as t:
        agent = t.deployed()
        dial = f"/dial sip:{agent}@{t.udp[0]}:{t.udp[1]}"
        with Baresip(account=";mediaenc=srtp-mand", command=dial) as peer:
            wait_for("a second of audio", 10, lambda: len(peer.heard()) > 12_000)
            peer.hears(440)
            call = t.ok("GET", "/core/conversations?status=in_progress")[0]
            assert call["media_encryption"] in SUITES, call
        with Baresip("+14155550199", ";mediaenc=srtp-mand") as peer:
            id = outbound(t, "REQUIRE", peer)
            t.conversation(id, "in_progress")
            wait_for("a second of audio", 10, lambda: len(peer.heard()) > 12_000)
            peer.hears(440)
            assert t.ok("POST", f"/core/conversations/{id}/end")["status"] == "completed"
            assert t.ok("GET", f"/core/conversations/{id}")["media_encryption"] in SUITES
