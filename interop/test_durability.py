"""kill -9 loses nothing that was acknowledged."""
import subprocess
import threading
import time

from tandem import Skipped, Tandem, alone


@alone
def test_kill_9_while_trunks_are_written(binary):
    with Tandem(binary) as t:
        for round_ in range(5):
            acknowledged, stop = [], threading.Event()

            def write(n):
                while not stop.is_set():
                    try:
                        status, trunk = t.request("POST", "/core/trunks", {"name": f"w{n}"})
                        if status == 200:
                            acknowledged.append(trunk["id"])
                    except Exception:
                        return
            writers = [threading.Thread(target=write, args=(n,)) for n in range(8)]
            for w in writers:
                w.start()
            stop.wait(0.15 + round_ * 0.07)
            t.kill()
            stop.set()
            for w in writers:
                w.join()
            started = time.monotonic()
            t.start()
            assert time.monotonic() - started < 2
            for id in acknowledged:
                assert t.request("GET", f"/core/trunks/{id}")[0] == 200, id
            assert acknowledged


def test_a_machine_that_has_been_up_for_200_days(binary):
    days = str(200 * 86_400)
    done = subprocess.run(["unshare", "-T", "--monotonic", days, "--boottime", days, "--fork", binary, "demo", "--once"], capture_output=True, text=True, timeout=120)
    if "unshare" in done.stderr:
        raise Skipped(done.stderr.strip())
    assert done.returncode == 0 and "All three calls and their audio were right." in done.stdout, done
