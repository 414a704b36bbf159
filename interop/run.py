#!/usr/bin/env python3
"""Real peers against the real binary: every test starts `tandem serve` on free ports and speaks to it over sockets.

Closes with a line in the form of cargo's test runner, which scripts/test adds up.
"""
import importlib
import pathlib
import sys
import traceback

MODULES = [importlib.import_module(p.stem) for p in sorted(pathlib.Path(__file__).parent.glob("test_*.py"))]


def main():
    binary, wanted = sys.argv[1], sys.argv[2:]
    passed = failed = 0
    for module in MODULES:
        for name in [n for n in vars(module) if n.startswith("test_")]:
            if wanted and not any(w in f"{module.__name__}.{name}" for w in wanted):
                continue
            try:
                getattr(module, name)(binary)
                passed += 1
                print(f"test {module.__name__}.{name} ... ok", flush=True)
            except Exception:
                failed += 1
                print(f"test {module.__name__}.{name} ... FAILED", flush=True)
                traceback.print_exc(file=sys.stdout)
    print(f"test result: {'ok' if failed == 0 else 'FAILED'}. {passed} passed; {failed} failed; 0 ignored;")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
