#!/usr/bin/env python3
"""How long `GET /core/trunks/{id}` takes at 2,000 requests/s while 50 calls/s come in, and whether one call suffers; then
whether the time tells another organization's id from an unknown one.

    cargo build --release -p node && cargo build --release -p api --example load
    bench/api.py target/release/tandem target/release/examples/load
"""
import os
import subprocess
import sys
import threading
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))
from tandem import Tandem  # noqa: E402
from test_sipp import sipp  # noqa: E402

SECONDS = 20


def main():
    binary, load = sys.argv[1:]
    with Tandem(binary) as t:
        def measure(rate, *paths):
            return subprocess.run([load, t.http.removeprefix("http://"), t.key, str(rate), str(SECONDS), "64", *paths],
                                  capture_output=True, text=True, check=True).stdout.strip()

        trunks = [t.ok("POST", "/core/trunks", {"name": f"t{n}"})["id"] for n in range(50)]
        agent = t.deployed()
        calls = {}
        caller = threading.Thread(target=lambda: calls.update(answer=sipp(t, agent, 50, 50 * (SECONDS + 2), 5000)))
        caller.start()
        cpu = t.cpu()
        print("beside 50 calls/s:", measure(2000, f"/core/trunks/{trunks[7]}"))
        print(f"server CPU: {(t.cpu() - cpu) / SECONDS:.2f} cores")
        caller.join()
        code, good, bad, again = calls["answer"]
        print(f"calls: {good} good, {bad} failed, {again} retransmissions")
        other = t.admin("org", "create", "Other")
        key = t.admin("key", "create", "--org", other)
        foreign = [t.request("POST", "/core/trunks", {"name": f"f{n}"}, key=key)[1]["id"] for n in range(1)][0]
        unknown = str(uuid.uuid4())
        print("foreign and unknown ids in turn:", measure(500, f"/core/trunks/{foreign}", f"/core/trunks/{unknown}"), sep="\n")


if __name__ == "__main__":
    main()
