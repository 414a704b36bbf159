#!/usr/bin/env python3
"""Real peers against the real binary: every test starts `tandem serve` on free ports and speaks to it over sockets.

Closes with a line in the form of cargo's test runner, which scripts/test adds up.
"""
import importlib
import os
import pathlib
import sys
import traceback

MODULES = [importlib.import_module(p.stem) for p in sorted(pathlib.Path(__file__).parent.glob("test_*.py"))]


def alone(name, test, binary):
    """Runs a test in a process of its own: a peer that still talks when its test is over must not be heard by the next
    node, which has the same RTP ports."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            test(binary)
            print(f"test {name} ... ok")
        except BaseException:
            print(f"test {name} ... FAILED")
            traceback.print_exc(file=sys.stdout)
            sys.stdout.flush()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def main():
    binary, wanted = sys.argv[1], sys.argv[2:]
    passed = failed = 0
    for module in MODULES:
        for name in [n for n in vars(module) if n.startswith("test_")]:
            if wanted and not any(w in f"{module.__name__}.{name}" for w in wanted):
                continue
            good = alone(f"{module.__name__}.{name}", getattr(module, name), binary)
            passed, failed = passed + good, failed + (not good)
    print(f"test result: {'ok' if failed == 0 else 'FAILED'}. {passed} passed; {failed} failed; 0 ignored;")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
