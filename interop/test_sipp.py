"""sipp's own scenarios, and baresip."""
import csv
import glob
import os
import subprocess
import tempfile

from tandem import Tandem, alone, wait_for


def sipp(t, agent, rate, calls, limit=2000, *more, within=None):
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run([*(within.command() if within else []), "sipp", "-sn", "uac", "-s", agent, "%s:%d" % t.udp, "-i", within.far if within else "127.0.0.1", "-r", str(rate), "-m", str(calls), "-l", str(limit),
                               "-trace_stat", "-fd", "1", "-nostdin", "-timeout", "60s", *more], cwd=directory, capture_output=True, text=True, timeout=90)
        rows = list(csv.DictReader(open(glob.glob(os.path.join(directory, "*.csv"))[0]), delimiter=";"))
        last = rows[-1]
        return done.returncode, int(last["SuccessfulCall(C)"]), int(last["FailedCall(C)"]), int(last["Retransmissions(C)"]) if "Retransmissions(C)" in last else 0


@alone
def test_sipp_at_200_calls_a_second(binary):
    with Tandem(binary) as t:
        assert sipp(t, t.deployed(), 200, 1000) == (0, 1000, 0, 0)
        wait_for("records", 3, lambda: t.ok("GET", "/core/conversations?limit=1") and t.request("GET", "/core/conversations?status=in_progress")[1] == [])


def test_baresip_hears_its_echo(binary):
    if not glob.glob("/usr/lib/baresip/modules/aufile.so"):
        raise AssertionError("baresip's modules are not in /usr/lib/baresip/modules")
    with Tandem(binary) as t, tempfile.TemporaryDirectory() as home:
        import math, struct, wave
        with wave.open(f"{home}/say.wav", "wb") as w:
            w.setnchannels(1), w.setsampwidth(2), w.setframerate(8000)
            w.writeframes(b"".join(struct.pack("<h", int(12000 * math.sin(2 * math.pi * 440 * n / 8000))) for n in range(8000 * 6)))
        open(f"{home}/config", "w").write(
            "module_path /usr/lib/baresip/modules\nmodule stdio.so\nmodule g711.so\nmodule aufile.so\nmodule sndfile.so\nmodule_app account.so\nmodule_app menu.so\n"
            f"audio_source aufile,{home}/say.wav\naudio_player aufile,{home}/dev.wav\naudio_alert aufile,{home}/alert.wav\nsip_listen 127.0.0.1:0\nsnd_path {home}\n")
        open(f"{home}/accounts", "w").write("<sip:baresip@127.0.0.1>;regint=0;audio_codecs=pcmu\n")
        open(f"{home}/contacts", "w").close()
        agent = t.deployed()
        p = subprocess.Popen(["baresip", "-f", home, "-e", f"/dial sip:{agent}@{t.udp[0]}:{t.udp[1]}", "-t", "6"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        out, _ = p.communicate(timeout=30)
        call = wait_for("conversation", 3, lambda: t.ok("GET", "/core/conversations?status=completed"))[0]
        assert call["codec"] == "PCMU" and call["duration"] is not None and call["duration"] >= 1, (call, out)
        recorded = glob.glob(f"{home}/dump-*-dec.wav")
        assert recorded, out
        with wave.open(recorded[0]) as w:
            rate, data = w.getframerate(), w.readframes(w.getnframes())
        samples = struct.unpack(f"<{len(data) // 2}h", data)[rate // 2:rate * 5 // 2]
        a, b = (sum(s * f(2 * math.pi * 440 * n / rate) for n, s in enumerate(samples)) for f in (math.cos, math.sin))
        assert 2 * math.hypot(a, b) / len(samples) > 5000, "440 Hz did not come back"
