"""Tones in the audio that mean something: digits, both ways, and the beep of a voicemail box."""
import json
import math
import time

from audio import decode, level_db, rtp, ulaw_encode
from bots import Bots
from sip import Call, Carrier, sdp
from tandem import Tandem, wait_for
from test_outbound import PASSWORD

NUMBER = "+14155550123"
KEYS = "123A456B789C*0#D"
ROWS, COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477, 1633)


def frequencies(key):
    row, column = divmod(KEYS.index(key), 4)
    return ROWS[row], COLUMNS[column]


def sound(hertz, ms, level=5000):
    """So many milliseconds of all the tones at once; of none: silence."""
    return [int(sum(level * math.sin(2 * math.pi * hz * n / 8000) for hz in hertz)) for n in range(8 * ms)]


def listener(seen):
    """A bot that takes the call and writes down what it is told."""
    async def script(socket):
        while True:
            message = await socket.receive()
            if isinstance(message, str):
                message = json.loads(message)
                seen.append(message)
                if message["type"] == "incoming":
                    await socket.send({"type": "accept"})
    return script


def say(leg, samples, events=()):
    """Sends samples by the clock; `events` are (packet, payload) of telephone-events. Returns what came back meanwhile."""
    sock, back, start = leg.socket, [], time.monotonic()
    sock.setblocking(False)
    sequence, timestamp = getattr(leg, "next", (0, 0))
    frames = [samples[n:n + 160] for n in range(0, len(samples) - 159, 160)]
    for n, frame in enumerate(frames):
        for at, payload in events:
            if at == n:
                sock.sendto(rtp(101, sequence, timestamp + events[0][0] * 160, 77, payload), leg.remote)
                sequence += 1
        sock.sendto(rtp(0, sequence, timestamp + n * 160, 77, bytes(ulaw_encode(s) for s in frame)), leg.remote)
        sequence += 1
        while (left := start + (n + 1) * 0.02 - time.monotonic()) > 0:
            time.sleep(min(left, 0.005))
            try:
                while True:
                    data = sock.recv(2048)
                    if data[1] & 0x7F == 0:
                        back += decode(data[12:])
            except BlockingIOError:
                pass
    leg.next = sequence, timestamp + len(frames) * 160
    return back


def dialled(digits):
    samples = sound((), 400)
    for digit in digits:
        samples += sound(frequencies(digit), 90) + sound((), 90)
    return samples + sound((), 600)


def with_trunk(t, url, **config):
    trunk = t.ok("POST", "/core/trunks", {"name": "tones", "inbound_config": {"allowed_addresses": ["127.0.0.1"], **config}})
    t.ok("POST", "/core/phone-numbers", {"phone_number": NUMBER, "trunk_id": trunk["id"]})
    t.agent({"runtime": {"type": "tandem", "url": url}}, [NUMBER])
    return trunk


def live(t):
    return wait_for("a live call", 3, lambda: t.ok("GET", "/core/conversations?status=in_progress"))[0]["id"]


def digits(seen):
    return "".join(m["digit"] for m in seen if m["type"] == "dtmf")


def test_digits_are_tones_both_ways_where_the_trunk_says_so(binary):
    seen = []
    bots = Bots(listener(seen))
    with Tandem(binary) as t:
        trunk = with_trunk(t, bots.url, dtmf_tones=True, enable_noise_cancellation=True)
        assert trunk["inbound_config"]["dtmf_tones"] is True
        call = Call(t.udp, NUMBER, body=None)
        assert call.final() == 200, call.answer
        say(call.rtp, dialled("1590*#D"))
        wait_for("the digits", 2, lambda: len(digits(seen)) >= 7)
        assert digits(seen) == "1590*#D", seen
        # Here the caller takes telephone-events too, and sends one press both ways.
        event = [(25, bytes([5, 10, 0, 160])), (27, bytes([5, 10, 2, 128])), (29, bytes([5, 0x8A, 3, 32]))]
        say(call.rtp, dialled("5"), event)
        wait_for("the digit", 2, lambda: len(digits(seen)) >= 8)
        say(call.rtp, sound((), 600))
        assert digits(seen) == "1590*#D5", seen
        first = live(t)
        call.bye()
        t.conversation(first, "completed")
        seen.clear()
        # A caller without telephone-events is sent tones.
        plain = sdp("127.0.0.1", 1).replace(" 101", "").replace("a=rtpmap:101 telephone-event/8000\r\n", "")
        call = without_events(t, plain)
        id = live(t)
        say(call.rtp, sound((), 200))
        assert t.request("POST", f"/core/conversations/{id}/dtmf", {"digits": "7w3"})[0] == 200
        back = say(call.rtp, sound((), 2000))
        heard = []
        for n in range(0, len(back) - 799, 400):
            part = back[n:n + 800]
            keys = [k for k in KEYS if all(level_db(part, hz) > -16 for hz in frequencies(k))]
            if keys and heard[-1:] != keys:
                heard += keys
            elif not keys and heard[-1:] != [""]:
                heard.append("")
        assert [k for k in heard if k] == ["7", "3"], heard
        call.bye()
    bots.check()


def without_events(t, body):
    probe = Call(t.udp, NUMBER, body=body)
    # The port in the body is a placeholder: RTP is sent from a socket of ours, whose port the node learns.
    assert probe.final() == 200, probe.answer
    assert "telephone-event" not in probe.answer
    return probe


def test_tones_are_no_digits_where_the_trunk_says_nothing(binary):
    seen = []
    bots = Bots(listener(seen))
    with Tandem(binary) as t:
        with_trunk(t, bots.url)
        call = Call(t.udp, NUMBER)
        assert call.final() == 200
        say(call.rtp, dialled("159"))
        assert digits(seen) == "", seen
        call.bye()


def test_the_beep_of_a_voicemail_box_is_told(binary):
    seen = []
    bots = Bots(listener(seen))

    def script(carrier, request):
        method = request.split(" ", 1)[0]
        if method == "INVITE":
            carrier.accept(request)
        elif method == "BYE":
            carrier.reply(request, "200 OK")
            return "end"

    with Tandem(binary) as t:
        carrier = Carrier(script)
        trunk = t.ok("POST", "/core/trunks", {"name": "x", "outbound_config": {"address": "%s:%d" % carrier.address, "auth_username": "acc", "auth_password": PASSWORD}})["id"]
        t.ok("POST", "/core/phone-numbers", {"phone_number": "+14155550100", "trunk_id": trunk})
        config = {"runtime": {"type": "tandem", "url": bots.url}, "voicemail_detection": {"timeout_s": 20}}
        agent = t.agent(config)
        id = t.ok("POST", "/core/conversations", {"channel": "telephone", "user_id": "+14155550199", "agent_id": agent})["conversation"]["id"]
        assert t.conversation(id, "in_progress")["voicemail_beep_at"] is None
        # A greeting of sorts, whose pitch moves; a pause; the beep; quiet.
        greeting, phase = [], 0.0
        for n in range(8000):
            phase += (160 + 40 * math.sin(n / 900)) / 8000
            greeting.append(int(1500 * sum(math.sin(2 * math.pi * k * phase) / k for k in range(2, 9))))
        say(carrier.rtp, greeting + sound((), 500) + sound((1400,), 400) + sound((), 1000))
        call = wait_for("the beep", 3, lambda: (lambda c: c if c["voicemail_beep_at"] else None)(t.ok("GET", f"/core/conversations/{id}")))
        assert call["answered_at"] < call["voicemail_beep_at"]
        beeps = [m for m in seen if m["type"] == "voicemail_beep"]
        assert len(beeps) == 1 and abs(beeps[0]["hz"] - 1400) < 10 and 300 < beeps[0]["duration_ms"] < 500, beeps
        assert t.ok("POST", f"/core/conversations/{id}/end")["status"] == "completed"
    bots.check()
