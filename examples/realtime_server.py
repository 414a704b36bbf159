#!/usr/bin/env python3
"""A stand-in for the OpenAI Realtime API: it speaks the same events, says tones for words, and needs no key.

    pip install websockets openai; python3 examples/realtime_server.py 8767

The agent's runtime: {"type": "openai_realtime", "url": "ws://127.0.0.1:8767/v1/realtime", "api_key": "any"}; with
OpenAI's own service leave the url out. What comes in is checked against the types of the openai package. Each response
is five seconds of 700 Hz; loud input interrupts it; after the first interruption it calls the function "weather".
It prints one JSON line for each client event but audio."""
import asyncio
import base64
import itertools
import json
import math
import sys

import websockets
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import TypeAdapter

CLIENT, SERVER = TypeAdapter(RealtimeClientEvent), TypeAdapter(RealtimeServerEvent)
ids = itertools.count(1)


def ulaw(sample):
    sign, magnitude = (0x80, -sample) if sample < 0 else (0, sample)
    magnitude = min(magnitude, 32635) + 132
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | (magnitude >> (exponent + 3)) & 15) & 0xFF


TONE = bytes(ulaw(int(8000 * math.sin(2 * math.pi * 700 * n / 8000))) for n in range(40_000))


class Session:
    def __init__(self, socket):
        self.socket, self.loud, self.response, self.interrupted = socket, 0, None, 0

    async def send(self, kind, **fields):
        event = {"type": kind, "event_id": f"event_{next(ids)}", **fields}
        SERVER.validate_python(event, strict=False)
        await self.socket.send(json.dumps(event))

    async def respond(self):
        """Audio faster than real time, as the service sends it."""
        self.response = f"resp_{next(ids)}"
        response, item = self.response, f"item_{next(ids)}"
        common = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        await self.send("response.created", response={"id": response, "object": "realtime.response", "status": "in_progress", "output": []})
        for at in range(0, len(TONE), 4000):
            await self.send("response.output_audio.delta", delta=base64.b64encode(TONE[at:at + 4000]).decode(), **common)
            await asyncio.sleep(0.01)
        await self.send("response.output_audio_transcript.done", transcript="A tone of 700 hertz.", **common)
        await self.done(response)

    async def done(self, response):
        self.response = None
        await self.send("response.done", response={"id": response, "object": "realtime.response", "status": "completed", "output": []})

    async def listen(self, audio):
        """The service's voice activity detection, in one line: 200 ms of something louder than silence."""
        self.loud = self.loud + 1 if sum(byte & 0x7F < 0x50 for byte in audio) > len(audio) // 4 else 0
        if self.loud == 10:
            self.interrupted += 1
            item = f"item_{next(ids)}"
            await self.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id=item)
            await self.send("conversation.item.input_audio_transcription.completed", item_id=item, content_index=0, transcript="What is the weather?", usage={"type": "duration", "seconds": 1})
            if self.interrupted == 1:
                response = self.response = f"resp_{next(ids)}"
                await self.send("response.created", response={"id": response, "object": "realtime.response", "status": "in_progress", "output": []})
                await self.send("response.function_call_arguments.done", response_id=response, item_id="item_f", output_index=0, call_id="call_1", name="weather", arguments='{"city": "Rome"}')
                await self.done(response)


async def call(socket):
    print(json.dumps({"authorization": socket.request.headers.get("Authorization"), "path": socket.request.path}), flush=True)
    session, tasks = Session(socket), set()
    await session.send("session.created", session={"type": "realtime", "model": "gpt-realtime"})
    async for message in socket:
        event = json.loads(message)
        CLIENT.validate_python(event)
        if event["type"] == "input_audio_buffer.append":
            await session.listen(base64.b64decode(event["audio"]))
            continue
        print(json.dumps(event), flush=True)
        if event["type"] == "session.update":
            await session.send("session.updated", session=event["session"])
        elif event["type"] == "response.create":
            tasks.add(asyncio.ensure_future(session.respond()))


async def main():
    async with websockets.serve(call, "127.0.0.1", int(sys.argv[1])):
        await asyncio.Future()

asyncio.run(main())
