"""Live listening: both sides of a call over a WebSocket, for whoever holds a token and for no longer than that."""
import base64
import json
import os
import socket
import struct
import threading
import time
import urllib.parse

from audio import level_db, pace, rtp, tone
from sip import Call
from tandem import Tandem, wait_for

ECHO = {"runtime": {"type": "echo"}}
PLAY = {"runtime": {"type": "play", "tones": [{"hz": 700, "ms": 60000}]}}


class Listener:
    """A WebSocket client (RFC 6455) that hears; `slow` leaves reading to the test."""

    def __init__(self, t, url, bearer=None, receive_buffer=None):
        at = urllib.parse.urlsplit(t.http)
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect((at.hostname, at.port))
        self.file = self.socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        auth = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
        self.socket.sendall(f"GET {url} HTTP/1.1\r\nHost: {at.netloc}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{auth}\r\n".encode())
        self.status = int(self.file.readline().split()[1])
        while self.file.readline() not in (b"\r\n", b""):
            pass
        self.samples, self.messages, self.closed = [], [], None

    def frame(self):
        """One message; `None` when it was the last."""
        first, second = self.file.read(2)
        length = second & 127
        if length >= 126:
            length = int.from_bytes(self.file.read(2 if length == 126 else 8), "big")
        body = self.file.read(length)
        if first & 15 == 8:
            self.closed = struct.unpack("!H", body[:2])[0]
            return None
        if first & 15 == 1:
            self.messages.append(json.loads(body))
        elif first & 15 == 2:
            self.samples += struct.unpack(f"<{length // 2}h", body)
        return first & 15

    def to_the_end(self):
        while self.frame() is not None:
            pass
        return self

    def say(self, opcode, body):
        mask = os.urandom(4)
        self.socket.sendall(bytes([0x80 | opcode, 0x80 | len(body)]) + mask + bytes(b ^ mask[n % 4] for n, b in enumerate(body)))


def answered(t, config):
    call = Call(t.udp, t.deployed(config))
    assert call.final() == 200, call.answer
    id = wait_for("a live conversation", 3, lambda: t.ok("GET", "/core/conversations?status=in_progress"))[0]["id"]
    return call, id


def talk(call, frames, hz=440, first=0):
    start = time.monotonic()
    for n in range(frames):
        pace(start, n)
        call.rtp.socket.sendto(rtp(0, first + n, (first + n) * 160, 77, tone(hz, n)), call.rtp.remote)


def token(t, id, **body):
    return t.ok("POST", f"/core/conversations/{id}/listener-token", body or None)


def test_a_listener_hears_both_sides_and_the_end(binary):
    with Tandem(binary) as t:
        call, id = answered(t, PLAY)
        talk(call, 10)
        given = token(t, id)
        ears = [Listener(t, given["url"]), Listener(t, "/listen", bearer=given["token"])]
        assert [ear.status for ear in ears] == [101, 101]
        # Nothing that a listener says gets anywhere.
        ears[0].say(2, bytes(120))
        threads = [threading.Thread(target=ear.to_the_end) for ear in ears]
        for thread in threads:
            thread.start()
        talk(call, 100, first=10)
        call.bye()
        for thread in threads:
            thread.join(10)
        for ear in ears:
            start, *_, end = ear.messages
            assert start == {"type": "start", "conversation_id": id, "encoding": "pcm16", "sample_rate": 8000, "channels": 2}
            assert end == {"type": "end", "reason": "call_ended"} and ear.closed == 1000, ear.messages
            left, right = ear.samples[0::2], ear.samples[1::2]
            assert 1.5 < len(left) / 8000 < 4, len(left)
            assert level_db(left[4000:12000], 440) > -14 and level_db(left[4000:12000], 700) < -40
            assert level_db(right[4000:12000], 700) > -12 and level_db(right[4000:12000], 440) < -40
        t.conversation(id, "completed")
        assert t.request("POST", f"/core/conversations/{id}/listener-token")[0] == 409
        assert Listener(t, given["url"]).status == 404


def test_a_token_opens_one_call_until_it_expires_or_its_key_is_revoked(binary):
    with Tandem(binary) as t:
        call, id = answered(t, ECHO)
        path = f"/core/conversations/{id}/listener-token"
        reader = t.admin("key", "create", "--org", t.org, "--scope", "conversations:read")
        assert t.request("POST", path, key=reader)[0] == 403
        other = t.admin("org", "create", "other")
        stranger = t.admin("key", "create", "--org", other)
        unknown = "/core/conversations/01960000-0000-7000-8000-000000000000/listener-token"
        assert t.request("POST", path, key=stranger) == t.request("POST", unknown, key=stranger) == (404, {"detail": "Conversation not found."})
        for bad in ({"expires_in_s": 0}, {"expires_in_s": 3601}, {"seconds": 5}):
            assert t.request("POST", path, bad)[0] == 422, bad
        given = token(t, id, expires_in_s=2)
        assert Listener(t, "/listen").status == 404 and Listener(t, given["url"][:-3] + "AAA").status == 404
        assert t.request("GET", given["url"], key="")[0] == 426
        # The token is no API key.
        assert t.request("GET", f"/core/conversations/{id}", key=given["token"])[0] == 401
        ear = Listener(t, given["url"]).to_the_end()
        assert ear.messages[-1] == {"type": "end", "reason": "expired"}, ear.messages
        assert Listener(t, given["url"]).status == 404
        full = [Listener(t, token(t, id)["url"]) for _ in range(8)]
        assert [ear.status for ear in full] == [101] * 8 and Listener(t, token(t, id)["url"]).status == 409
        full[0].socket.close(), full[0].file.close()
        wait_for("a place", 3, lambda: Listener(t, token(t, id)["url"]).status == 101)
        key = t.ok("POST", "/admin/organization-pats", {"name": "ear", "scopes": ["conversations:read_sensitive"]})
        for ear in full[1:]:
            ear.socket.close(), ear.file.close()
        given = t.request("POST", path, key=key["token"])[1]
        ear = wait_for("a place", 3, lambda: (lambda e: e if e.status == 101 else None)(Listener(t, given["url"])))
        t.ok("DELETE", f"/admin/organization-pats/{key['id']}")
        ear.to_the_end()
        assert ear.messages[-1] == {"type": "end", "reason": "revoked"}, ear.messages
        call.bye()


def test_a_listener_that_reads_nothing_loses_audio_and_the_call_none(binary):
    with Tandem(binary) as t:
        call, id = answered(t, ECHO)
        ear = Listener(t, token(t, id)["url"], receive_buffer=4096)
        payloads, back = [tone(440, n) for n in range(50)], []
        sock = call.rtp.socket

        def listen():
            sock.settimeout(1)
            try:
                while True:
                    data = sock.recv(2048)
                    if data[1] & 0x7F == 0:
                        back.append(data[12:])
            except socket.timeout:
                pass

        listener = threading.Thread(target=listen)
        listener.start()
        start = time.monotonic()
        for n in range(500):
            pace(start, n)
            sock.sendto(rtp(0, n, n * 160, 77, payloads[n % 50]), call.rtp.remote)
        listener.join()
        assert back == [payloads[n % 50] for n in range(500)], len(back)
        call.bye()
        t.conversation(id, "completed")


def test_listening_does_not_hold_the_node_up_at_its_end(binary):
    with Tandem(binary, ["node.drain_timeout=1"]) as t:
        _, id = answered(t, ECHO)
        ear = Listener(t, token(t, id)["url"])
        thread = threading.Thread(target=ear.to_the_end)
        thread.start()
        began = time.monotonic()
        t.process.terminate()
        t.process.wait(30)
        assert time.monotonic() - began < 9
        thread.join(10)
        assert ear.messages[-1]["type"] == "end", ear.messages
