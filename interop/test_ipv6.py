"""IPv6: listeners, descriptions and RTP on ::1, and dual-stack listeners that IPv4 callers reach."""
import re
import secrets
import socket

from sip import Call, Rtp, header, sdp, status
from tandem import Tandem


class Rtp6(Rtp):
    def __init__(self):
        super().__init__()
        self.socket.close()
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.socket.bind(("::1", 0))
        self.port = self.socket.getsockname()[1]


def sdp6(port):
    return sdp("::1", port).replace("IN IP4", "IN IP6")


def towards(rtp, description):
    kind, ip = re.search(r"^c=IN (\S+) (\S+)", description, re.M).groups()
    assert (kind, ip) == ("IP6", "::1"), description
    rtp.to(ip, int(re.search(r"^m=audio (\d+)", description, re.M).group(1)))


class Peer:
    """One call over ::1, by UDP or TCP; it can be called too."""

    def __init__(self, transport, node=None):
        self.transport, self.rtp, self.node = transport, Rtp6(), node
        self.id, self.tag = secrets.token_hex(8), secrets.token_hex(4)
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM)
        self.socket.bind(("::1", 0))
        self.socket.settimeout(5)
        if node and transport == "tcp":
            self.socket.connect(node)
        self.port = self.socket.getsockname()[1]

    def send(self, text):
        self.socket.sendto(text.encode(), self.node) if self.transport == "udp" else self.socket.sendall(text.encode())

    def receive(self):
        data, self.node = self.socket.recvfrom(65535) if self.transport == "udp" else (self.socket.recv(65535), self.node)
        return data.decode()

    def request(self, method, cseq, to, body=""):
        uri = f"sip:{self.user}@[::1]:{self.node[1]}"
        kind = "Content-Type: application/sdp\r\n" if body else ""
        self.send(f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{self.transport.upper()} [::1]:{self.port};rport;branch=z9hG4bK{secrets.token_hex(6)}\r\nMax-Forwards: 70\r\n"
                  f"From: <sip:+14155550111@[::1]>;tag={self.tag}\r\nTo: {to or f'<{uri}>'}\r\nCall-ID: {self.id}\r\nCSeq: {cseq} {method}\r\n"
                  f"Contact: <sip:peer@[::1]:{self.port};transport={self.transport}>\r\n{kind}Content-Length: {len(body)}\r\n\r\n{body}")

    def call(self, user):
        self.user = user
        self.request("INVITE", 1, None, sdp6(self.rtp.port))
        answer = self.receive()
        while status(answer) < 200:
            answer = self.receive()
        if status(answer) == 200:
            self.to = header(answer, "To")
            towards(self.rtp, answer)
            self.request("ACK", 1, self.to)
        return answer

    def bye(self):
        self.request("BYE", 2, self.to)
        assert status(self.receive()) == 200


def test_calls_over_ipv6(binary):
    with Tandem(binary, ["sip.udp=[::1]:0", "sip.tcp=[::1]:0"]) as t:
        agent = t.deployed()
        for transport in ("udp", "tcp"):
            peer = Peer(transport, ("::1", getattr(t, transport)[1]))
            answer = peer.call(agent)
            assert status(answer) == 200 and f"@[::1]:{getattr(t, transport)[1]}" in header(answer, "Contact").replace("sip:[", "@["), answer
            peer.rtp.talk(440)
            peer.rtp.hears(440)
            assert peer.rtp.received == peer.rtp.sent
            peer.bye()


def test_a_dual_stack_listener_serves_both_and_knows_mapped_addresses(binary):
    with Tandem(binary, ["sip.udp=[::]:0", "sip.tcp=[::]:0"]) as t:
        for number, allowed in [("+14155550100", "127.0.0.0/8"), ("+14155550101", "::1")]:
            trunk = t.ok("POST", "/core/trunks", {"name": "x", "inbound_config": {"allowed_addresses": [allowed]}})["id"]
            t.ok("POST", "/core/phone-numbers", {"phone_number": number, "trunk_id": trunk})
        t.agent({"runtime": {"type": "echo"}}, ["+14155550100", "+14155550101"])
        for transport in ("udp", "tcp"):
            port = getattr(t, transport)[1]
            for number, expected in [("+14155550100", 200), ("+14155550101", 403)]:
                call = Call(("127.0.0.1", port), number, transport)
                assert call.final() == expected, call.answer
                if expected == 200:
                    call.rtp.talk(440, 0.6)
                    call.rtp.hears(440)
                    call.bye()
            for number, expected in [("+14155550101", 200), ("+14155550100", 403)]:
                peer = Peer(transport, ("::1", port))
                assert status(peer.call(number)) == expected
                if expected == 200:
                    peer.rtp.talk(440, 0.6)
                    peer.rtp.hears(440)
                    peer.bye()
            # Signalled over IPv4, media over IPv6: the answer is of the offer's family.
            call = Call(("127.0.0.1", port), "+14155550100", transport, body=sdp6((rtp := Rtp6()).port))
            answer = call.socket.receive()
            while status(answer) < 200:
                answer = call.socket.receive()
            assert status(answer) == 200, answer
            call.to_line = header(answer, "To")
            call.socket.send(call.request("ACK", 1, branch=secrets.token_hex(6)))
            towards(rtp, answer)
            rtp.talk(440, 0.6)
            rtp.hears(440)
            call.bye()


def test_a_carrier_on_ipv6(binary):
    with Tandem(binary, ["sip.udp=[::]:0", "sip.tcp=[::]:0"]) as t:
        carrier = Peer("udp")
        trunk = t.ok("POST", "/core/trunks", {"name": "x", "outbound_config": {"address": f"[::1]:{carrier.port}", "auth_username": "a", "auth_password": "p"}})["id"]
        t.ok("POST", "/core/phone-numbers", {"phone_number": "+14155550100", "trunk_id": trunk})
        agent = t.agent({"runtime": {"type": "echo"}})
        id = t.ok("POST", "/core/conversations", {"channel": "telephone", "user_id": "+14155550199", "agent_id": agent})["conversation"]["id"]
        invite = carrier.receive()
        assert invite.startswith(f"INVITE sip:+14155550199@[::1]:{carrier.port} ") and re.search(r"^Via: SIP/2.0/UDP \[::1\]:", invite, re.M), invite
        towards(carrier.rtp, invite)
        body = sdp6(carrier.rtp.port)
        carrier.send(f"SIP/2.0 200 OK\r\nVia: {header(invite, 'Via')}\r\nFrom: {header(invite, 'From')}\r\nTo: {header(invite, 'To')};tag=c\r\nCall-ID: {header(invite, 'Call-ID')}\r\nCSeq: {header(invite, 'CSeq')}\r\n"
                     f"Contact: <sip:carrier@[::1]:{carrier.port}>\r\nContent-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}")
        assert carrier.receive().startswith(f"ACK sip:carrier@[::1]:{carrier.port} ")
        carrier.rtp.talk(440)
        carrier.rtp.hears(440)
        t.conversation(id, "in_progress")
