"""What a bot, or somebody by REST, asks for in mid-call: a recording that no config asked for, and calls out, which the
organization has only so many of."""
import base64
import io
import json
import struct
import threading
import urllib.error
import urllib.parse
import urllib.request
import wave

from bots import Bots, Stream, hears
from human import Human
from phone import Phone
from sip import header
from tandem import Tandem, wait_for
from test_transfers import BOT, CALLER, HUMAN, NUMBER, TARGET, Talker, listens, setting


def recorded(t, id):
    """Both sides of a call's recording."""
    request = urllib.request.Request(f"{t.http}/core/conversations/{id}/recording", headers={"Authorization": f"Bearer {t.key}"})
    with urllib.request.urlopen(request, timeout=10) as answer, wave.open(io.BytesIO(answer.read())) as w:
        samples = struct.unpack(f"<{w.getnframes() * 2}h", w.readframes(w.getnframes()))
    return samples[0::2], samples[1::2]


def test_a_recording_begins_in_mid_call(binary):
    with Tandem(binary) as t:
        bot, phone, id = setting(t, Human(HUMAN))
        path = f"/core/conversations/{id}/recording"
        assert t.ok("GET", f"/core/conversations/{id}").get("recording_details") is None
        assert t.request("GET", path)[0] == 404 and t.request("POST", f"{path}/pause")[0] == 409
        bot.send(type="pause_recording", id="p0")
        assert "not recorded" in bot.told(type="outcome", id="p0", ok=False)["detail"]
        bot.send(type="start_recording", id="r", format="wav")
        assert bot.told(type="outcome", id="r")["action"] == "start_recording" and bot.told(type="outcome", id="r")["ok"]
        details = wait_for("the record", 3, lambda: t.ok("GET", f"/core/conversations/{id}")["recording_details"])
        assert (details["format"], details["sample_rate"], details["channels"], details["pauses"]) == ("wav", 8000, 2, []), details
        listens((phone.samples, [BOT]), (bot.samples, [CALLER]))
        bot.send(type="pause_recording", id="p1")
        assert bot.told(type="outcome", id="p1")["ok"]
        # By REST: on again, and once more, which changes nothing; another format is another file.
        again = t.ok("POST", f"{path}/start")["recording_details"]
        assert again["pauses"][0]["resumed_at"] and t.ok("POST", f"{path}/start", {"format": "wav"})["recording_details"] == again
        status, why = t.request("POST", f"{path}/start", {"format": "ogg"})
        assert status == 409 and "another format" in why["detail"], why
        assert t.request("POST", f"{path}/start", {"format": "mp3"})[0] == 422
        phone.hang_up()
        done = t.conversation(id, "completed")["recording_details"]
        assert done["started_at"] == details["started_at"] and done["duration_ms"] > 900 and len(done["pauses"]) == 1, done
        assert t.request("POST", f"{path}/start")[0] == 409
        left, right = wait_for("the file", 3, lambda: (lambda sides: sides if len(sides[0]) > 7200 else None)(recorded(t, id)))
        hears(left[1600:], 8000, CALLER), hears(right[1600:], 8000, BOT)


def test_the_daily_limit_counts_the_calls_of_bots_and_of_dial_agents(binary):
    with Tandem(binary) as t:
        human = Human(HUMAN, refuses="486 Busy Here")
        bot, phone, id = setting(t, human)
        trunk, phones = t.ok("GET", "/core/trunks")[0]["id"], [phone]

        def caller(n, runtime):
            number = f"+1415555020{n}"
            t.ok("POST", "/core/phone-numbers", {"phone_number": number, "trunk_id": trunk})
            t.agent({"runtime": runtime}, [number])
            return lambda: phones.append(Phone(t.udp, number, hz=CALLER).answered())
        bots = [bot, Talker(), Talker()]
        for n, other in enumerate(bots[1:]):
            caller(n, {"type": "tandem", "url": other.bots.url, "sample_rate": 8000})()
        live = lambda: [c["id"] for c in t.ok("GET", "/core/conversations?status=in_progress")]
        ids = wait_for("three calls", 5, lambda: (lambda ids: ids if len(ids) == 3 else None)(live()))
        dial = caller(5, {"type": "dial", "to": TARGET, "timeout_s": 10, "fallback": {"type": "play", "tones": [{"hz": 700, "ms": 60000}]}})
        caller(6, {"type": "play", "tones": [{"hz": 700, "ms": 60000}]})()
        plain = wait_for("the fourth", 5, lambda: [id for id in live() if id not in ids])[0]
        t.ok("PATCH", "/core/organization", {"daily_call_limit": 3})
        # Three may, and five want to at once: three bots, a dial agent, and somebody over REST.
        statuses = []
        wanted = [lambda b=b: b.send(type="transfer", id="t", to=TARGET, mode="bridge") for b in bots]
        wanted += [dial, lambda: statuses.append(t.request("POST", f"/core/conversations/{plain}/transfer", {"to": TARGET, "mode": "bridge"})[0])]
        threads = [threading.Thread(target=work) for work in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        notes = lambda: [n for c in t.ok("GET", "/core/conversations?status=in_progress") for n in t.ok("GET", f"/core/conversations/{c['id']}")["notes"] if n.startswith("transfer to")]
        told = wait_for("what became of each", 10, lambda: (lambda all: all if len(all) + statuses.count(429) == 5 else None)(notes()))
        called = {header(r, "Call-ID") for r in human.carrier.requests if r.startswith("INVITE")}
        assert len(called) == 3 and sum("486" in n for n in told) == 3, (told, statuses)
        assert sum("daily_call_limit" in n for n in told) + statuses.count(429) == 2, (told, statuses)
        # Neither a warm transfer nor a REFER goes round it, and the caller is the bot's again.
        for mode in ("warm", "conference", "refer", "auto"):
            bot.send(type="transfer", id=mode, to=TARGET, mode=mode)
            assert "daily_call_limit" in bot.told(type="outcome", id=mode, ok=False)["detail"]
        listens((phone.samples, [BOT]), (bot.samples, [CALLER]))
        decisions = t.ok("GET", f"/core/trunks/{trunk}/decisions")
        assert any(s["rule"] == "calls_out" and "daily_call_limit" in s["detail"] for d in decisions for s in d["steps"]), decisions[:2]
        # A target by its own URI is no number that anybody pays for.
        human.refuses = None
        bot.send(type="transfer", id="uri", to="sip:desk@%s:%d" % human.carrier.address, mode="warm")
        assert bot.told(type="transfer", id="uri")["state"] == "answered"
        for phone in phones:
            phone.hang_up()


def test_the_shim_dials_as_twiml_says(binary):
    """A bot of another platform's changes its call: to its end, or to somebody else, and to nothing that is not done."""
    secret, seen = "s3cret", {}

    async def script(socket):
        seen["stream"] = await Stream(socket).begin()
        await seen["stream"].rest()

    def change(start, password=secret, **form):
        request = urllib.request.Request(f"{t.http}/2010-04-01/Accounts/{start['accountSid']}/Calls/{start['callSid']}.json", urllib.parse.urlencode(form).encode())
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{start['accountSid']}:{password}".encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())
    with Tandem(binary) as t:
        human, bots = Human(HUMAN), Bots(script)
        trunk = t.ok("POST", "/core/trunks", {"name": "x", "inbound_config": {}, "outbound_config": {
            "address": "%s:%d" % human.carrier.address, "auth_username": "u", "auth_password": "p"}})["id"]
        t.ok("POST", "/core/phone-numbers", {"phone_number": NUMBER, "trunk_id": trunk})
        t.agent({"runtime": {"type": "media_stream", "url": bots.url, "secret": secret}}, [NUMBER])
        phone = Phone(t.udp, NUMBER, hz=CALLER).answered()
        start = wait_for("the start", 5, lambda: seen.get("stream")).start
        dial = f"<Response><Dial timeout='20'><Number>{TARGET}</Number></Dial></Response>"
        for form, words in (({"Twiml": "<Response><Say>Bye</Say></Response>"}, "Say is not done"), ({"Twiml": "<Response><Dial>nobody</Dial></Response>"}, "whom Dial names"),
                            ({"Url": "http://bot.example/twiml"}, "nothing else")):
            status, answer = change(start, **form)
            assert status == 400 and words in answer["message"], (form, answer)
        assert change(start, "wrong", Twiml=dial)[0] == 401
        t.ok("PATCH", "/core/organization", {"allowed_destinations": ["+39"]})
        assert change(start, Twiml=dial)[0] == 400
        t.ok("PATCH", "/core/organization", {"allowed_destinations": None})
        status, answer = change(start, Twiml=dial)
        assert status == 200 and answer["status"] == "in-progress", answer
        assert change(start, Twiml=dial)[0] == 409
        human.speaks()
        listens((phone.samples, [HUMAN]), (human.samples, [CALLER]))
        wait_for("the bot's goodbye", 3, lambda: any(m["event"] == "stop" for m in seen["stream"].messages))
        phone.hang_up()
        assert human.gone.wait(5)
        id = t.ok("GET", "/core/conversations?limit=1")[0]["id"]
        t.conversation(id, "transferred")
        # And to its end.
        seen.clear()
        phone = Phone(t.udp, NUMBER, hz=CALLER).answered()
        start = wait_for("the start", 5, lambda: seen.get("stream")).start
        status, answer = change(start, Twiml="<?xml version=\"1.0\"?><Response><Hangup/></Response>")
        assert status == 200 and answer["status"] == "completed", answer
        assert phone.bye_came()
        bots.check()
