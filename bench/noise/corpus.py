"""Real human speech and noises, fetched from Debian packages when they are wanted; none of it is in the repository."""
import os
import subprocess
from pathlib import Path

import numpy as np
import soundfile
from scipy import signal

RATE = 8000
SECONDS = 10
ALL_BANDS = False
PACKAGES = ["asterisk-core-sounds-en-wav", "asterisk-core-sounds-es-wav", "asterisk-core-sounds-fr-wav",
            "asterisk-core-sounds-it-wav", "asterisk-core-sounds-ru-wav", "asterisk-prompt-it-menardi-wav",
            "pocketsphinx-testdata", "asterisk-moh-opsound-wav", "ktuberling-data"]
# Settings were chosen by listening to and scoring these only; the other voices are held out.
TUNED_ON = {"en Allison", "fr June", "it Carlo", "librivox"}
NOISES = ["white", "hum", "babble", "music", "clatter"]


def fetch(directory):
    """Downloads the packages into `directory` and returns where they are unpacked."""
    root = Path(directory) / "unpacked"
    marker = Path(directory) / "complete"
    if not marker.exists():
        root.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", *PACKAGES], cwd=directory, check=True,
                       env={**os.environ, "LC_ALL": "C"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for package in sorted(Path(directory).glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, root], check=True)
        marker.touch()
    return root


def voices(root):
    """Name → `SECONDS` of one person's speech at 8 kHz, telephone band, −26 dB active level."""
    asterisk, pocketsphinx = root / "usr/share/asterisk/sounds", root / "usr/share/pocketsphinx/test/data"
    words = root / "usr/share/ktuberling/sounds"
    sources = {
        "en Allison": longest(asterisk / "en_US_f_Allison"), "es Allison": longest(asterisk / "es_MX_f_Allison"),
        "fr June": longest(asterisk / "fr_CA_f_June"), "it Carlo": longest(asterisk / "it_IT_m_Carlo"),
        "it Menardi": longest(asterisk / "it_IT_f_Menardi"), "ru IvrVoice": longest(asterisk / "ru_RU_f_IvrvoiceRU"),
        "librivox": sorted((pocketsphinx / "librivox").glob("*.wav")),
        "cards": sorted((pocketsphinx / "cards").glob("*.wav")),
        "goforward": [pocketsphinx / name for name in ("goforward.raw", "something.raw", "numbers.raw")],
    }
    for language in ("ca", "da", "de", "el", "en", "es", "fr", "ga", "it", "lt", "ro", "ru", "sv", "uk", "wa"):
        sources[f"words {language}"] = sorted(f for f in (words / language).iterdir() if f.suffix in (".wav", ".ogg"))
    return {name: level(band(speech(files))) for name, files in sources.items()}


def longest(directory):
    """Prompts, the longest first, but not the demonstrations with music in them."""
    files = [f for f in directory.glob("*.wav") if not f.name.startswith(("demo-", "tt-", "beep", "spy-"))]
    return sorted(files, key=lambda f: (-f.stat().st_size, f.name))


def speech(files):
    """The files one after the other, without the silence around each, over and over until `SECONDS` are full."""
    parts, total = [], 0
    for path in files * 20:
        part = trim(read(path))
        parts += [part, np.zeros(RATE // 8)]
        total += len(part) + RATE // 8
        if total >= SECONDS * RATE:
            break
    return np.concatenate(parts)[:SECONDS * RATE]


def read(path):
    """Samples at 8 kHz."""
    if path.suffix == ".raw":
        samples, rate = np.fromfile(path, "<i2") / 32768, 16000
    else:
        samples, rate = soundfile.read(path)
    if samples.ndim > 1:
        samples = samples.mean(axis=1)
    return signal.resample_poly(samples, RATE, rate) if rate != RATE else samples


def powers(samples):
    """Power of each 20 ms."""
    frames = samples[:len(samples) // 160 * 160].reshape(-1, 160)
    return (frames ** 2).mean(axis=1) + 1e-12


def trim(samples):
    loud = np.nonzero(powers(samples) > powers(samples).max() / 10 ** 3.5)[0]
    return samples[loud[0] * 160:(loud[-1] + 1) * 160] if len(loud) else samples


def band(samples):
    """300 to 3,400 Hz, as a telephone network has it, or all there is, as between IP telephones."""
    if ALL_BANDS:
        return signal.sosfiltfilt(signal.butter(2, 60, "highpass", fs=RATE, output="sos"), samples)
    return signal.sosfiltfilt(signal.butter(4, [300, 3400], "bandpass", fs=RATE, output="sos"), samples)


def active(samples):
    """Root mean square of what is within 30 dB of the loud parts."""
    p = powers(samples)
    return np.sqrt(p[p > np.percentile(p, 95) / 1000].mean())


def level(samples):
    return samples * 10 ** (-26 / 20) / active(samples)


def noise(kind, root, everyone, voice, seed):
    """`SECONDS` of a noise with a root mean square of 1."""
    random = np.random.default_rng(seed)
    count = SECONDS * RATE
    t = np.arange(count) / RATE
    if kind == "white":
        sound = random.standard_normal(count)
    elif kind == "hum":
        sound = sum(np.sin(2 * np.pi * 50 * k * t + random.uniform(0, 6)) * random.uniform(0.3, 1) / np.sqrt(k)
                    for k in range(6, 41)) * (1 + 0.1 * np.sin(2 * np.pi * 0.3 * t))
    elif kind == "babble":
        talkers = random.permutation([name for name in everyone if name != voice])[:7]
        sound = sum(np.roll(everyone[name], random.integers(count)) for name in talkers)
    elif kind == "music":
        tracks = sorted((root / "usr/share/asterisk/moh").glob("*.wav"))
        track = read(tracks[random.integers(len(tracks))])
        start = random.integers(RATE * 10, len(track) - count - RATE * 10)
        sound = track[start:start + count]
    else:
        # Cars that pass, and keys, cups and doors in between.
        sound = np.zeros(count)
        for _ in range(4):
            passing = np.exp(-((t - random.uniform(0, SECONDS)) / random.uniform(0.4, 1.2)) ** 2)
            rumble = signal.lfilter([1], [1, -random.uniform(0.5, 0.9)], random.standard_normal(count))
            sound += passing * rumble / rumble.std()
        for start in random.uniform(0, SECONDS - 0.4, 60):
            length = int(RATE * random.uniform(0.01, 0.3))
            strike = np.exp(-np.arange(length) / length * 6) * random.standard_normal(length)
            ring = signal.iirpeak(random.uniform(400, 3000), random.uniform(2, 30), fs=RATE)
            strike = signal.lfilter(*ring, strike)
            at = int(start * RATE)
            sound[at:at + length] += strike / (strike.std() + 1e-9) * random.uniform(0.5, 3)
    sound = band(sound)
    return sound / sound.std()


def telephone(samples):
    """G.711 µ-law there and back, as 16-bit samples."""
    x = np.clip(samples, -1, 1)
    encoded = np.round(np.sign(x) * np.log1p(255 * np.abs(x)) / np.log(256) * 127)
    y = encoded / 127
    return np.round(np.sign(y) * np.expm1(np.abs(y) * np.log(256)) / 255 * 32767).astype("<i2")
