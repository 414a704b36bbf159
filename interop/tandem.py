"""Starts and stops `tandem serve`, and speaks to its API."""
import itertools
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request


class Skipped(Exception):
    """A test that this machine cannot run, and why."""


# A busy machine, whose disk syncs slowly, must not fail what a quiet one proves.
PATIENCE = 4
# RTP ports of a node: below those that the system gives to peers, and other ones than the nodes before it had, so that
# what a peer of an earlier call still sends reaches nobody else's.
PORTS, WINDOW = range(20_000, 32_000), 1_000
window = itertools.count(os.getpid())
# Tests that run at once, and which of them this is: each lane's nodes have ports of their own.
LANES = 3
lane = 0


def alone(test):
    """A test that wants the whole machine: it measures times, or loads the machine so that others would."""
    test.alone = True
    return test


def rtp_ports():
    """The ports of the next node, as the setting has them."""
    first = PORTS.start + (next(window) * LANES + lane) % (len(PORTS) // WINDOW) * WINDOW
    return f"{first}-{first + WINDOW - 1}"


def wait_for(what, seconds, look):
    """Looks until it finds something; what should take `seconds` at the most may take PATIENCE times that."""
    deadline = time.monotonic() + PATIENCE * seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        threading.Event().wait(0.02)
    raise AssertionError(f"{what}: not within {PATIENCE * seconds} s")


class Tandem:
    def __init__(self, binary, settings=(), data=None):
        self.binary = binary
        self.temporary = None if data else tempfile.TemporaryDirectory()
        self.data = data or os.path.join(self.temporary.name, "data")
        self.settings = [
            f"data_dir={self.data}", "http.listen=127.0.0.1:0", "sip.udp=127.0.0.1:0", "sip.tcp=127.0.0.1:0",
            "media.address=127.0.0.1", f"media.ports={rtp_ports()}", "http.rate_limit=0", "limits.max_calls=5000", *settings,
        ]
        self.log = []
        self.start()

    def flags(self):
        return [f for s in self.settings for f in ("--set", s)]

    def start(self):
        self.process = subprocess.Popen([self.binary, *self.flags(), "serve"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.stdout = []
        for stream, lines in ((self.process.stderr, self.log), (self.process.stdout, self.stdout)):
            threading.Thread(target=lambda s=stream, l=lines: l.extend(iter(s.readline, "")), daemon=True).start()
        mark = len(self.log)
        wait_for("tandem listens", 10, lambda: self.process.poll() is not None or any("kind=sip/tcp" in l for l in self.log[mark:]))
        assert self.process.poll() is None, "".join(self.log[mark:])
        text = "".join(self.log[mark:])
        address = lambda kind: re.search(rf"listening kind={kind} addr=(\S+)", text).group(1)
        self.http = "http://" + address("http")
        self.udp, self.tcp = ((a.rsplit(":", 1)[0], int(a.rsplit(":", 1)[1])) for a in (address("sip/udp"), address("sip/tcp")))
        if not hasattr(self, "key"):
            lines = wait_for("the first key", 5, lambda: [l for l in self.stdout if l.startswith("ak_")])
            self.key = lines[0].strip()
            self.org = next(l.split()[1] for l in self.stdout if l.startswith("organization"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        if self.temporary:
            self.temporary.cleanup()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def admin(self, *words):
        done = subprocess.run([self.binary, "--set", f"data_dir={self.data}", *words], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    def request(self, method, path, body=None, key=None, headers=()):
        request = urllib.request.Request(self.http + path, method=method)
        if key != "":
            request.add_header("Authorization", f"Bearer {key or self.key}")
        for name, value in headers:
            request.add_header(name, value)
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, data, timeout=20) as answer:
                text = answer.read().decode()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            return error.code, json.loads(text) if text else None

    def ok(self, method, path, body=None):
        status, answer = self.request(method, path, body)
        assert status in (200, 202, 204), (method, path, status, answer)
        return answer

    def agent(self, config, numbers=(), direction="inbound"):
        agent = self.ok("POST", "/core/agents", {"name": "agent"})["id"]
        self.ok("POST", f"/core/agents/{agent}/versions", {"config": config})
        self.ok("POST", f"/core/agents/{agent}/versions/1/publish", {"phone_numbers": list(numbers), "direction": direction})
        return agent

    def deployed(self, config=None):
        agent = self.agent(config or {"runtime": {"type": "echo"}})
        self.ok("POST", f"/core/agents/{agent}/deploy-as-sip")
        return agent

    def conversation(self, id, status):
        path = f"/core/conversations/{id}"
        return wait_for(f"conversation {status}", 8, lambda: (lambda c: c if c["status"] == status else None)(self.ok("GET", path)))

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))
