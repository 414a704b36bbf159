#!/usr/bin/env python3
"""Real peers against the real binary: every test starts `tandem serve` on free ports and speaks to it over sockets.

Closes with a line in the form of cargo's test runner, which scripts/test adds up.
"""
import importlib
import os
import pathlib
import sys
import traceback

import tandem

MODULES = [importlib.import_module(p.stem) for p in sorted(pathlib.Path(__file__).parent.glob("test_*.py"))]
# What a test's process says that could not run here.
SKIPPED = 77


def alone(name, test, binary):
    """Runs a test in a process of its own: nothing of it goes on when it is over."""
    sys.stdout.flush()
    # The child's nodes have other RTP ports than those of the test before.
    tandem.rtp_ports()
    child = os.fork()
    if child == 0:
        try:
            test(binary)
            print(f"test {name} ... ok")
        except tandem.Skipped as why:
            print(f"test {name} ... ignored, {why}")
            sys.stdout.flush()
            os._exit(SKIPPED)
        except BaseException:
            print(f"test {name} ... FAILED")
            traceback.print_exc(file=sys.stdout)
            sys.stdout.flush()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main():
    binary, wanted = sys.argv[1], sys.argv[2:]
    passed = failed = ignored = 0
    for module in MODULES:
        for name in [n for n in vars(module) if n.startswith("test_")]:
            if wanted and not any(w in f"{module.__name__}.{name}" for w in wanted):
                continue
            status = alone(f"{module.__name__}.{name}", getattr(module, name), binary)
            passed, ignored, failed = passed + (status == 0), ignored + (status == SKIPPED), failed + (status not in (0, SKIPPED))
    print(f"test result: {'ok' if failed == 0 else 'FAILED'}. {passed} passed; {failed} failed; {ignored} ignored;")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
