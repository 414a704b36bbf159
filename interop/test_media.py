"""Audio: what bad lines do to it, digits, recordings, quality, wideband with a real phone."""
import io
import os
import re
import random
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
import wave

from audio import decode, level_db, rtp, tone, total_db
from sip import Call, sdp
from tandem import Tandem, alone, wait_for

ECHO = {"runtime": {"type": "echo"}}


def talk(call, frames, network=lambda n: 0.0, hz=440, payload_type=0, first=0):
    """Sends a tone for so many frames; `network` gives each packet's delay in seconds, or None to lose it. Returns the
    packets that came back: arrival, sequence, timestamp, payload."""
    back, sock = [], call.rtp.socket
    done = threading.Event()

    def listen():
        sock.settimeout(0.1)
        while not done.is_set():
            try:
                data = sock.recv(2048)
            except socket.timeout:
                continue
            _, kind, sequence, timestamp, _ = struct.unpack("!BBHII", data[:12])
            back.append((time.monotonic(), kind & 0x7F, sequence, timestamp, data[12:]))

    listener = threading.Thread(target=listen)
    listener.start()
    sends = sorted((n * 0.02 + d, n) for n in range(frames) if (d := network(n)) is not None)
    start = time.monotonic()
    for at, n in sends:
        if (left := start + at - time.monotonic()) > 0:
            time.sleep(left)
        sock.sendto(rtp(payload_type, first + n, (first + n) * 160, 77, tone(hz, n)), call.rtp.remote)
    time.sleep(0.3)
    done.set()
    listener.join()
    return start, back


def by_timestamp(back):
    """The audio that came back on its own time line; silence where nothing came."""
    audio = {t: p for _, kind, _, t, p in back if kind == 0}
    first, last = min(audio), max(audio)
    return [s for t in range(first, last + 160, 160) for s in (decode(audio[t]) if t in audio else [0] * 160)]


def answered(t, config=None):
    call = Call(t.udp, t.deployed(config or ECHO))
    assert call.final() == 200, call.answer
    return call


def live(t):
    return wait_for("a live conversation", 3, lambda: t.ok("GET", "/core/conversations?status=in_progress"))[0]["id"]


@alone
def test_an_echo_is_exact_and_at_once_on_a_clean_line_and_whole_on_a_bad_one(binary):
    dice = random.Random(5)
    with Tandem(binary) as t:
        call = answered(t)
        start, back = talk(call, 100)
        assert [p for *_, p in back] == [tone(440, n) for n in range(100)]
        delays = sorted(at - start - n * 0.02 for n, (at, *_) in enumerate(back))
        assert delays[len(delays) // 2] < 0.02, delays[-5:]
        call.bye()
        call = answered(t)
        lost = {n for n in range(10, 400) if dice.random() < 0.1}
        start, back = talk(call, 400, lambda n: None if n in lost else dice.random() * 0.06)
        heard = by_timestamp(back)[8000:-4000]
        sequences = [s for _, _, s, _, _ in back]
        assert len(lost) > 20 and all((b - a) & 0xFFFF == 1 for a, b in zip(sequences, sequences[1:])), sequences
        # In stretches of 100 ms: where the buffer lengthened the audio the phase steps.
        levels = sorted(level_db(heard[n:n + 800], 440) for n in range(0, len(heard) - 800, 800))
        assert levels[len(levels) // 2] > -13 and levels[len(levels) // 10] > -16 and levels[0] > -25, levels
        call.bye()


@alone
def test_rtcp_reports_both_ways_and_the_round_trip(binary):
    with Tandem(binary) as t:
        control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        control.bind(("127.0.0.1", 0))
        control.settimeout(6)
        agent = t.deployed({"runtime": {"type": "play", "tones": [{"hz": 440, "ms": 20000}]}})
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        probe.bind(("127.0.0.1", 0))
        call = Call(t.udp, agent, body=sdp("127.0.0.1", probe.getsockname()[1], extra=f"a=rtcp:{control.getsockname()[1]}\r\n"))
        assert call.final() == 200
        id = live(t)
        report, _ = control.recvfrom(2048)
        assert report[1] == 200, report.hex()
        ssrc, ntp = struct.unpack("!IQ", report[4:16])
        assert struct.unpack("!I", report[20:24])[0] > 50
        port = int(re.search(r"m=audio (\d+)", call.answer).group(1)) + 1
        time.sleep(0.1)
        # RR: one in four lost, 20 ms of jitter, 50 ms between their report and ours.
        block = struct.pack("!IIIIII", ssrc, 64 << 24 | 30, 200, 160, ntp >> 16 & 0xFFFFFFFF, int(0.05 * 65536))
        control.sendto(struct.pack("!BBHI", 0x81, 201, 7, 99) + block, ("127.0.0.1", port))
        sent = wait_for("the peer's word", 4, lambda: t.ok("GET", f"/core/conversations/{id}/quality")["sent"])
        quality = t.ok("GET", f"/core/conversations/{id}/quality")
        assert sent["jitter_ms"] == 20.0 and sent["loss_percent"] > 5, sent
        assert 30 < quality["rtt_ms"] < 110, quality["rtt_ms"]
        call.bye()


def digits_sent(call, digits, broken):
    sequence, timestamp = 1000, 50000
    for digit in digits:
        code = "0123456789*#".index(digit)
        packets = [(code, 10, 160 * n) for n in range(1, 6)] + ([] if broken else [(code, 0x8A, 960)] * 3)
        for event, flags, duration in packets:
            for _ in range(2 if broken else 1):
                call.rtp.socket.sendto(rtp(101, sequence, timestamp, 77, struct.pack("!BBH", event, flags, duration)), call.rtp.remote)
            sequence += 1
            time.sleep(0.01)
        timestamp += 4000
        time.sleep(0.05)


def test_digits_go_out_once_each(binary):
    with Tandem(binary) as t:
        agent = t.deployed({"runtime": {"type": "play", "tones": [{"hz": 440, "ms": 20000}]}})
        call = Call(t.udp, agent)
        assert call.final() == 200
        id = live(t)
        for bad in ("", "12x", "9" * 65, "e"):
            assert t.request("POST", f"/core/conversations/{id}/dtmf", {"digits": bad})[0] == 422, bad
        assert t.request("POST", f"/core/conversations/{id}/dtmf", {"digits": "1w#9"})[0] == 200
        events, deadline = [], time.monotonic() + 3
        call.rtp.socket.settimeout(0.5)
        while time.monotonic() < deadline:
            data = call.rtp.socket.recv(2048)
            if data[1] & 0x7F == 101:
                events.append((struct.unpack("!I", data[4:8])[0], data[12], bool(data[13] & 0x80), bool(data[1] & 0x80), struct.unpack("!H", data[14:16])[0]))
        starts = sorted({(ts, code) for ts, code, *_ in events})
        assert [code for _, code in starts] == [1, 11, 9], events
        for ts, _ in starts:
            of = [e for e in events if e[0] == ts]
            assert [e[3] for e in of].count(True) == 1 and of[0][3], of
            assert [e[2] for e in of].count(True) == 3 and of[-1][4] >= 1900, of
        call.bye()
        assert t.request("POST", f"/core/conversations/{id}/dtmf", {"digits": "1"})[0] == 409


def test_a_recording_survives_kill_9_and_is_given_in_ranges(binary):
    with Tandem(binary) as t:
        assert t.request("POST", f"/core/agents/{t.agent(ECHO)}/versions", {"config": {**ECHO, "recording": {"enabled": True, "format": "mp3"}}})[0] == 422
        config = {"runtime": {"type": "play", "tones": [{"hz": 700, "ms": 60000}]}, "recording": {"enabled": True}}
        call = answered(t, config)
        id = live(t)
        talk(call, 200)
        began = time.monotonic()
        t.kill()
        path = next(os.path.join(d, f) for d, _, fs in os.walk(os.path.join(t.data, "recordings")) for f in fs)
        with wave.open(path) as w:
            assert (w.getnchannels(), w.getframerate(), w.getsampwidth()) == (2, 8000, 2)
            frames = w.getnframes()
            samples = struct.unpack(f"<{frames * 2}h", w.readframes(frames))
        # 200 packets and the 0.3 s after them; at most the last second may be missing.
        assert frames / 8000 > 4.3 - 1, frames / 8000
        left, right = samples[0::2], samples[1::2]
        assert level_db(left[8000:24000], 440) > -14 and level_db(left[8000:24000], 700) < -40
        assert level_db(right[8000:24000], 700) > -12 and level_db(right[8000:24000], 440) < -40
        t.start()
        import urllib.request
        url = f"{t.http}/core/conversations/{id}/recording"
        ask = lambda **h: urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {t.key}", **h}))
        whole = ask()
        body = whole.read()
        assert whole.headers["Content-Type"] == "audio/wav" and wave.open(io.BytesIO(body)).getnframes() == frames
        part = ask(Range="bytes=40-99")
        assert part.status == 206 and part.read() == body[40:100] and part.headers["Content-Range"] == f"bytes 40-99/{len(body)}"
        assert t.ok("GET", f"/core/conversations/{id}")["recording_details"]["format"] == "wav"
        only = t.admin("key", "create", "--org", t.org, "--scope", "conversations:read")
        assert t.request("GET", f"/core/conversations/{id}/recording", key=only)[0] == 403


def test_a_paused_recording_leaves_out_what_is_said(binary):
    with Tandem(binary) as t:
        config = {"runtime": {"type": "play", "tones": [{"hz": 700, "ms": 60000}]}, "recording": {"enabled": True}}
        call = answered(t, config)
        id = live(t)
        path = f"/core/conversations/{id}"
        reader = t.admin("key", "create", "--org", t.org, "--scope", "conversations:read_sensitive")
        assert t.request("POST", f"{path}/recording/pause", key=reader)[0] == 403
        talk(call, 50, hz=440)
        for _ in range(2):
            assert len(t.ok("POST", f"{path}/recording/pause")["recording_details"]["pauses"]) == 1
        talk(call, 50, hz=1000, first=50)
        for _ in range(2):
            assert t.ok("POST", f"{path}/recording/resume")["recording_details"]["pauses"][0]["resumed_at"]
        talk(call, 50, hz=1800, first=100)
        t.ok("POST", f"{path}/recording/pause")
        call.bye()
        details = t.conversation(id, "completed")["recording_details"]
        assert t.request("POST", f"{path}/recording/resume")[0] == 409
        first, last = details["pauses"]
        assert first["paused_at"] < first["resumed_at"] < last["paused_at"] and last["resumed_at"] is None, details
        assert last["position_ms"] == details["duration_ms"] and 2300 < details["duration_ms"] < 3500, details
        time.sleep(0.5)
        file = next(os.path.join(d, f) for d, _, fs in os.walk(os.path.join(t.data, "recordings")) for f in fs)
        with wave.open(file) as w:
            samples = struct.unpack(f"<{w.getnframes() * 2}h", w.readframes(w.getnframes()))
        left, right, cut = samples[0::2], samples[1::2], first["position_ms"] * 8
        assert abs(len(left) - details["duration_ms"] * 8) < 400, (len(left), details)
        # In stretches of 200 ms: nothing of the middle is there, on neither side, and all of the rest.
        loudest = lambda side, hz: max(level_db(side[n:n + 1600], hz) for n in range(0, len(side) - 1600, 400))
        assert loudest(left[:cut], 440) > -14 and loudest(left[cut:], 1800) > -14, details
        assert loudest(left, 1000) < -30 and loudest(left[:cut], 1800) < -40, loudest(left, 1000)
        assert min(level_db(right[n:n + 1600], 700) for n in range(1600, len(right) - 3200, 1600)) > -13
        unrecorded = answered(t)
        id = live(t)
        status, why = t.request("POST", f"/core/conversations/{id}/recording/pause")
        assert status == 409 and "not recorded" in why["detail"], why
        unrecorded.bye()


def test_an_ogg_recording_is_opus(binary):
    with Tandem(binary) as t:
        call = answered(t, {**ECHO, "recording": {"enabled": True, "format": "ogg"}})
        id = live(t)
        talk(call, 100)
        call.bye()
        details = t.conversation(id, "completed")["recording_details"]
        assert details["format"] == "ogg" and 1800 < details["duration_ms"] < 3000, details
        path = next(os.path.join(d, f) for d, _, fs in os.walk(os.path.join(t.data, "recordings")) for f in fs)
        time.sleep(0.5)
        data = open(path, "rb").read()
        assert data.startswith(b"OggS") and b"OpusHead" in data[:80] and data.count(b"OggS") > 8


def baresip(directory, codec, node, agent, seconds):
    """A phone that plays a tone to the agent and records what it hears. Returns both as samples, and their rate."""
    rate = 48000 if codec.startswith("opus") else 16000
    source, target = os.path.join(directory, "say.wav"), os.path.join(directory, "heard.wav")
    import math
    with wave.open(source, "wb") as w:
        # baresip's Opus is stereo, and it mixes no channels for a file.
        channels = 2 if codec.startswith("opus") else 1
        w.setnchannels(channels), w.setsampwidth(2), w.setframerate(rate)
        say = [int(9000 * (math.sin(2 * math.pi * 1000 * n / rate) + math.sin(2 * math.pi * 5000 * n / rate)) / 2) for n in range(rate * seconds) for _ in range(channels)]
        w.writeframes(struct.pack(f"<{len(say)}h", *say))
    with open(os.path.join(directory, "config"), "w") as f:
        f.write(f"module_path /usr/lib/baresip/modules\nmodule stdio.so\nmodule aufile.so\nmodule sndfile.so\nmodule {'opus' if codec.startswith('opus') else 'g722'}.so\nmodule_app account.so\nmodule_app menu.so\n"
                f"audio_source aufile,{source}\naudio_player aufile,{target}\naudio_alert aufile,{directory}/alert.wav\nsip_listen 127.0.0.1:0\nrtp_ports 30000-39998\nsnd_path {directory}\nopus_bitrate 28000\n")
    with open(os.path.join(directory, "accounts"), "w") as f:
        f.write(f"<sip:phone@127.0.0.1>;regint=0;audio_codecs={codec}\n")
    open(os.path.join(directory, "contacts"), "w").close()
    phone = subprocess.Popen(["baresip", "-f", directory, "-e", f"/dial sip:{agent}@{node[0]}:{node[1]}", "-t", str(seconds)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log, _ = phone.communicate(timeout=seconds + 15)
    recorded = [f for f in os.listdir(directory) if f.startswith("dump-") and f.endswith("-dec.wav")]
    assert recorded, log[-3000:]
    with wave.open(os.path.join(directory, recorded[0])) as w:
        heard = struct.unpack(f"<{w.getnframes() * w.getnchannels()}h", w.readframes(w.getnframes()))[::w.getnchannels()]
        return heard, w.getframerate(), log


def test_wideband_comes_back_from_baresip(binary):
    assert shutil.which("baresip"), "apt-get install baresip"
    for codec, name in (("G722/16000/1", "G722"), ("opus/48000/2", "opus")):
        with Tandem(binary) as t, tempfile.TemporaryDirectory() as directory:
            agent = t.deployed({**ECHO, "recording": {"enabled": True}})
            heard, rate, log = baresip(directory, codec, t.udp, agent, 6)
            middle = heard[len(heard) // 3:len(heard) * 2 // 3]
            assert len(middle) > rate // 3, (len(heard), log[-2000:])
            for hz in (1000, 5000):
                assert level_db(middle, hz, rate) > (-22 if name == "G722" else -30), (name, hz, level_db(middle, hz, rate), total_db(middle))
            call = wait_for("the record", 3, lambda: t.ok("GET", "/core/conversations?status=completed"))[0]
            assert call["codec"] == name, call["codec"]
            # The node heard both tones as well: its recording has them on the left.
            path = next(os.path.join(d, f) for d, _, fs in os.walk(os.path.join(t.data, "recordings")) for f in fs)
            with wave.open(path) as w:
                assert w.getframerate() == 16000
                left = struct.unpack(f"<{w.getnframes() * 2}h", w.readframes(w.getnframes()))[0::2]
            left = left[len(left) // 3:len(left) * 2 // 3]
            assert all(level_db(left, hz, 16000) > -30 for hz in (1000, 5000)), name
