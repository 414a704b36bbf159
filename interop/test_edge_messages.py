"""RFC 4475 and its like on the wire: what is answered to messages that are odd, broken or meant to break something."""
import pathlib
import random
import re
import socket
import time

from hostile import Raw, metric
from sip import Call, header, sdp, status
from tandem import Tandem, wait_for
from test_inbound import number_on_trunk

MESSAGES = pathlib.Path(__file__).parent.parent / "crates/signaling/tests/rfc4475"
SOURCE = "127.0.0.77"
# What a request gets; None for what is dropped, two for what may be either.
EXPECTED = {
    "wsinv": 481, "intmeth": 405, "esc01": 404, "escnull": 405, "esc02": 405, "lwsdisp": 200, "longreq": 404, "dblreq": 405, "semiuri": 200,
    "transports": 200, "mpart01": 405, "unreason": None, "noreason": None,
    "badvers": 505, "mismatch01": 400, "mismatch02": 400, "escruri": 400, "insuf": 400, "ltgtruri": 400, "lwsruri": 400, "badinv01": 400, "quotbal": 400,
    "scalar02": 400, "mcl01": (400, None), "ncl": (400, None), "clerr": (400, None), "unkscm": 416, "novelsc": 416, "bext01": 420, "invut": 415, "sdp01": 406,
    "regaut01": (401, 405), "multi01": 400, "inv2543": (400, 404), "zeromf": 200, "bcast": None, "bigcode": None, "lwsstart": 400, "trws": 400,
    "badaspec": 400, "baddn": 400,
}
COMPACT = {"via": "v", "from": "f", "to": "t", "call-id": "i", "contact": "m", "content-length": "l", "content-type": "c", "supported": "k"}


def expects(name, got, framed_by_us=False):
    wanted = EXPECTED[name]
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    assert got in wanted, f"{name}: {got} instead of {wanted}"


def regenerated(data, seed):
    """The same message otherwise written: names in capitals or compact, headers in another order, a header more."""
    text = data.decode("latin-1")
    head, separator, body = text.partition("\r\n\r\n")
    start, *lines = head.split("\r\n")
    if not separator or any(line[:1] in (" ", "\t") or ":" not in line for line in lines):
        return None
    r = random.Random(seed)
    by_name = {}
    for line in lines:
        by_name.setdefault(line.split(":", 1)[0].strip().lower(), []).append(line)
    groups = list(by_name.items())
    r.shuffle(groups)
    out = []
    for name, group in groups:
        short = COMPACT.get(name)
        for line in group:
            value = line.split(":", 1)[1]
            out.append((short if short and r.random() < 0.5 else name.upper()) + r.choice([":", " :", "\t: "]) + value)
    out.insert(r.randrange(len(out) + 1), f"X-{r.randrange(10**6)}: \"{r.randrange(10**6)}\" <{r.randrange(9)}>;a=b")
    return "\r\n".join([start, *out]).encode("latin-1") + b"\r\n\r\n" + body.encode("latin-1")


def answers_udp(t, data):
    """What comes back to the source, at the port that the Via names; how many."""
    via = re.search(rb"^(?:via|v)\s*:\s*SIP\s*/\s*2\.0\s*/\s*\w+\s+(?:\[[^\]]*\]|[^\s:;]+)\s*(?::\s*(\d+))?", data, re.M | re.I)
    port = int(via.group(1)) if via and via.group(1) else 5060
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((SOURCE, port if port < 65536 else 5060))
        s.sendto(data, t.udp)
        # A request of our own behind it is answered after it.
        mark = Raw(t.udp, SOURCE)
        assert status(mark.ask(mark.request("OPTIONS", "mark"))) == 200
        mark.socket.close()
        s.settimeout(0.02)
        found = []
        try:
            while True:
                found.append(s.recv(65535).decode(errors="replace"))
        except socket.timeout:
            return found


def answers_tcp(t, data):
    """What comes back on a connection, and whether it is still open."""
    with socket.socket() as s:
        s.bind((SOURCE, 0))
        s.connect(t.tcp)
        mark = Raw(t.tcp, SOURCE)
        options = mark.request("OPTIONS", "mark").replace("SIP/2.0/UDP", "SIP/2.0/TCP").encode()
        mark.socket.close()
        s.sendall(data)
        s.settimeout(2)
        # Requests of our own behind it, until one is answered or the connection ends: a body that is shorter than it
        # says swallows some.
        buffer = b""
        try:
            s.sendall(options)
            while b"mark" not in buffer:
                more = s.recv(65535)
                if not more:
                    break
                buffer += more
        except (socket.timeout, OSError):
            pass
        heads = [h.decode(errors="replace") for h in re.findall(rb"SIP/2\.0 .*?\r\n\r\n", buffer, re.S)]
        return [h for h in heads if "mark" not in h], any("mark" in h for h in heads)


def test_rfc_4475_over_udp_and_otherwise_written(binary):
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.0/8"])
        for name in sorted(EXPECTED):
            data = (MESSAGES / f"{name}.dat").read_bytes()
            found = answers_udp(t, data)
            assert len(found) <= 1, (name, found)
            expects(name, status(found[0]) if found else None)
            if name == "bext01":
                assert "nothingSupportsThis" in header(found[0], "Unsupported")
            if EXPECTED[name] == 405:
                assert "INVITE" in header(found[0], "Allow")
            if EXPECTED[name] == 415:
                assert header(found[0], "Accept") == "application/sdp"
            # clerr and ncl turn on where the body ends, lws* and bad* on white space that is rewritten here.
            for seed in range(3):
                other = regenerated(data, f"{name}{seed}")
                if other is None or name in ("mcl01",):
                    continue
                found = answers_udp(t, other)
                expects(name, status(found[0]) if found else None)
        # All the others of the RFC: anything but a silent process.
        for path in MESSAGES.glob("*.dat"):
            answers_udp(t, path.read_bytes())
        assert Call(t.udp, "+14155550100").final() == 200
        assert not any("panicked" in line for line in t.log)


def test_rfc_4475_over_tcp(binary):
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.0/8"])
        for name in sorted(EXPECTED):
            data = (MESSAGES / f"{name}.dat").read_bytes()
            if not re.search(rb"^(?:content-length|l)[ \t]*:", data, re.M | re.I):
                found, going_on = answers_tcp(t, data)
                assert [status(a) for a in found] == [400] and not going_on, (name, found)
                continue
            found, going_on = answers_tcp(t, data)
            if name in ("mcl01", "ncl", "clerr"):
                assert not going_on and [status(a) for a in found] in ([], [400]), (name, found)
            elif name == "dblreq":
                assert [status(a) for a in found] == [405, 404], found
            else:
                expects(name, status(found[0]) if found else None)
        assert Call(t.tcp, "+14155550100", "tcp").final() == 200


def test_what_follows_a_lost_frame_is_never_a_message(binary):
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.0/8"])
        raw = Raw(t.tcp, SOURCE)
        smuggled = raw.request("INVITE", "+14155550100").replace("SIP/2.0/UDP", "SIP/2.0/TCP")
        base = raw.request("OPTIONS", "x").replace("SIP/2.0/UDP", "SIP/2.0/TCP")
        length = lambda line: base.replace("Content-Length: 0\r\n", line) + smuggled
        for line in ("Content-Length: -1\r\n", "Content-Length: 99999999999\r\n", "Content-Length: 4294967328\r\n", "Content-Length: +5\r\n", "Content-Length: 0x10\r\n",
                     "Content-Length: 0\r\nContent-Length: 5\r\n", "Content-Length: 0\r\nl: 5\r\n", "Content-Length: \r\n", "Content-Length: 0 0\r\n", "", "Content-Length: 70000\r\n"):
            found, going_on = answers_tcp(t, length(line).encode())
            assert len(found) <= 1 and not going_on and all(status(a) in (400, 413) for a in found), (line, found)
        assert metric(t, "calls_total", direction="inbound") == 0
        for big in ("X: " + "a" * 20_000 + "\r\n", "X: a\r\n" * 120):
            found, _ = answers_tcp(t, base.replace("Content-Length", big + "Content-Length").encode())
            assert all(status(a) in (400, 413) for a in found), found
        long_uri = base.replace("sip:x@", "sip:" + "x" * 600 + "@", 1)
        assert [status(a) for a in answers_tcp(t, long_uri.encode())[0]] in ([400], [414])
        # A keep-alive is answered with one CRLF.
        with socket.socket() as s:
            s.bind((SOURCE, 0))
            s.connect(t.tcp)
            s.sendall(b"\r\n\r\n")
            s.settimeout(2)
            assert s.recv(100) == b"\r\n"


def test_headers_that_smuggle_and_hosts_that_are_none(binary):
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.0/8"])
        raw = Raw(t.udp, SOURCE)
        invite = lambda: raw.request("INVITE", "+14155550199")
        answer = lambda data, seconds=1.0: (lambda a: a and status(a))(raw.ask(data, seconds))
        assert answer(invite()) == 404
        assert answer(invite().replace("Contact:", "X-Secret : 1\r\nContact \t:")) == 404
        for bad in ("X-Bad\x01: 1\r\n", "X-Bad\x00: 1\r\n", "X Bad: 1\r\n", ": 1\r\n", "X-Bad\r: 1\r\n", "X-Bad: 1\n", "X-Bad: a\rb\r\n", "X-Bad: a\x7fb\r\n", "X-Bad: a\x00b\r\n"):
            assert answer(invite().replace("Contact:", bad + "Contact:"), 0.5) in (400, None), repr(bad)
        for line_end in ("\n", "\r"):
            assert answer(invite().replace("\r\n", line_end), 0.3) in (400, None), repr(line_end)
        # No name of these is looked up, and none is called: they are malformed, or nobody's.
        for host in (".1", "[.1]", "a" * 300, "127.0.0.1%25eth0", "[fe80::1%25eth0]", "x..y", "-", "1.2.3.4.5.6", "[::ffff:1.2.3.4]", "[2001:db8:::192.0.2.1]"):
            assert answer(raw.request("INVITE", "x", uri=f"sip:+14155550199@{host}")) in (400, 404), host
        for user in ("%00", "%", "%zz", "a%0d%0aX:y", "x" * 400, "\"", "+1415555%30199"):
            assert answer(raw.request("INVITE", "x", uri=f"sip:{user}@127.0.0.1")) in (400, 404), user
        for kind, body, extra in (("Content-Type: multipart/mixed;boundary=x\r\n", "--x\r\n\r\n--x--", ""), ("Content-Type: application/pkcs7-mime\r\n", "x", ""),
                                  ("Content-Type: application/sdp\r\n", sdp(raw.ip, 4000), "Content-Encoding: gzip\r\n")):
            request = raw.request("INVITE", "+14155550100", extra, body).replace("Content-Type: application/sdp\r\n", kind)
            found = raw.ask(request)
            assert status(found) == 415 and (header(found, "Accept-Encoding") if extra else header(found, "Accept")), found
        for method in ("REGISTER", "SUBSCRIBE", "PUBLISH", "MESSAGE", "REFER", "FOO"):
            found = raw.ask(raw.request(method, "+14155550100"))
            assert status(found) == 405 and "INVITE" in header(found, "Allow"), (method, found)
        # Nobody's host may be named in the Request-URI, but a Route to elsewhere takes nothing there.
        elsewhere = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        elsewhere.bind((SOURCE, 0))
        route = "%s:%d" % elsewhere.getsockname()
        for extra in (f"Route: <sip:{route};lr>\r\n", f"Route: <sip:x@{route};maddr={SOURCE}>\r\n"):
            assert answer(raw.request("OPTIONS", "x", extra).replace("Max-Forwards: 70", "Max-Forwards: 0")) == 483
            assert answer(raw.request("INVITE", "+14155550199", extra)) == 403
            assert answer(raw.request("OPTIONS", "x", extra, uri=f"sip:x@{route};transport=tcp")) in (200, 404)
        elsewhere.settimeout(0.1)
        try:
            raise AssertionError(elsewhere.recv(100))
        except socket.timeout:
            pass
        series = len(metrics(t))
        # Offers that are bombs.
        media = lambda n: sdp(raw.ip, 4000) + "m=audio 4000 RTP/AVP 0\r\n" * n
        for body in (media(1_500), media(100), sdp(raw.ip, 4000) + "a=x\r\n" * 5_000, sdp(raw.ip, 4000) + "a=fmtp:0 " + "x" * 40_000 + "\r\n",
                     sdp("224.0.0.1", 4000), sdp("255.255.255.255", 4000), sdp("x.example", 4000), sdp(raw.ip, 99999), "junk", "v=0"):
            begun = time.monotonic()
            code = answer(raw.request("INVITE", "+14155550100", body=body), 2)
            assert code in (400, 413, 488) or (code == 200 and "fmtp" in body) or (code is None and len(body) > 60_000), (code, body[:200])
            assert time.monotonic() - begun < 2
        for ptime in ("0", "1000000000", "-5", "x"):
            assert answer(raw.request("INVITE", "+14155550100", body=sdp(raw.ip, 4000, extra=f"a=ptime:{ptime}\r\n"))) == 200
        assert len(metrics(t)) == series, "labels are closed sets"


def metrics(t):
    import urllib.request
    return urllib.request.urlopen(t.http + "/metrics", timeout=5).read().decode().splitlines()


def test_a_forged_bye_from_outside_the_trunks_list_ends_no_call(binary):
    with Tandem(binary) as t:
        number_on_trunk(t, ["127.0.0.2", "127.0.0.4"])
        call = Call(t.udp, "+14155550100", source="127.0.0.2")
        assert call.final() == 200
        for n, forged in enumerate((call.request("BYE", 2, branch="forged"), call.request("INVITE", 3, sdp("127.0.0.66", 4000), branch="forged2"))):
            raw = Raw(t.udp, "127.0.0.66")
            raw.send(forged)
            assert raw.receive(0.3) is None
        cancel = Raw(t.udp, "127.0.0.66")
        cancel.send(call.request("CANCEL", 1))
        call.rtp.talk(440, 0.5)
        assert call.rtp.received == call.rtp.sent
        assert metric(t, "sip_rx_dropped_total", reason="src_mismatch") >= 2
        # The carrier's other address may end it.
        other = Raw(t.udp, "127.0.0.4")
        assert status(other.ask(call.request("BYE", 9, branch="other"))) == 200
        wait_for("the end", 3, lambda: t.ok("GET", "/core/conversations?status=completed"))


def test_a_forged_bye_ends_no_call_of_an_open_trunk_either(binary):
    with Tandem(binary) as t:
        number_on_trunk(t, None)
        agent = t.deployed()
        for user in ("+14155550100", agent):
            call = Call(t.udp, user)
            assert call.final() == 200
            forger = Raw(t.udp, "127.9.9.9")
            forger.send(call.request("BYE", 2, branch="forged"))
            forger.send(call.request("INVITE", 3, sdp("127.9.9.9", 4000), branch="forged2"))
            assert forger.receive(0.3) is None
            call.rtp.talk(440, 0.3)
            assert call.rtp.received == call.rtp.sent
            # A proxy of the peer's beside it.
            beside = Raw(t.udp, "127.0.0.9")
            assert status(beside.ask(call.request("BYE", 9, branch="beside"))) == 200
        assert metric(t, "sip_rx_dropped_total", reason="src_mismatch") >= 4
