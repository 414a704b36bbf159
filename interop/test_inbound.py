"""Calls from carriers and phones."""
from sip import Call, sdp
from tandem import Tandem, wait_for

ECHO = {"runtime": {"type": "echo"}}


def number_on_trunk(t, allowed=None, number="+14155550100", publish=True, inbound=None):
    trunk = t.ok("POST", "/core/trunks", {"name": "x", "inbound_config": {"allowed_addresses": allowed, **(inbound or {})}})["id"]
    t.ok("POST", "/core/phone-numbers", {"phone_number": number, "trunk_id": trunk})
    if publish:
        t.agent(ECHO, [number])
    return trunk


def test_only_the_transport_source_counts(binary):
    with Tandem(binary, ["sip.udp=0.0.0.0:0"]) as t:
        node = ("127.0.0.1", t.udp[1])
        trunk = number_on_trunk(t, ["127.0.0.2", "::ffff:127.0.0.8/126"])
        for source, expected in [("127.0.0.2", 200), ("127.0.0.9", 200), ("127.0.0.3", 403), ("127.0.0.12", 403)]:
            for from_host in (None, "127.0.0.2"):
                call = Call(node, "+14155550100", source=source, from_host=from_host, contact="<sip:x@127.0.0.2:5060>" if expected == 403 else None)
                assert call.final() == expected, (source, from_host, call.answer)
                if expected == 200:
                    call.bye()
        records = wait_for("decision", 3, lambda: t.ok("GET", f"/core/trunks/{trunk}/decisions"))
        assert records[0]["reason"] == "src_not_allowed" and "allowed_addresses" in records[0]["advice"]


def test_a_tone_comes_back_bit_for_bit(binary):
    for transport in ("udp", "tcp"):
        with Tandem(binary) as t:
            number_on_trunk(t)
            call = Call(getattr(t, transport), "14155550100", transport)
            assert call.final() == 200
            call.rtp.talk(440)
            call.rtp.hears(440)
            assert call.rtp.received == call.rtp.sent
            call.bye()
            call = wait_for("conversation", 2, lambda: t.ok("GET", "/core/conversations?status=completed"))[0]
            assert (call["direction"], call["ended_by"], call["agent_number"], call["user_id"]) == ("inbound", "caller", "+14155550100", "+14155550111")


def test_who_does_not_answer(binary):
    with Tandem(binary) as t:
        number_on_trunk(t, number="+14155550102", publish=False)
        number_on_trunk(t, number="+14155550103", inbound={"media_encryption": "SIP_MEDIA_ENCRYPT_REQUIRE"})
        number_on_trunk(t)
        agent = t.deployed()
        assert Call(t.udp, agent).final() == 200
        assert Call(t.udp, "+19995550000").final() == 404
        assert Call(t.udp, "01890000-0000-7000-8000-000000000000").final() == 404
        assert Call(t.udp, "+14155550102").final() == 480
        assert Call(t.udp, "+14155550103").final() == 488
        savp = Call(t.udp, "+14155550100", body=sdp("127.0.0.1", 4000, "RTP/SAVP"))
        assert savp.final() == 488 and "Warning" in savp.answer
        t.ok("PUT", f"/core/agents/{agent}", {"active": False})
        assert Call(t.udp, agent).final() == 480
        t.ok("DELETE", f"/core/agents/{agent}/deploy-as-sip")
        assert Call(t.udp, agent).final() == 404


def test_strangers_hear_nothing_in_drop_mode(binary):
    with Tandem(binary, ["sip.unknown_sources=drop"]) as t:
        number_on_trunk(t, ["127.0.0.2"])
        assert Call(t.udp, "+14155550100", source="127.0.0.3").final(1) is None
        assert Call(t.udp, "+14155550100", source="127.0.0.2").final() == 200


def test_play_agent_speaks(binary):
    with Tandem(binary) as t:
        agent = t.deployed({"runtime": {"type": "play", "tones": [{"hz": 700, "ms": 1000}]}})
        call = Call(t.udp, agent)
        assert call.final() == 200
        import time
        call.rtp.listen(time.monotonic() + 1.2)
        call.rtp.hears(700)
        bye = call.socket.receive(3)
        assert bye.startswith("BYE "), bye
