"""Sentence by sentence what the wire contract says of who is answered, how, and what an end means."""
import re
import signal
import socket
import threading

from dialog import Peer
from hostile import Raw, metric
from sip import Call, Carrier, Rtp, header, sdp, status
from tandem import Tandem, wait_for
from test_inbound import number_on_trunk
from test_transports import at, call_over, invites, trunk_to

NUMBER = "+14155550100"


def code(answer):
    return status(answer) if answer else None


def test_whose_hosts_are_ours_and_whom_an_organization_lets_call_its_agents(binary):
    with Tandem(binary, ["sip.domains=pbx.example, 127.0.0.1", "sip.udp=0.0.0.0:0"]) as t:
        number_on_trunk(t, ["127.0.0.0/8"])
        raw = Raw(("127.0.0.1", t.udp[1]))
        for host, expected in [("pbx.example", 200), ("PBX.example:5060;transport=udp", 200), (f"127.0.0.1:{t.udp[1]}", 200), ("other.example", 404), ("127.0.0.2", 404)]:
            assert code(raw.ask(raw.request("INVITE", "x", uri=f"sip:{NUMBER}@{host}"))) == expected, host
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.0/8"])
        agent = t.deployed()
        raw = Raw(t.udp)
        # Whatever the host; the number in every form that carriers write it in; and by To where the Request-URI is ours.
        for uri in (f"sip:{NUMBER}@other.example", f"sip:{NUMBER};npdi;rn=+12025550100@1.2.3.4;user=phone", "sip:0014155550100@x", "sip:1-415-555-0100@x", f"sip:%2B{NUMBER[1:]}@x", f"sips:{NUMBER}@x",
                    f"tel:{NUMBER}", "tel:+1(415)555-0100;phone-context=+1", f"sip:{agent.upper()}@x"):
            assert code(raw.ask(raw.request("INVITE", "x", uri=uri))) == 200, uri
        for uri in ("sip:trunk@x", "sip:x"):
            request = raw.request("INVITE", "x", uri=uri).replace(f"To: <{uri}>", f"To: <sip:{NUMBER}@x>")
            assert code(raw.ask(request)) == 200, uri
        t.ok("PATCH", "/core/organization", {"sip_endpoint_allowed_addresses": ["127.0.0.9", "::ffff:127.0.0.16/124"]})
        for source, expected in [("127.0.0.9", 200), ("127.0.0.17", 200), ("127.0.0.8", 403)]:
            call = Call(t.udp, agent, source=source, from_host="127.0.0.9")
            assert call.final() == expected, (source, call.answer)


def test_who_spoofs_a_header_is_still_where_it_is(binary):
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.2"])
        raw = Raw(t.udp, "127.0.0.3")
        for change in (lambda r: r.replace(";rport", ";rport;received=127.0.0.2"), lambda r: r.replace("SIP/2.0/UDP 127.0.0.3", "SIP/2.0/UDP 127.0.0.2"),
                       lambda r: r.replace("Contact:", "X-Forwarded-For: 127.0.0.2\r\nP-Asserted-Identity: <sip:+1@127.0.0.2>\r\nRecord-Route: <sip:127.0.0.2;lr>\r\nContact:")):
            assert code(raw.ask(change(raw.request("INVITE", NUMBER)))) == 403
        assert metric(t, "calls_total", direction="inbound") == 0


def test_nothing_is_passed_on_to_anybody(binary):
    with Tandem(binary, ["sip.domain=pbx.example"]) as t:
        trunk = number_on_trunk(t, ["127.0.0.2"])
        raw, victim = Raw(t.udp, "127.0.0.2"), Raw(t.udp, "127.0.0.66")
        us, there = f"127.0.0.1:{t.udp[1]}", f"{victim.ip}:{victim.port}"
        route = lambda *to: "".join(f"Route: <sip:{one}>\r\n" for one in to)
        via = lambda sent_by: f"Via: SIP/2.0/UDP {sent_by};branch=z9hG4bKbelow\r\n"
        for extra, expected in [
            # Ways to us: by address, by name, without a port; and where the Request-URI goes.
            (route(f"{us};lr"), 200), (route(f"{us};lr;transport=udp"), 200), (route("127.0.0.1;lr"), 200), (route("PBX.example;lr"), 200), (route("pbx.example:5070;lr", f"{us};lr"), 200),
            (route(f"x@{us};lr;maddr={victim.ip}"), 200),
            # To somebody else, wherever it stands.
            (route(f"{there};lr"), 403), (route(there), 403), (route(f"{us};lr", f"{there};lr"), 403), (f"Route: <sip:{us};lr>, <sip:{there};lr>\r\n", 403), (route(f"{there};lr;transport=tcp"), 403),
            (route("127.0.0.1:9;lr"), 403), (route("attacker.example;lr"), 403), (route("[::1]:5060;lr"), 403), (route(f"{us}@{there};lr"), 403), ("Route: <tel:+19005550100>\r\n", 403),
            # What we have sent ourselves.
            (via(us), 482), (via("198.51.100.1") + via(us), 482), (via("127.0.0.1:9"), 200), (via(there), 200), (route(f"{us};lr") + via(us), 482),
        ]:
            answer = raw.ask(raw.request("INVITE", NUMBER, extra))
            assert code(answer) == expected, (extra, answer)
            assert expected != 403 or answer.startswith("SIP/2.0 403 Not relaying\r\n"), answer
        # Who names our address on top and is elsewhere has the same one behind a NAT; and a phone's way is where it calls.
        assert code(raw.ask(raw.request("INVITE", NUMBER).replace(f"Via: SIP/2.0/UDP {raw.ip}:{raw.port}", f"Via: SIP/2.0/UDP {us}"))) == 200
        for host, to in [("203.0.113.5", "203.0.113.5:5060;lr"), ("pbx.test:5070", "PBX.test:5070;lr")]:
            assert code(raw.ask(raw.request("INVITE", "x", route(to), uri=f"sip:{NUMBER}@{host}"))) == 200, to
        hops = raw.request("INVITE", NUMBER, route(f"{there};lr")).replace("Max-Forwards: 70", "Max-Forwards: 0")
        assert code(raw.ask(hops)) == 483
        # A call that need not be passed on is answered, however few hops are left.
        assert code(raw.ask(raw.request("INVITE", NUMBER).replace("Max-Forwards: 70", "Max-Forwards: 0"))) == 200
        assert code(raw.ask(raw.request("OPTIONS", "x", route(f"{there};lr")))) == 403
        assert code(raw.ask(raw.request("OPTIONS", "x", route(f"{us};lr")))) == 200
        for uri in (f"sip:{NUMBER}@{there};maddr={victim.ip}", f"sip:{NUMBER}@{there};transport=tcp", f"sip:+19005550100@{there}", f"sip:{there}"):
            assert code(raw.ask(raw.request("INVITE", "x", uri=uri))) in (200, 404), uri
        assert victim.silence() == []
        found = wait_for("the decisions", 3, lambda: {d["reason"]: d for d in t.ok("GET", f"/core/trunks/{trunk}/decisions")} or None)
        assert {"not_relaying", "loop_detected", "too_many_hops"} <= set(found), found
        assert any(step["rule"] == "not_relaying" and "is not to this node" in step["detail"] for step in found["not_relaying"]["steps"]), found
        # Who may not call learns nothing new.
        stranger = Raw(t.udp, "127.0.0.3")
        assert code(stranger.ask(stranger.request("INVITE", NUMBER, route(f"{there};lr")))) == 403
        assert all(d["source"].startswith("127.0.0.2") for d in t.ok("GET", f"/core/trunks/{trunk}/decisions"))
    with Tandem(binary, ["sip.unknown_sources=drop"]) as t:
        number_on_trunk(t, ["127.0.0.2"])
        stranger = Raw(t.udp, "127.0.0.3")
        assert stranger.ask(stranger.request("INVITE", NUMBER, route(f"{there};lr")), 0.5) is None
        # On a trunk without a list nobody is one.
        number_on_trunk(t, None, "+14155550122")
        assert code(stranger.ask(stranger.request("INVITE", "+14155550122", route(f"{there};lr")))) == 403


def test_two_organizations_behind_one_carrier_get_their_own_calls(binary):
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.2"])
        other = t.admin("key", "create", "--org", t.admin("org", "create", "Other"))
        ours, t.key = t.key, other
        number_on_trunk(t, ["127.0.0.2"], "+14155550111")
        for key, number in ((ours, NUMBER), (other, "+14155550111")):
            call = Call(t.udp, number, source="127.0.0.2")
            assert call.final() == 200
            call.bye()
            t.key = key
            found = wait_for("the call", 3, lambda: t.ok("GET", "/core/conversations?status=completed"))
            assert [c["agent_number"] for c in found] == [number], found


def test_over_a_trunks_limit_nobody_is_sent_away_from_the_node(binary):
    with Tandem(binary, ["limits.max_calls=2"]) as t:
        trunk = number_on_trunk(t, ["127.0.0.0/8"])
        t.ok("PUT", f"/core/trunks/{trunk}", {"max_concurrent_calls": 1})
        agent = t.deployed()
        first, second = Call(t.udp, NUMBER), Call(t.udp, NUMBER)
        assert (first.final(), second.final()) == (200, 503)
        # With Retry-After the carrier would avoid the whole node (RFC 3261 21.5.4).
        assert header(second.answer, "Retry-After") is None
        other, over = Call(t.udp, agent), Call(t.udp, agent)
        assert (other.final(), over.final()) == (200, 503)
        assert header(over.answer, "Retry-After"), over.answer
        first.bye()
        assert wait_for("a place", 3, lambda: Call(t.udp, agent).final() == 200)


def test_a_node_that_leaves_says_so_and_keeps_its_calls(binary):
    with Tandem(binary, ["node.drain_timeout=20s"]) as t:
        trunk = number_on_trunk(t, ["127.0.0.0/8"])
        call, raw = Call(t.udp, NUMBER), Raw(t.udp)
        assert call.final() == 200
        t.process.send_signal(signal.SIGTERM)
        options = wait_for("OPTIONS 503", 3, lambda: (lambda a: a if status(a) == 503 else None)(raw.ask(raw.request("OPTIONS", "x"))))
        assert "INVITE" in header(options, "Allow")
        new = Call(t.udp, NUMBER)
        assert new.final() == 503 and header(new.answer, "Retry-After")
        call.rtp.talk(440, 0.4)
        assert call.rtp.received == call.rtp.sent
        call.bye()
        wait_for("the node's end", 5, lambda: t.process.poll() is not None)
        assert t.process.returncode == 0


def test_a_caller_who_gives_up_gets_487_and_says_why(binary):
    """While the agent is not ready the caller hears ringing, and may leave."""
    with socket.create_server(("127.0.0.1", 0)) as deaf, Tandem(binary) as t:
        agent = t.deployed({"runtime": {"type": "media_stream", "url": "ws://127.0.0.1:%d/" % deaf.getsockname()[1]}, "answer_timeout_ms": 20_000})
        raw = Raw(t.udp)
        invite = raw.request("INVITE", agent, branch="1")
        raw.send(invite)
        rung = raw.receive()
        while status(rung) != 180:
            rung = raw.receive()
        assert ";tag=" in header(rung, "To") and header(rung, "Contact")
        cancel = re.sub(r"Content-Type:.*", "Content-Length: 0\r\n\r\n", invite, flags=re.S).replace("INVITE", "CANCEL").replace("Contact:", "Reason: SIP;cause=200;text=\"Call completed elsewhere\"\r\nContact:")
        raw.send(cancel)
        answers = {header(a, "CSeq"): status(a) for a in (raw.receive(), raw.receive())}
        assert answers == {"1 CANCEL": 200, "1 INVITE": 487}, answers
        found = wait_for("the record", 3, lambda: t.ok("GET", "/core/conversations?status=cancelled"))[0]
        assert found["ended_by"] == "caller" and found["sip_status"] == 487 and "elsewhere" in found["reason"], found


def test_a_response_goes_where_the_via_says(binary):
    """To the source's address; to its port with rport, else to the Via's; whatever the Via's transport is."""
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.0/8"])
        raw = Raw(t.udp, "127.0.0.4")
        elsewhere = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        elsewhere.bind(("127.0.0.4", 0))
        elsewhere.settimeout(2)
        port = elsewhere.getsockname()[1]
        for sent_by in (f"127.0.0.4:{port}", f"pbx.example:{port}", f"10.1.2.3:{port}"):
            for transport in ("UDP", "TCP", "TLS"):
                request = raw.request("OPTIONS", "x").replace(f"SIP/2.0/UDP 127.0.0.4:{raw.port}", f"SIP/2.0/{transport} {sent_by}")
                answer = raw.ask(request)
                assert status(answer) == 200 and f";rport={raw.port}" in header(answer, "Via") and ";received=127.0.0.4" in header(answer, "Via"), answer
                raw.send(request.replace(";rport", ""))
                answer = elsewhere.recv(65535).decode()
                assert status(answer) == 200 and (";received=127.0.0.4" in header(answer, "Via")) == (not sent_by.startswith("127.0.0.4")), answer
        assert raw.silence() == []


def test_what_is_advertised_is_in_contact_via_and_sdp(binary):
    with Tandem(binary, ["sip.advertise=edge.example:5070, tcp=203.0.113.7", "media.advertise=203.0.113.8"]) as t:
        number_on_trunk(t, ["127.0.0.0/8"])
        call = Call(t.udp, NUMBER)
        assert call.final() == 200
        assert "@edge.example:5070" in header(call.answer, "Contact").replace("sip:edge", "@edge") and "c=IN IP4 203.0.113.8" in call.answer, call.answer
        tcp = Call(t.tcp, NUMBER, "tcp")
        assert tcp.final() == 200 and f"203.0.113.7:{t.tcp[1]};transport=tcp" in header(tcp.answer, "Contact"), tcp.answer
        carrier = Carrier(lambda c, r: c.reply(r, "486 Busy"))
        t.conversation(call_over(t, trunk_to(t, at(carrier)), "+14155550101"), "unanswered")
        invite = invites(carrier)[0]
        assert "edge.example:5070" in header(invite, "Via") and "edge.example:5070" in header(invite, "Contact") and "@edge.example" in header(invite, "From"), invite


def test_what_a_carriers_final_response_makes_of_a_call(binary):
    wanted = {"600 Busy Everywhere": "unanswered", "408 Request Timeout": "unanswered", "480 Away": "unanswered", "603 Decline": "unanswered", "486 Busy": "unanswered",
              "403 No": "failed", "484 Short": "failed", "500 Oops": "failed", "302 Moved": "failed", "604 Nowhere": "failed", "488 No": "failed", "420 Bad Extension": "failed"}
    elsewhere = Carrier(lambda c, r: None)
    for line, expected in wanted.items():
        with Tandem(binary) as t:
            reason = f"Reason: Q.850;cause=21;text=\"told so\"\r\nContact: <sip:+14155550199@{at(elsewhere)}>\r\n"
            # After 100 Trying a 408 is the callee's, too; nobody else is asked, and no Contact of a redirection.
            script = lambda c, r: r.startswith("INVITE") and (c.reply(r, "100 Trying"), c.reply(r, line, reason))
            first, second = Carrier(script), Carrier(script)
            call = t.conversation(call_over(t, trunk_to(t, at(first), [at(second)])), expected)
            assert call["sip_status"] == int(line[:3]) and call["ended_by"] == "carrier" and call["reason"] == "Q.850 21 (told so)", call
            wait_for("the ACK", 3, lambda: any(r.startswith("ACK ") for r in first.requests))
            assert not second.requests and not elsewhere.requests


def test_media_that_stops_ends_the_call_and_names_the_cause(binary):
    with Tandem(binary, ["media.timeout_s=1", "media.initial_timeout_s=2"]) as t:
        trunk = number_on_trunk(t, ["127.0.0.0/8"])
        for spoke, advice in ((False, "one-way"), (True, "stopped")):
            peer = Peer(t.udp, NUMBER)
            assert peer.final() == 200
            if spoke:
                peer.rtp.talk(440, 0.2)
            bye = peer.asked("BYE", 6)
            peer.reply(bye, "200 OK")
            found = wait_for("the decision", 3, lambda: [d for d in t.ok("GET", f"/core/trunks/{trunk}/decisions") if d["reason"] == "media_timeout" and advice in d["advice"]])
            call = t.ok("GET", f"/core/conversations/{found[0]['conversation_id']}")
            assert (call["status"], call["ended_by"], call["reason"]) == ("completed", "system", "media_timeout"), call


def test_media_from_the_trunks_media_addresses_is_learned_and_from_others_is_not(binary):
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.0/8"], inbound={"media_addresses": ["127.0.5.0/24"]})
        for source, believed in (("127.0.5.9", True), ("127.0.6.9", False)):
            call = Call(t.udp, NUMBER)
            assert call.final() == 200
            other = Rtp(source)
            other.to(*call.rtp.remote)
            other.talk(440, 0.5)
            assert bool(other.received) == believed, (source, len(other.received))
            # The first packets are its probation; once it is believed, nobody else is.
            call.rtp.talk(500, 0.2)
            assert bool(call.rtp.received) != believed, source
            call.bye()


# Offers of all kinds, and what becomes of them: the status, and what the answer must hold.
HEAD = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\n"
OFFERS = {
    "names in lower case": (sdp("127.0.0.1", 40000).replace("PCMU", "pcmu"), 200, "m=audio \\d+ RTP/AVP 0 101\r"),
    "no rtpmap of a static type": (HEAD + "c=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8\r\n", 200, "PCMA/8000"),
    "c= of the media line alone": (HEAD + "t=0 0\r\nm=audio 40000 RTP/AVP 0\r\nc=IN IP4 127.0.0.1\r\n", 200, "PCMU"),
    "c= of the media line wins": (HEAD + "c=IN IP4 224.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\nc=IN IP4 127.0.0.1\r\n", 200, "PCMU"),
    "no c= at all": (HEAD + "t=0 0\r\nm=audio 40000 RTP/AVP 0\r\n", 400, ""),
    "video first": (HEAD + "c=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5000 RTP/AVP 96\r\nm=audio 40000 RTP/AVP 0\r\n", 200, "m=video 0 RTP/AVP 96\r\nm=audio [1-9]"),
    "a rejected line first": (HEAD + "c=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 0 RTP/AVP 8\r\nm=audio 40000 RTP/AVP 0\r\n", 200, "m=audio 0 RTP/AVP 8\r\nm=audio [1-9]\\d* RTP/AVP 0"),
    "nothing but a rejected line": (HEAD + "c=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\n", 488, "304"),
    "SRTP or plain, one line each": (HEAD + "c=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/SAVP 0\r\na=crypto:1 F8_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\nm=audio 40002 RTP/AVP 0\r\n", 200, "m=audio 0 RTP/SAVP 0\r\nm=audio [1-9]\\d* RTP/AVP 0"),
    "recvonly": (sdp("127.0.0.1", 40000, extra="a=recvonly\r\n"), 200, "a=sendonly"),
    "inactive": (sdp("127.0.0.1", 40000, extra="a=inactive\r\n"), 200, "a=inactive"),
    "sendonly for all": (sdp("127.0.0.1", 40000).replace("t=0 0\r\n", "t=0 0\r\na=sendonly\r\n"), 200, "a=recvonly"),
    "BUNDLE and rtcp-mux": (sdp("127.0.0.1", 40000, extra="a=mid:0\r\na=rtcp-mux\r\n").replace("t=0 0\r\n", "t=0 0\r\na=group:BUNDLE 0\r\n"), 200, "a=rtcp-mux"),
    "DTLS": (sdp("127.0.0.1", 40000, "UDP/TLS/RTP/SAVPF"), 488, "302"),
    "AVPF": (sdp("127.0.0.1", 40000, "RTP/AVPF"), 200, "RTP/AVPF"),
    "events at 16 kHz": (sdp("127.0.0.1", 40000).replace("telephone-event/8000", "telephone-event/16000"), 200, "a=rtpmap:101 telephone-event/16000"),
    "events alone": (HEAD + "c=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 101\r\na=rtpmap:101 telephone-event/8000\r\n", 488, "305"),
    "codecs that we have not": (sdp("127.0.0.1", 40000).replace(" 0 101", " 18 4").replace("0 PCMU", "18 G729"), 488, "305"),
    "PCMU by a dynamic type": (sdp("127.0.0.1", 40000).replace(" 0 101", " 96 101").replace("rtpmap:0 PCMU", "rtpmap:96 PCMU"), 200, "RTP/AVP 96 101\r\na=rtpmap:96 PCMU/8000"),
    "a static type for another codec": (sdp("127.0.0.1", 40000).replace("0 PCMU", "0 FOO"), 488, "305"),
    "Opus": (sdp("127.0.0.1", 40000).replace(" 0 101", " 111 101").replace("0 PCMU/8000", "111 opus/48000/2"), 200, "a=rtpmap:111 opus/48000/2"),
    "LF alone": (sdp("127.0.0.1", 40000).replace("\r\n", "\n"), 200, "PCMU"),
    "another address family": (sdp("127.0.0.1", 40000).replace("IN IP4 127.0.0.1", "IN IP6 ::1"), 200, "c=IN IP6"),
    "a name for an address": (sdp("127.0.0.1", 40000).replace("c=IN IP4 127.0.0.1", "c=IN IP4 pbx.example"), 488, "301"),
    "no end of lines": (sdp("127.0.0.1", 40000, extra="m=video 9 RTP/AVP 31\r\n" * 60), 200, "m=video 0"),
    "a fax beside it": (sdp("127.0.0.1", 40000, extra="m=image 40002 udptl t38\r\n"), 200, "m=image 0 udptl t38"),
    "more ports than one": (sdp("127.0.0.1", 40000).replace("audio 40000", "audio 40000/2"), 200, "PCMU"),
    "long packets": (sdp("127.0.0.1", 40000, extra="a=ptime:40\r\na=maxptime:20\r\n"), 200, "a=ptime:20"),
}


def test_offers_of_every_kind_are_answered_as_the_rfcs_ask(binary):
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.0/8"])
        for name, (body, expected, holds) in OFFERS.items():
            raw = Raw(t.udp)
            answer = raw.ask(raw.request("INVITE", NUMBER, body=body))
            assert code(answer) == expected, (name, answer)
            assert re.search(holds, answer if expected == 200 else header(answer, "Warning") or ""), (name, answer)
            # As many lines as were offered, in their order (RFC 3264 6).
            if expected == 200:
                kinds = lambda text: re.findall(r"^m=(\w+) ", text, re.M)
                assert kinds(answer) == kinds(body), (name, answer)


def test_messages_as_old_and_odd_peers_write_them(binary):
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.0/8"])
        put = lambda line: lambda r: r.replace("Contact:", line + "\r\nContact:")
        for name, change, expected in [
            ("compact names", lambda r: re.sub(r"^(Via|From|To|Call-ID|Contact|Content-Type|Content-Length):", lambda m: {"Via": "v", "From": "f", "To": "t", "Call-ID": "i", "Contact": "m", "Content-Type": "c", "Content-Length": "l"}[m[1]] + ":", r, flags=re.M), 200),
            ("folded lines", lambda r: r.replace("From: <", "From:\r\n <").replace("To: <", "To:\r\n\t<").replace(";rport", "\r\n ;rport"), 200),
            ("two Vias in a line", lambda r: r.replace("\r\nMax-Forwards", ", SIP/2.0/TCP [2001:db8::9]:5060;branch=z9hG4bKold\r\nMax-Forwards"), 200),
            ("To without brackets", lambda r: re.sub(r"To: <([^>]*)>", r"To: \1", r), 200),
            ("a name in Latin-1", lambda r: r.replace("From: <", "From: \"M\u00fcller\" <").encode("latin-1"), 200),
            ("no Max-Forwards", lambda r: r.replace("Max-Forwards: 70\r\n", ""), 200),
            ("a charset of the body", lambda r: r.replace("application/sdp", "Application/SDP; charset=utf-8"), 200),
            ("a timer by its compact name", put("x: 1800;refresher=uac\r\nk: timer"), 200),
            ("a timer below what we take", put("Session-Expires: 60\r\nSupported: timer"), 422),
            ("a longer Min-SE", put("Session-Expires: 1800\r\nMin-SE: 3000\r\nSupported: timer"), 200),
            ("what we have is required", put("Require: timer, 100rel, replaces"), 200),
            ("what we have not is required", put("Require: path, timer"), 420),
            ("another body than SDP is wanted", put("Accept: application/isup"), 406),
            ("a multipart body", lambda r: r.replace("application/sdp", "multipart/mixed;boundary=x"), 415),
            ("nobody's dialog is replaced", put("Replaces: x;to-tag=a;from-tag=b"), 481),
            ("a gateway's history", put("Diversion: <sip:x@y>;reason=no-answer\r\nHistory-Info: <sip:a@b>;index=1\r\nPriority: urgent"), 200),
        ]:
            raw = Raw(t.udp)
            answer = raw.ask(change(raw.request("INVITE", NUMBER)))
            assert code(answer) == expected, (name, answer)
            if expected == 422:
                assert header(answer, "Min-SE") == "90"
            if expected == 420:
                assert header(answer, "Unsupported") == "path"
            if "Vias" in name:
                assert answer.count("branch=z9hG4bK") == 2, answer
        # A call whose every message carries such a name is one call to its end.
        class Old(Peer):
            def request(self, *a, **k):
                return super().request(*a, **k).replace("From: <", "From: \"M\u00fcller\" <").encode("latin-1")
        peer = Old(t.udp, t.deployed(), source="127.0.0.1")
        assert peer.final() == 200
        assert status(peer.ask("OPTIONS")) == 200 and status(peer.ask("BYE")) == 200


def test_what_needs_a_dialog_and_names_none_finds_none(binary):
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.0/8"])
        raw = Raw(t.udp)
        for methods, expected in ((("BYE", "CANCEL", "UPDATE", "INFO", "PRACK", "NOTIFY"), 481), (("REGISTER", "SUBSCRIBE", "PUBLISH", "MESSAGE", "REFER", "FOO"), 405)):
            for method in methods:
                assert code(raw.ask(raw.request(method, NUMBER))) == expected, method
            for method in methods:
                assert code(raw.ask(raw.request(method, NUMBER, to_tag=";tag=guessed"))) == 481, method


def test_what_comes_after_the_end_of_a_call_is_answered_until_its_transactions_time_out(binary):
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.0/8"])
        # Over UDP and TCP, hung up by the caller and by us.
        for transport, ours in (("udp", False), ("udp", True), ("tcp", False)):
            call = Call(getattr(t, transport), NUMBER, transport)
            invite = call.request("INVITE", 1, call.body)
            invite = re.sub(r"To: .*\r\n", f"To: <{call.uri}>\r\n", invite)
            assert call.final() == 200
            bye = call.request("BYE", 2, branch="bye")
            if ours:
                id = wait_for("the call", 5, lambda: t.ok("GET", "/core/conversations?status=in_progress"))[0]["id"]
                threading.Thread(target=t.request, args=("POST", f"/core/conversations/{id}/end")).start()
                asked = call.socket.receive(5)
                assert asked.startswith("BYE "), asked
                lines = "\r\n".join(f"{name}: {header(asked, name)}" for name in ("Via", "From", "To", "Call-ID", "CSeq"))
                call.socket.send(f"SIP/2.0 200 OK\r\n{lines}\r\nContent-Length: 0\r\n\r\n")
            else:
                call.socket.send(bye)
                assert code(call.socket.receive()) == 200
            wait_for("the end", 5, lambda: not t.ok("GET", "/core/conversations?status=in_progress"))
            tag = header(call.answer, "To").split("tag=")[1]
            late = lambda method, cseq, **more: call.request(method, cseq, **more)
            for request, expected in [(bye, 200), (late("INFO", 3, branch="info"), 481), (late("INVITE", 4, body=call.body, branch="re"), 481), (bye, 200)]:
                if expected == 200 and ours:
                    # It crosses nothing: ours has had its answer.
                    expected = 481
                call.socket.send(request)
                answer = call.socket.receive(2)
                assert code(answer) == expected, (transport, ours, request, answer)
                assert f"tag={tag}" in header(answer, "To"), answer
            # The INVITE once more is absorbed, by another path it is merged, and another one waits (RFC 6026 8.5, RFC 3261 8.2.2.2).
            call.socket.send(invite)
            assert call.socket.receive(0.3) is None
            call.socket.send(invite.replace(f"z9hG4bK{call.branch}", "z9hG4bKother"))
            assert code(call.socket.receive(2)) == 482
            call.socket.send(invite.replace(f"z9hG4bK{call.branch}", "z9hG4bKnew").replace("CSeq: 1 ", "CSeq: 9 "))
            answer = call.socket.receive(2)
            assert code(answer) == 500 and int(header(answer, "Retry-After")) <= 10, answer
