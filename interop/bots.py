"""Voice bots on real sockets, written on nothing but the standard library: a WebSocket server, an AudioSocket server,
and what bots do on them. `Bots` runs an event loop in a thread; each call's connection gets `script(bot)`."""
import asyncio
import base64
import hashlib
import json
import math
import os
import struct
import threading

from sip import encode_ulaw

SILENCE = b"\xff" * 160


def tone(hz, seconds, rate=8000, amplitude=8000):
    return [int(amplitude * math.sin(2 * math.pi * hz * n / rate)) for n in range(int(seconds * rate))]


def ulaw(samples):
    return bytes(encode_ulaw(s) for s in samples)


def pcm(samples):
    return struct.pack(f"<{len(samples)}h", *samples)


def level(samples, rate, hz):
    """Amplitude of a tone, and of everything, in samples."""
    n = max(len(samples), 1)
    re_, im = (sum(s * f(2 * math.pi * hz * i / rate) for i, s in enumerate(samples)) for f in (math.cos, math.sin))
    return 2 * math.hypot(re_, im) / n, math.sqrt(2 * sum(s * s for s in samples) / n)


def hears(samples, rate, hz):
    """In most stretches of 50 ms: a phone whose thread was held up loses a packet here and there."""
    assert len(samples) > rate // 4, f"only {len(samples)} samples came"
    size = rate // 20
    levels = [level(samples[at:at + size], rate, hz) for at in range(0, len(samples) - size + 1, size)]
    good = sum(own > 1000 and own > 0.7 * total for own, total in levels)
    assert good > 0.7 * len(levels), f"{hz} Hz in {good} of {len(levels)} stretches"


class Gone(Exception):
    """The other side closed."""


class WebSocket:
    """The server's end of one WebSocket (RFC 6455)."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.closed = None

    async def accept(self):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        line, *fields = head.split("\r\n")
        self.path = line.split(" ")[1]
        self.headers = {n.strip().lower(): v.strip() for n, _, v in (f.partition(":") for f in fields if f)}
        return self

    async def upgrade(self):
        key = self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        answer = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.writer.write(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {answer}\r\n\r\n".encode())
        await self.writer.drain()

    async def frame(self):
        first, second = await self.reader.readexactly(2)
        length = second & 127
        if length == 126:
            length = int.from_bytes(await self.reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await self.reader.readexactly(8), "big")
        mask = await self.reader.readexactly(4)
        data = await self.reader.readexactly(length)
        data = (int.from_bytes(data, "big") ^ int.from_bytes((mask * (length // 4 + 1))[:length], "big")).to_bytes(length, "big") if length else b""
        return first & 15, data

    async def receive(self):
        """The next message: str or bytes."""
        while True:
            try:
                kind, data = await self.frame()
            except (asyncio.IncompleteReadError, ConnectionError):
                raise Gone from None
            if kind == 8:
                self.closed = int.from_bytes(data[:2], "big") if data else None
                raise Gone
            if kind == 9:
                self.put(10, data)
            elif kind in (1, 2):
                return data.decode() if kind == 1 else data

    def put(self, kind, data):
        length = len(data)
        head = bytes([0x80 | kind]) + (bytes([length]) if length < 126 else b"\x7e" + length.to_bytes(2, "big") if length < 65536 else b"\x7f" + length.to_bytes(8, "big"))
        self.writer.write(head + data)

    async def send(self, message):
        if isinstance(message, (dict, list)):
            message = json.dumps(message)
        self.put(1 if isinstance(message, str) else 2, message.encode() if isinstance(message, str) else message)
        await self.writer.drain()

    async def close(self, code=1000):
        self.put(8, code.to_bytes(2, "big"))
        await self.writer.drain()
        self.writer.close()

    def abort(self):
        self.writer.transport.abort()


class AudioSocket:
    """The server's end of one AudioSocket."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def receive(self):
        try:
            kind, length = struct.unpack("!BH", await self.reader.readexactly(3))
            return kind, await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Gone from None

    async def send(self, kind, payload=b""):
        self.writer.write(struct.pack("!BH", kind, len(payload)) + payload)
        await self.writer.drain()


class Bots:
    """A server for bots: `script(connection)` is run for each call."""

    def __init__(self, script, kind="websocket", upgrade=True):
        self.script, self.kind, self.upgrade = script, kind, upgrade
        self.failures, self.connections = [], []
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()

        def run():
            asyncio.set_event_loop(self.loop)
            self.server = self.loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", 0))
            self.port = self.server.sockets[0].getsockname()[1]
            ready.set()
            self.loop.run_forever()
        threading.Thread(target=run, daemon=True).start()
        assert ready.wait(5)
        self.url = f"ws://127.0.0.1:{self.port}/bot"
        self.address = f"127.0.0.1:{self.port}"

    async def serve(self, reader, writer):
        try:
            if self.kind == "websocket":
                connection = await WebSocket(reader, writer).accept()
                self.connections.append(connection)
                if self.upgrade:
                    await connection.upgrade()
            else:
                connection = AudioSocket(reader, writer)
                self.connections.append(connection)
            await self.script(connection)
        except (Gone, ConnectionError):
            pass
        except Exception as error:
            self.failures.append(error)
        finally:
            writer.close()

    def check(self):
        if self.failures:
            raise self.failures[0]


class Stream:
    """What a media stream's bot sees and does."""

    def __init__(self, socket):
        self.socket, self.messages, self.heard, self.marks, self.digits = socket, [], bytearray(), [], []
        self.sid, self.news = None, asyncio.Event()

    async def next(self):
        message = json.loads(await self.socket.receive())
        event = message["event"]
        if event == "media":
            self.heard += base64.b64decode(message["media"]["payload"])
        else:
            self.messages.append(message)
        if event == "start":
            self.sid, self.start = message["streamSid"], message["start"]
        elif event == "mark":
            self.marks.append(message["mark"]["name"])
        elif event == "dtmf":
            self.digits.append(message["dtmf"]["digit"])
        self.news.set()
        return message

    async def begin(self):
        while self.sid is None:
            await self.next()
        return self

    async def say(self, payload):
        await self.socket.send({"event": "media", "streamSid": self.sid, "media": {"payload": base64.b64encode(payload).decode()}})

    async def mark(self, name):
        await self.socket.send({"event": "mark", "streamSid": self.sid, "mark": {"name": name}})

    async def clear(self):
        await self.socket.send({"event": "clear", "streamSid": self.sid})

    async def rest(self):
        while True:
            await self.next()

    async def until(self, what, there, seconds=30):
        """Waits for something that a reader beside finds."""
        try:
            async with asyncio.timeout(seconds):
                while not there():
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            raise AssertionError(f"{what}: not within {seconds} s") from None

    async def hears(self, seconds):
        """Waits until the caller has said so much more, which a reader beside takes."""
        enough = len(self.heard) + int(seconds * 8000)
        await self.until(f"{seconds} s of the caller's audio", lambda: len(self.heard) >= enough)


def unpredictable(n):
    return os.urandom(n)
