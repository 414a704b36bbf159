#!/usr/bin/env python3
"""How well the beep of a voicemail box and digits as tones are heard, and how often they are heard where there are none.

    bench/tones/run.py [--out bench/out/tones]

Needs what `bench/noise/run.py` needs, but for pesq, pystoi and matplotlib. Speech, music and recorded beeps come from
Debian packages. What is measured is the Rust code of `crates/media`, by its example `listen`. Every random number has a
fixed seed. Everything goes through the telephone band and µ-law first.

Hits: a greeting, a pause, a beep and silence, in noise; the beep recorded or made, of many pitches, lengths and levels.
Digits of 45 to 250 ms, off their frequencies, uneven, in noise. False alarms: every prompt in every language, and music,
without a beep or digit in it. The last lines say whether the bars hold.
"""
import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "noise"))
import corpus  # noqa: E402

RATE = corpus.RATE
KEYS = "123A456B789C*0#D"
ROWS, COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
# What is no speech: recorded beeps, and tones of a network among the prompts.
TONAL = ("beep", "tt-", "spy-", "ascending", "descending")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, default=HERE.parent / "out" / "tones")
    arguments.add_argument("--packages", type=Path, help="where bench/noise keeps its packages")
    arguments.add_argument("--binary", help="an example `listen` that is built already")
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    packages = options.packages or options.out / "packages"
    packages.mkdir(exist_ok=True)
    root = corpus.fetch(packages)
    prompts = sorted(f for f in root.rglob("*.wav") if "moh" not in f.parts)
    speech = [f for f in prompts if not f.name.startswith(TONAL)]
    random = np.random.default_rng(7)
    jobs = beeps(root, speech, random) + digits(random) + quiet(root, speech)
    for job in jobs:
        job["path"] = options.out / f"{job['name']}.wav"
        soundfile.write(job["path"], corpus.telephone(job.pop("samples")), RATE, subtype="PCM_16")
    binary = options.binary or build()
    lines = subprocess.run([binary, *(str(job["path"]) for job in jobs)], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    results = [json.loads(line) for line in lines]
    cost = results.pop()
    for job, result in zip(jobs, results, strict=True):
        job.update(beeps=result["beeps"], digits=result["digits"])
    sys.exit(0 if report(jobs, cost) else 1)


def build():
    top = HERE.parent.parent
    subprocess.run(["cargo", "build", "--release", "--locked", "-q", "-p", "media", "--example", "listen"], cwd=top, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", top / "target")) / "release/examples/listen"


def db(value):
    return 10 ** (value / 20)


def noisy(samples, random, level):
    """With noise of the line at a level in dBFS, band-limited."""
    noise = corpus.band(random.standard_normal(len(samples)))
    return samples + noise / noise.std() * db(level - 3)


def tone(hz, seconds):
    t = np.arange(int(seconds * RATE)) / RATE
    ramp = np.minimum(1, np.minimum(t, t[::-1]) / 0.005)
    return np.sin(2 * np.pi * hz * t) * ramp


def beeps(root, speech, random):
    """A greeting and its beep, many times."""
    recorded = sorted({f.read_bytes(): f for f in root.rglob("beep.wav")}.values())
    greetings = [f for f in speech if f.stat().st_size > 60_000]
    jobs = []

    def add(kind, sound, level, noise):
        greeting = corpus.band(corpus.read(greetings[random.integers(len(greetings))]))[:8 * RATE]
        greeting *= db(-22) / corpus.active(greeting)
        pause = np.zeros(int(random.uniform(0.15, 1.2) * RATE))
        sound = sound * db(level) / (np.sqrt(2) * corpus.active(sound))
        parts = [greeting, pause, sound, np.zeros(int(1.5 * RATE))]
        begins = sum(len(p) for p in parts[:2]) / RATE
        jobs.append(dict(name=f"beep_{len(jobs)}", kind=kind, noise=noise, begins=begins, length=len(sound) / RATE,
                         samples=noisy(np.concatenate(parts), random, noise)))

    for noise in (-70, -50, -40):
        for path in recorded:
            for level in (-12, -20, -28):
                for _ in range(5):
                    add("recorded", corpus.read(path), level, noise)
        for _ in range(200):
            hz, seconds = random.uniform(400, 2100), random.uniform(0.15, 1.5)
            add("made", tone(hz, seconds), random.uniform(-28, -8), noise)
    return jobs


def digits(random):
    jobs = []
    for noise in (-70, -45, -35):
        for number in range(40):
            dialled = "".join(random.permutation(list(KEYS * 2)))
            ms, gap = random.uniform(45, 250), random.uniform(45, 150)
            level, twist, off = random.uniform(-25, -6), random.uniform(-4, 6), random.uniform(-0.015, 0.015)
            parts = [np.zeros(RATE // 4)]
            for key in dialled:
                row, column = divmod(KEYS.index(key), 4)
                sound = db(level - 6) * (tone(ROWS[row] * (1 + off), ms / 1000) + db(twist) * tone(COLUMNS[column] * (1 + off), ms / 1000))
                parts += [sound, np.zeros(int(gap / 1000 * RATE))]
            parts.append(np.zeros(RATE // 4))
            jobs.append(dict(name=f"digits_{noise}_{number}", kind="digits", noise=noise, dialled=dialled, samples=noisy(np.concatenate(parts), random, noise)))
    return jobs


def quiet(root, speech):
    """Nothing to be heard: all prompts, in stretches of ten minutes, and music."""
    jobs, parts, total = [], [], 0
    for path in [*speech, None]:
        if path:
            samples = corpus.read(path)
            if len(samples) < RATE // 10:
                continue
            samples = corpus.band(samples)
            parts += [samples * db(-22) / corpus.active(samples), np.zeros(RATE // 2)]
            total += len(parts[-2]) + len(parts[-1])
        if parts and (total > 600 * RATE or path is None):
            jobs.append(dict(name=f"speech_{len(jobs)}", kind="speech", hours=total / RATE / 3600, samples=np.concatenate(parts)))
            parts, total = [], 0
    for path in sorted((root / "usr/share/asterisk/moh").glob("*.wav")):
        samples = corpus.band(corpus.read(path))
        jobs.append(dict(name=f"music_{path.stem}", kind="music", hours=len(samples) / RATE / 3600, samples=samples * db(-22) / corpus.active(samples)))
    return jobs


def hit(job):
    """Told once, after the beep's end and within half a second of it."""
    end = job["begins"] + job["length"]
    return len(job["beeps"]) == 1 and end < job["beeps"][0]["at_ms"] / 1000 < end + 0.5


def report(jobs, cost):
    checks = []
    for kind in ("recorded", "made"):
        for noise in (-70, -50, -40):
            these = [j for j in jobs if j["kind"] == kind and j["noise"] == noise]
            missed = [j for j in these if not hit(j)]
            print(f"beeps {kind:8} noise {noise} dBFS: {len(these) - len(missed)} of {len(these)}")
            for job in missed[:5]:
                print(f"    missed {job['name']} at {job['begins']:.2f} s, {job['length']:.2f} s long: {job['beeps']}")
            checks.append((f"{kind} beeps at {noise} dBFS noise, %", 100 * (1 - len(missed) / max(len(these), 1)), 95.0))
    for noise in (-70, -45, -35):
        these = [j for j in jobs if j["kind"] == "digits" and j["noise"] == noise]
        wrong = [j for j in these if j["digits"] != j["dialled"]]
        right = sum(len(j["dialled"]) for j in these) - sum(distance(j["dialled"], j["digits"]) for j in wrong)
        share = 100 * right / sum(len(j["dialled"]) for j in these)
        print(f"digits noise {noise} dBFS: {share:.2f} %; {len(these) - len(wrong)} of {len(these)} numbers of 32 digits without a fault")
        checks.append((f"digits at {noise} dBFS noise, %", share, 99.0))
    for kind in ("speech", "music"):
        these = [j for j in jobs if j["kind"] == kind]
        hours = sum(j["hours"] for j in these)
        false_beeps, false_digits = [b for j in these for b in j["beeps"]], "".join(j["digits"] for j in these)
        print(f"{kind}: {hours:.2f} h, {len(false_beeps)} false beeps ({len(false_beeps) / hours:.2f} an hour), {len(false_digits)} false digits ({len(false_digits) / hours:.2f} an hour) {false_digits}")
        for job in these:
            for beep in job["beeps"][:5]:
                print(f"    {job['name']}: {beep}")
        if kind == "speech":
            checks.append(("hours of speech without a false beep", hours / max(len(false_beeps), 0.5), 1.0))
            checks.append(("hours of speech without a false digit", hours / max(len(false_digits), 0.5), 0.5))
    print(f"CPU a frame of 20 ms, µs: beeps {cost['beep_us_per_frame']}, digits {cost['digit_us_per_frame']}")
    for name, value, bar in checks:
        print(f"{'ok  ' if value >= bar else 'MISS'} {name:45} {value:7.2f} (at least {bar})")
    return all(value >= bar for _, value, bar in checks)


def distance(a, b):
    """Edits between two texts (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


if __name__ == "__main__":
    main()
