"""Transports and outbound reach: targets one after the other, TLS, names, proxies, registrations, slow peers."""
import re
import signal
import socket
import ssl
import threading
import time

import sip
from sip import Carrier, header
from tandem import Tandem, alone, wait_for
from transports import Authority, Baresip, Call, Kamailio, Registrar, TlsCarrier, tls_call, tls_settings


def trunk_to(t, address, fallbacks=(), transport="UDP", **config):
    return t.ok("POST", "/core/trunks", {"name": "x", "outbound_config": {
        "address": address, "fallback_addresses": list(fallbacks), "auth_username": "acc", "auth_password": "secret",
        "transport": f"SIP_TRANSPORT_{transport}", **config}})["id"]


def call_over(t, trunk, number="+14155550100", runtime=None):
    t.ok("POST", "/core/phone-numbers", {"phone_number": number, "trunk_id": trunk})
    agent = t.agent({"runtime": runtime or {"type": "echo"}, "ring_timeout_s": 60})
    answer = t.ok("POST", "/core/conversations", {"channel": "telephone", "user_id": "+14155550199", "agent_id": agent, "agent_number": number})
    return answer["conversation"]["id"]


def at(carrier):
    return "%s:%d" % carrier.address


def answering(carrier, request):
    method = request.split(" ", 1)[0]
    if method == "INVITE":
        carrier.rang = time.monotonic()
        carrier.reply(request, "180 Ringing")
        carrier.accept(request)
    elif method == "BYE":
        carrier.reply(request, "200 OK")
        return "end"


def refusing(line):
    return lambda carrier, request: carrier.reply(request, line) if request.startswith("INVITE") else None


def invites(carrier):
    return [r for r in carrier.requests if r.startswith("INVITE")]


def test_the_first_is_dead_the_second_out_of_service_the_third_rings_once(binary):
    for transport in ("UDP", "TCP"):
        with Tandem(binary) as t:
            # A port that is bound and never answers: the silent kind of dead, which gives no ICMP.
            silent = sip.Socket(transport.lower())
            if transport == "TCP":
                silent.socket.listen(0)
            second, third = Carrier(refusing("503 Service Unavailable"), transport.lower()), Carrier(answering, transport.lower())
            begun = time.monotonic()
            call = call_over(t, trunk_to(t, "%s:%d" % silent.address(), [at(second), at(third)], transport))
            t.conversation(call, "in_progress")
            assert third.rang - begun < 2, third.rang - begun
            assert (len(invites(second)), len(invites(third))) == (1, 1)
            assert header(invites(second)[0], "Call-ID") != header(invites(third)[0], "Call-ID")
            third.rtp.talk(440)
            third.rtp.hears(440)
            assert t.ok("POST", f"/core/conversations/{call}/end")["status"] == "completed"
            assert t.ok("GET", f"/core/conversations/{call}")["sip_call_id"] == header(invites(third)[0], "Call-ID")
            assert len(t.ok("GET", "/core/conversations")) == 1


def test_a_callee_who_was_asked_is_not_asked_again(binary):
    def ringing_then_503(carrier, request):
        if request.startswith("INVITE"):
            carrier.reply(request, "180 Ringing")
            carrier.reply(request, "503 Service Unavailable")
    for script, status in [(refusing("486 Busy Here"), "unanswered"), (refusing("404 Not Found"), "failed"), (refusing("603 Decline"), "unanswered"), (ringing_then_503, "failed")]:
        with Tandem(binary) as t:
            first, second = Carrier(script), Carrier(answering)
            t.conversation(call_over(t, trunk_to(t, at(first), [at(second)])), status)
            wait_for("the ACK", 3, lambda: any(r.startswith("ACK") for r in first.requests))
            assert len(invites(first)) == 1 and not second.requests


def test_a_target_that_wakes_up_late_is_cancelled(binary):
    for late in ("180 Ringing", "200 OK"):
        with Tandem(binary) as t:
            sleeper = Carrier(lambda c, r: c.reply(r, "200 OK") if r.split(" ")[0] in ("CANCEL", "BYE") else None)
            works = Carrier(answering)
            call = call_over(t, trunk_to(t, at(sleeper), [at(works)]))
            t.conversation(call, "in_progress")
            repeated = len(invites(sleeper))
            if late.startswith("200"):
                sleeper.accept(invites(sleeper)[0])
                wait_for("ACK and BYE", 3, lambda: [r.split(" ")[0] for r in sleeper.requests[repeated:]] == ["ACK", "BYE"])
            else:
                sleeper.reply(invites(sleeper)[0], late)
                wait_for("CANCEL", 3, lambda: [r.split(" ")[0] for r in sleeper.requests[repeated:]] == ["CANCEL"])
            assert t.ok("GET", f"/core/conversations/{call}")["status"] == "in_progress"
            works.rtp.talk(440)
            works.rtp.hears(440)


def test_every_target_tried_is_on_record(binary):
    with Tandem(binary) as t:
        dead, full = sip.Socket(), Carrier(refusing("503 Busy here, too"))
        trunk = trunk_to(t, "%s:%d" % dead.address(), [at(full)])
        t.conversation(call_over(t, trunk), "failed")
        record = wait_for("decision", 3, lambda: t.ok("GET", f"/core/trunks/{trunk}/decisions"))[0]
        steps = [(s["rule"], s["detail"]) for s in record["steps"]]
        assert steps[0][0] == "target" and "%s:%d" % dead.address() in steps[0][1] and "503" in steps[-1][1], steps



def tls_node(binary, authority, *settings, client_ca=None, hosts=("localhost", "127.0.0.1")):
    pair = authority.sign("node", *hosts, file="node")
    t = Tandem(binary, [*tls_settings(authority, *pair, client_ca=client_ca), *settings])
    address = re.search(r"listening kind=sip/tls addr=(\S+)", "".join(t.log)).group(1)
    t.tls = (address.rsplit(":", 1)[0], int(address.rsplit(":", 1)[1]))
    return t


def test_calls_in_over_tls_and_only_with_the_certificate_that_is_asked_for(binary):
    authority, stranger = Authority(), Authority()
    with tls_node(binary, authority) as t:
        agent = t.deployed()
        call = tls_call(t.tls, agent, authority.client())
        assert call.final() == 200 and re.search(r"^Contact: <sip:127.0.0.1:%d;transport=tls>" % t.tls[1], call.answer, re.M), call.answer
        call.rtp.talk(440)
        call.rtp.hears(440)
        call.bye()
    with tls_node(binary, authority, client_ca=authority.ca) as t:
        agent = t.deployed()
        good = tls_call(t.tls, agent, authority.client(*authority.sign("phone")))
        assert good.final() == 200
        for pair in ((), stranger.sign("phone")):
            try:
                refused = tls_call(t.tls, agent, authority.client(*pair))
                assert refused.final(3) is None
            except (ssl.SSLError, ConnectionError):
                pass
        good.bye()


def test_calls_out_over_tls_are_never_weakened(binary):
    authority, stranger = Authority(), Authority()
    for server, client_ca, works, told in [
        (authority.sign("carrier", "localhost"), None, True, ""),
        (authority.sign("carrier", "localhost"), authority.ca, True, ""),
        (authority.sign("other", "other.example"), None, False, "is not for localhost"),
        (stranger.sign("carrier", "localhost"), None, False, "sip.tls_ca"),
    ]:
        with tls_node(binary, authority) as t:
            carrier = TlsCarrier(answering, authority.server(*server, client_ca=client_ca))
            trunk = trunk_to(t, f"localhost:{carrier.address[1]}", transport="TLS")
            probe = t.ok("POST", f"/core/trunks/{trunk}/test") if not works else None
            call = call_over(t, trunk)
            if works:
                t.conversation(call, "in_progress")
                assert re.match(r"INVITE sip:\+14155550199@localhost:\d+;transport=tls SIP", carrier.requests[0]), carrier.requests[0]
                assert bool(carrier.client_names[0]) == bool(client_ca)
                carrier.rtp.talk(440)
                carrier.rtp.hears(440)
                assert t.ok("POST", f"/core/conversations/{call}/end")["status"] == "completed"
            else:
                assert t.conversation(call, "failed")["reason"] == "carrier_unreachable"
                steps = wait_for("decision", 3, lambda: t.ok("GET", f"/core/trunks/{trunk}/decisions"))[0]["steps"]
                assert any(s["rule"] == "carrier_tls" and told in s["detail"] for s in steps), steps
                assert not probe["reachable"] and told in probe["detail"], probe
                assert not carrier.requests


def test_the_probe_shows_the_carriers_certificate(binary):
    authority = Authority()
    with tls_node(binary, authority) as t:
        carrier = TlsCarrier(lambda c, r: c.reply(r, "200 OK"), authority.server(*authority.sign("Carrier", "localhost")))
        probe = t.ok("POST", "/core/trunks/%s/test" % trunk_to(t, f"localhost:{carrier.address[1]}", transport="TLS"))
        assert probe["reachable"] and probe["tls"]["subject"] == "CN=Carrier" and probe["tls"]["version"] == "TLSv1.3" and probe["tls"]["not_after"] > "2026", probe


def test_a_new_certificate_is_taken_without_dropping_calls(binary):
    authority = Authority()
    with tls_node(binary, authority, hosts=("old.example",)) as t:
        agent = t.deployed()
        old = tls_call(t.tls, agent, authority.client(), "old.example")
        assert old.final() == 200
        authority.sign("node", "new.example", file="node")
        t.process.send_signal(signal.SIGHUP)

        def new():
            try:
                return tls_call(t.tls, agent, authority.client(), "new.example")
            except ssl.SSLError:
                return None
        call = wait_for("the new certificate", 5, new)
        assert call.final() == 200
        old.rtp.talk(440)
        old.rtp.hears(440)
        old.bye()
        call.bye()


def test_ipv6_on_every_transport(binary):
    authority = Authority()
    pair = authority.sign("node", "::1", file="six")
    with Tandem(binary, ["sip.udp=[::1]:0", "sip.tcp=[::1]:0", *tls_settings(authority, *pair, address="[::1]:0"), "media.address=::1"]) as t:
        agent = t.deployed()
        tls = int(re.search(r"kind=sip/tls addr=\[::1\]:(\d+)", "".join(t.log)).group(1))
        for transport, port in (("udp", t.udp[1]), ("tcp", t.tcp[1]), ("tls", tls)):
            connection = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM)
            connection.bind(("::1", 0))
            if transport != "udp":
                connection.connect(("::1", port))
            if transport == "tls":
                connection = authority.client().wrap_socket(connection, server_hostname="::1")
            call = Call(("::1", port), agent, transport, connection)
            assert call.final() == 200 and "\r\nContact: <sip:[::1]:" in call.answer and "c=IN IP6 ::1" in call.answer, call.answer
            call.bye()


def test_a_connection_that_was_lost_is_made_again(binary):
    def hanging_up(carrier, request):
        if answering(carrier, request) is None and request.startswith("ACK"):
            # The peer's end goes away, and listens on.
            carrier.socket.socket.close()
            carrier.socket = sip.Socket("tcp", connection=carrier.listener.accept()[0])
    with Tandem(binary) as t:
        carrier = Carrier(hanging_up, "tcp")
        call = call_over(t, trunk_to(t, at(carrier), transport="TCP"))
        wait_for("the ACK", 5, lambda: any(r.startswith("ACK") for r in carrier.requests))
        t.conversation(call, "in_progress")
        assert t.ok("POST", f"/core/conversations/{call}/end")["status"] == "completed"
        wait_for("a BYE on a new connection", 5, lambda: any(r.startswith("BYE") for r in carrier.requests))


def test_a_target_that_closes_its_connection_is_left_for_the_next(binary):
    with Tandem(binary) as t:
        closing = Carrier(lambda c, r: c.socket.socket.close() or "end", "tcp")
        works = Carrier(answering, "tcp")
        begun = time.monotonic()
        t.conversation(call_over(t, trunk_to(t, at(closing), [at(works)], transport="TCP")), "in_progress")
        assert works.rang - begun < 0.7, works.rang - begun


def test_a_proxy_with_two_transports_is_obeyed(binary):
    # Out: we speak UDP with the proxy, the proxy TCP with the carrier.
    with Tandem(binary) as t:
        def routed(carrier, request):
            if not request.startswith("INVITE"):
                return answering(carrier, request)
            route = "".join(f"Record-Route: {r}\r\n" for r in re.findall(r"^Record-Route: (.*?)\r?$", request, re.M))
            carrier.reply(request, "200 OK", route, sip.sdp("127.0.0.1", carrier.rtp.port))
        carrier = Carrier(routed, "tcp")
        where = at(carrier)
        # Its Contact says TCP, as that of a peer on TCP must.
        carrier.address = (carrier.address[0], f"{carrier.address[1]};transport=tcp")
        with Kamailio(f"sip:{where};transport=tcp") as proxy:
            call = call_over(t, trunk_to(t, f"127.0.0.1:{proxy.udp}"))
            t.conversation(call, "in_progress")
            assert len(re.findall(r"^Record-Route:", carrier.requests[0], re.M)) == 2, carrier.requests[0]
            wait_for("the ACK", 5, lambda: any(r.startswith("ACK") for r in carrier.requests))
            assert t.ok("POST", f"/core/conversations/{call}/end")["status"] == "completed"
            wait_for("the BYE", 5, lambda: any(r.startswith("BYE") for r in carrier.requests))
    # In: the caller speaks UDP with the proxy, the proxy TCP with us; the BYE is ours.
    with Tandem(binary) as t:
        agent = t.deployed({"runtime": {"type": "play", "tones": [{"hz": 700, "ms": 1000}]}})
        with Kamailio("sip:%s:%d;transport=tcp" % t.tcp) as proxy:
            call = Obedient(("127.0.0.1", proxy.udp), agent)
            assert call.final() == 200, call.answer
            assert call.socket.receive(5).startswith("BYE ")


class Obedient(sip.Call):
    """Sends its ACK along the route set."""

    def request(self, method, cseq, body="", branch=None):
        text = super().request(method, cseq, body, branch)
        if method != "ACK":
            return text
        routes = "".join(f"Route: {r}\r\n" for r in reversed(re.findall(r"^Record-Route: (.*?)\r?$", self.answer, re.M)))
        target = re.search(r"<(.*?)>", header(self.answer, "Contact")).group(1)
        return text.replace(f"ACK {self.uri} ", f"ACK {target} ", 1).replace("Max-Forwards", f"{routes}Max-Forwards", 1)


def test_a_route_over_another_transport_is_taken(binary):
    """A proxy asks over UDP and wants what follows over TCP (RFC 3261 16.12.1.2)."""
    with Tandem(binary) as t:
        agent = t.deployed({"runtime": {"type": "play", "tones": [{"hz": 700, "ms": 400}]}})
        for name in ("127.0.0.1", "localhost"):
            proxy = socket.create_server(("127.0.0.1", 0))
            proxy.settimeout(5)
            call = sip.Call.__new__(RoutedCall)
            call.route = f"<sip:{name}:{proxy.getsockname()[1]};transport=tcp;lr>"
            call.__init__(t.udp, agent)
            assert call.final() == 200
            bye = sip.Socket("tcp", connection=proxy.accept()[0]).receive(5)
            assert bye.startswith("BYE sip:peer@") and call.route in bye and "Via: SIP/2.0/TCP" in bye, bye


class RoutedCall(sip.Call):
    def request(self, method, cseq, body="", branch=None):
        return super().request(method, cseq, body, branch).replace("\r\nMax-Forwards", f"\r\nRecord-Route: {self.route}\r\nMax-Forwards", 1)


def test_large_requests_by_tcp_where_the_carrier_takes_it(binary):
    headers = {f"X-Long-{n}": "x" * 250 for n in range(5)}
    for settings, listens, arrives in ((["sip.large_requests=tcp"], True, "TCP"), (["sip.large_requests=tcp"], False, "UDP"), ([], True, "UDP")):
        with Tandem(binary, settings) as t:
            udp = Carrier(answering)
            tcp = None
            if listens:
                tcp = sip.Carrier.__new__(sip.Carrier)
                tcp.transport, tcp.script, tcp.requests, tcp.failure, tcp.rtp = "tcp", answering, [], None, sip.Rtp()
                tcp.listener = socket.create_server(udp.address)
                tcp.address = udp.address
                threading.Thread(target=tcp.run, daemon=True).start()
            call = call_over(t, trunk_to(t, at(udp), headers=headers))
            t.conversation(call, "in_progress")
            taken, other = (tcp, udp) if arrives == "TCP" else (udp, tcp)
            assert f"Via: SIP/2.0/{arrives} " in taken.requests[0] and not (other and other.requests), (settings, listens)
            assert t.ok("POST", f"/core/conversations/{call}/end")["status"] == "completed"


def test_a_registration_is_kept_refreshed_and_taken_back(binary):
    with Tandem(binary) as t:
        registrar = Registrar("secret", expires=5)
        trunk = trunk_to(t, at(registrar), register=True)
        health = lambda: t.ok("GET", f"/core/trunks/{trunk}/health")["registration"]
        wait_for("a binding", 5, lambda: (health() or {}).get("state") == "registered")
        assert health()["expires_at"] and registrar.failure is None
        contact = registrar.bound()
        assert re.fullmatch(r"<sip:acc@127.0.0.1:%d>" % t.udp[1], contact), contact
        # A call to the Contact: its To names the number.
        t.ok("POST", "/core/phone-numbers", {"phone_number": "+14155550100", "trunk_id": trunk})
        t.agent({"runtime": {"type": "echo"}}, ["+14155550100"])
        call = sip.Call.__new__(ToNumber)
        call.__init__(t.udp, "acc")
        assert call.final() == 200, call.answer
        call.bye()
        first = len(registrar.requests)
        wait_for("a refresh", 7, lambda: len(registrar.requests) > first)
        assert len({header(r, "Call-ID") for r in registrar.requests}) == 1
        t.ok("PUT", f"/core/trunks/{trunk}", {"outbound_config": {"address": at(registrar), "auth_username": "acc", "auth_password": "secret"}})
        wait_for("a removal", 5, lambda: header(registrar.requests[-1], "Expires") == "0")
        wait_for("no status", 3, lambda: health() is None)


class ToNumber(sip.Call):
    def request(self, method, cseq, body="", branch=None):
        self.to_line = self.to_line.replace("sip:acc@", "sip:+14155550100@")
        return super().request(method, cseq, body, branch)


def test_a_registrar_that_wants_longer_or_refuses(binary):
    with Tandem(binary) as t:
        brief = Registrar("secret", lambda r: ("423 Interval Too Brief", "Min-Expires: 1800\r\n") if header(r, "Expires") == "600" else None, expires=3600)
        wrong = Registrar("other", lambda r: ("403 Forbidden", ""))
        good, bad = trunk_to(t, at(brief), register=True), trunk_to(t, at(wrong), register=True)
        health = lambda trunk: t.ok("GET", f"/core/trunks/{trunk}/health")["registration"] or {}
        wait_for("a longer binding", 5, lambda: health(good).get("state") == "registered")
        assert header(brief.requests[-1], "Expires") == "1800"
        failed = wait_for("a failure", 5, lambda: health(bad).get("state") == "failed" and health(bad))
        assert "403 Forbidden" in failed["detail"], failed
    # The node has left: the binding is gone.
    assert header(brief.requests[-1], "Expires") == "0", brief.requests[-1]


@alone
def test_slow_and_half_open_peers_take_nobodys_place(binary):
    authority = Authority()
    with tls_node(binary, authority) as t:
        trunk = t.ok("POST", "/core/trunks", {"name": "x", "inbound_config": {"allowed_addresses": ["127.0.0.2"]}})["id"]
        t.ok("POST", "/core/phone-numbers", {"phone_number": "+14155550100", "trunk_id": trunk})
        t.agent({"runtime": {"type": "echo"}}, ["+14155550100"])
        agent = t.deployed()
        crowd = []
        for n in range(300):
            for node in (t.tcp, t.tls):
                try:
                    crowd.append(socket.create_connection(node, 5))
                    # A dripping head, half a ClientHello, and nothing at all.
                    if n % 3 == 0:
                        crowd[-1].send(b"INVITE sip:" if node is t.tcp else b"\x16\x03\x01\x02\x00\x01")
                except OSError:
                    pass
            if n % 50 == 49:
                carrier = socket.create_connection(t.tls, 5, source_address=("127.0.0.2", 0))
                call = Call(t.tls, "+14155550100", "tls", authority.client().wrap_socket(carrier, server_hostname="localhost"))
                assert call.final() == 200
                call.bye()
                # From the very address of the crowd, too.
                plain = Call(t.tcp, agent, "tcp", socket.create_connection(t.tcp, 5))
                assert plain.final() == 200
                plain.bye()
        for s in crowd:
            s.close()


def test_baresip_over_tls_both_ways(binary):
    authority = Authority()
    with tls_node(binary, authority) as t:
        agent, port = t.deployed(), t.tls[1]
        with Baresip(authority).start("<sip:phone@127.0.0.1;transport=tls>;regint=0;audio_codecs=pcmu", f"/dial sip:{agent}@127.0.0.1:{port};transport=tls") as phone:
            def answered():
                assert phone.process.poll() is None, phone.log
                return t.ok("GET", "/core/conversations?status=in_progress")
            call = wait_for("the call", 10, answered)[0]
            assert t.ok("POST", f"/core/conversations/{call['id']}/end")["status"] == "completed"
    with tls_node(binary, authority) as t:
        phone = Baresip(authority)
        with phone.start("<sip:+14155550199@127.0.0.1;transport=tls>;regint=0;answermode=auto;audio_codecs=pcmu"):
            wait_for("baresip listens", 5, lambda: listening(phone.tls))
            call = call_over(t, trunk_to(t, f"127.0.0.1:{phone.tls}", transport="TLS"))
            t.conversation(call, "in_progress")
            assert t.ok("POST", f"/core/conversations/{call}/end")["status"] == "completed"


def listening(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False
