#!/usr/bin/env python3
"""Makes the streams that tests/opus.rs decodes: packets of each of Opus' modes, and what FFmpeg's own decoder, which shares
no code with libopus, hears in them.

    pip install av==18.1.0 numpy scipy && crates/media/tests/reference/opus.py
"""
import fractions
import pathlib
import struct

import av
import numpy
from scipy.signal import resample_poly

RATE, SECONDS = 48000, 0.6
# Name, options of the encoder, bit rate, channels.
STREAMS = [
    ("silk-narrow-20", {"application": "voip", "frame_duration": "20", "cutoff": "4000"}, 12000, 1),
    ("silk-wide-60", {"application": "voip", "frame_duration": "60", "cutoff": "8000"}, 20000, 1),
    ("silk-wide-10", {"application": "voip", "frame_duration": "10", "cutoff": "8000"}, 20000, 1),
    ("hybrid-superwide-20", {"application": "voip", "frame_duration": "20", "cutoff": "12000"}, 28000, 1),
    ("hybrid-full-10", {"application": "voip", "frame_duration": "10", "cutoff": "20000"}, 32000, 1),
    ("celt-full-20", {"application": "audio", "frame_duration": "20"}, 64000, 1),
    ("celt-full-2.5", {"application": "lowdelay", "frame_duration": "2.5"}, 64000, 1),
    ("stereo-20", {"application": "voip", "frame_duration": "20"}, 40000, 2),
]


def signal():
    """A gliding voice of eight harmonics with pauses, two tones above what 16 kHz holds, and hiss; nothing between 7 and
    9 kHz, where resamplers differ."""
    t = numpy.arange(int(RATE * SECONDS)) / RATE
    phase = 2 * numpy.pi * numpy.cumsum(150 + 60 * numpy.sin(2 * numpy.pi * 1.7 * t)) / RATE
    voice = sum(numpy.sin(n * phase) / n for n in (1, 2, 3, 5, 8, 12, 17, 22)) * (numpy.sin(2 * numpy.pi * 2.3 * t) > -0.7)
    dice = numpy.random.default_rng(1)
    spectrum = numpy.fft.rfft(dice.normal(0, 0.01, t.size))
    spectrum[numpy.fft.rfftfreq(t.size, 1 / RATE) > 6500] = 0
    high = 0.03 * (numpy.sin(2 * numpy.pi * 10500 * t) + numpy.sin(2 * numpy.pi * 14000 * t))
    return (0.25 * voice + numpy.fft.irfft(spectrum, t.size) + high).astype(numpy.float32)


def main():
    target = pathlib.Path(__file__).parent / "opus"
    target.mkdir(exist_ok=True)
    said = signal()
    for name, options, rate, channels in STREAMS:
        layout = "mono" if channels == 1 else "stereo"
        encoder = av.CodecContext.create("libopus", "w")
        encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = RATE, layout, "flt", rate
        encoder.time_base, encoder.options = fractions.Fraction(1, RATE), {**options, "vbr": "off"}
        encoder.open()
        size, packets = encoder.frame_size, []
        for at in range(0, said.size - size + 1, size):
            frame = said[at:at + size]
            # The right channel is the left one, quieter.
            both = frame if channels == 1 else numpy.stack([frame, frame / 2], axis=1).reshape(-1)
            packet = av.AudioFrame.from_ndarray(both.reshape(1, -1), format="flt", layout=layout)
            packet.sample_rate, packet.pts = RATE, at
            packets += [bytes(p) for p in encoder.encode(packet)]
        # FFmpeg's own, which is not libopus: with a head that skips nothing.
        decoder = av.CodecContext.create(av.codec.Codec("opus", "r"), "r")
        assert decoder.codec.name == "opus" and "lib" not in decoder.codec.name
        decoder.extradata = b"OpusHead" + struct.pack("<BBHIhB", 1, channels, 0, RATE, 0, 0)
        decoder.sample_rate, decoder.layout = RATE, layout
        decoder.open()
        heard = [frame.to_ndarray().mean(axis=0) for data in packets for frame in decoder.decode(av.Packet(data))]
        narrow = resample_poly(numpy.concatenate(heard), 1, 3, window=("kaiser", 10.0))
        samples = numpy.clip(numpy.round(narrow * 32768), -32768, 32767).astype("<i2")
        (target / f"{name}.packets").write_bytes(b"".join(struct.pack("<H", len(p)) + p for p in packets))
        (target / f"{name}.s16").write_bytes(samples.tobytes())
        print(name, len(packets), "packets", sum(map(len, packets)), "bytes,", len(samples), "samples, first byte", f"{packets[5][0]:08b}")


if __name__ == "__main__":
    main()
