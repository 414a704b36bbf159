"""Transports and outbound reach: targets one after the other, TLS, names, proxies, registrations, slow peers."""
import time

import sip
from sip import Carrier, header
from tandem import Tandem, wait_for


def trunk_to(t, address, fallbacks=(), transport="UDP", **config):
    return t.ok("POST", "/core/trunks", {"name": "x", "outbound_config": {
        "address": address, "fallback_addresses": list(fallbacks), "auth_username": "acc", "auth_password": "secret",
        "transport": f"SIP_TRANSPORT_{transport}", **config}})["id"]


def call_over(t, trunk, number="+14155550100", runtime=None):
    t.ok("POST", "/core/phone-numbers", {"phone_number": number, "trunk_id": trunk})
    agent = t.agent({"runtime": runtime or {"type": "echo"}, "ring_timeout_s": 60})
    answer = t.ok("POST", "/core/conversations", {"channel": "telephone", "user_id": "+14155550199", "agent_id": agent, "agent_number": number})
    return answer["conversation"]["id"]


def at(carrier):
    return "%s:%d" % carrier.address


def answering(carrier, request):
    method = request.split(" ", 1)[0]
    if method == "INVITE":
        carrier.rang = time.monotonic()
        carrier.reply(request, "180 Ringing")
        carrier.accept(request)
    elif method == "BYE":
        carrier.reply(request, "200 OK")
        return "end"


def refusing(line):
    return lambda carrier, request: carrier.reply(request, line) if request.startswith("INVITE") else None


def invites(carrier):
    return [r for r in carrier.requests if r.startswith("INVITE")]


def test_the_first_is_dead_the_second_out_of_service_the_third_rings_once(binary):
    for transport in ("UDP", "TCP"):
        with Tandem(binary) as t:
            # A port that is bound and never answers: the silent kind of dead, which gives no ICMP.
            silent = sip.Socket(transport.lower())
            if transport == "TCP":
                silent.socket.listen(0)
            second, third = Carrier(refusing("503 Service Unavailable"), transport.lower()), Carrier(answering, transport.lower())
            begun = time.monotonic()
            call = call_over(t, trunk_to(t, "%s:%d" % silent.address(), [at(second), at(third)], transport))
            t.conversation(call, "in_progress")
            assert third.rang - begun < 2, third.rang - begun
            assert (len(invites(second)), len(invites(third))) == (1, 1)
            assert header(invites(second)[0], "Call-ID") != header(invites(third)[0], "Call-ID")
            third.rtp.talk(440)
            third.rtp.hears(440)
            assert t.ok("POST", f"/core/conversations/{call}/end")["status"] == "completed"
            assert t.ok("GET", f"/core/conversations/{call}")["sip_call_id"] == header(invites(third)[0], "Call-ID")
            assert len(t.ok("GET", "/core/conversations")) == 1


def test_a_callee_who_was_asked_is_not_asked_again(binary):
    def ringing_then_503(carrier, request):
        if request.startswith("INVITE"):
            carrier.reply(request, "180 Ringing")
            carrier.reply(request, "503 Service Unavailable")
    for script, status in [(refusing("486 Busy Here"), "unanswered"), (refusing("404 Not Found"), "failed"), (refusing("603 Decline"), "unanswered"), (ringing_then_503, "failed")]:
        with Tandem(binary) as t:
            first, second = Carrier(script), Carrier(answering)
            t.conversation(call_over(t, trunk_to(t, at(first), [at(second)])), status)
            wait_for("the ACK", 3, lambda: any(r.startswith("ACK") for r in first.requests))
            assert len(invites(first)) == 1 and not second.requests


def test_a_target_that_wakes_up_late_is_cancelled(binary):
    for late in ("180 Ringing", "200 OK"):
        with Tandem(binary) as t:
            sleeper = Carrier(lambda c, r: c.reply(r, "200 OK") if r.split(" ")[0] in ("CANCEL", "BYE") else None)
            works = Carrier(answering)
            call = call_over(t, trunk_to(t, at(sleeper), [at(works)]))
            t.conversation(call, "in_progress")
            repeated = len(invites(sleeper))
            if late.startswith("200"):
                sleeper.accept(invites(sleeper)[0])
                wait_for("ACK and BYE", 3, lambda: [r.split(" ")[0] for r in sleeper.requests[repeated:]] == ["ACK", "BYE"])
            else:
                sleeper.reply(invites(sleeper)[0], late)
                wait_for("CANCEL", 3, lambda: [r.split(" ")[0] for r in sleeper.requests[repeated:]] == ["CANCEL"])
            assert t.ok("GET", f"/core/conversations/{call}")["status"] == "in_progress"
            works.rtp.talk(440)
            works.rtp.hears(440)


def test_every_target_tried_is_on_record(binary):
    with Tandem(binary) as t:
        dead, full = sip.Socket(), Carrier(refusing("503 Busy here, too"))
        trunk = trunk_to(t, "%s:%d" % dead.address(), [at(full)])
        t.conversation(call_over(t, trunk), "failed")
        record = wait_for("decision", 3, lambda: t.ok("GET", f"/core/trunks/{trunk}/decisions"))[0]
        steps = [(s["rule"], s["detail"]) for s in record["steps"]]
        assert steps[0][0] == "target" and "%s:%d" % dead.address() in steps[0][1] and "503" in steps[-1][1], steps

