"""TLS peers, certificates, proxies and registrars for the tests of transports."""
import math
import os
import re
import secrets
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import wave

import sip


class Authority:
    """A certificate authority in a directory of its own; `openssl` signs."""

    def __init__(self):
        self.directory = tempfile.TemporaryDirectory()
        self.ca = self.path("ca.pem")
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", self.path("ca.key"),
                     "-out", self.ca, "-days", "2", "-subj", f"/CN=ca {secrets.token_hex(4)}", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")

    def path(self, name):
        return os.path.join(self.directory.name, name)

    def openssl(self, *words):
        done = subprocess.run(["openssl", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def sign(self, name, *hosts, file=None):
        """Certificate and key for hosts and addresses, as paths."""
        cert, key, request, extensions = (self.path(f"{file or name}.{kind}") for kind in ("pem", "key", "csr", "ext"))
        with open(extensions, "w") as f:
            f.write("subjectAltName=" + ",".join(("IP:" if h[0].isdigit() or ":" in h else "DNS:") + h for h in hosts or (name,)))
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        self.openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.path("ca.key"), "-CAcreateserial", "-out", cert, "-days", "2", "-extfile", extensions)
        return cert, key

    def server(self, *pair, client_ca=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        if client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
        return context

    def client(self, *pair):
        context = ssl.create_default_context(cafile=self.ca)
        if pair:
            context.load_cert_chain(*pair)
        return context


def tls_settings(authority, *pair, client_ca=None, address="127.0.0.1:0"):
    return [f"sip.tls={address}", f"sip.tls_cert={pair[0]}", f"sip.tls_key={pair[1]}", f"sip.tls_ca={authority.ca}",
            *([f"sip.tls_client_ca={client_ca}"] if client_ca else [])]


class TlsCarrier(sip.Carrier):
    """A carrier behind TLS. Handshakes that fail are noted, and the next one is waited for."""

    def __init__(self, script, context, host="127.0.0.1"):
        self.context, self.host, self.failures, self.client_names = context, host, [], []
        super().__init__(script, "tls")

    def run(self):
        try:
            self.listener.settimeout(40)
            while True:
                plain, _ = self.listener.accept()
                try:
                    plain.settimeout(5)
                    secured = self.context.wrap_socket(plain, server_side=True)
                    break
                except (ssl.SSLError, OSError) as error:
                    self.failures.append(error)
            self.client_names.append((secured.getpeercert() or {}).get("subject"))
            self.socket = sip.Socket("tls", connection=secured)
            while (request := self.socket.receive(40)) is not None:
                self.requests.append(request)
                if self.script(self, request) == "end":
                    return
        except Exception as error:
            self.failure = error


class Call(sip.Call):
    """A call towards tandem over a stream that is there already, or over IPv6."""

    def __init__(self, node, user, transport, connection, contact=None, scheme="sip"):
        self.socket = sip.Socket(transport, connection=connection)
        self.socket.peer = node
        self.rtp = sip.Rtp() if ":" not in node[0] else SixRtp()
        ip, port = self.socket.address()[:2]
        bracketed = f"[{ip}]" if ":" in ip else ip
        self.host = f"[{node[0]}]:{node[1]}" if ":" in node[0] else f"{node[0]}:{node[1]}"
        self.uri = f"{scheme}:{user}@{self.host}"
        self.id, self.tag, self.branch = secrets.token_hex(8), secrets.token_hex(4), secrets.token_hex(6)
        self.from_line = f"<sip:+14155550111@{bracketed}>;tag={self.tag}"
        self.contact = contact or f"<sip:peer@{bracketed}:{port}{'' if transport == 'udp' else ';transport=' + transport}>"
        self.to_line = f"<{self.uri}>"
        self.via = f"SIP/2.0/{transport.upper()} {bracketed}:{port};rport"
        self.body = sip.sdp(ip, self.rtp.port)
        if ":" in ip:
            self.body = self.body.replace("IN IP4", "IN IP6")
        self.socket.send(self.request("INVITE", 1, self.body))

    def final(self, seconds=5):
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            answer = self.socket.receive(left)
            if answer and sip.status(answer) >= 200:
                self.answer, self.to_line = answer, sip.header(answer, "To")
                self.socket.send(self.request("ACK", 1, branch=secrets.token_hex(6) if sip.status(answer) < 300 else None))
                if sip.status(answer) < 300:
                    self.rtp.to(re.search(r"^c=IN IP. (\S+)", answer, re.M).group(1), int(re.search(r"^m=audio (\d+)", answer, re.M).group(1)))
                return sip.status(answer)
        return None


class SixRtp(sip.Rtp):
    def __init__(self):
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.socket.bind(("::1", 0))
        self.port = self.socket.getsockname()[1]
        self.sent, self.received = [], []


def tls_call(node, user, context, host="localhost", **more):
    plain = socket.create_connection(node, 5)
    return Call(node, user, "tls", context.wrap_socket(plain, server_hostname=host), **more)


class Registrar:
    """Takes REGISTER over UDP, with a challenge first; `answer(request)` may give another status line and headers."""

    def __init__(self, password, answer=None, expires=60):
        self.password, self.answer, self.expires = password, answer, expires
        self.requests, self.failure = [], None
        self.socket = sip.Socket()
        self.address = self.socket.address()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        carrier = sip.Carrier.__new__(sip.Carrier)
        carrier.socket, carrier.address = self.socket, self.address
        try:
            while (request := self.socket.receive(60)) is not None:
                if not request.startswith("REGISTER"):
                    continue
                self.requests.append(request)
                special = self.answer and self.answer(request)
                value = sip.header(request, "Authorization")
                if special:
                    carrier.reply(request, *special)
                elif not value:
                    carrier.reply(request, "401 Unauthorized", 'WWW-Authenticate: Digest realm="r", nonce="n", algorithm=SHA-256, qop="auth"\r\n')
                else:
                    carrier.verify(value, "SHA-256", "acc", self.password, "REGISTER")
                    wanted = int(sip.header(request, "Expires"))
                    carrier.reply(request, "200 OK", f"Expires: {min(wanted, self.expires)}\r\n")
        except Exception as error:
            self.failure = error

    def bound(self):
        """The Contact of the last REGISTER that asked for a binding, with its password."""
        good = [r for r in self.requests if sip.header(r, "Authorization") and sip.header(r, "Expires") != "0"]
        return sip.header(good[-1], "Contact") if good else None


KAMAILIO = """#!KAMAILIO
debug=0
log_stderror=no
fork=yes
children=2
tcp_children=2
mhomed=no
listen=udp:127.0.0.1:{udp}
listen=tcp:127.0.0.1:{tcp}
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "maxfwd.so"
modparam("rr", "enable_double_rr", 2)
request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (has_totag()) {{
        if (loose_route()) {{ t_relay(); exit; }}
        if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); exit; }}
        sl_send_reply("404", "Not here");
        exit;
    }}
    if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
    if (is_method("INVITE")) record_route();
    $du = "{next}";
    t_relay();
}}
"""


class Kamailio:
    """A proxy that puts itself into the route with both of its transports."""

    def __init__(self, next_hop):
        self.directory = tempfile.TemporaryDirectory()
        self.udp = quiet_ports()
        self.tcp = self.udp + 1
        config = os.path.join(self.directory.name, "kamailio.cfg")
        with open(config, "w") as f:
            f.write(KAMAILIO.format(udp=self.udp, tcp=self.tcp, next=next_hop))
        self.process = subprocess.Popen(["kamailio", "-f", config, "-DD", "-E", "-m", "32", "-M", "4", "-Y", self.directory.name, "-P", os.path.join(self.directory.name, "pid"), "-w", self.directory.name],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def __enter__(self):
        probe = sip.Socket()
        for _ in range(100):
            probe.peer = ("127.0.0.1", self.udp)
            probe.send(f"OPTIONS sip:127.0.0.1:{self.udp} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{probe.address()[1]};branch=z9hG4bK{secrets.token_hex(4)};rport\r\nMax-Forwards: 0\r\n"
                       f"From: <sip:p@h>;tag=1\r\nTo: <sip:p@h>\r\nCall-ID: {secrets.token_hex(4)}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n")
            if probe.receive(0.1):
                return self
            assert self.process.poll() is None, self.process.stderr.read().decode()
        raise AssertionError("kamailio does not answer")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()


def quiet_ports():
    """Two ports in a row that nobody holds, from where neither the system takes ports for connections nor nodes for RTP:
    the first of them, for a program that cannot be given ports of the system's choice."""
    for _ in range(1_000):
        first = 10_000 + secrets.randbelow(9_998)
        try:
            for port in (first, first + 1):
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    with socket.socket(socket.AF_INET, kind) as s:
                        s.bind(("127.0.0.1", port))
            return first
        except OSError:
            pass
    raise AssertionError("no two ports in a row are free from 10000 to 19998")


class Baresip:
    """baresip with TLS, which checks certificates; it says 440 Hz for ten seconds."""

    def __init__(self, authority):
        self.home = tempfile.TemporaryDirectory()
        home = self.home.name
        cert, key = authority.sign("localhost", "localhost", "127.0.0.1", file="baresip")
        with open(cert) as c, open(key) as k, open(f"{home}/both.pem", "w") as both:
            both.write(k.read() + c.read())
        # TLS listens at the port above the one that is named.
        self.tls = quiet_ports() + 1
        with wave.open(f"{home}/say.wav", "wb") as w:
            w.setnchannels(1), w.setsampwidth(2), w.setframerate(8000)
            w.writeframes(b"".join(struct.pack("<h", int(12000 * math.sin(2 * math.pi * 440 * n / 8000))) for n in range(80000)))
        with open(f"{home}/config", "w") as f:
            f.write("module_path /usr/lib/baresip/modules\nmodule stdio.so\nmodule g711.so\nmodule aufile.so\nmodule_app account.so\nmodule_app menu.so\n"
                    f"audio_source aufile,{home}/say.wav\naudio_player aufile,{home}/dev.wav\naudio_alert aufile,{home}/alert.wav\n"
                    f"sip_listen 127.0.0.1:{self.tls - 1}\nsip_certificate {home}/both.pem\nsip_cafile {authority.ca}\nsip_verify_server yes\n")
        open(f"{home}/contacts", "w").close()

    def start(self, account, *commands):
        with open(f"{self.home.name}/accounts", "w") as f:
            f.write(account + "\n")
        words = [w for c in commands for w in ("-e", c)]
        self.process = subprocess.Popen(["baresip", "-f", self.home.name, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.log = []
        threading.Thread(target=lambda: self.log.extend(iter(self.process.stdout.readline, "")), daemon=True).start()
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
