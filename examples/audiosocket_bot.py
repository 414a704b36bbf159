#!/usr/bin/env python3
"""An AudioSocket bot, as it stands behind an Asterisk: python3 examples/audiosocket_bot.py 9092

The agent's runtime: {"type": "audiosocket", "address": "127.0.0.1:9092"}. It says back what it hears, in step with the
caller because the protocol leaves the pace to the bot, and hangs up when the caller presses #."""
import asyncio
import struct
import sys

HANG_UP, CALL_ID, DIGIT, AUDIO = 0x00, 0x01, 0x03, 0x10


async def call(reader, writer):
    try:
        while True:
            kind, length = struct.unpack("!BH", await reader.readexactly(3))
            payload = await reader.readexactly(length)
            if kind == CALL_ID:
                print("call", payload.hex(), flush=True)
            elif kind == AUDIO:
                writer.write(struct.pack("!BH", AUDIO, length) + payload)
            elif kind == HANG_UP or (kind == DIGIT and payload == b"#"):
                writer.write(struct.pack("!BH", HANG_UP, 0))
                break
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()


async def main():
    server = await asyncio.start_server(call, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(main())
