"""Calls over a network that loses packets: the timers of RFC 3261 set them up all the same."""
import subprocess
import tempfile
from datetime import datetime

from dialog import Ear, media_of
from lossy import Lossy
from sip import Call, header
from tandem import Tandem, alone, wait_for
from test_sipp import sipp

LOSS = 5
# 64·T1: what an INVITE and its 200 may take.
LONGEST = 32.0


def node(binary, lossy):
    return Tandem(binary, [f"sip.udp={lossy.near}:0", f"media.address={lossy.near}", "media.initial_timeout_s=600"])


def all_over(t):
    return lambda: not t.ok("GET", "/core/conversations?status=in_progress")


@alone
def test_every_call_in_is_set_up_and_ended_at_5_percent_loss(binary):
    with Lossy(LOSS) as lossy, node(binary, lossy) as t:
        calls = 300
        done = sipp(t, t.deployed(), 40, calls, within=lossy)
        assert done[:3] == (0, calls, 0), done
        lost = lossy.dropped()
        # Seven messages a call at the least.
        assert min(lost) > 0.02 * calls * 3, lost
        wait_for("every call's end", 40, all_over(t))
        ended = t.ok("GET", "/core/conversations?limit=100")
        # sipp takes a repeated 200 of its INVITE for the answer to its BYE: where ACK and BYE were both lost (one call in
        # 400), it thinks the call over and repeats neither, and the node is left without an ACK.
        unheard = [c for c in ended if (c["status"], c["reason"]) == ("failed", "no_ack")]
        assert len(unheard) <= 5, unheard
        assert {c["status"] for c in ended if c not in unheard} == {"completed"}, [(c["status"], c["reason"]) for c in ended]


@alone
def test_every_call_out_is_set_up_and_ended_at_5_percent_loss(binary):
    with Lossy(LOSS) as lossy, node(binary, lossy) as t, tempfile.TemporaryDirectory() as directory:
        carrier = subprocess.Popen(lossy.command("sipp", "-sn", "uas", "-i", lossy.far, "-p", "5080", "-nostdin"), cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            trunk = t.ok("POST", "/core/trunks", {"name": "x", "outbound_config": {"address": f"{lossy.far}:5080", "auth_username": "u", "auth_password": "p"}})["id"]
            t.ok("POST", "/core/phone-numbers", {"phone_number": "+14155550100", "trunk_id": trunk})
            agent = t.agent({"runtime": {"type": "echo"}}, ["+14155550100"], "outbound")
            ids = [t.ok("POST", "/core/conversations", {"channel": "telephone", "user_id": f"+1415555{n:04}", "agent_id": agent})["conversation"]["id"] for n in range(100)]
            look = lambda: [t.ok("GET", f"/core/conversations/{id}") for id in ids]
            calls = wait_for("every answer", 40, lambda: (lambda all: all if all_settled(all) else None)(look()))
            # sipp repeats its 200 until it sees the INVITE again, and is silent from then on: where its 180 and its 200 are both
            # lost (one call in 400), the node repeats the INVITE in vain until timer B.
            unheard = [c["id"] for c in calls if (c["status"], c["reason"]) == ("failed", "no_response")]
            assert len(unheard) <= 4, unheard
            for id in unheard:
                sent = [m["raw"].split(" ", 1)[0] for m in t.ok("GET", f"/core/conversations/{id}/trace")["messages"]]
                assert sent == ["INVITE"] * 7, sent
            ids = [id for id in ids if id not in unheard]
            calls = [c for c in calls if c["id"] in ids]
            assert {c["status"] for c in calls} == {"in_progress"}, [(c["status"], c["reason"], c["sip_call_id"]) for c in calls if c["status"] != "in_progress"]
            took = [seconds(c["created_at"], c["answered_at"]) for c in calls]
            assert max(took) < LONGEST, sorted(took)[-5:]
            for id in ids:
                t.ok("POST", f"/core/conversations/{id}/end")
            wait_for("every call's end", 33, lambda: all(c["status"] == "completed" for c in look()))
            assert min(lossy.dropped()) > 5, lossy.dropped()
        finally:
            carrier.kill()
            carrier.wait()


def all_settled(calls):
    return all(c["status"] not in ("triggered", "ringing") for c in calls)


def seconds(begun, ended):
    stamp = lambda text: datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (stamp(ended) - stamp(begun)).total_seconds()


@alone
def test_a_tone_is_heard_at_5_percent_loss(binary):
    with Lossy(LOSS) as lossy, node(binary, lossy) as t:
        agent = t.deployed()
        with lossy.within():
            call = Call(t.udp, agent, source=lossy.far)
            ear = Ear(0, lossy.far)
        call.body = call.body.replace(f"m=audio {call.rtp.port} ", f"m=audio {ear.port} ")
        invite = call.request("INVITE", 1, call.body)
        answer = wait_for("the 200", 8, lambda: answered(call, invite))
        call.to_line = header(answer, "To")
        ear.to(*media_of(answer))
        call.socket.send(call.request("ACK", 1, branch="ack"))
        ear.say(440, 3.0)
        ear.hears(440)
        wait_for("the 200 of BYE", 8, lambda: ended(call))


def answered(call, invite):
    """The 200, asked for anew as timer A would have it."""
    got = call.socket.receive(0.5)
    if got is None:
        call.socket.send(invite)
    return got if got and got.startswith("SIP/2.0 200") else None


def ended(call):
    call.socket.send(call.request("BYE", 2, branch="bye"))
    got = call.socket.receive(0.5)
    return got and got.startswith("SIP/2.0 200") and header(got, "CSeq") == "2 BYE"
