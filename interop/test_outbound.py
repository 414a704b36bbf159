"""Calls out over a carrier of ours."""
from sip import Carrier, header
from tandem import Tandem, wait_for

PASSWORD = 'p"a\\ss word'


def place(t, carrier, transport="UDP", ring=60, runtime=None):
    trunk = t.ok("POST", "/core/trunks", {"name": "x", "outbound_config": {
        "address": "%s:%d" % carrier.address, "auth_username": "acc", "auth_password": PASSWORD, "transport": f"SIP_TRANSPORT_{transport}"}})["id"]
    t.ok("POST", "/core/phone-numbers", {"phone_number": "+14155550100", "trunk_id": trunk})
    agent = t.agent({"runtime": runtime or {"type": "echo"}, "ring_timeout_s": ring})
    answer = t.ok("POST", "/core/conversations", {"channel": "telephone", "user_id": "+14155550199", "agent_id": agent})
    return answer["conversation"]["id"]


def challenger(algorithm, status):
    asks, brings = ("Proxy-Authenticate", "Proxy-Authorization") if status == 407 else ("WWW-Authenticate", "Authorization")

    def script(carrier, request):
        method = request.split(" ", 1)[0]
        if method == "INVITE" and not header(request, brings):
            carrier.reply(request, f"{status} Who are you", f'{asks}: Digest realm="r", nonce="n1", algorithm={algorithm}, qop="auth"\r\n')
        elif method == "INVITE":
            carrier.verify(header(request, brings), algorithm, "acc", PASSWORD, "INVITE")
            assert "sip:+14155550199@" in request.split(" ")[1] and "+14155550100@" in header(request, "From") and "+14155550100@" in header(request, "P-Asserted-Identity")
            carrier.reply(request, "180 Ringing")
            carrier.accept(request)
        elif method == "BYE":
            carrier.reply(request, "200 OK")
            return "end"
    return script


def test_digest(binary):
    for transport in ("UDP", "TCP"):
        for algorithm in ("MD5", "SHA-256"):
            for status in (401, 407):
                with Tandem(binary) as t:
                    carrier = Carrier(challenger(algorithm, status), transport.lower())
                    call = place(t, carrier, transport)
                    t.conversation(call, "in_progress")
                    carrier.rtp.talk(440)
                    carrier.rtp.hears(440)
                    assert t.ok("POST", f"/core/conversations/{call}/end")["status"] == "completed"
                    carrier.thread.join(5)
                    assert carrier.failure is None, carrier.failure
                    assert t.conversation(call, "completed")["ended_by"] == "api"


def test_refusals(binary):
    for line, expected in [("486 Busy Here", "unanswered"), ("603 Decline", "unanswered"), ("480 Away", "unanswered"), ("404 Not Found", "failed"), ("503 Service Unavailable", "failed"), ("403 Forbidden", "failed")]:
        with Tandem(binary) as t:
            carrier = Carrier(lambda c, r: c.reply(r, line) if r.startswith("INVITE") else "end")
            call = t.conversation(place(t, carrier), expected)
            assert call["sip_status"] == int(line[:3]) and call["ended_by"] == "carrier", call
            carrier.thread.join(5)
            assert sum(r.startswith("INVITE") for r in carrier.requests) == 1


def test_nobody_answers_and_the_api_gives_up(binary):
    def ringing(carrier, request):
        method = request.split(" ", 1)[0]
        if method == "INVITE":
            carrier.invite = request
            carrier.reply(request, "180 Ringing")
        elif method == "CANCEL":
            carrier.reply(request, "200 OK")
            carrier.reply(carrier.invite, "487 Request Terminated")
        elif method == "ACK":
            return "end"
    with Tandem(binary) as t:
        assert t.conversation(place(t, Carrier(ringing), ring=1), "unanswered")["reason"] == "ring_timeout"
    with Tandem(binary) as t:
        call = place(t, Carrier(ringing))
        t.conversation(call, "ringing")
        assert t.ok("POST", f"/core/conversations/{call}/end")["status"] == "cancelled"


def test_wrong_password_ends_after_one_try(binary):
    challenge = lambda c, r: c.reply(r, "407 No", 'Proxy-Authenticate: Digest realm="r", nonce="n", qop="auth"\r\n') if r.startswith("INVITE") else None
    with Tandem(binary) as t:
        carrier = Carrier(challenge)
        assert t.conversation(place(t, carrier), "failed")["reason"] == "authentication_failed"
        wait_for("acks", 3, lambda: sum(r.startswith("ACK") for r in carrier.requests) == 2)
        assert sum(r.startswith("INVITE") for r in carrier.requests) == 2
