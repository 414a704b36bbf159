"""An Asterisk reaches our agents over AudioSocket: who may, whom it gets, and what both hear."""
import json
import math
import re
import socket
import struct
import threading
import time
import urllib.request
import uuid

from bots import Bots, Stream, hears, level, tone, ulaw
from sip import decode_ulaw
from tandem import Tandem, wait_for

KINDS = {8000: 0x10, 16000: 0x12}


class Asterisk:
    """A call of an Asterisk: says a tone, keeps what it hears."""

    def __init__(self, address, agent, hz=440, rate=8000, source="127.0.0.1"):
        self.rate, self.hz, self.heard, self.over = rate, hz, [], threading.Event()
        self.socket = socket.create_connection(address, source_address=(source, 0))
        self.send(1, uuid.UUID(agent).bytes)
        for work in (self.say, self.hear):
            threading.Thread(target=work, daemon=True).start()

    def send(self, kind, payload=b""):
        self.socket.sendall(struct.pack("!BH", kind, len(payload)) + payload)

    def say(self):
        start, n, size = time.monotonic(), 0, self.rate // 50
        try:
            while not self.over.is_set():
                samples = [int(8000 * math.sin(2 * math.pi * self.hz * (n * size + i) / self.rate)) for i in range(size)]
                self.send(KINDS[self.rate], struct.pack(f"<{size}h", *samples))
                n += 1
                time.sleep(max(0, start + n * 0.02 - time.monotonic()))
        except OSError:
            pass

    def hear(self):
        try:
            stream = self.socket.makefile("rb")
            while len(head := stream.read(3)) == 3:
                kind, length = struct.unpack("!BH", head)
                payload = stream.read(length)
                if kind == 0:
                    break
                self.heard.append((time.monotonic(), kind, payload))
        except OSError:
            pass
        self.over.set()

    def samples(self, since=0.0):
        data = b"".join(payload for at, kind, payload in list(self.heard) if at >= since and kind == KINDS[self.rate])
        return list(struct.unpack(f"<{len(data) // 2}h", data))

    def hang_up(self):
        self.over.set()
        self.send(0)
        self.socket.close()


def listening(t):
    host, port = re.search(r"kind=audiosocket addr=(\S+):(\d+)", "".join(t.log)).groups()
    return host, int(port)


def only(t, status):
    return wait_for(f"a call that is {status}", 5, lambda: t.ok("GET", f"/core/conversations?status={status}"))[0]


def test_an_asterisk_reaches_our_agents(binary):
    seen = {"digits": []}

    async def script(socket):
        stream = seen["stream"] = await Stream(socket).begin()
        await stream.say(ulaw(tone(600, 3.0)))
        await stream.rest()
    bots = Bots(script)
    with Tandem(binary, ["audiosocket.listen=127.0.0.1:0"]) as t:
        address = listening(t)
        for rate in (8000, 16000):
            call = Asterisk(address, t.deployed({"runtime": {"type": "media_stream", "url": bots.url}, "recording": {"enabled": True}}), rate=rate)
            wait_for("the bot's words", 5, lambda: len(call.samples()) > rate * 2)
            hears(call.samples()[rate // 2:], rate, 600)
            call.send(3, b"5")
            wait_for("the digit", 3, lambda: seen["stream"].digits == ["5"])
            live = only(t, "in_progress")
            assert (live["direction"], live["user_id"], live["trunk_id"], live["sip_call_id"]) == ("inbound", "127.0.0.1", None, None), live
            status, why = t.request("POST", f"/core/conversations/{live['id']}/transfer", {"to": "+14155550199"})
            assert status == 409 and "dialplan goes on" in why["detail"], why
            assert t.ok("POST", f"/core/conversations/{live['id']}/recording/pause")["recording_details"]["pauses"]
            call.hang_up()
            done = t.conversation(live["id"], "completed")
            assert done["ended_by"] == "caller" and done["recording_details"]["duration_ms"] > 1000, done
            hears([decode_ulaw(b) for b in bytes(seen["stream"].heard)][1600:], 8000, 440)
        bots.check()
        # An echo; ended by the API, which Asterisk is told.
        call = Asterisk(address, t.deployed())
        wait_for("the echo", 5, lambda: len(call.samples()) > 12000)
        hears(call.samples()[4000:], 8000, 440)
        live = only(t, "in_progress")
        assert t.ok("POST", f"/core/conversations/{live['id']}/end")["ended_by"] == "api"
        assert call.over.wait(3)
        # Tones, and then it hangs up itself.
        call = Asterisk(address, t.deployed({"runtime": {"type": "play", "tones": [{"hz": 700, "ms": 1000}]}}))
        assert call.over.wait(5)
        hears(call.samples(), 8000, 700)


def test_who_may_not_and_what_is_no_audiosocket(binary):
    with Tandem(binary, ["audiosocket.listen=127.0.0.1:0", "audiosocket.allowed_addresses=127.0.0.1"]) as t:
        address, agent = listening(t), t.deployed()
        good = Asterisk(address, agent)
        # A source that is not on the list is not heard.
        with socket.create_connection(address, source_address=("127.0.0.2", 0)) as other:
            other.settimeout(3)
            try:
                assert other.recv(1) == b""
            except ConnectionResetError:
                pass
        # Nobody of that id, an agent that is not deployed, one whose bot is not there.
        undeployed = t.agent({"runtime": {"type": "echo"}})
        gone = t.deployed({"runtime": {"type": "tandem", "url": "ws://127.0.0.1:1/"}})
        dial = t.deployed({"runtime": {"type": "dial", "to": "+14155550199"}})
        for wanted in (str(uuid.uuid4()), undeployed, gone, dial):
            call = Asterisk(address, wanted)
            assert call.over.wait(5) and not call.heard, wanted
        failed = wait_for("their records", 5, lambda: (lambda found: found if len(found) == 2 else None)(t.ok("GET", "/core/conversations?status=failed")))
        assert {c["reason"] for c in failed} == {"agent_not_ready"}, failed
        # Nonsense at the beginning, nothing at all, and nonsense within a call.
        for first in (b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\x02ab", b"\x10\x00\x02ab"):
            with socket.create_connection(address) as hostile:
                hostile.settimeout(8)
                hostile.sendall(first)
                try:
                    assert hostile.recv(1) == b""
                except ConnectionResetError:
                    pass
        hostile = Asterisk(address, agent, hz=0)
        try:
            for _ in range(200):
                hostile.send(0x77, b"x" * 60000)
        except OSError:
            pass
        assert hostile.over.wait(5)
        wait_for("its record", 5, lambda: any(c["reason"] == "connection_broken" for c in t.ok("GET", "/core/conversations?status=completed")))
        since = time.monotonic()
        wait_for("what the good call says", 5, lambda: len(good.samples(since)) > 4800)
        hears(good.samples(since), 8000, 440)
        with urllib.request.urlopen(t.http + "/metrics", timeout=5) as metrics:
            text = metrics.read().decode()
        assert re.search(r'audiosocket_refused_total{reason="src_not_allowed"} 1', text), text
        good.hang_up()


def digits_heard(samples):
    """The digits among these samples, by the levels of their tones."""
    rows, columns, found = (697, 770, 852, 941), (1209, 1336, 1477, 1633), []
    for at in range(0, len(samples) - 320, 320):
        stretch = samples[at:at + 320]
        row, column = (max((level(stretch, 8000, hz)[0], n) for n, hz in enumerate(hzs)) for hzs in (rows, columns))
        digit = "123A456B789C*0#D"[row[1] * 4 + column[1]] if min(row[0], column[0]) > 3000 else None
        if digit and (not found or found[-1][0] != digit or at - found[-1][1] > 640):
            found.append([digit, at])
        elif digit:
            found[-1][1] = at
    return [digit for digit, _ in found]


def test_a_bot_on_an_asterisks_call_does_what_can_be_done(binary):
    """Digits to Asterisk are tones; a recording begins in mid-call; a transfer is refused in words; a bot that dies
    leaves the caller to its fallback; one that hangs up lets the dialplan go on."""
    seen = {"outcomes": {}}

    async def script(socket):
        assert json.loads(await socket.receive())["type"] == "incoming"
        await socket.send({"type": "accept"})
        while True:
            message = await socket.receive()
            if isinstance(message, bytes):
                continue
            message = json.loads(message)
            if message["type"] == "start":
                for ask in ({"type": "send_dtmf", "id": "d", "digits": "12#"}, {"type": "transfer", "id": "t", "to": "+14155550199"},
                            {"type": "complete_transfer", "id": "c"}, {"type": "send_dtmf", "id": "x", "digits": "nonsense"},
                            {"type": "pause_recording", "id": "p"}, {"type": "start_recording", "id": "r"}, {"type": "start_recording", "id": "o", "format": "ogg"}):
                    await socket.send(ask)
            elif message["type"] == "outcome":
                seen["outcomes"][message["id"]] = (message["ok"], message["detail"])
                if len(seen["outcomes"]) == 7 and "dies" in seen:
                    socket.abort()
            elif message["type"] == "dtmf":
                await socket.send({"type": "hang_up"})
    bots = Bots(script)
    runtime = {"type": "tandem", "url": bots.url, "sample_rate": 8000}
    with Tandem(binary, ["audiosocket.listen=127.0.0.1:0"]) as t:
        call = Asterisk(listening(t), t.deployed({"runtime": runtime}))
        wait_for("the outcomes", 5, lambda: len(seen["outcomes"]) == 7)
        ok = {id: ok for id, (ok, _) in seen["outcomes"].items()}
        assert ok == {"d": True, "t": False, "c": False, "x": False, "p": False, "r": True, "o": False}, seen["outcomes"]
        assert "dialplan goes on" in seen["outcomes"]["t"][1] and "another format" in seen["outcomes"]["o"][1], seen["outcomes"]
        wait_for("the digits", 5, lambda: len(call.samples()) > 12000)
        assert digits_heard(call.samples()) == ["1", "2", "#"], digits_heard(call.samples())
        live = only(t, "in_progress")
        details = wait_for("the recording's record", 3, lambda: t.ok("GET", f"/core/conversations/{live['id']}")["recording_details"])
        assert details["format"] == "wav", details
        assert t.ok("POST", f"/core/conversations/{live['id']}/dtmf", {"digits": "9"})
        wait_for("the digit of the API", 5, lambda: digits_heard(call.samples())[3:] == ["9"])
        call.send(3, b"0")
        assert call.over.wait(5)
        done = t.conversation(live["id"], "completed")
        assert done["ended_by"] == "agent" and done["recording_details"]["duration_ms"] > 500, done
        bots.check()
        seen.update(outcomes={}, dies=True)
        call = Asterisk(listening(t), t.deployed({"runtime": runtime, "fallback": {"type": "play", "tones": [{"hz": 900, "ms": 2500}]}}))
        assert call.over.wait(10)
        hears(call.samples()[-8000:], 8000, 900)
        done = wait_for("the record", 5, lambda: [c for c in t.ok("GET", "/core/conversations?status=completed") if c["id"] != done["id"]])[0]
        assert done["reason"] is None and any("fallback (play) goes on" in note for note in done["notes"]), done
