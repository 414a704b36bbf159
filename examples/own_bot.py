#!/usr/bin/env python3
"""Your own bot on Tandem's protocol: pip install websockets; python3 examples/own_bot.py 8766

The agent's runtime: {"type": "tandem", "url": "ws://127.0.0.1:8766/", "sample_rate": 16000}.
It takes the call, beeps, says back what it hears, and hangs up when the caller presses #."""
import asyncio
import json
import math
import struct
import sys

import websockets

BEEP = struct.pack("<8000h", *(int(8000 * math.sin(2 * math.pi * 700 * n / 16000)) for n in range(8000)))


async def call(socket):
    async for message in socket:
        if isinstance(message, bytes):  # 20 ms of the caller: 16-bit samples
            await socket.send(message)
            continue
        event = json.loads(message)
        if event["type"] == "incoming":  # asked before the call is answered: accept, or reject with a SIP status
            await socket.send(json.dumps({"type": "accept"}))
        elif event["type"] == "start":
            await socket.send(BEEP)
        elif event["type"] == "dtmf" and event["digit"] == "#":
            await socket.send(json.dumps({"type": "hang_up"}))


async def main():
    async with websockets.serve(call, "127.0.0.1", int(sys.argv[1])):
        await asyncio.Future()

asyncio.run(main())
