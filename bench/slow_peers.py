#!/usr/bin/env python3
"""Slow peers: 10,000 idle, 2,000 half-open TLS and 500 dripping connections that come back whenever they are closed,
while calls over TCP and TLS are placed from an address a trunk lists, and from one that none does.

    python3 bench/slow_peers.py target/release/tandem [SECONDS]
"""
import pathlib
import re
import resource
import selectors
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "interop"))
from tandem import Tandem  # noqa: E402
from transports import Authority, Call, tls_settings  # noqa: E402

IDLE, HALF_OPEN, DRIPPING = 10_000, 2_000, 500


class Crowd(threading.Thread):
    """So many connections to one listener, made anew as they are closed; `drip` says something now and then."""

    def __init__(self, node, count, first=b"", drip=b"", sources=1):
        super().__init__(daemon=True)
        self.node, self.count, self.first, self.drip, self.sources = node, count, first, drip, sources
        self.open, self.made, self.stop = {}, 0, False

    def run(self):
        watch, last = selectors.DefaultSelector(), time.monotonic()
        while not self.stop:
            while len(self.open) < self.count and not self.stop:
                try:
                    s = socket.socket()
                    # Strangers from many addresses: 127.1.x.y.
                    n = self.made % self.sources
                    s.bind((f"127.1.{n // 250}.{n % 250 + 1}", 0))
                    s.settimeout(2)
                    s.connect(self.node)
                    s.setblocking(False)
                    if self.first:
                        s.send(self.first)
                    watch.register(s, selectors.EVENT_READ)
                    self.open[s.fileno()] = s
                    self.made += 1
                except OSError:
                    s.close()
                    break
                if self.made % 200 == 0:
                    break
            for key, _ in watch.select(0.01):
                try:
                    gone = not key.fileobj.recv(4096)
                except OSError:
                    gone = True
                if gone:
                    watch.unregister(key.fileobj)
                    self.open.pop(key.fd, None)
                    key.fileobj.close()
            if self.drip and time.monotonic() - last > 1:
                last = time.monotonic()
                for s in list(self.open.values()):
                    try:
                        s.send(self.drip)
                    except OSError:
                        pass


def main():
    binary, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 30
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    authority = Authority()
    pair = authority.sign("node", "localhost")
    with Tandem(binary, ["sip.udp=127.0.0.1:0", "sip.tcp=0.0.0.0:0", *tls_settings(authority, *pair, address="0.0.0.0:0")]) as t:
        tls = ("127.0.0.1", int(re.search(r"kind=sip/tls addr=\S+:(\d+)", "".join(t.log)).group(1)))
        tcp = ("127.0.0.1", t.tcp[1])
        trunk = t.ok("POST", "/core/trunks", {"name": "x", "inbound_config": {"allowed_addresses": ["127.0.0.2"]}})["id"]
        t.ok("POST", "/core/phone-numbers", {"phone_number": "+14155550100", "trunk_id": trunk})
        t.agent({"runtime": {"type": "echo"}}, ["+14155550100"])
        agent, before = t.deployed(), t.rss()
        crowds = [Crowd(tcp, IDLE, sources=200), Crowd(tls, HALF_OPEN, b"\x16\x03\x01\x02\x00\x01", sources=50), Crowd(tcp, DRIPPING, b"INVITE sip:a", b"a", sources=20)]
        for crowd in crowds:
            crowd.start()
        time.sleep(5)
        client, times, failed = authority.client(), [], []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for source, user in (("127.0.0.2", "+14155550100"), ("127.0.0.3", agent)):
                for node, transport in ((tcp, "tcp"), (tls, "tls")):
                    begun = time.monotonic()
                    try:
                        connection = socket.create_connection(node, 5, source_address=(source, 0))
                        if transport == "tls":
                            connection = client.wrap_socket(connection, server_hostname="localhost")
                        call = Call(node, user, transport, connection)
                        assert call.final() == 200
                        times.append(time.monotonic() - begun)
                        call.bye()
                        connection.close()
                    except Exception as error:
                        failed.append((source, transport, repr(error)))
            time.sleep(0.1)
        times.sort()
        held = sum(len(c.open) for c in crowds)
        print(f"{len(times)} calls succeeded, {len(failed)} failed; set up in {times[len(times) // 2] * 1e3:.0f} ms (median), {times[int(len(times) * .99)] * 1e3:.0f} ms (p99)")
        print(f"the crowd holds {held} connections and made {sum(c.made for c in crowds)}; memory grew by {(t.rss() - before) / 1024:.1f} MiB")
        for line in failed[:10]:
            print(line)
        for crowd in crowds:
            crowd.stop = True
        return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
