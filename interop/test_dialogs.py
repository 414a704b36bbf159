"""What happens inside a call: it is held, moved, refreshed, transferred, and its audio is right at every step."""
import re
import secrets
import struct
import threading
import time

from bots import Bots, Stream, hears
from dialog import Ear, Peer, both_say, media_of, offer
from sip import Carrier, decode_ulaw, header, status
from tandem import Tandem, wait_for

NUMBER, OTHER = "+14155550101", "+14155550102"


def trunk(node, carrier=None, **inbound):
    body = {"name": "pbx", "inbound_config": {"allowed_addresses": ["127.0.0.1"], **inbound}}
    if carrier:
        body["outbound_config"] = {"address": "%s:%d" % carrier.address, "auth_username": "u", "auth_password": "p"}
    return node.ok("POST", "/core/trunks", body)["id"]


def numbered(node, carrier=None, **inbound):
    """A trunk whose number an echo answers."""
    id = trunk(node, carrier, **inbound)
    node.ok("POST", "/core/phone-numbers", {"phone_number": NUMBER, "trunk_id": id})
    node.agent({"runtime": {"type": "echo"}}, [NUMBER])
    return id


def live(node):
    return wait_for("a live call", 5, lambda: [c for c in node.ok("GET", "/core/conversations?status=in_progress")])[0]["id"]


def called(node, headers="", **more):
    peer = Peer(node.udp, NUMBER, headers, **more)
    assert peer.final() == 200, peer.answer
    return peer


def direction(message):
    return re.search(r"^a=(sendrecv|sendonly|recvonly|inactive)", message, re.M).group(1)


def test_a_call_is_held_moved_refreshed_transferred_and_keeps_its_audio(binary):
    with Tandem(binary, ["sip.min_se=2", "media.timeout_s=1"]) as t:
        numbered(t)
        peer = called(t, "Supported: timer\r\nAllow: INVITE, UPDATE, BYE, ACK\r\nSession-Expires: 4\r\n")
        assert header(peer.answer, "Session-Expires") == "4;refresher=uas" and header(peer.answer, "Require") == "timer"
        ear, id = peer.ears(), live(t)
        ear.say(440, 0.6)
        ear.hears(440)
        # Held, in the three ways there are: nothing is sent, and silence beyond media.timeout_s ends nothing.
        for body, answered in [
            (offer("127.0.0.1", ear.port, direction="sendonly"), "recvonly"),
            (offer("127.0.0.1", ear.port, direction="inactive"), "inactive"),
            (offer("127.0.0.1", ear.port, connection="0.0.0.0"), "recvonly"),
        ]:
            answer = peer.ask("INVITE", body)
            peer.ack()
            assert status(answer) == 200 and direction(answer) == answered, answer
            ear.say(440, 0.2)
            assert len(ear.received) <= 1, len(ear.received)
        ear.received = []
        # By now the session is refreshed by tandem, which the 200 agreed to.
        update = peer.asked("UPDATE", 5)
        assert header(update, "Session-Expires") == "4;refresher=uac" and "Content-Type" not in update, update
        peer.reply(update, "200 OK", "Session-Expires: 4;refresher=uac\r\nRequire: timer\r\n")
        # Resumed on another port with another codec.
        moved = Ear(8)
        answer = peer.ask("INVITE", offer("127.0.0.1", moved.port, 8, version=9), "Supported: timer\r\nSession-Expires: 4;refresher=uas\r\n")
        peer.ack()
        assert direction(answer) == "sendrecv" and "PCMA/8000" in answer
        moved.to(*media_of(answer))
        moved.say(700, 0.6)
        moved.hears(700)
        assert moved.others == 0
        # Back by UPDATE, and once more without an offer of ours.
        answer = peer.ask("UPDATE", offer("127.0.0.1", ear.port, version=10))
        assert status(answer) == 200 and "PCMU/8000" in answer
        ear.say(440, 0.5)
        ear.hears(440)
        answer = peer.ask("INVITE")
        assert "PCMU/8000" in answer and "PCMA/8000" in answer and direction(answer) == "sendrecv"
        peer.ack(offer("127.0.0.1", moved.port, 8, version=11))
        moved.say(500, 0.6)
        moved.hears(500)
        # What cannot be taken changes nothing.
        assert status(peer.ask("INVITE", offer("127.0.0.1", moved.port, version=12).replace(" 0 101", " 18").replace("rtpmap:0 PCMU", "rtpmap:18 G729"))) == 488
        moved.say(600, 0.5)
        moved.hears(600)
        # Transferred.
        t.ok("POST", f"/core/conversations/{id}/transfer", {"to": "+14155550199"})
        assert t.request("POST", f"/core/conversations/{id}/transfer", {"to": "+14155550199"})[0] == 409
        refer = peer.asked("REFER")
        assert re.fullmatch(r"<sip:\+14155550199@127\.0\.0\.1:\d+>", header(refer, "Refer-To")), refer
        peer.reply(refer, "202 Accepted")
        peer.notify("SIP/2.0 100 Trying")
        peer.notify("SIP/2.0 180 Ringing")
        moved.say(650, 0.5)
        moved.hears(650)
        peer.notify("SIP/2.0 200 OK", "terminated;reason=noresource")
        peer.reply(peer.asked("BYE"), "200 OK")
        call = t.conversation(id, "transferred")
        assert "+14155550199" in call["reason"], call


def test_a_session_that_nobody_refreshes_is_ended(binary):
    with Tandem(binary, ["sip.min_se=2"]) as t:
        numbered(t)
        peer = called(t, "Supported: timer\r\nSession-Expires: 3;refresher=uac\r\n")
        assert header(peer.answer, "Session-Expires") == "3;refresher=uac"
        bye = peer.asked("BYE", 4)
        assert "session expired" in header(bye, "Reason")
        peer.reply(bye, "200 OK")
        wait_for("the record", 3, lambda: [c for c in t.ok("GET", "/core/conversations") if c["reason"] == "session_expired"])


def test_too_short_an_interval_is_refused_and_the_timer_of_the_rfc_agreed_on(binary):
    with Tandem(binary) as t:
        numbered(t)
        peer = Peer(t.udp, NUMBER, "Supported: timer\r\nSession-Expires: 60\r\n")
        assert peer.final() == 422 and header(peer.answer, "Min-SE") == "90"
        peer = called(t, "Supported: timer\r\nSession-Expires: 90;refresher=uas\r\n")
        assert header(peer.answer, "Session-Expires") == "90;refresher=uas"
        supported = header(peer.answer, "Supported")
        assert all(tag in supported for tag in ("timer", "100rel", "replaces", "norefersub")), supported
        assert status(peer.ask("UPDATE", extra="Supported: timer\r\nSession-Expires: 30\r\n")) == 422
        # A storm inside the dialog: ten a second, the others are told to come again, and the call goes on.
        answers = [peer.ask("INFO", "Signal=1\r\nDuration=100\r\n", kind="application/dtmf-relay") for _ in range(40)]
        refused = [a for a in answers if status(a) == 500]
        assert len(refused) >= 20 and all(header(a, "Retry-After") for a in refused), [status(a) for a in answers]
        peer.cseq += 1
        ear = peer.ears()
        ear.say(440, 0.4)
        ear.hears(440)
        answer = peer.ask("BYE")
        assert status(answer) == 200


def carrier_that(answers):
    """A carrier whose INVITEs `answers` gets."""
    def script(carrier, request):
        method = request.split(" ", 1)[0]
        if method == "INVITE":
            answers(carrier, request)
        elif method == "BYE":
            carrier.reply(request, "200 OK")
            carrier.hung_up = True
        elif method == "CANCEL":
            carrier.reply(request, "200 OK")
            carrier.reply(carrier.invite, "487 Request Terminated")
    carrier = Carrier(script)
    carrier.rtp = Ear()
    carrier.hung_up = False
    return carrier


def accepts(carrier, request):
    carrier.invite = request
    carrier.reply(request, "180 Ringing")
    carrier.rtp.to(*media_of(request))
    carrier.reply(request, "200 OK", body=offer("127.0.0.1", carrier.rtp.port, carrier.rtp.payload_type))


def invites(carrier):
    return [r for r in carrier.requests if r.startswith("INVITE ")]


def press(ear, event):
    """A telephone-event with its end packets."""
    stamp = secrets.randbits(31)
    for n, (end, duration) in enumerate([(0, 160), (0, 480), (0x80, 800), (0x80, 800), (0x80, 800)]):
        ear.socket.sendto(struct.pack("!BBHIIBBH", 0x80, 101, (ear.numbers[1] + n) & 0xFFFF, stamp, ear.numbers[0], event, end | 10, duration), ear.remote)
    ear.numbers[1] += 5


def pressed(ear, seconds=1.0):
    """The events that come within a time."""
    seen, deadline = {}, time.monotonic() + seconds
    ear.socket.settimeout(0.2)
    while time.monotonic() < deadline:
        try:
            packet = ear.socket.recv(2048)
        except TimeoutError:
            continue
        if packet[1] & 0x7F == 101:
            seen[struct.unpack("!I", packet[4:8])[0]] = packet[12]
    return list(seen.values())


def unheard(*ears):
    """Forgets what came meanwhile."""
    for ear in ears:
        ear.socket.setblocking(False)
        try:
            while True:
                ear.socket.recv(2048)
        except BlockingIOError:
            pass


def test_a_refused_refer_is_bridged_and_heard_both_ways(binary):
    with Tandem(binary) as t:
        carrier = carrier_that(accepts)
        carrier.rtp.payload_type = 8
        numbered(t, carrier)
        peer = called(t)
        ear, id = peer.ears(), live(t)
        t.ok("POST", f"/core/conversations/{id}/transfer", {"to": "+14155550199", "mode": "auto"})
        peer.reply(peer.asked("REFER"), "405 Method Not Allowed")
        invite = wait_for("the second leg", 5, lambda: invites(carrier))[0]
        assert invite.startswith(f"INVITE sip:+14155550199@127.0.0.1:{carrier.address[1]} ") and NUMBER in header(invite, "From"), invite
        wait_for("its ACK", 5, lambda: [r for r in carrier.requests if r.startswith("ACK ")])
        wait_for("the bridge", 5, lambda: t.ok("GET", f"/core/conversations/{id}")["notes"])
        both_say(ear, 440, carrier.rtp, 700, 1.0)
        ear.hears(700)
        carrier.rtp.hears(440)
        # Digits cross it, each way, by RTP and by INFO.
        press(ear, 5)
        assert pressed(carrier.rtp) == [5]
        press(carrier.rtp, 11)
        assert pressed(ear) == [11]
        assert status(peer.ask("INFO", "Signal=7\r\nDuration=160\r\n", kind="application/dtmf-relay")) == 200
        assert pressed(carrier.rtp) == [7]
        unheard(ear, carrier.rtp)
        # The first leg is held and resumed meanwhile.
        peer.ask("INVITE", offer("127.0.0.1", ear.port, direction="sendonly"))
        peer.ack()
        peer.ask("INVITE", offer("127.0.0.1", ear.port, version=3))
        peer.ack()
        both_say(ear, 500, carrier.rtp, 800, 0.8)
        ear.hears(800)
        carrier.rtp.hears(500)
        assert status(peer.ask("BYE")) == 200
        wait_for("the BYE of the second leg", 5, lambda: carrier.hung_up)
        call = t.conversation(id, "transferred")
        assert "+14155550199" in call["reason"] and call["ended_by"] == "caller", call
        reasons = [d["reason"] for d in t.ok("GET", f"/core/trunks/{call['trunk_id']}/decisions")]
        assert "transferred" in reasons, reasons
        # Both legs are in the call's ladder.
        ladder = lambda: [m["start_line"] for m in t.ok("GET", f"/core/conversations/{id}/trace")["messages"]]
        both = wait_for("the second leg's end", 3, lambda: (lambda l: l if sum(x.startswith("BYE") for x in l) >= 2 else None)(ladder()))
        assert any(x.startswith("INVITE sip:+14155550199@") for x in both) and any(x.startswith("REFER") for x in both), both


def test_a_target_that_does_not_answer_leaves_the_caller_with_the_agent(binary):
    with Tandem(binary) as t:
        def rings(carrier, request):
            carrier.invite = request
            carrier.reply(request, "180 Ringing")
            if "0198" in request:
                carrier.reply(request, "486 Busy Here")
        carrier = carrier_that(rings)
        numbered(t, carrier)
        peer = called(t)
        ear, id = peer.ears(), live(t)
        path = f"/core/conversations/{id}"
        for to, timeout, why in [("+14155550198", 30, "486"), ("+14155550197", 5, "in time")]:
            t.ok("POST", f"{path}/transfer", {"to": to, "mode": "bridge", "timeout_s": timeout})
            wait_for(why, 8, lambda: any(to in n and why in n for n in t.ok("GET", path)["notes"]))
            ear.say(440, 0.4)
            ear.hears(440)
        wait_for("the CANCEL", 3, lambda: [r for r in carrier.requests if r.startswith("CANCEL ")])
        # By REFER: the target is busy, so it is not called a second time.
        t.ok("POST", f"{path}/transfer", {"to": "+14155550196"})
        peer.reply(peer.asked("REFER"), "202 Accepted")
        peer.notify("SIP/2.0 486 Busy Here", "terminated;reason=noresource")
        wait_for("the note", 5, lambda: any("+14155550196" in n for n in t.ok("GET", path)["notes"]))
        assert len(invites(carrier)) == 2
        assert t.request("POST", f"{path}/transfer", {"to": "sip:1001@evil.example"})[0] == 400
        for body in ({"to": "1001"}, {"to": "tel:+1"}, {"to": "+14155550199", "mode": "x"}, {"to": "+14155550199", "timeout_s": 1}, {}):
            assert t.request("POST", f"{path}/transfer", body)[0] == 422, body
        assert t.ok("GET", path)["status"] == "in_progress"
        assert status(peer.ask("BYE")) == 200
        t.conversation(id, "completed")
        assert t.request("POST", f"{path}/transfer", {"to": "+14155550199"})[0] == 409


def consulting(t, carrier):
    """A caller with the agent, and somebody the agent has called: both live."""
    peer = called(t)
    ear, id = peer.ears(), live(t)
    agent = t.ok("GET", f"/core/conversations/{id}")["agent_id"]
    other = t.ok("POST", "/core/conversations", {"channel": "telephone", "user_id": "+14155550199", "agent_id": agent})["conversation"]["id"]
    t.conversation(other, "in_progress")
    return peer, ear, id, other


def test_whom_the_agent_has_consulted_gets_the_caller(binary):
    with Tandem(binary) as t:
        carrier = carrier_that(accepts)
        numbered(t, carrier)
        peer, ear, id, other = consulting(t, carrier)
        path = f"/core/conversations/{id}/transfer"
        for body, wanted in [({"to_conversation": id}, 409), ({"to_conversation": "01890000-0000-7000-8000-000000000000"}, 422), ({"to": "+14155550199", "to_conversation": other}, 422)]:
            assert t.request("POST", path, body)[0] == wanted, body
        # By REFER with Replaces: the carrier is told which dialog the caller is to take over.
        t.ok("POST", path, {"to_conversation": other})
        refer = peer.asked("REFER")
        invite = invites(carrier)[0]
        ours = re.search(r"tag=([^;>\s]+)", header(invite, "From")).group(1)
        assert header(refer, "Refer-To") == f"<sip:carrier@127.0.0.1:{carrier.address[1]}?Replaces={header(invite, 'Call-ID')}%3Bto-tag%3Dcarrier%3Bfrom-tag%3D{ours}>", refer
        # Refused, and the audio of both is joined instead.
        peer.reply(refer, "405 Method Not Allowed")
        wait_for("the join", 5, lambda: any("joined" in n for n in t.ok("GET", f"/core/conversations/{id}")["notes"]))
        both_say(ear, 440, carrier.rtp, 700, 1.0)
        ear.hears(700)
        carrier.rtp.hears(440)
        press(ear, 3)
        assert pressed(carrier.rtp) == [3]
        press(carrier.rtp, 4)
        assert pressed(ear) == [4]
        assert status(peer.ask("BYE")) == 200
        wait_for("the other one's BYE", 5, lambda: carrier.hung_up)
        for one in (id, other):
            assert t.conversation(one, "transferred")["reason"].startswith("transferred to "), one


def test_a_carrier_that_replaces_the_consultation_ends_both(binary):
    with Tandem(binary) as t:
        carrier = carrier_that(accepts)
        numbered(t, carrier)
        peer, ear, id, other = consulting(t, carrier)
        t.ok("POST", f"/core/conversations/{id}/transfer", {"to_conversation": other, "mode": "refer"})
        peer.reply(peer.asked("REFER"), "202 Accepted")
        peer.notify("SIP/2.0 200 OK", "terminated;reason=noresource")
        peer.reply(peer.asked("BYE"), "200 OK")
        t.conversation(id, "transferred")
        # Its dialog was replaced, and who forgets to say so is hung up on.
        wait_for("the consultation's end", 8, lambda: carrier.hung_up)
        t.conversation(other, "completed")


HOSTILE = [
    "sip:+19005550100@{us}", "sip:+19005550100@{carrier}", "sip:19005550100@{carrier}", "sip:118118@{carrier}", "sip:127.0.0.1:5060", "sip:{us}",
    "tel:+14155550101", "http://{us}/", "sips:+14155550101@{us}", "sip:1001@evil.example", "sip:+14155550101@evil.example", "sip:1001@127.0.0.1:9",
    "sip:+19005550100@{us}?Route=%3Csip:{carrier}%3E&Replaces=a%3Bto-tag%3Db%3Bfrom-tag%3Dc", "sip:a%0d%0aX:y@{carrier}", "sip:+14155550103@{us}",
]


def test_the_carriers_refer_is_followed_to_our_own_and_nowhere_else(binary):
    with Tandem(binary) as t:
        carrier = carrier_that(accepts)
        id = numbered(t, carrier)
        places = {"us": "127.0.0.1", "carrier": "%s:%d" % carrier.address}
        peer = called(t)
        allowed = f"<sip:{NUMBER}@127.0.0.1?Route=%3Csip:127.0.0.1:9%3E>"
        assert status(peer.ask("REFER", extra=f"Refer-To: {allowed}\r\n")) == 603
        assert status(peer.ask("BYE")) == 200
        t.ok("PUT", f"/core/trunks/{id}", {"inbound_config": {"allowed_addresses": ["127.0.0.1"], "allow_transfers": True}})
        for group in (HOSTILE[:8], HOSTILE[8:]):
            peer = called(t)
            for target in group:
                answer = peer.ask("REFER", extra=f"Refer-To: <{target.format(**places)}>\r\n")
                assert status(answer) in (403, 400), (target, answer)
            assert status(peer.ask("BYE")) == 200
        assert invites(carrier) == []
        refused = lambda: [d for d in t.ok("GET", f"/core/trunks/{id}/decisions") if d["reason"] == "transfer_target_refused"]
        wait_for("the decision records", 3, lambda: len(refused()) == len(HOSTILE))
        # And the one that is ours: the agent goes on with whom the carrier names.
        peer = called(t)
        assert status(peer.ask("REFER", extra=f"Refer-To: {allowed}\r\n")) == 202
        for wanted in ("100 Trying", "200 OK"):
            notify = peer.wait(lambda m: m.startswith("NOTIFY ") and wanted in m)
            assert header(notify, "Event") == "refer" and "message/sipfrag" in header(notify, "Content-Type")
            peer.reply(notify, "200 OK")
        assert status(peer.ask("BYE")) == 200
        invite = invites(carrier)[0]
        assert header(invite, "Route") is None and header(invite, "Replaces") is None and invite.startswith(f"INVITE sip:{NUMBER}@{places['carrier']} ")
        carrier.rtp.say(440, 0.6)
        carrier.rtp.hears(440)
        call = t.ok("GET", "/core/conversations?status=in_progress")[0]
        t.ok("POST", f"/core/conversations/{call['id']}/end")
        wait_for("its BYE", 5, lambda: carrier.hung_up)


def test_an_invite_with_replaces_takes_the_place_of_a_call(binary):
    with Tandem(binary) as t:
        numbered(t, allow_transfers=True)
        peer = called(t)
        ear, id = peer.ears(), live(t)
        ear.say(440, 0.3)
        ours = re.search(r"tag=([^;>\s]+)", peer.to_line).group(1)
        good = f"Replaces: {peer.id};to-tag={ours};from-tag={peer.tag}\r\nRequire: replaces\r\n"
        for bad, wanted in [
            (f"Replaces: {secrets.token_hex(4)};to-tag={ours};from-tag={peer.tag}\r\n", 481),
            (f"Replaces: {peer.id};to-tag={ours};from-tag=x\r\n", 481),
            (f"Replaces: {peer.id};to-tag=x;from-tag={peer.tag}\r\n", 481),
            (f"Replaces: {peer.id};to-tag={ours};from-tag={peer.tag};early-only\r\n", 486),
            (good + good, 400), ("Replaces: junk\r\n", 400),
        ]:
            other = Peer(t.udp, NUMBER, bad)
            assert other.final() == wanted, (bad, other.answer)
        stranger = Peer(t.udp, NUMBER, good, source="127.0.0.9")
        assert stranger.final() == 481, stranger.answer
        other = Peer(t.udp, NUMBER, good)
        assert other.final() == 200, other.answer
        peer.reply(peer.asked("BYE"), "200 OK")
        heard = other.ears()
        heard.say(700, 0.6)
        heard.hears(700)
        assert live(t) == id
        assert status(other.ask("BYE")) == 200
        t.conversation(id, "completed")


def test_who_takes_a_call_over_from_behind_a_nat_is_heard(binary):
    with Tandem(binary) as t:
        numbered(t, allow_transfers=True, allowed_addresses=["127.0.0.0/8"])
        peer = called(t)
        ear = peer.ears()
        ear.say(440, 0.3)
        ours = re.search(r"tag=([^;>\s]+)", peer.to_line).group(1)
        # Its description names what only its own network knows.
        other = Peer(t.udp, NUMBER, f"Replaces: {peer.id};to-tag={ours};from-tag={peer.tag}\r\nRequire: replaces\r\n", source="127.0.0.3", body=offer("10.9.9.9", 4000))
        assert other.final() == 200, other.answer
        peer.reply(peer.asked("BYE"), "200 OK")
        heard = other.ears()
        heard.say(700, 0.8)
        heard.hears(700)
        assert status(other.ask("BYE")) == 200


def test_a_reliable_183_is_acknowledged_and_its_answer_taken(binary):
    with Tandem(binary) as t:
        pracked = threading.Event()

        def script(carrier, request):
            method = request.split(" ", 1)[0]
            if method == "INVITE":
                carrier.invite = request
                carrier.rtp.to(*media_of(request))
                carrier.reply(request, "183 Session Progress", "Require: 100rel\r\nRSeq: 7\r\nAllow: UPDATE, PRACK\r\n", offer("127.0.0.1", carrier.rtp.port))
            elif method == "PRACK":
                assert header(request, "RAck") == f"7 {header(carrier.invite, 'CSeq')}", request
                carrier.reply(request, "200 OK")
                pracked.set()
                # The answer has been given: the 200 carries none.
                carrier.reply(carrier.invite, "200 OK")
            elif method == "BYE":
                carrier.reply(request, "200 OK")
                return "end"

        carrier = Carrier(script)
        carrier.rtp = Ear()
        id = trunk(t, carrier)
        t.ok("POST", "/core/phone-numbers", {"phone_number": NUMBER, "trunk_id": id})
        agent = t.agent({"runtime": {"type": "echo"}}, [NUMBER], "outbound")
        call = t.ok("POST", "/core/conversations", {"channel": "telephone", "user_id": "+14155550199", "agent_id": agent})["conversation"]["id"]
        assert pracked.wait(5), carrier.failure
        t.conversation(call, "in_progress")
        carrier.rtp.say(440, 0.6)
        carrier.rtp.hears(440)
        t.ok("POST", f"/core/conversations/{call}/end")
        t.conversation(call, "completed")
        assert carrier.failure is None, carrier.failure


def test_early_media_is_heard_by_the_agent_that_asks_for_it(binary):
    for wanted in (True, False):
        heard, spoken = bytearray(), threading.Event()

        async def script(socket):
            stream = Stream(socket)
            stream.heard = heard
            await stream.rest()

        def answers(carrier, request):
            carrier.invite = request
            carrier.rtp.to(*media_of(request))
            carrier.reply(request, "183 Session Progress", body=offer("127.0.0.1", carrier.rtp.port))
            carrier.rtp.say(700, 1.0)
            assert not carrier.rtp.received, "the agent speaks before the answer"
            early = len(heard)
            assert (early > 3000) == wanted, early
            if wanted:
                hears([decode_ulaw(b) for b in heard[800:]], 8000, 700)
            carrier.reply(request, "200 OK", body=offer("127.0.0.1", carrier.rtp.port))
            spoken.set()

        bots = Bots(script)
        with Tandem(binary) as t:
            carrier = carrier_that(answers)
            id = trunk(t, carrier)
            t.ok("POST", "/core/phone-numbers", {"phone_number": NUMBER, "trunk_id": id})
            agent = t.agent({"runtime": {"type": "media_stream", "url": bots.url}, "early_media": wanted}, [NUMBER], "outbound")
            call = t.ok("POST", "/core/conversations", {"channel": "telephone", "user_id": "+14155550199", "agent_id": agent})["conversation"]["id"]
            assert spoken.wait(6), carrier.failure
            t.conversation(call, "in_progress")
            t.ok("POST", f"/core/conversations/{call}/end")
            t.conversation(call, "completed")
