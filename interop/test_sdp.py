"""Session descriptions nobody should send."""
from sip import Call, sdp, status
from tandem import Tandem


def test_descriptions_that_must_be_refused(binary):
    good = sdp("127.0.0.1", 4000)
    with Tandem(binary) as t:
        agent = t.deployed()
        for body, expected in [
            (good.replace("127.0.0.1", "224.0.0.1"), 488), (good.replace("127.0.0.1", "255.255.255.255"), 488), (good.replace("127.0.0.1", "169.254.169.254"), 488),
            (good.replace("c=IN IP4 127.0.0.1", "c=IN IP6 ::"), 488), (good.replace("127.0.0.1", "pbx.example"), 488), (good.replace("RTP/AVP 0 101", "RTP/AVP 18"), 488), ("hello", 400),
            (good + "m=audio 4000 RTP/AVP 0\r\n" * 200, 400), (good + "a=x\r\n" * 2_000, 400),
        ]:
            call = Call(t.tcp, agent, "tcp", body=body)
            assert call.final() == expected, (body[:300], call.answer)
        for body in (good + "m=audio 4000 RTP/AVP 0\r\n" * 10_000, good + "a=x\r\n" * 100_000, good + "a=fmtp:0 " + "x" * 65_536 + "\r\n"):
            try:
                answer = Call(t.tcp, agent, "tcp", body=body).socket.receive()
            except OSError:
                # Refused and closed before all of it was sent.
                answer = None
            assert answer is None or status(answer) in (400, 413, 513), answer
        for body in (good.replace("c=IN IP4 127.0.0.1", "c=IN IP4 0.0.0.0"), good + "a=fmtp:101 " + "x" * 60_000 + "\r\n", good.replace("RTP/AVP 0", "RTP/AVP 0 " + " ".join(str(n) for n in range(1, 96))),
                     good + "a=ptime:0\r\n", good + "a=ptime:1000000000\r\n", good + "m=video 9 RTP/AVP 31\r\n" * 60):
            call = Call(t.tcp, agent, "tcp", body=body)
            assert call.final() == 200, (body[:300], call.answer)
            call.bye()
