"""Hold, session timers and transfers with baresip and sipp at the other end."""
import json
import math
import os
import re
import socket
import struct
import subprocess
import tempfile
import threading
import wave

from tandem import Tandem, wait_for
from test_dialogs import NUMBER, accepts, carrier_that, invites, live, numbered
from transports import quiet_ports


class Baresip:
    """A baresip that says 440 Hz, is told what to do over ctrl_tcp and writes down what it hears."""

    def __init__(self, target):
        self.home = tempfile.TemporaryDirectory()
        home = self.home.name
        self.port = quiet_ports()
        with wave.open(f"{home}/say.wav", "wb") as w:
            w.setnchannels(1), w.setsampwidth(2), w.setframerate(8000)
            w.writeframes(b"".join(struct.pack("<h", int(12000 * math.sin(2 * math.pi * 440 * n / 8000))) for n in range(8000 * 30)))
        with open(f"{home}/config", "w") as f:
            f.write("module_path /usr/lib/baresip/modules\nmodule g711.so\nmodule aufile.so\nmodule sndfile.so\nmodule_app account.so\nmodule_app menu.so\nmodule_app ctrl_tcp.so\n"
                    f"audio_source aufile,{home}/say.wav\naudio_player aufile,{home}/dev.wav\naudio_alert aufile,{home}/alert.wav\nsip_listen 127.0.0.1:0\nsnd_path {home}\n"
                    f"ctrl_tcp_listen 127.0.0.1:{self.port}\n")
        with open(f"{home}/accounts", "w") as f:
            f.write("<sip:baresip@127.0.0.1>;regint=0;audio_codecs=pcmu\n")
        open(f"{home}/contacts", "w").close()
        self.lines = []
        self.process = subprocess.Popen(["baresip", "-f", home, "-e", f"/dial {target}"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        threading.Thread(target=lambda: self.lines.extend(iter(self.process.stdout.readline, "")), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)
        self.home.cleanup()

    def tell(self, command, params=""):
        text = json.dumps({"command": command, "params": params, "token": "t"})
        with socket.create_connection(("127.0.0.1", self.port), 5) as s:
            s.sendall(f"{len(text)}:{text},".encode())
            s.settimeout(5)
            s.recv(4096)


def test_baresip_holds_resumes_and_is_transferred(binary):
    with Tandem(binary, ["media.timeout_s=1"]) as t:
        carrier = carrier_that(accepts)
        numbered(t, carrier)
        with Baresip(f"sip:{NUMBER}@{t.udp[0]}:{t.udp[1]}") as peer:
            id = live(t)
            path = f"/core/conversations/{id}"
            peer.tell("hold")
            # Longer than media.timeout_s: hold is no silence.
            threading.Event().wait(2.5)
            assert t.ok("GET", path)["status"] == "in_progress", "".join(peer.lines)
            peer.tell("resume")
            threading.Event().wait(1.5)
            assert t.ok("GET", path)["status"] == "in_progress", "".join(peer.lines)
            t.ok("POST", f"{path}/transfer", {"to": "+14155550199", "mode": "refer"})
            call = t.conversation(id, "transferred")
            assert "+14155550199" in call["reason"], call
            invite = wait_for("baresip's call to the target", 5, lambda: invites(carrier))[0]
            assert invite.startswith("INVITE sip:+14155550199@127.0.0.1"), invite
            carrier.rtp.say(700, 0.8)
            carrier.rtp.hears(440)


SIPP = """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="held, refreshed, transferred">
{invite}
<recv response="100" optional="true"/><recv response="180" optional="true"/>
<recv response="200" rrs="true"><action>
 <ereg regexp="refresher=uas" search_in="hdr" header="Session-Expires:" check_it="true" assign_to="1"/></action></recv>
{ack}
<pause milliseconds="200"/>
{hold}
<recv response="200"><action><ereg regexp="a=recvonly" search_in="body" check_it="true" assign_to="2"/></action></recv>
{ack}
<recv request="UPDATE"><action><ereg regexp="4;refresher=uac" search_in="hdr" header="Session-Expires:" check_it="true" assign_to="3"/></action></recv>
{ok_update}
<recv request="REFER"><action><ereg regexp="sip:.14155550199@" search_in="hdr" header="Refer-To:" check_it="true" assign_to="4"/></action></recv>
{ok_refer}
{notify}
<recv response="200"/>
<recv request="BYE"/>
{ok_bye}
<Reference variables="1,2,3,4"/>
</scenario>
"""

HEAD = "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport\nFrom: <sip:+14155550111@[local_ip]:[local_port]>;tag=[pid]S[call_number]\nCall-ID: [call_id]\nContact: <sip:sipp@[local_ip]:[local_port]>\nMax-Forwards: 70\nAllow: INVITE, ACK, BYE, UPDATE, REFER, NOTIFY\nSupported: timer\n"


def sent(text):
    return f"<send retrans=\"500\"><![CDATA[\n{text}\n]]></send>"


def sdp(direction):
    return f"v=0\no=- 1 1 IN IP4 [local_ip]\ns=-\nc=IN IP4 [media_ip]\nt=0 0\nm=audio [media_port] RTP/AVP 0\na=rtpmap:0 PCMU/8000\na={direction}\n"


def scenario():
    def request(method, cseq, rest, uri="sip:[service]@[remote_ip]:[remote_port]", to="[peer_tag_param]", again=True):
        text = f"{method} {uri} SIP/2.0\n{HEAD}To: <sip:[service]@[remote_ip]:[remote_port]>{to}\nCSeq: {cseq} {method}\n{rest}"
        return sent(text) if again else f"<send><![CDATA[\n{text}\n]]></send>"

    def answer(line, rest=""):
        return f"<send><![CDATA[\nSIP/2.0 {line}\n[last_Via:]\n[last_From:]\n[last_To:]\n[last_Call-ID:]\n[last_CSeq:]\nContact: <sip:sipp@[local_ip]:[local_port]>\n{rest}Content-Length: 0\n\n]]></send>"

    body = lambda direction: f"Content-Type: application/sdp\nContent-Length: [len]\n\n{sdp(direction)}"
    empty = "Content-Length: 0\n\n"
    return SIPP.format(
        invite=request("INVITE", 1, "Session-Expires: 4\n" + body("sendrecv"), to=""),
        ack=request("ACK", 1, empty, again=False),
        hold=request("INVITE", 2, "Session-Expires: 4;refresher=uas\n" + body("sendonly")),
        ok_update=answer("200 OK", "Session-Expires: 4;refresher=uac\nRequire: timer\n"),
        ok_refer=answer("202 Accepted"),
        notify=request("NOTIFY", 3, "Event: refer\nSubscription-State: terminated;reason=noresource\nContent-Type: message/sipfrag;version=2.0\nContent-Length: [len]\n\nSIP/2.0 200 OK\n"),
        ok_bye=answer("200 OK"))


def test_sipp_is_held_refreshed_and_transferred(binary):
    with Tandem(binary, ["sip.min_se=2"]) as t, tempfile.TemporaryDirectory() as home:
        numbered(t)
        text = scenario()
        # The second ACK is that of the re-INVITE.
        at = text.rindex("CSeq: 1 ACK")
        with open(f"{home}/scenario.xml", "w") as f:
            f.write(text[:at] + "CSeq: 2 ACK" + text[at + len("CSeq: 1 ACK"):])
        p = subprocess.Popen(["sipp", "-sf", f"{home}/scenario.xml", "-s", NUMBER, "%s:%d" % t.udp, "-i", "127.0.0.1", "-m", "1", "-nostdin", "-timeout", "20s", "-trace_err", "-trace_msg", "-message_file", f"{home}/messages"],
                             cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        id = live(t)
        messages = lambda: open(f"{home}/messages").read() if os.path.exists(f"{home}/messages") else ""
        wait_for("the refresh", 8, lambda: re.search(r"^UPDATE ", messages(), re.M))
        t.ok("POST", f"/core/conversations/{id}/transfer", {"to": "+14155550199"})
        _, errors = p.communicate(timeout=25)
        assert p.returncode == 0, (errors, messages()[-3000:])
        assert t.conversation(id, "transferred")["ended_by"] == "api"
