#!/usr/bin/env python3
"""Real peers against the real binary: every test starts `tandem serve` on free ports and speaks to it over sockets.

    interop/run.py target/checked/tandem [part of a name…]

Most tests wait for a call to take its time, so three run at once; those that want the whole machine come after them, one
by one. Closes with a line in the form of cargo's test runner, which scripts/test adds up.
"""
import importlib
import os
import pathlib
import sys
import tempfile
import time
import traceback

import tandem

MODULES = [importlib.import_module(p.stem) for p in sorted(pathlib.Path(__file__).parent.glob("test_*.py"))]
# What a test's process says that could not run here.
SKIPPED = 77


class Child:
    """A test in a process of its own: nothing of it goes on when it is over. What it says is shown when it ends."""

    def __init__(self, name, test, binary, lane):
        self.name, self.lane, self.begun = name, lane, time.monotonic()
        self.said = tempfile.TemporaryFile("w+")
        sys.stdout.flush()
        # The child's nodes have other RTP ports than those of the test before.
        tandem.rtp_ports()
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(self.run(test, binary))

    def run(self, test, binary):
        os.dup2(self.said.fileno(), 1)
        os.dup2(self.said.fileno(), 2)
        tandem.lane = self.lane
        status = 1
        try:
            test(binary)
            status = 0
        except tandem.Skipped as why:
            print(f"skipped: {why}")
            status = SKIPPED
        except BaseException:
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        return status

    def ended(self, status):
        verdict = {0: "ok", SKIPPED: "ignored"}.get(status, "FAILED")
        print(f"test {self.name} ... {verdict} ({time.monotonic() - self.begun:.1f} s)")
        self.said.seek(0)
        sys.stdout.write(self.said.read())
        sys.stdout.flush()


def run(tests, binary, lanes):
    """Runs tests, as many at once as there are lanes; gives back their exit statuses."""
    waiting, running, statuses = list(tests), {}, []
    while waiting or running:
        while waiting and len(running) < lanes:
            lane = min(set(range(lanes)) - {child.lane for child in running.values()})
            child = Child(*waiting.pop(0), binary, lane)
            running[child.pid] = child
        pid, status = os.wait()
        if pid in running:
            status = os.waitstatus_to_exitcode(status)
            running.pop(pid).ended(status)
            statuses.append(status)
    return statuses


def main():
    binary, wanted = sys.argv[1], sys.argv[2:]
    tests = [
        (f"{module.__name__}.{name}", test)
        for module in MODULES for name, test in vars(module).items()
        if name.startswith("test_") and (not wanted or any(w in f"{module.__name__}.{name}" for w in wanted))
    ]
    alone = [(name, test) for name, test in tests if getattr(test, "alone", False)]
    statuses = run([test for test in tests if test not in alone], binary, tandem.LANES) + run(alone, binary, 1)
    passed, ignored = statuses.count(0), statuses.count(SKIPPED)
    failed = len(statuses) - passed - ignored
    print(f"test result: {'ok' if failed == 0 else 'FAILED'}. {passed} passed; {failed} failed; {ignored} ignored;")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
