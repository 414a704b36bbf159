#!/usr/bin/env python3
"""A Pipecat bot on Tandem: Pipecat's own Twilio serializer and FastAPI transport, nothing patched.

    pip install pipecat-ai fastapi uvicorn websockets
    TANDEM_URL=http://127.0.0.1:8080 BOT_SECRET=… python3 examples/pipecat_bot.py 8765

The agent's runtime: {"type": "media_stream", "url": "ws://127.0.0.1:8765/ws", "secret": "…the same…"}.

It greets with a tone and then repeats what it hears. The key 1 interrupts it, as a caller's speech would with a VAD;
the key # makes it hang up, over the same REST call that ends a Twilio call. Put your STT, LLM and TTS where Parrot is.
"""
import math
import os
import struct
import sys

import uvicorn
from fastapi import FastAPI, WebSocket
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import EndWorkerFrame, Frame, InputAudioRawFrame, InputDTMFFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

RATE = 8000
app = FastAPI()


def tone(hz, seconds):
    samples = (int(8000 * math.sin(2 * math.pi * hz * n / RATE)) for n in range(int(seconds * RATE)))
    return struct.pack(f"<{int(seconds * RATE)}h", *samples)


class Parrot(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection):
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            await self.push_frame(OutputAudioRawFrame(frame.audio, frame.sample_rate, 1))
        elif isinstance(frame, InputDTMFFrame) and frame.button == KeypadEntry.ONE:
            await self.broadcast_interruption()
        elif isinstance(frame, InputDTMFFrame) and frame.button == KeypadEntry.POUND:
            await self.push_frame(EndWorkerFrame())
        else:
            await self.push_frame(frame, direction)


@app.websocket("/ws")
async def call(websocket: WebSocket):
    await websocket.accept()
    _, data = await parse_telephony_websocket(websocket)
    serializer = TwilioFrameSerializer(
        stream_sid=data["stream_id"],
        call_sid=data["call_id"],
        # Twilio's bots know their account; Tandem's is AC and the organization's id, as the start message says.
        account_sid=os.environ["ACCOUNT_SID"],
        auth_token=os.environ["BOT_SECRET"],
        base_url=os.environ.get("TANDEM_URL", "http://127.0.0.1:8080"),
    )
    params = FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True, serializer=serializer)
    transport = FastAPIWebsocketTransport(websocket=websocket, params=params)
    worker = PipelineWorker(
        Pipeline([transport.input(), Parrot(), transport.output()]),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
    )

    @transport.event_handler("on_client_connected")
    async def greet(_transport, _client):
        await worker.queue_frames([OutputAudioRawFrame(tone(700, 1.0), RATE, 1)])

    @transport.event_handler("on_client_disconnected")
    async def over(_transport, _client):
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8765, log_level="warning")
