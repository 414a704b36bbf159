"""A network of its own behind a pair of interfaces, in which packets get lost."""
import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess

from tandem import Skipped

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
numbers = itertools.count(os.getpid())


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise Skipped(f"{' '.join(words)}: {done.stderr.strip()}")


class Lossy:
    """`near` is this side's address and `far` the one inside; a router between them loses `percent` of the UDP packets
    each way. Were they lost at the far end itself, its senders would be told."""

    def __init__(self, percent):
        missing = [tool for tool in ("ip", "iptables", "sysctl") if not shutil.which(tool)]
        if missing:
            raise Skipped(f"{missing[0]} is not installed")
        n = next(numbers) % 8_192
        self.name, self.router, self.link = f"far{n}", f"lossy{n}", f"lossy{n}"
        # RFC 2544: networks for benchmarks, two of four addresses each.
        address = lambda host: f"198.{18 + (n >> 13)}.{n >> 5 & 255}.{(n & 31) * 8 + host}"
        self.near, to_near, to_far, self.far = (address(host) for host in (1, 2, 5, 6))
        within = lambda name, *words: run("ip", "netns", "exec", name, *words)
        try:
            for name in (self.name, self.router):
                run("ip", "netns", "add", name)
            run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "near", "netns", self.router)
            within(self.router, "ip", "link", "add", "far", "type", "veth", "peer", "name", "out", "netns", self.name)
            run("ip", "address", "add", f"{self.near}/30", "dev", self.link)
            run("ip", "link", "set", self.link, "up")
            for name, link, ip in ((self.router, "near", to_near), (self.router, "far", to_far), (self.name, "out", self.far)):
                within(name, "ip", "address", "add", f"{ip}/30", "dev", link)
                within(name, "ip", "link", "set", link, "up")
            within(self.name, "ip", "link", "set", "lo", "up")
            within(self.router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
            run("ip", "route", "add", f"{address(4)}/30", "via", to_near)
            within(self.name, "ip", "route", "add", "default", "via", to_far)
            for side in ("near", "far"):
                within(self.router, "iptables", "-w", "-A", "FORWARD", "-i", side, "-p", "udp", "-m", "statistic", "--mode", "random", "--probability", str(percent / 100), "-j", "DROP")
        except BaseException:
            self.close()
            raise

    def command(self, *words):
        return ["ip", "netns", "exec", self.name, *words]

    def dropped(self):
        """Packets lost, to and from."""
        shown = subprocess.run(["ip", "netns", "exec", self.router, "iptables", "-w", "-nvxL"], capture_output=True, text=True, check=True).stdout
        return [int(line.split()[0]) for line in shown.splitlines() if "DROP" in line.split()]

    def close(self):
        for words in (("ip", "link", "del", self.link), ("ip", "netns", "del", self.name), ("ip", "netns", "del", self.router)):
            subprocess.run(words, capture_output=True)

    @contextlib.contextmanager
    def within(self):
        """Sockets made by this thread meanwhile are of the lossy network, and stay so."""
        with open("/proc/thread-self/ns/net") as here, open(f"/run/netns/{self.name}") as there:
            assert libc.setns(there.fileno(), CLONE_NEWNET) == 0
            try:
                yield
            finally:
                assert libc.setns(here.fileno(), CLONE_NEWNET) == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
