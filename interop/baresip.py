"""baresip without a sound card: it says a 440 Hz tone and keeps what it hears as a WAV file."""
import glob
import math
import os
import socket
import struct
import subprocess
import tempfile
import wave

from tandem import wait_for

CONFIG = """poll_method epoll
sip_listen 127.0.0.1:{port}
net_interface 127.0.0.1
audio_source aufile,{directory}/tone.wav
audio_player aubridge,nowhere
audio_alert aubridge,nowhere
module_path {modules}
module g711.so
module srtp.so
module aufile.so
module aubridge.so
module sndfile.so
module_tmp account.so
module_app menu.so
sndfile_path {directory}
"""


class Baresip:
    def __init__(self, user="peer", account="", command=None):
        self.directory = tempfile.TemporaryDirectory()
        self.write("contacts", "")
        with wave.open(os.path.join(self.directory.name, "tone.wav"), "wb") as tone:
            tone.setparams((1, 2, 8000, 0, "NONE", ""))
            tone.writeframes(b"".join(struct.pack("<h", int(10_000 * math.sin(2 * math.pi * 440 * n / 8000))) for n in range(8000 * 30)))
        words = ["baresip", "-f", self.directory.name] + (["-e", command] if command else [])
        self.log = open(os.path.join(self.directory.name, "log"), "w+")
        # It cannot be given a port of the system's choice, so one that was free may be somebody's by now.
        for _ in range(5):
            self.configure(user, account)
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd=self.directory.name)
            try:
                wait_for("baresip", 2, lambda: "baresip is ready" in self.told() or self.process.poll() is not None)
            except AssertionError:
                self.process.kill()
                self.process.wait()
            if self.process.poll() is None:
                return
        raise AssertionError(f"baresip does not start:\n{self.told()}")

    def configure(self, user, account):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = ("127.0.0.1", self.port)
        modules = os.path.dirname([*glob.glob("/usr/lib/baresip/modules/g711.so"), *glob.glob("/usr/lib/*/baresip/modules/g711.so")][0])
        self.write("config", CONFIG.format(port=self.port, modules=modules, directory=self.directory.name))
        self.write("accounts", f"<sip:{user}@127.0.0.1:{self.port}>;regint=0;answermode=auto;audio_codecs=PCMU{account}\n")

    def write(self, name, text):
        with open(os.path.join(self.directory.name, name), "w") as f:
            f.write(text)

    def told(self):
        with open(self.log.name) as f:
            return f.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.directory.cleanup()

    def heard(self):
        """What it has heard so far, as samples."""
        samples = []
        for name in glob.glob(os.path.join(self.directory.name, "*dec.wav")):
            # The header's length is written at the end: everything after it counts.
            with open(name, "rb") as f:
                data = f.read()[44:]
            samples += [int.from_bytes(data[i:i + 2], "little", signed=True) for i in range(0, len(data) - 1, 2)]
        return samples

    def hears(self, hz):
        samples = self.heard()[800:8000 * 3]
        assert len(samples) > 4000, f"{len(samples)} samples:\n{self.told()}"
        real, imaginary = (sum(s * f(2 * math.pi * hz * n / 8000) for n, s in enumerate(samples)) for f in (math.cos, math.sin))
        tone = 2 * math.hypot(real, imaginary) / len(samples)
        total = math.sqrt(2 * sum(s * s for s in samples) / len(samples))
        assert tone > 500 and tone > 0.7 * total, f"{hz} Hz at {tone:.0f} of {total:.0f}"
