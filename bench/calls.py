#!/usr/bin/env python3
"""Server CPU a call and memory, with sipp as the caller; beside Kamailio answering statelessly when it is installed.

    bench/calls.py target/release/tandem
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))
from tandem import Tandem  # noqa: E402
from test_sipp import sipp  # noqa: E402


def run(name, t, agent, rate, seconds):
    before, clock = t.cpu(), time.monotonic()
    code, good, bad, again = sipp(t, agent, rate, rate * seconds, 5000)
    cpu = t.cpu() - before
    print(f"{name}: {rate} calls/s for {time.monotonic() - clock:.1f} s: {good} good, {bad} failed, {again} retransmissions, "
          f"{cpu / (good or 1) * 1000:.3f} CPU s per 1,000 calls, RSS {t.rss() // 1024} MiB", flush=True)


class Kamailio:
    """Answers INVITE and BYE without state, on a free port."""

    def __init__(self):
        import socket
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        probe.bind(("127.0.0.1", 0))
        self.udp = probe.getsockname()
        probe.close()
        self.home = tempfile.mkdtemp()
        config = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kamailio.cfg")
        self.process = subprocess.Popen(["kamailio", "-f", config, "-l", "udp:%s:%d" % self.udp, "-DD", "-E", "-w", self.home, "-Y", self.home],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1)

    def pids(self):
        return [self.process.pid] + [int(p) for p in subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout.split()]

    def cpu(self):
        total = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def rss(self):
        return 0


def main():
    with Tandem(sys.argv[1], ["media.ports=20000-29999"]) as t:
        agent = t.deployed()
        print(f"idle RSS {t.rss() // 1024} MiB")
        run("tandem, echo agent with media port and record", t, agent, 1000, 5)
        run("tandem, echo agent with media port and record", t, agent, 200, 60)
        print("waiting 35 s for the last transactions")
        time.sleep(35)
        print(f"RSS after the last transactions {t.rss() // 1024} MiB")
    if shutil.which("kamailio"):
        k = Kamailio()
        run("kamailio, stateless, no media", k, "x", 1000, 5)
        k.process.terminate()


if __name__ == "__main__":
    main()
