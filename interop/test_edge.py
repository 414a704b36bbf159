"""The hostile internet, and telling why."""
import json
import os
import socket
import ssl
import struct
import time
import urllib.request

from bots import Bots, Stream, tone, ulaw
from hostile import Raw, authorization, challenges, metric, rtp
from sip import Call, Carrier, decode_ulaw, header, sdp, status
from tandem import Tandem, alone, wait_for
from test_inbound import number_on_trunk
from test_transports import tls_node
from transports import Authority, Call as StreamCall

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
        wait_for("the counter", 3, lambda: metric(t, "sip_rx_dropped_total") >= 40)
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


def test_who_is_in_a_call_cannot_have_a_flood_read_by_it(binary):
    with Tandem(binary, ["sip.unknown_sources=drop"]) as t:
        call = Call(t.udp, t.deployed(), source="127.0.0.3")
        assert call.final() == 200
        raw = Raw(t.udp, "127.0.0.3")
        for cseq in (2, 3):
            # Inside the dialog: read and answered, and for a moment what comes from there is read without a look before.
            call.socket.send(call.request("OPTIONS", cseq, branch=f"in-dialog-{cseq}"))
            assert status(call.socket.receive()) == 200
            read, dropped = metric(t, "sip_messages_received_total"), metric(t, "sip_rx_dropped_total")
            for number in range(200):
                raw.send(raw.request("OPTIONS", "sipvicious"))
            wait_for("the counter", 3, lambda: metric(t, "sip_rx_dropped_total") >= dropped + 200)
            assert metric(t, "sip_messages_received_total") <= read + 1
            assert raw.silence() == []
        call.socket.send(call.request("BYE", 4, branch="the-end"))
        assert status(call.socket.receive()) == 200


def closed_unread(node, source, data=b""):
    """Whether a connection is closed at once, without a byte."""
    with socket.socket() as c:
        c.bind((source, 0))
        c.settimeout(3)
        try:
            c.connect(node)
            if data:
                c.sendall(data)
            return c.recv(100) == b""
        except ConnectionResetError:
            return True
        except socket.timeout:
            return False


def test_strangers_get_no_handshake_where_nothing_is_for_them(binary):
    authority = Authority()
    with tls_node(binary, authority, "sip.unknown_sources=drop") as t:
        number_on_trunk(t, ["127.0.0.2"])
        hello = ssl.MemoryBIO()
        client = authority.client().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            hello = hello.read()
        options = Raw(t.udp).request("OPTIONS", "x").encode()
        for node, data in ((t.tcp, b""), (t.tcp, options), (t.tls, b""), (t.tls, hello)):
            assert closed_unread(node, "127.0.0.3", data), (node, data[:20])
        wait_for("the counter", 3, lambda: metric(t, "sip_conn_closed_total", reason="src_not_allowed") == 4)
        for node, transport in ((t.tcp, "tcp"), (t.tls, "tls")):
            c = socket.create_connection(node, 5, source_address=("127.0.0.2", 0))
            c = authority.client().wrap_socket(c, server_hostname="localhost") if transport == "tls" else c
            call = StreamCall(node, NUMBER, transport, c)
            assert call.final() == 200
            call.bye()
        # An agent's address is open to all, so whoever comes may be its caller.
        agent = t.deployed()
        c = socket.create_connection(t.tls, 5, source_address=("127.0.0.3", 0))
        assert StreamCall(t.tls, agent, "tls", authority.client().wrap_socket(c, server_hostname="localhost")).final() == 200


def test_handshakes_of_a_stranger_have_a_rate_and_a_carriers_have_none(binary):
    authority = Authority()
    with tls_node(binary, authority) as t:
        number_on_trunk(t, ["127.0.0.2"])
        client = authority.client()

        def shakes(source, count):
            done = 0
            for _ in range(count):
                with socket.create_connection(t.tls, 5, source_address=(source, 0)) as c:
                    try:
                        client.wrap_socket(c, server_hostname="localhost").close()
                        done += 1
                    except (ConnectionError, ssl.SSLError):
                        pass
            return done
        begun = time.monotonic()
        strangers = shakes("127.0.0.66", 150)
        seconds = time.monotonic() - begun
        assert 20 <= strangers <= 20 * (seconds + 2) < 150, (strangers, seconds)
        assert metric(t, "sip_conn_closed_total", reason="tls_handshake_rate") == 150 - strangers
        assert shakes("127.0.0.2", 60) == 60
        wait_for("the stranger's next one", 3, lambda: shakes("127.0.0.66", 1))


@alone
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


def ended(t, **wanted):
    """The latest call, once it has ended."""
    look = lambda: next((c for c in t.ok("GET", "/core/conversations") if c["status"] in ("completed", "failed", "unanswered", "cancelled")), None)
    return wait_for("the call's end", 5, look)


def test_a_call_can_be_told_message_by_message_and_why(binary):
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.0/8"])
        for transport in ("udp", "tcp"):
            call = Call(getattr(t, transport), NUMBER, transport)
            assert call.final() == 200
            live = wait_for("the call", 3, lambda: t.ok("GET", "/core/conversations?status=in_progress"))[0]["id"]
            so_far = t.ok("GET", f"/core/conversations/{live}/trace")
            assert [m["start_line"].split(" ")[0] for m in so_far["messages"]][:1] == ["INVITE"]
            call.bye()
            t.conversation(live, "completed")
            trace = t.ok("GET", f"/core/conversations/{live}/trace")
            ladder = [(m["direction"], m["start_line"].split(" SIP/2.0")[0].split(" sip:")[0]) for m in trace["messages"]]
            assert ladder[0] == ("received", "INVITE") and ("sent", "SIP/2.0 200 OK") in ladder and ("received", "ACK") in ladder, ladder
            assert ladder[-2:] == [("received", "BYE"), ("sent", "SIP/2.0 200 OK")], ladder
            first = trace["messages"][0]
            ip, port = call.socket.address()
            assert first["remote_address"] == f"{ip}:{port}" and first["transport"] == transport.upper() and first["local_address"].startswith("127.0.0.1:")
            assert first["raw"].startswith(f"INVITE {call.uri} SIP/2.0\r\n") and first["raw"].endswith(call.body)
            decision = trace["decisions"][-1]
            assert decision["conversation_id"] == live and {s["rule"] for s in decision["steps"]} >= {"number", "allowed_addresses", "outcome"}
            assert decision["status"] == 200 and decision["source"].startswith(f"{ip}:{port}/"), decision
            pcap = raw_get(t, f"/core/conversations/{live}/trace?format=pcap")
            assert packets(pcap) == [m["raw"].encode() for m in trace["messages"]]
            assert raw_get(t, f"/core/conversations/{live}/trace", {"Accept": "application/vnd.tcpdump.pcap"}) == pcap
        # Only for who may read what is sensitive; nothing of others.
        poor = t.admin("key", "create", "--org", t.org, "--scope", "conversations:read")
        assert t.request("GET", f"/core/conversations/{live}/trace", key=poor)[0] == 403
        stranger = t.admin("key", "create", "--org", t.admin("org", "create", "Other"))
        assert t.request("GET", f"/core/conversations/{live}/trace", key=stranger)[0] == 404
        assert t.request("GET", f"/core/conversations/{live}/trace?format=xml")[0] == 422


def raw_get(t, path, headers=None):
    request = urllib.request.Request(t.http + path, headers={"Authorization": f"Bearer {t.key}", **(headers or {})})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Content-Type"] == "application/vnd.tcpdump.pcap"
        return answer.read()


def packets(pcap):
    """The payloads of a capture file of raw IPv4 packets, with their checksums checked."""
    magic, *_, link = struct.unpack("!IHHIIII", pcap[:24])
    assert (magic, link) == (0xA1B2C3D4, 101)
    at, found = 24, []
    while at < len(pcap):
        length = struct.unpack("!I", pcap[at + 8:at + 12])[0]
        packet = pcap[at + 16:at + 16 + length]
        assert packet[0] == 0x45 and struct.unpack("!H", packet[2:4])[0] == length
        body = packet[20:]
        pseudo = packet[12:20] + bytes([0, packet[9]]) + struct.pack("!H", len(body)) + body + b"\0" * (len(body) % 2)
        total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        assert total == 0xFFFF, "checksum"
        found.append(body[8:] if packet[9] == 17 else body[20:])
        at += 16 + length
    return found


def test_a_refused_invite_can_be_told_message_by_message(binary):
    with Tandem(binary) as t:
        trunk = with_digest(t, ["127.0.0.2"])
        raw = Raw(t.udp, "127.0.0.2")
        challenge = challenges(raw.ask(raw.request("INVITE", NUMBER)))["MD5"]
        raw.ask(raw.request("INVITE", NUMBER, authorization(challenge, "carrier", "wrong", raw.uri), cseq=2))
        assert Call(t.udp, NUMBER, source="127.0.0.3").final() == 403
        path = f"/core/trunks/{trunk}/decisions"
        found = wait_for("the decisions", 3, lambda: (lambda d: d if len(d) >= 3 else None)(t.ok("GET", path)))
        assert all("messages" not in d for d in found)
        for reason, status_line, of in (("src_not_allowed", "SIP/2.0 403 ", "127.0.0.3"), ("credentials_wrong", "SIP/2.0 401 ", "127.0.0.2")):
            decision = next(d for d in found if d["reason"] == reason)
            trace = t.ok("GET", f"{path}/{decision['id']}/trace")
            assert trace["decision"] == decision
            received, sent = trace["messages"]
            assert received["direction"] == "received" and received["raw"].startswith(f"INVITE sip:{NUMBER}@") and received["remote_address"].startswith(of + ":"), received
            assert sent["direction"] == "sent" and sent["raw"].startswith(status_line), sent
            pcap = raw_get(t, f"{path}/{decision['id']}/trace?format=pcap")
            assert packets(pcap) == [m["raw"].encode() for m in trace["messages"]]
        # The guess at the password is masked.
        assert "Authorization: Digest ***" in received["raw"] and "wrong" not in received["raw"] and "nonce" not in received["raw"], received["raw"]
        # Media that cannot be agreed on is told, too.
        assert Call(t.udp, NUMBER, source="127.0.0.3").final() == 403
        open_trunk = number_on_trunk(t, ["127.0.0.0/8"], "+14155550109")
        assert Call(t.udp, "+14155550109", body=sdp("127.0.0.1", 4000, "RTP/SAVP")).final() == 488
        decision = wait_for("the decision", 3, lambda: t.ok("GET", f"/core/trunks/{open_trunk}/decisions"))[0]
        lines = [m["start_line"] for m in t.ok("GET", f"/core/trunks/{open_trunk}/decisions/{decision['id']}/trace")["messages"]]
        assert lines[0].startswith("INVITE ") and any(l.startswith("SIP/2.0 488") for l in lines), lines
        assert t.request("GET", f"{path}/{decision['id']}/trace")[0] == 404
        poor = t.admin("key", "create", "--org", t.org, "--scope", "trunks:read")
        assert t.request("GET", f"{path}/{found[0]['id']}/trace", key=poor)[0] == 403


def test_secrets_are_in_no_trace_and_every_message_goes_to_homer(binary):
    homer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    homer.bind(("127.0.0.1", 0))
    with Tandem(binary, [f"sip.hep=127.0.0.1:{homer.getsockname()[1]}"]) as t:
        with_digest(t)
        raw = Raw(t.udp)
        answer = raw.ask(raw.request("INVITE", NUMBER))
        line = authorization(challenges(answer)["SHA-256"], "carrier", "pa\"ss, word", raw.uri)
        response = line.split('response="')[1].split('"')[0]
        # A key where a DISABLE trunk does not want one, and a folded header that hides the answer from careless masks.
        key = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"
        body = sdp(raw.ip, 40000, extra=f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}|2^20|1:32\r\n")
        folded = line.replace(", response=", ",\r\n response=")
        call_id = raw.call_id
        answer = raw.ask(raw.request("INVITE", NUMBER, folded, body=body, cseq=2, call_id=call_id))
        assert status(answer) == 200
        tag = header(answer, "To").split("tag=")[1]
        tagged = dict(call_id=call_id, to_tag=f";tag={tag}", from_tag=raw.from_tag)
        raw.send(raw.request("ACK", NUMBER, cseq=2, **tagged))
        assert status(raw.ask(raw.request("BYE", NUMBER, cseq=3, **tagged))) == 200
        call = ended(t)
        trace = t.ok("GET", f"/core/conversations/{call['id']}/trace")
        assert {d["reason"] for d in trace["decisions"]} >= {"challenged"}, trace["decisions"]
        text = json.dumps(trace) + raw_get(t, f"/core/conversations/{call['id']}/trace?format=pcap").decode(errors="replace")
        exported = []
        homer.settimeout(0.5)
        try:
            while True:
                exported.append(hep(homer.recv(65535)))
        except socket.timeout:
            pass
        methods = [(m["payload"].split(b" ")[0].decode(), m["payload"].split(b" ")[1].decode()) for m in exported]
        assert [m for m, _ in methods].count("INVITE") == 2 and ("SIP/2.0", "401") in methods and ("SIP/2.0", "200") in methods and "BYE" in dict(methods), methods
        first = exported[0]
        assert (first["source"], first["target"]) == ((raw.ip, raw.port), t.udp) and abs(first["seconds"] - time.time()) < 60
        text += "".join(m["payload"].decode(errors="replace") for m in exported) + "".join(t.log)
        with open(f"{t.data}/tandem.db", "rb") as f, open(f"{t.data}/tandem.db-wal", "rb") as w:
            text += (f.read() + w.read()).decode(errors="replace")
        for secret in (response, response[:12], key, key[:12], "pa\"ss"):
            assert secret not in text, secret
        assert "inline:****" in text and "Authorization: Digest ****" in text


def hep(packet):
    """The chunks of a HEP3 packet that matter."""
    assert packet[:4] == b"HEP3" and struct.unpack("!H", packet[4:6])[0] == len(packet)
    chunks, at = {}, 6
    while at < len(packet):
        vendor, kind, length = struct.unpack("!HHH", packet[at:at + 6])
        chunks[kind] = packet[at + 6:at + length]
        at += length
    number = lambda kind: int.from_bytes(chunks[kind], "big")
    assert number(1) == 2 and number(2) in (6, 17) and number(11) == 1
    address = lambda ip, port: (socket.inet_ntoa(chunks[ip]), number(port))
    return {"source": address(3, 7), "target": address(4, 8), "seconds": number(9), "payload": chunks[15]}


def test_a_failed_call_out_tells_why_in_its_trace(binary):
    with Tandem(binary) as t:
        carrier = Carrier(lambda c, r: c.reply(r, "486 Busy Here") if r.startswith("INVITE") else None)
        trunk = t.ok("POST", "/core/trunks", {"name": "x", "outbound_config": {"address": "%s:%d" % carrier.address, "auth_username": "u", "auth_password": "p"}})["id"]
        t.ok("POST", "/core/phone-numbers", {"phone_number": NUMBER, "trunk_id": trunk})
        agent = t.agent({"runtime": {"type": "echo"}}, [NUMBER], "outbound")
        call = t.ok("POST", "/core/conversations", {"channel": "telephone", "user_id": "+14155550199", "agent_id": agent})["conversation"]["id"]
        t.conversation(call, "unanswered")
        trace = wait_for("the trace", 3, lambda: (lambda x: x if len(x["messages"]) >= 3 else None)(t.ok("GET", f"/core/conversations/{call}/trace")))
        assert [m["start_line"].split(" ")[0] for m in trace["messages"]] == ["INVITE", "SIP/2.0", "ACK"], trace["messages"]
        assert trace["decisions"][-1]["status"] == 486 and len(trace["decisions"]) == 1


def test_strangers_rtp_leaks_nothing_and_gets_nothing_in(binary):
    """From before the answer to the end, from another address, with the true SSRC and sequence: RTP, digits, RTCP BYE.
    Every second call is a bot's, which speaks, and would hear what gets in and be told of its digits."""
    calls, streams = int(os.environ.get("SPRAYED_CALLS", "20")), []

    async def listens(connection):
        streams.append(await Stream(connection).begin())
        await streams[-1].say(ulaw(tone(700, 0.5)))
        await streams[-1].rest()
    bots = Bots(listens)
    with Tandem(binary, ["media.ports=21000-25999"]) as t:
        number_on_trunk(t, ["127.0.0.1"])
        number_on_trunk(t, ["127.0.0.1"], "+14155550101", publish=False)
        t.agent({"runtime": {"type": "media_stream", "url": bots.url}}, ["+14155550101"])
        spray = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        spray.bind(("127.0.0.66", 0))
        for turn in range(calls):
            echoes = turn % 2 == 0
            call = Call(t.udp, NUMBER if echoes else "+14155550101")
            assert call.final() == 200
            digit = lambda n: rtp(bytes([5, 0x8A, 3, 32]), n, n * 160, 7, 101)
            bye = struct.pack("!BBHI", 0x81, 203, 1, 7)
            for n in range(8):
                for packet in (rtp(b"\x00" * 160, n, n * 160, 7), digit(n), bye):
                    spray.sendto(packet, call.rtp.remote)
            for n in range(10):
                call.rtp.socket.sendto(rtp(b"\xd5" * 160, n, n * 160, 7), call.rtp.remote)
                for packet in (rtp(b"\x00" * 160, n + 1, n * 160 + 160, 7), digit(n + 1), bye):
                    spray.sendto(packet, call.rtp.remote)
                call.rtp.listen(time.monotonic() + (0.004 if echoes else 0.02))
            # Their own BYE on the RTCP port and from the true peer ends no call either.
            call.rtp.socket.sendto(bye, call.rtp.remote)
            call.rtp.socket.sendto(bye, (call.rtp.remote[0], call.rtp.remote[1] + 1))
            call.rtp.listen(time.monotonic() + 0.05)
            until = time.monotonic() + 2
            while echoes and len(call.rtp.received) < 10 and time.monotonic() < until:
                call.rtp.listen(time.monotonic() + 0.02)
            if echoes:
                assert call.rtp.received == [b"\xd5" * 160] * 10, len(call.rtp.received)
            else:
                assert call.rtp.received, "the bot is not heard"
            call.bye()
        spray.setblocking(False)
        try:
            raise AssertionError(f"leaked: {spray.recv(100)!r}")
        except BlockingIOError:
            pass
        # Two of three are RTP proper from a source that is not believed, and most of them are read and counted.
        dropped = lambda: metric(t, "rtp_dropped_total", reason="src_mismatch")
        wait_for("the counter", 3, lambda: dropped() >= calls * 18)
        wait_for("the calls' end", 5, lambda: metric(t, "calls_active") == 0)
        bots.check()
        assert len(streams) == calls // 2 and not any(stream.digits for stream in streams), [s.digits for s in streams]
        # The true peer speaks softly, and the stranger at full scale.
        loudest = [max((abs(decode_ulaw(b)) for b in stream.heard), default=0) for stream in streams]
        assert all(200 < loud < 3_000 for loud in loudest), loudest


def test_a_victim_that_sdp_names_gets_no_flood(binary):
    with Tandem(binary) as t:
        agent = t.deployed({"runtime": {"type": "play", "tones": [{"hz": 440, "ms": 20000}]}})
        victim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        victim.bind(("127.0.0.77", 0))
        victim.settimeout(2)
        call = Call(t.udp, agent, body=sdp("127.0.0.77", victim.getsockname()[1]))
        assert call.final() == 200
        packets = 0
        try:
            while victim.recv(2048):
                packets += 1
        except socket.timeout:
            pass
        assert 100 < packets <= 250, packets
        assert metric(t, "rtp_suppressed_total") > 10
        call.bye()


def test_two_calls_cannot_be_made_to_talk_to_each_other(binary):
    with Tandem(binary) as t:
        agent = t.deployed()
        call = Call(t.udp, agent)
        assert call.final() == 200
        ip, port = call.rtp.remote
        for offered in (port, port + 1):
            other = Call(t.udp, agent, body=sdp(ip, offered))
            assert other.final() == 488, other.answer
        call.bye()
        # A port of that range that no call of ours has may be anybody's.
        assert Call(t.udp, agent, body=sdp(ip, port + 100)).final() == 200


def test_a_stale_sender_is_not_heard_in_the_next_call_on_its_port(binary):
    with Tandem(binary, ["media.ports=26000-26001"]) as t:
        agent = t.deployed()
        old = Call(t.udp, agent)
        assert old.final() == 200
        old.rtp.socket.sendto(rtp(b"\x11" * 160, 1, 160, 1), old.rtp.remote)
        old.rtp.listen(time.monotonic() + 0.1)
        assert old.rtp.received == [b"\x11" * 160]
        old.bye()
        new = wait_for("the port", 3, lambda: (lambda c: c if c.final() == 200 else None)(Call(t.udp, agent)))
        assert new.rtp.remote == old.rtp.remote, "a short range refuses no call"
        for n in range(20):
            old.rtp.socket.sendto(rtp(b"\x22" * 160, n, n * 160, 1), old.rtp.remote)
        time.sleep(0.05)
        new.rtp.socket.sendto(rtp(b"\x33" * 160, 1, 160, 2), new.rtp.remote)
        new.rtp.listen(time.monotonic() + 0.1)
        assert new.rtp.received == [b"\x33" * 160]
        old.rtp.received.clear()
        old.rtp.listen(time.monotonic() + 0.05)
        assert old.rtp.received == []
