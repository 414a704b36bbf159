#!/usr/bin/env python3
"""How good noise cancellation is, and what it costs: off, standard and high, on real voices in five noises.

    bench/noise/run.py [--snr 0 5 10 20] [--voices N] [--out bench/out/noise]

Needs Debian's apt-get, cargo, and the Python packages numpy, scipy, soundfile, pesq, pystoi and matplotlib. Speech,
music and babble come from Debian packages, downloaded once into the output directory (`corpus.py`). What is scored is
the Rust code of `crates/media`, by its example `denoise`. Every random number has a fixed seed.

Each voice is 10 s in the telephone band at −26 dB, mixed with the noise by active level, and sent through µ-law;
the reference is the clean voice. Scores: PESQ narrow-band (P.862), SI-SDR in dB, eSTOI; the same of clean speech, where
damage shows; what is left of noise alone; and CPU time per 20 ms frame. The last lines say whether the bars hold on the
voices that no setting was chosen by.
"""
import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
from pesq import pesq
from pystoi import stoi

import corpus

HERE = Path(__file__).resolve().parent
MODES = ["off", "standard", "high"]
METRICS = ["pesq", "si_sdr", "estoi"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--snr", type=int, nargs="+", default=[0, 5, 10, 20])
    arguments.add_argument("--voices", type=int, default=100, help="only the first so many")
    arguments.add_argument("--out", type=Path, default=HERE.parent / "out" / "noise")
    arguments.add_argument("--all-bands", action="store_true", help="voices and noises from 60 to 4,000 Hz instead of 300 to 3,400")
    arguments.add_argument("--binary", help="an example `denoise` that is built already")
    options = arguments.parse_args()
    corpus.ALL_BANDS = options.all_bands
    options.out.mkdir(parents=True, exist_ok=True)
    binary = options.binary or build()
    root = corpus.fetch(packages(options.out))
    everyone = corpus.voices(root)
    chosen = list(everyone)[:options.voices]
    jobs = mix(everyone, chosen, options.snr, root, options.out)
    cost = {mode: denoise(binary, mode, jobs, options.out) for mode in MODES}
    with ProcessPoolExecutor() as pool:
        scores = list(pool.map(score, [(job, mode, cost[mode]["delay_samples"], str(options.out)) for job in jobs for mode in MODES]))
    (options.out / "scores.json").write_text(json.dumps(scores, indent=1))
    holds = report(scores, cost, options, chosen)
    plot(scores, options)
    sys.exit(0 if holds else 1)


def packages(out):
    directory = out / "packages"
    directory.mkdir(exist_ok=True)
    return directory


def build():
    top = HERE.parent.parent
    subprocess.run(["cargo", "build", "--release", "--locked", "-q", "-p", "media", "--example", "denoise"], cwd=top, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", top / "target")) / "release/examples/denoise"


def mix(everyone, chosen, snrs, root, out):
    """Writes every input file; returns what each is."""
    jobs = []

    def write(samples, **job):
        job["name"] = "_".join(str(v).replace(" ", "-") for v in job.values())
        soundfile.write(out / f"{job['name']}.wav", corpus.telephone(samples), corpus.RATE, subtype="PCM_16")
        jobs.append(job)

    for index, voice in enumerate(chosen):
        clean = everyone[voice]
        soundfile.write(out / f"reference_{voice.replace(' ', '-')}.wav", clean, corpus.RATE, subtype="FLOAT")
        write(clean, kind="clean", voice=voice)
        for number, kind in enumerate(corpus.NOISES):
            noise = corpus.noise(kind, root, everyone, voice, 1000 * index + number) * corpus.active(clean)
            for snr in snrs:
                write(clean + noise * 10 ** (-snr / 20), kind=kind, voice=voice, snr=snr)
            if index < 5:
                write(noise * 10 ** (-5 / 20), kind="only " + kind, voice=voice)
    return jobs


def denoise(binary, mode, jobs, out):
    """Runs the binary once for all files; adds the CPU time a frame that the kernel counted."""
    pairs = [str(p) for job in jobs for p in (out / f"{job['name']}.wav", out / f"{job['name']}.{mode}.wav")]
    process = subprocess.Popen([binary, *pairs, "--mode", mode], stdout=subprocess.PIPE, text=True)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{binary} --mode {mode} failed")
    result = json.loads(printed)
    result["cpu_us"] = (usage.ru_utime + usage.ru_stime) * 1e6 / max(result["frames"], 1) if mode != "off" else 0.0
    return result


def score(task):
    job, mode, delay, out = task
    out = Path(out)
    result, _ = soundfile.read(out / f"{job['name']}.{mode}.wav")
    shift = round(delay)
    if job["kind"].startswith("only "):
        noise, _ = soundfile.read(out / f"{job['name']}.wav")
        settled = 2 * corpus.RATE
        return {**job, "mode": mode, "attenuation": float(10 * np.log10((noise[settled:] ** 2).mean() / ((result[settled:] ** 2).mean() + 1e-12)))}
    clean, _ = soundfile.read(out / f"reference_{job['voice'].replace(' ', '-')}.wav")
    result = result[shift:]
    count = min(len(clean), len(result))
    clean, result = clean[:count], result[:count]
    return {**job, "mode": mode, "pesq": float(pesq(corpus.RATE, clean, result, "nb")), "si_sdr": si_sdr(clean, result),
            "estoi": float(stoi(clean, result, corpus.RATE, extended=True))}


def si_sdr(clean, result):
    clean, result = clean - clean.mean(), result - result.mean()
    target = clean * (result @ clean) / (clean @ clean)
    return float(10 * np.log10((target @ target) / ((result - target) @ (result - target))))


def mean(scores, metric, **where):
    values = [s[metric] for s in scores if metric in s and all(s.get(k) in v if isinstance(v, (set, list)) else s.get(k) == v for k, v in where.items())]
    return float(np.mean(values)) if values else float("nan")


def report(scores, cost, options, chosen):
    held_out = [v for v in chosen if v not in corpus.TUNED_ON]
    print(f"{len(chosen)} voices ({len(held_out)} held out), noises: {', '.join(corpus.NOISES)}")
    for title, where in [("all voices", chosen), ("held-out voices", held_out)]:
        print(f"\n{title}\n{'SNR':>5} {'mode':9} {'PESQ':>6} {'SI-SDR':>7} {'eSTOI':>6}")
        for snr in options.snr:
            for mode in MODES:
                values = [mean(scores, m, snr=snr, mode=mode, kind=corpus.NOISES, voice=where) for m in METRICS]
                print(f"{snr:>5} {mode:9} {values[0]:6.2f} {values[1]:7.1f} {values[2]:6.3f}")
        for mode in MODES:
            values = [mean(scores, m, kind="clean", mode=mode, voice=where) for m in METRICS]
            worst = min(s["pesq"] for s in scores if s["kind"] == "clean" and s["mode"] == mode and s["voice"] in where)
            print(f"clean {mode:9} {values[0]:6.2f} {values[1]:7.1f} {values[2]:6.3f}   (worst PESQ {worst:.2f})")
    snr = 5 if 5 in options.snr else options.snr[0]
    print(f"\nby noise at {snr} dB, held-out voices: PESQ / SI-SDR / eSTOI; and noise alone, dB down")
    for kind in corpus.NOISES:
        cells = [" / ".join(f"{mean(scores, m, snr=snr, mode=mode, kind=kind, voice=held_out):.{d}f}" for m, d in zip(METRICS, (2, 1, 3)))
                 + f" ({mean(scores, 'attenuation', kind='only ' + kind, mode=mode):5.1f})" for mode in MODES]
        print(f"{kind:8} " + "   ".join(f"{mode} {cell}" for mode, cell in zip(MODES, cells)))
    print("\nCPU per 20 ms frame, µs: " + ", ".join(f"{mode} {cost[mode]['cpu_us']:.0f} (wall {cost[mode]['us_per_frame']:.0f})" for mode in MODES[1:])
          + "; delay, ms: " + ", ".join(f"{mode} {cost[mode]['delay_samples'] * 1000 / corpus.RATE:.0f}" for mode in MODES[1:]))
    return bars(scores, cost, snr, held_out)


def bars(scores, cost, snr, voices):
    """The bars the issue sets, on the voices given."""
    def gain(metric, mode):
        at = dict(snr=snr, kind=corpus.NOISES, voice=voices)
        return mean(scores, metric, mode=mode, **at) - mean(scores, metric, mode="off", **at)

    print(f"\nbars at {snr} dB, held-out voices")
    checks = []
    for mode in MODES[1:]:
        checks += [(mode, "SI-SDR gain", gain("si_sdr", mode), 2.0), (mode, "PESQ gain", gain("pesq", mode), 0.1),
                   (mode, "clean PESQ", mean(scores, "pesq", kind="clean", mode=mode, voice=voices), 4.2)]
    checks += [("high", "eSTOI gain", gain("estoi", "high"), 0.0), ("high", "hum down, dB", mean(scores, "attenuation", kind="only hum", mode="high"), 12.0),
               ("high", "µs below 400", 400 - cost["high"]["cpu_us"], 0.0)]
    for mode, name, value, bar in checks:
        print(f"{'ok  ' if value >= bar else 'MISS'} {mode:9} {name:12} {value:7.3f} (at least {bar})")
    return all(value >= bar for _, _, value, bar in checks)


def plot(scores, options):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(3, len(corpus.NOISES), figsize=(16, 9), sharex=True, sharey="row")
    for row, metric in zip(axes, METRICS):
        for axis, kind in zip(row, corpus.NOISES):
            for mode in MODES:
                axis.plot(options.snr, [mean(scores, metric, snr=s, mode=mode, kind=kind) for s in options.snr], "o-", label=mode)
            axis.set_title(kind if metric == METRICS[0] else "")
            axis.grid(alpha=0.3)
        row[0].set_ylabel({"pesq": "PESQ (narrow-band)", "si_sdr": "SI-SDR, dB", "estoi": "eSTOI"}[metric])
    for axis in axes[-1]:
        axis.set_xlabel("SNR, dB")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(options.out / "noise.png", dpi=110)
    print(f"\nplot: {options.out / 'noise.png'}")


if __name__ == "__main__":
    main()
