"""A bot hands its caller over: warm, cancelled, declined, in a conference; who hears whom is measured at each step."""
import asyncio
import json
import time

from bots import Bots, hears, level, pcm, tone
from human import Human
from phone import Phone
from tandem import Tandem, wait_for

NUMBER, TARGET = "+14155550101", "+14155550199"
CALLER, BOT, HUMAN, MUSIC = 440, 600, 900, 350


class Talker:
    """A bot of tandem's own protocol that says a tone all the time, keeps what it hears, and does what it is told."""

    def __init__(self):
        self.heard, self.messages, self.socket = [], [], None
        self.bots = Bots(self.script)

    async def script(self, socket):
        assert json.loads(await socket.receive())["type"] == "incoming"
        await socket.send({"type": "accept"})
        self.socket = socket
        saying = asyncio.ensure_future(self.say(socket))
        try:
            while True:
                message = await socket.receive()
                if isinstance(message, bytes):
                    self.heard.append((time.monotonic(), message))
                else:
                    self.messages.append(json.loads(message))
        finally:
            saying.cancel()

    async def say(self, socket):
        audio, start, n = pcm(tone(BOT, 1.0)), time.monotonic(), 0
        while True:
            at = n % 50 * 320
            await socket.send(audio[at:at + 320])
            n += 1
            await asyncio.sleep(max(0, start + n * 0.02 - time.monotonic()))

    def send(self, **message):
        asyncio.run_coroutine_threadsafe(self.socket.send(message), self.bots.loop).result(5)

    def told(self, seconds=5, **wanted):
        """The message that was sent to the bot."""
        matches = lambda m: all(m.get(name) == value for name, value in wanted.items())
        return wait_for(f"the message {wanted}", seconds, lambda: [m for m in list(self.messages) if matches(m)])[-1]

    def samples(self, since):
        data = b"".join(payload for at, payload in list(self.heard) if at >= since)
        return [int.from_bytes(data[n:n + 2], "little", signed=True) for n in range(0, len(data) - 1, 2)]


def listens(*expected):
    """Each listener hears its tones and none of the others; `expected` are (samples since, tones). A busy machine makes
    gaps, and may get another try; it never makes somebody hear who should not."""
    time.sleep(0.3)
    for left in (2, 1, 0):
        since = time.monotonic()
        time.sleep(0.8)
        try:
            return listened(since, expected)
        except AssertionError:
            if not left:
                raise


def listened(since, expected):
    for samples, tones in expected:
        own = samples(since)
        if len(tones) == 1:
            hears(own, 8000, tones[0])
        for hz in (CALLER, BOT, HUMAN, MUSIC):
            loud = level(own[:4000], 8000, hz)[0]
            assert (loud > 1000) == (hz in tones), (hz, loud, tones, len(own))


def setting(t, human, **config):
    trunk = t.ok("POST", "/core/trunks", {"name": "x", "inbound_config": {}, "outbound_config": {
        "address": "%s:%d" % human.carrier.address, "auth_username": "u", "auth_password": "p"}})["id"]
    t.ok("POST", "/core/phone-numbers", {"phone_number": NUMBER, "trunk_id": trunk})
    bot = Talker()
    runtime = {"type": "tandem", "url": bot.bots.url, "sample_rate": 8000}
    t.agent({"runtime": runtime, "hold_music": {"tones": [{"hz": MUSIC, "ms": 1000}]}, **config}, [NUMBER])
    phone = Phone(t.udp, NUMBER, hz=CALLER).answered()
    id = wait_for("the call", 5, lambda: t.ok("GET", "/core/conversations?status=in_progress"))[0]["id"]
    return bot, phone, id


def test_a_warm_transfer_is_briefed_and_completed(binary):
    with Tandem(binary) as t:
        human = Human(HUMAN, patient=True)
        bot, phone, id = setting(t, human)
        listens((phone.samples, [BOT]), (bot.samples, [CALLER]))
        assert t.request("POST", f"/core/conversations/{id}/transfer/complete")[0] == 409
        bot.send(type="transfer", id="t1", to=TARGET, mode="warm", timeout_s=20)
        assert human.rings.wait(5)
        # While it rings the caller hears music, and the agent nobody.
        listens((phone.samples, [MUSIC]))
        assert not bot.samples(time.monotonic() - 0.5)
        human.answers.set()
        assert bot.told(type="transfer", id="t1")["state"] == "answered"
        listens((phone.samples, [MUSIC]), (human.speaks().samples, [BOT]), (bot.samples, [HUMAN]))
        human.press("5")
        bot.told(type="dtmf", digit="5")
        bot.send(type="complete_transfer", id="c1")
        assert bot.told(type="outcome", id="c1")["ok"]
        outcome = bot.told(type="outcome", id="t1")
        assert outcome["ok"] and outcome["action"] == "transfer" and TARGET in outcome["detail"], outcome
        assert bot.told(type="end")["reason"] == "transferred"
        listens((phone.samples, [HUMAN]), (human.samples, [CALLER]))
        phone.press("7")
        phone.hang_up()
        assert human.gone.wait(5)
        call = t.conversation(id, "transferred")
        assert any("speaks with the agent" in note for note in call["notes"]) and TARGET in call["reason"], call
        bot.bots.check()


def test_a_declined_or_cancelled_warm_transfer_leaves_the_caller_with_the_agent(binary):
    with Tandem(binary) as t:
        human = Human(HUMAN)
        bot, phone, id = setting(t, human)
        # The human hears what it is about, and hangs up.
        bot.send(type="transfer", id="t1", to=TARGET, mode="warm")
        assert bot.told(type="transfer", id="t1")["state"] == "answered"
        listens((phone.samples, [MUSIC]), (human.speaks().samples, [BOT]), (bot.samples, [HUMAN]))
        human.hang_up()
        outcome = bot.told(type="outcome", id="t1")
        assert not outcome["ok"] and "hung up" in outcome["detail"], outcome
        listens((phone.samples, [BOT]), (bot.samples, [CALLER]))
        # Busy: the caller has heard music for a moment.
        human.refuses = "486 Busy Here"
        bot.send(type="transfer", id="t2", to=TARGET, mode="warm")
        assert "486" in bot.told(type="outcome", id="t2", ok=False)["detail"]
        listens((phone.samples, [BOT]), (bot.samples, [CALLER]))
        # Nobody answers in time, or the agent will not wait.
        human.refuses = None
        human.answers.clear()
        for name, timeout in (("t3", 5), ("t4", 60)):
            human.gone.clear()
            human.rings.clear()
            bot.send(type="transfer", id=name, to=TARGET, mode="warm", timeout_s=timeout)
            assert human.rings.wait(5)
            if timeout == 60:
                bot.send(type="cancel_transfer", id="x")
                assert bot.told(type="outcome", id="x")["ok"]
            bot.told(10, type="outcome", id=name, ok=False)
            assert human.gone.wait(5)
            listens((phone.samples, [BOT]), (bot.samples, [CALLER]))
        # By the API, and taken back while the human is on the line.
        human.gone.clear()
        human.answers.set()
        t.ok("POST", f"/core/conversations/{id}/transfer", {"to": TARGET, "mode": "warm"})
        bot.told(type="transfer", id=None, state="answered")
        listens((phone.samples, [MUSIC]), (human.speaks().samples, [BOT]), (bot.samples, [HUMAN]))
        t.ok("POST", f"/core/conversations/{id}/transfer/cancel")
        assert human.gone.wait(5)
        listens((phone.samples, [BOT]), (bot.samples, [CALLER]))
        for step in ("complete", "cancel", "conference"):
            assert t.request("POST", f"/core/conversations/{id}/transfer/{step}")[0] == 409, step
        assert t.request("POST", f"/core/conversations/{id}/transfer/sing")[0] == 422
        bot.send(type="complete_transfer", id="y")
        assert "no target" in bot.told(type="outcome", id="y", ok=False)["detail"]
        bot.send(type="transfer", id="t5", to=TARGET, mode="hot")
        assert "mode" in bot.told(type="outcome", id="t5", ok=False)["detail"]
        phone.hang_up()
        call = t.conversation(id, "completed")
        assert sum("failed" in note for note in call["notes"]) == 5, call["notes"]
        bot.bots.check()


def test_a_conference_of_three_and_a_bot_that_leaves_it(binary):
    with Tandem(binary) as t:
        human = Human(HUMAN)
        bot, phone, id = setting(t, human)
        bot.send(type="transfer", id="t1", to=TARGET, mode="warm")
        bot.told(type="transfer", id="t1", state="answered")
        bot.send(type="conference", id="c1")
        assert bot.told(type="outcome", id="c1")["ok"]
        bot.told(type="transfer", id="t1", state="conference")
        human.speaks()
        listens((phone.samples, [BOT, HUMAN]), (human.samples, [CALLER, BOT]), (bot.samples, [CALLER, HUMAN]))
        human.hang_up()
        outcome = bot.told(type="outcome", id="t1")
        assert outcome["ok"] and "left" in outcome["detail"], outcome
        listens((phone.samples, [BOT]), (bot.samples, [CALLER]))
        # At once: the caller and the agent go on while it rings.
        human.rings.clear()
        human.answers.clear()
        bot.send(type="transfer", id="t2", to=TARGET, mode="conference")
        assert human.rings.wait(5)
        listens((phone.samples, [BOT]), (bot.samples, [CALLER]))
        human.answers.set()
        bot.told(type="transfer", id="t2", state="conference")
        human.speaks()
        listens((phone.samples, [BOT, HUMAN]), (human.samples, [CALLER, BOT]), (bot.samples, [CALLER, HUMAN]))
        # A bot that leaves hands its caller over.
        bot.send(type="hang_up")
        listens((phone.samples, [HUMAN]), (human.samples, [CALLER]))
        phone.hang_up()
        assert human.gone.wait(5)
        t.conversation(id, "transferred")
        bot.bots.check()


def test_something_is_played_into_a_call(binary):
    with Tandem(binary) as t:
        human = Human(HUMAN)
        bot, phone, id = setting(t, human, recording={"enabled": True})
        listens((phone.samples, [BOT]))
        for name in ("pause_recording", "resume_recording"):
            bot.send(type=name, id=name)
            assert bot.told(type="outcome", id=name, action=name)["ok"]
        wait_for("the pause on record", 3, lambda: len(t.ok("GET", f"/core/conversations/{id}")["recording_details"]["pauses"]) == 1)
        start = time.monotonic()
        bot.send(type="clear")
        bot.send(type="play", id="p1", tones=[{"hz": HUMAN, "ms": 1000}])
        played = bot.told(type="outcome", id="p1")
        assert played["ok"] and played["action"] == "play", played
        assert 0.9 < time.monotonic() - start < 4
        hears(phone.samples(start + 0.15, start + 0.95), 8000, HUMAN)
        for sound, why in (({"tones": []}, "tones"), ({"file": "../x.wav"}, "file"), ({"file": "nothing.wav"}, "cannot be read"), ({"tones": [{"hz": 1, "ms": 600000}]}, "two minutes")):
            bot.send(type="play", id=why, **sound)
            assert why in bot.told(type="outcome", id=why, ok=False)["detail"]
        t.ok("POST", f"/core/conversations/{id}/play", {"tones": [{"hz": MUSIC, "ms": 700}]})
        bot.told(type="outcome", id=None, action="play")
        assert t.request("POST", f"/core/conversations/{id}/play", {})[0] == 422
        bot.send(type="play", id="p2", tones=[{"hz": HUMAN, "ms": 60000}])
        bot.send(type="clear")
        assert "cleared" in bot.told(type="outcome", id="p2", ok=False)["detail"]
        assert wait_for("figures of the line", 3, lambda: [m for m in bot.messages if m["type"] == "stats" and m["rtp"]])[-1]["rtp"]["received"]["mos"] > 3
        phone.hang_up()
        bot.bots.check()


def test_a_bot_that_dies_is_followed_by_its_fallback(binary):
    with Tandem(binary) as t:
        human = Human(HUMAN)
        # A human takes over.
        bot, phone, id = setting(t, human, fallback={"type": "dial", "to": TARGET, "timeout_s": 10}, hold_music=None)
        listens((phone.samples, [BOT]), (bot.samples, [CALLER]))
        start = time.monotonic()
        bot.bots.loop.call_soon_threadsafe(bot.bots.server.close)
        bot.bots.loop.call_soon_threadsafe(bot.socket.abort)
        assert human.rings.wait(8)
        assert time.monotonic() - start < 2.5, time.monotonic() - start
        human.speaks()
        listens((phone.samples, [HUMAN]), (human.samples, [CALLER]))
        phone.hang_up()
        assert human.gone.wait(5)
        call = t.conversation(id, "transferred")
        assert any(note.startswith("agent_gone") and "fallback (dial)" in note for note in call["notes"]), call["notes"]
        decisions = t.ok("GET", f"/core/trunks/{call['trunk_id']}/decisions")
        assert any(d["reason"] == "agent_gone" and d["conversation_id"] == id for d in decisions), decisions


def test_a_bot_that_dies_while_its_caller_is_handed_over(binary):
    with Tandem(binary) as t:
        human = Human(HUMAN, patient=True)
        bot, phone, id = setting(t, human, fallback={"type": "play", "tones": [{"hz": MUSIC + 250, "ms": 60000}]})
        bot.send(type="transfer", id="t1", to=TARGET, mode="warm", timeout_s=60)
        assert human.rings.wait(5)
        bot.bots.loop.call_soon_threadsafe(bot.bots.server.close)
        bot.bots.loop.call_soon_threadsafe(bot.socket.abort)
        time.sleep(2)
        # Nobody is left to brief the human, who gets the caller at once.
        human.answers.set()
        human.speaks()
        listens((phone.samples, [HUMAN]), (human.samples, [CALLER]))
        phone.hang_up()
        t.conversation(id, "transferred")


def test_a_caller_who_hangs_up_while_handed_over(binary):
    """While the target rings, and in the briefing: the target is let go, and the bot told what became of its transfer."""
    for patient in (True, False):
        with Tandem(binary) as t:
            human = Human(HUMAN, patient=patient)
            bot, phone, id = setting(t, human)
            bot.send(type="transfer", id="t1", to=TARGET, mode="warm", timeout_s=60)
            assert human.rings.wait(5)
            if not patient:
                assert bot.told(type="transfer", id="t1")["state"] == "answered"
                human.speaks()
            phone.hang_up()
            assert human.gone.wait(5)
            assert bot.told(type="outcome", id="t1")["detail"] == "the caller hung up"
            assert bot.told(type="end")["reason"] == "caller"
            kinds = [m["type"] for m in bot.messages]
            assert kinds.index("outcome") < kinds.index("end"), kinds
            call = t.conversation(id, "completed")
            assert call["ended_by"] == "caller" and f"transfer to {TARGET} failed: the caller hung up" in call["notes"], call
            bot.bots.check()


def test_a_bot_that_dies_in_the_briefing_leaves_its_caller_to_the_human(binary):
    with Tandem(binary) as t:
        human = Human(HUMAN)
        bot, phone, id = setting(t, human)
        bot.send(type="transfer", id="t1", to=TARGET, mode="warm")
        assert bot.told(type="transfer", id="t1")["state"] == "answered"
        human.speaks()
        bot.bots.loop.call_soon_threadsafe(bot.bots.server.close)
        bot.bots.loop.call_soon_threadsafe(bot.socket.abort)
        wait_for("the two together", 5, lambda: any("is bridged" in note for note in t.ok("GET", f"/core/conversations/{id}")["notes"]))
        listens((phone.samples, [HUMAN]), (human.samples, [CALLER]))
        phone.hang_up()
        assert human.gone.wait(5)
        call = t.conversation(id, "transferred")
        assert any(note.startswith("agent_gone") for note in call["notes"]), call["notes"]
