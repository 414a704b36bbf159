"""What a process on the open internet gets."""
import os
import random
import socket

from sip import Call, header, sdp, status
from tandem import Tandem, alone

MUTATIONS = int(os.environ.get("MUTATIONS", "20000"))


@alone
def test_junk_leaves_the_process_up_and_the_next_call_answered(binary):
    with Tandem(binary) as t:
        agent = t.deployed()
        assert Call(t.udp, agent).final() == 200
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("127.0.0.1", 0))
        s.settimeout(3)
        ip, port = s.getsockname()
        base = lambda method: f"{method} sip:{agent}@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {ip}:{port};branch=z9hG4bK{random.random()}\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: {random.random()}\r\nCSeq: 1 {method}\r\nMax-Forwards: 70\r\nContact: <sip:a@{ip}:{port}>\r\n"
        s.sendto((base("REGISTER") + "Content-Length: 0\r\n\r\n").encode(), t.udp)
        answer = s.recv(65535).decode()
        assert status(answer) == 405 and "INVITE" in header(answer, "Allow")
        s.sendto(b"\x00\xff" * 600, t.udp)
        offer = sdp(ip, 40000)
        invite = (base("INVITE") + f"Content-Type: application/sdp\r\nContent-Length: {len(offer)}\r\n\r\n{offer}").encode()
        r = random.Random(4711)
        before = t.rss()
        for n in range(MUTATIONS):
            data = bytearray(invite)
            for _ in range(r.randint(1, 8)):
                at = r.randrange(len(data))
                kind = r.randrange(3)
                if kind == 0:
                    data[at] = r.randrange(256)
                elif kind == 1:
                    del data[at:at + r.randint(1, 20)]
                else:
                    data[at:at] = bytes(r.randrange(256) for _ in range(r.randint(1, 20)))
            s.sendto(bytes(data), t.udp)
            if n % 50 == 0:
                s.setblocking(False)
                try:
                    while True:
                        s.recv(65535)
                except BlockingIOError:
                    pass
        with socket.create_connection(t.tcp) as c:
            try:
                c.sendall(os.urandom(65536))
                c.settimeout(5)
                while c.recv(65536):
                    pass
            except OSError:
                pass
        assert t.process.poll() is None
        assert Call(t.udp, agent).final() == 200
        assert Call(t.tcp, agent, "tcp").final() == 200
        grown = t.rss() - before
        assert grown < 64 * 1024, f"{grown} KiB more"
        assert not any("panicked" in line for line in t.log)
