"""The bots of `examples/`, each as its user would start it, with the packages of requirements.txt."""
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

from bots import hears
from phone import Phone
from tandem import Tandem, wait_for

ROOT = pathlib.Path(__file__).parent.parent
PYTHON = sys.executable


class Example:
    """A bot of `examples/` on a free port."""

    def __init__(self, name, python=PYTHON, **environment):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.lines = []
        self.process = subprocess.Popen([python, str(ROOT / "examples" / name), str(self.port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True, env={**os.environ, **environment})
        threading.Thread(target=lambda: self.lines.extend(iter(self.process.stdout.readline, "")), daemon=True).start()

    def __enter__(self):
        def listens():
            assert self.process.poll() is None, "".join(self.lines)
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        wait_for("the example listens", 60, listens)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def events(self, kind):
        return [e for e in (json.loads(l) for l in list(self.lines) if l.startswith("{")) if e.get("type") == kind]


def test_your_own_bot(binary):
    with Example("own_bot.py") as bot, Tandem(binary) as t:
        agent = t.deployed({"runtime": {"type": "tandem", "url": f"ws://127.0.0.1:{bot.port}/", "sample_rate": 16000}})
        phone = Phone(t.udp, agent, hz=440).answered()
        start = time.monotonic()
        time.sleep(2)
        hears(phone.samples(start + 0.15, start + 0.5), 8000, 700)
        hears(phone.samples(start + 0.8, start + 2.0), 8000, 440)
        phone.press("#")
        assert phone.bye_came()
        wait_for("the record", 3, lambda: [c for c in t.ok("GET", "/core/conversations?status=completed") if c["ended_by"] == "agent"])


def test_an_audiosocket_bot(binary):
    with Example("audiosocket_bot.py") as bot, Tandem(binary) as t:
        agent = t.deployed({"runtime": {"type": "audiosocket", "address": f"127.0.0.1:{bot.port}"}})
        phone = Phone(t.udp, agent, hz=440).answered()
        start = time.monotonic()
        time.sleep(1.5)
        hears(phone.samples(start + 0.3), 8000, 440)
        phone.press("#")
        assert phone.bye_came()


def test_a_pipecat_bot(binary):
    with Tandem(binary) as t:
        account = "AC" + t.org.replace("-", "")
        with Example("pipecat_bot.py", TANDEM_URL=t.http, BOT_SECRET="pipecat-secret", ACCOUNT_SID=account) as bot:
            agent = t.deployed({"runtime": {"type": "media_stream", "url": f"ws://127.0.0.1:{bot.port}/ws", "secret": "pipecat-secret"}})
            phone = Phone(t.udp, agent, hz=440).answered()
            wait_for("the bot speaks", 10, lambda: any(phone.loud(p) for *_, p in phone.heard))
            start = time.monotonic()
            time.sleep(3)
            hears(phone.samples(start + 0.2, start + 0.8), 8000, 700)
            hears(phone.samples(start + 1.6, start + 3), 8000, 440)
            # Silence from the caller, then an interruption: what waits at the bot and here is not heard.
            phone.hz = None
            phone.press("1")
            time.sleep(1)
            phone.press("#", 51000)
            assert phone.bye_came(10), "".join(bot.lines)
            call = wait_for("the record", 3, lambda: t.ok("GET", "/core/conversations?status=completed"))[0]
            assert call["ended_by"] == "agent", call


class Weather(http.server.BaseHTTPRequestHandler):
    calls = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.calls.append((dict(self.headers), body))
        answer = b'{"sun": true}'
        # Long enough that the caller hears the silence after the interruption.
        time.sleep(0.5)
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def test_an_openai_realtime_agent(binary):
    tools = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Weather)
    threading.Thread(target=tools.serve_forever, daemon=True).start()
    with Example("realtime_server.py") as bot, Tandem(binary) as t:
        agent = t.deployed({"runtime": {
            "type": "openai_realtime", "url": f"ws://127.0.0.1:{bot.port}/v1/realtime", "api_key": "sk-test", "instructions": "Be brief.", "voice": "marin",
            "tools_url": f"http://127.0.0.1:{tools.server_port}/tools", "session": {"tools": [{"type": "function", "name": "weather", "parameters": {"type": "object"}}]}}})
        assert "sk-test" not in json.dumps(t.ok("GET", f"/core/agents/{agent}/versions/1"))
        phone = Phone(t.udp, agent).answered()
        wait_for("the greeting", 5, lambda: any(phone.loud(p) for *_, p in phone.heard))
        start = next(at for at, *_, p in phone.heard if phone.loud(p))
        time.sleep(1.5)
        hears(phone.samples(start + 0.1, start + 1.4), 8000, 700)
        phone.hz = 440
        truncate = wait_for("the interruption", 5, lambda: bot.events("conversation.item.truncate"))[0]
        phone.hz = None
        stopped = wait_for("silence", 3, lambda: (lambda quiet: quiet if quiet else None)([at for at, *_, p in phone.heard if at > start + 1 and not phone.loud(p)]))[0]
        # What the model is told matches what the phone heard, within a frame or two.
        heard_ms = 1000 * (stopped - start)
        assert abs(truncate["audio_end_ms"] - heard_ms) < 60, (truncate, heard_ms)
        output = wait_for("the function's output", 5, lambda: [e for e in bot.events("conversation.item.create") if e["item"]["type"] == "function_call_output"])[0]
        assert json.loads(output["item"]["output"]) == {"sun": True} and output["item"]["call_id"] == "call_1"
        headers, body = Weather.calls[0]
        assert body["name"] == "weather" and body["arguments"] == {"city": "Rome"} and "webhook-signature" in {h.lower() for h in headers}, (headers, body)
        wait_for("the answer to the output", 5, lambda: len(bot.events("response.create")) == 2)
        phone.press("5")
        text = wait_for("the digit as text", 5, lambda: [e for e in bot.events("conversation.item.create") if e["item"]["type"] == "message"])[0]
        assert "5" in text["item"]["content"][0]["text"]
        phone.hang_up()
        first = json.loads(next(l for l in bot.lines if l.startswith("{")))
        assert first["authorization"] == "Bearer sk-test" and "model=gpt-realtime" in first["path"], first
        call = wait_for("the record", 3, lambda: t.ok("GET", "/core/conversations?status=completed"))[0]
        said = t.ok("GET", f"/core/conversations/{call['id']}")["conversation"]
        assert ("user", "What is the weather?") in [(turn["role"], turn["text"]) for turn in said], said
        assert any(turn["role"] == "agent" and "700 hertz" in turn["text"] for turn in said), said
        assert "sk-test" not in "".join(t.log)
