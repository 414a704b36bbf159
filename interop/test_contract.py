"""The REST contract from outside: schemathesis, races, pages that stay put, webhooks, limits, simulations."""
import base64
import concurrent.futures
import hashlib
import hmac
import http.server
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import urllib.parse
import urllib.request
import uuid

from sip import Call
from tandem import Tandem, alone, wait_for

ECHO = {"runtime": {"type": "echo"}}
CARRIER = {"address": "127.0.0.1:9", "auth_username": "u", "auth_password": "p"}
DESCRIPTION = os.path.join(os.path.dirname(__file__), "..", "openapi.json")


def at_once(count, work):
    """What `work(0)`…`work(count - 1)` answer when all begin together."""
    barrier = threading.Barrier(count)

    def one(n):
        barrier.wait(10)
        return work(n)

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def page(t, path):
    """One page, and the cursor of the next."""
    request = urllib.request.Request(t.http + path, headers={"Authorization": f"Bearer {t.key}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read()), answer.headers.get("X-Next-Cursor")


@alone
def test_schemathesis_finds_nothing(binary):
    found = shutil.which("schemathesis") or os.path.join(os.path.dirname(sys.executable), "schemathesis")
    assert os.path.exists(found), "schemathesis is not installed: pip install schemathesis"
    # What the contract itself names as answers to well-formed input.
    settings = '[checks]\npositive_data_acceptance.expected-statuses = ["2xx", 400, 403, 404, 409, 412, 422, 429]\n'
    with Tandem(binary) as t, tempfile.TemporaryDirectory() as place:
        with open(os.path.join(place, "schemathesis.toml"), "w") as f:
            f.write(settings)
        done = subprocess.run(
            [found, "run", os.path.abspath(DESCRIPTION), "-u", t.http, "-H", f"Authorization: Bearer {t.key}", "--checks", "all",
             "--phases", "examples,fuzzing,stateful", "-n", "8", "--seed", "1", "-w", "4", "--suppress-health-check", "all"],
            cwd=place, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert t.request("GET", "/core/trunks")[0] == 200, "the key survived"


def test_races_make_one(binary):
    with Tandem(binary) as t:
        made = at_once(50, lambda n: t.request("POST", "/core/trunks", {"name": "once"}, headers=[("Idempotency-Key", "k1")]))
        assert {status for status, _ in made} <= {200, 409}, made
        assert len({answer["id"] for status, answer in made if status == 200}) == 1
        trunks = t.ok("GET", "/core/trunks")
        assert len(trunks) == 1
        again = t.request("POST", "/core/trunks", {"name": "once"}, headers=[("Idempotency-Key", "k1")])
        assert again == (200, trunks[0])
        assert t.request("POST", "/core/trunks", {"name": "other"}, headers=[("Idempotency-Key", "k1")])[0] == 422
        number = {"phone_number": "+14155550100", "trunk_id": trunks[0]["id"]}
        made = at_once(50, lambda n: t.request("POST", "/core/phone-numbers", number)[0])
        assert sorted(made) == [200] + [409] * 49, made
        assert len(t.ok("GET", "/core/phone-numbers")) == 1


def test_pages_stay_put_under_equal_times_and_changes(binary):
    with Tandem(binary) as t:
        ids = at_once(20, lambda n: [t.ok("POST", "/core/trunks", {"name": f"{n}-{m}"})["id"] for m in range(25)])
        ids = {id for some in ids for id in some}
        doomed = [t.ok("POST", "/core/trunks", {"name": "doomed"})["id"] for _ in range(20)]
        t.kill()
        with sqlite3.connect(os.path.join(t.data, "tandem.db")) as db:
            db.execute("UPDATE trunks SET created_at = (SELECT MIN(created_at) FROM trunks)")
        db.close()
        t.start()
        stop = threading.Event()

        def disturb():
            while not stop.is_set():
                t.ok("POST", "/core/trunks", {"name": "new"})
                if doomed:
                    t.ok("DELETE", f"/core/trunks/{doomed.pop()}")

        disturber = threading.Thread(target=disturb)
        disturber.start()
        seen, cursor = [], None
        while True:
            rows, cursor = page(t, "/core/trunks?limit=7" + (f"&cursor={cursor}" if cursor else ""))
            seen += [row["id"] for row in rows]
            if not cursor:
                break
        stop.set()
        disturber.join(20)
        assert len(seen) == len(set(seen)), "a row came twice"
        assert ids <= set(seen), f"{len(ids - set(seen))} rows never came"


def test_a_client_of_the_hosted_api(binary):
    """Written from the public pages alone: plain arrays, Base64 of created_at as the cursor, 200 for what is made."""
    with Tandem(binary) as t:
        trunk = t.ok("POST", "/core/trunks", {"name": "BYOC", "outbound_config": {**CARRIER, "transport": "SIP_TRANSPORT_TCP"}})
        numbers = [f"+1415555{n:04}" for n in range(12)]
        for number in numbers:
            made = t.ok("POST", "/core/phone-numbers", {"phone_number": number, "trunk_id": trunk["id"]})
            assert made["inbound_agent_version_id"] is None and made["outbound_shareable"] is False
        walked, cursor = [], ""
        while rows := t.ok("GET", "/core/phone-numbers?limit=5" + cursor):
            walked += [row["phone_number"] for row in rows]
            encoded = base64.b64encode(rows[-1]["created_at"].encode()).decode()
            cursor = "&cursor=" + urllib.parse.quote(encoded)
        assert walked == numbers[::-1]
        assert t.ok("GET", "/core/phone-numbers/%2B14155550003") == t.ok("GET", "/core/phone-numbers/14155550003")
        assert t.ok("PATCH", "/core/phone-numbers/%2B14155550003", {"outbound_shareable": True})["outbound_shareable"] is True
        agent = t.ok("POST", "/core/agents", {"name": "Support", "metadata": {"team": {"id": 7}}})
        assert [a["id"] for a in t.ok("GET", "/core/agents?metadata=" + urllib.parse.quote('{"team":{"id":7}}'))] == [agent["id"]]
        version = t.ok("POST", f"/core/agents/{agent['id']}/versions", {"config": ECHO})
        both = {"phone_numbers": numbers[:2] + numbers[:1], "direction": "both"}
        published = t.ok("POST", f"/core/agents/{agent['id']}/versions/{version['version']}/publish", both)
        assert sorted(n["phone_number"] for n in published) == numbers[:2]
        assert {n["inbound_agent_version_id"] for n in published} == {n["outbound_agent_version_id"] for n in published} == {version["id"]}
        freed = t.ok("POST", f"/core/agents/{agent['id']}/versions/1/publish", {"unassign_phone_numbers": numbers[:1]})
        assert freed[0]["inbound_agent_version_id"] is None and freed[0]["outbound_agent_version_id"] == version["id"]
        assert t.ok("POST", f"/core/agents/{agent['id']}/deploy-as-sip")["deployed"] is True
        shown = t.ok("GET", f"/core/agents/{agent['id']}")
        assert shown["sip_endpoint"]["uri"].startswith(f"sip:{agent['id']}@") and shown["versions"] and shown["phone_numbers"]
        status, placed = t.request("POST", "/core/conversations", {"channel": "telephone", "user_id": "+14155559999", "agent_id": agent["id"],
                                                                   "custom_metadata": {"order": 5}})
        assert status == 202 and placed["starting_message"] is None and placed["conversation"]["status"] == "triggered"
        assert placed["conversation"]["agent_number"] in numbers[:2]
        found = t.ok("GET", "/core/conversations?custom_metadata=" + urllib.parse.quote('{"order":5}'))
        assert [c["id"] for c in found] == [placed["conversation"]["id"]] and "custom_metadata" not in found[0]
        assert t.ok("GET", f"/core/agents/{agent['id']}")["conversation_statistics"]["total"] == 1
        assert t.request("DELETE", f"/core/trunks/{trunk['id']}")[0] == 409
        assert t.request("DELETE", f"/core/agents/{agent['id']}")[0] == 409


def test_the_daily_limit_survives_a_restart(binary):
    with Tandem(binary) as t:
        trunk = t.ok("POST", "/core/trunks", {"name": "x", "outbound_config": CARRIER})["id"]
        t.ok("POST", "/core/phone-numbers", {"phone_number": "+14155550100", "trunk_id": trunk})
        t.admin("org", "update", t.org, "--daily-call-limit", "20", "--allowed-destination", "+1")
        call = lambda to: t.request("POST", "/core/conversations", {"channel": "telephone", "user_id": to, "agent_config": ECHO})[0]
        assert call("+4930123456") == 403
        assert [call("+14155550199") for _ in range(5)] == [202] * 5
        t.kill()
        t.start()
        made = at_once(50, lambda n: call(f"+14155551{n:03}"))
        assert sorted(made) == [202] * 15 + [429] * 35, made
        reasons = [d["reason"] for d in t.ok("GET", f"/core/trunks/{trunk}/decisions?limit=100")]
        assert "destination_not_allowed" in reasons and reasons.count("daily_call_limit") == 35


def test_a_simulation_agrees_with_a_real_invite(binary):
    with Tandem(binary, ["sip.udp=0.0.0.0:0"]) as t:
        node = ("127.0.0.1", t.udp[1])

        def trunk(number, inbound=None, publish=True, **more):
            made = t.ok("POST", "/core/trunks", {"name": number, "inbound_config": inbound, **more})["id"]
            t.ok("POST", "/core/phone-numbers", {"phone_number": number, "trunk_id": made})
            return made, t.agent(ECHO, [number]) if publish else None

        listed, agent = trunk("+14155550101", {"allowed_addresses": ["127.0.0.2"]})
        trunk("+14155550102", publish=False)
        _, asleep = trunk("+14155550103")
        t.ok("PUT", f"/core/agents/{asleep}", {"active": False})
        trunk("+14155550104", max_calls_per_second=1)
        rejected, _ = trunk("+14155550105")
        deployed = t.deployed()
        rules = [{"match": {"called_prefix": "+14155550105"}, "output": {"reject": True}},
                 {"match": {"called_prefix": "+14155550102", "caller_prefix": "+1415"}, "output": {"agent_id": agent}}]
        t.ok("PUT", "/core/inbound-routing-config", {"workflow_definition": {"type": "rules", "rules": rules}})
        compared = set()
        for source in ("127.0.0.2", "127.0.0.3"):
            for dialled in ("+14155550101", "14155550101", "+14155550102", "+14155550103", "+14155550104", "+14155550105", "+19995550000", deployed,
                            str(uuid.uuid4())):
                judged = t.ok("POST", f"/core/trunks/{listed}/simulate", {"source": source, "from": "+14155550111", "to": dialled})
                call = Call(node, dialled, source=source)
                real = call.final()
                assert judged["status"] == real and judged["accepted"] is (real == 200), (source, dialled, judged, real)
                assert judged["steps"] and judged["advice"]
                compared.add(real)
                if real == 200:
                    call.bye()
                    # The next second has room again where one call a second is allowed.
                    if dialled == "+14155550104":
                        wait_for("room for a call", 3, lambda: t.ok("POST", f"/core/trunks/{listed}/simulate", {
                            "source": source, "from": "+14155550111", "to": dialled})["accepted"])
        assert {200, 403, 404, 480, 603} <= compared, compared


class Endpoint:
    """A webhook's other end: answers what `statuses` say, then 200 with `body` after `delay` seconds; keeps what it was sent."""

    def __init__(self, statuses=()):
        self.statuses, self.got, self.body, self.delay = list(statuses), [], b"", 0
        self.released = threading.Event()
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.got.append((dict(self.headers.items()), body))
                endpoint.released.wait(endpoint.delay)
                self.send_response(endpoint.statuses.pop(0) if endpoint.statuses else 200)
                self.send_header("Content-Length", str(len(endpoint.body)))
                self.end_headers()
                self.wfile.write(endpoint.body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # a client that hangs up is part of the test
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = "http://127.0.0.1:%d/hook" % self.server.server_address[1]

    def events(self, secret):
        """What came with a good signature (Standard Webhooks), by its id."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        found = []
        for headers, body in list(self.got):
            headers = {name.lower(): value for name, value in headers.items()}
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            assert "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() in headers["webhook-signature"].split(" ")
            found.append((headers["webhook-id"], json.loads(body)))
        return found


def test_routing_decides_real_calls(binary):
    endpoint = Endpoint()
    with Tandem(binary) as t:
        trunk = t.ok("POST", "/core/trunks", {"name": "x"})["id"]
        t.ok("POST", "/core/phone-numbers", {"phone_number": "+14155550100", "trunk_id": trunk})
        slot, named, fallback = (t.agent(ECHO, numbers) for numbers in (["+14155550100"], [], []))
        path = "/core/inbound-routing-config"
        made = t.ok("PUT", path, {"workflow_definition": {"type": "webhook", "url": endpoint.url}, "fallback_agent_id": fallback, "timeout_ms": 400})
        secret = made["workflow_definition"]["secret"]
        assert "secret" not in t.ok("GET", path)["workflow_definition"]

        def answered(answer, delay=0, status=None):
            """The agent that a real call gets, or its final status; a simulation says the same."""
            endpoint.body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            endpoint.delay, endpoint.statuses = delay, [status] * 2 if status else []
            judged = t.ok("POST", f"/core/trunks/{trunk}/simulate", {"source": "127.0.0.1", "from": "+14155550111", "to": "+14155550100"})
            known = {c["id"] for c in t.ok("GET", "/core/conversations")}
            call = Call(t.udp, "+14155550100")
            got = call.final()
            assert judged["status"] == got, (judged, got)
            if got != 200:
                return got
            call.bye()
            new = wait_for("the call", 3, lambda: [c for c in t.ok("GET", "/core/conversations?status=completed") if c["id"] not in known])[0]
            assert new["agent_id"] == judged["agent_id"]
            return new["agent_id"]

        assert answered({"agent_id": named, "custom_metadata": {"tier": "gold"}}) == named
        assert t.ok("GET", "/core/conversations/" + t.ok("GET", "/core/conversations")[0]["id"])["custom_metadata"] == {"tier": "gold"}
        asked = endpoint.events(secret)[-1][1]
        assert set(asked) == {"caller_number", "called_number", "trunk_id", "organization_id", "timestamp"}
        assert (asked["caller_number"], asked["called_number"], asked["trunk_id"], asked["organization_id"]) == ("+14155550111", "+14155550100", trunk, t.org)
        assert answered({}) == answered(b"") == slot, "an output without an agent falls to the number's slot"
        assert answered({"reject": True}) == 603
        assert answered({"agent_id": str(uuid.uuid4())}) == fallback
        assert answered({"agent_id": named}, status=500) == fallback
        assert answered({"agent_id": named}, delay=1) == fallback, "late"
        assert answered(b'{"initial_context": {"x": "' + b"a" * 300_000 + b'"}}') == fallback, "larger than 256 KiB"
        assert answered(b"<html>") == fallback
        t.ok("PUT", path, {"fallback_agent_id": None})
        assert answered(b"<html>") in (480, 500, 503)
        t.ok("PUT", path, {"enabled": False})
        assert answered(b"<html>") == slot


def test_a_routing_webhook_reaches_no_private_address_where_they_are_denied(binary):
    endpoint = Endpoint()
    with Tandem(binary, ["net.private_targets=deny"]) as t:
        trunk = t.ok("POST", "/core/trunks", {"name": "x"})["id"]
        t.ok("POST", "/core/phone-numbers", {"phone_number": "+14155550100", "trunk_id": trunk})
        fallback = t.agent(ECHO, ["+14155550100"])
        port = endpoint.url.rsplit(":", 1)[1]
        hook = lambda host: {"workflow_definition": {"type": "webhook", "url": f"http://{host}:{port}"}, "fallback_agent_id": fallback}
        status, answer = t.request("PUT", "/core/inbound-routing-config", hook("127.0.0.1"))
        assert status == 422 and "url" in answer["detail"], answer
        assert t.request("POST", "/core/webhooks", {"url": endpoint.url})[0] == 422
        t.ok("PUT", "/core/inbound-routing-config", hook("localhost"))
        call = Call(t.udp, "+14155550100")
        assert call.final() == 200
        call.bye()
        hooked = t.ok("POST", "/core/webhooks", {"url": f"http://localhost:{port}"})["id"]
        t.ok("POST", f"/core/webhooks/{hooked}/test")
        wait_for("refused", 5, lambda: "allow" in (t.ok("GET", f"/core/webhooks/{hooked}/deliveries")[0]["error"] or ""))
        assert endpoint.got == []


def test_a_trunks_limit_is_exact_under_a_burst(binary):
    with Tandem(binary) as t:
        trunk = t.ok("POST", "/core/trunks", {"name": "x", "max_concurrent_calls": 3})["id"]
        t.ok("POST", "/core/phone-numbers", {"phone_number": "+14155550100", "trunk_id": trunk})
        t.agent(ECHO, ["+14155550100"])
        calls = at_once(20, lambda n: Call(t.udp, "+14155550100"))
        finals = [call.final() for call in calls]
        assert finals.count(200) == 3, finals
        for call, final in zip(calls, finals):
            if final == 200:
                call.bye()
        wait_for("room again", 3, lambda: t.ok("GET", f"/core/trunks/{trunk}/health")["active_calls"] == 0)
        assert Call(t.udp, "+14155550100").final() == 200


def test_webhooks_are_told_until_they_listen(binary):
    endpoint = Endpoint([500])
    with Tandem(binary) as t:
        hook = t.ok("POST", "/core/webhooks", {"url": endpoint.url, "events": ["conversation.completed", "webhook.test", "call.refused"]})
        trunk = t.ok("POST", "/core/trunks", {"name": "x"})["id"]
        t.ok("POST", "/core/phone-numbers", {"phone_number": "+14155550100", "trunk_id": trunk})
        t.agent(ECHO, ["+14155550100"])
        call = Call(t.udp, "+14155550100")
        assert call.final() == 200
        call.bye()
        wait_for("the first attempt", 5, lambda: endpoint.got)
        # Killed between the attempts: what is to be told is on disk.
        wait_for("the failure is written down", 5, lambda: t.ok("GET", f"/core/webhooks/{hook['id']}/deliveries")[0]["http_status"] == 500)
        t.kill()
        t.start()
        wait_for("the second attempt", 12, lambda: len(endpoint.got) > 1)
        (first, one), (second, two) = endpoint.events(hook["secret"])
        assert first == second and one == two, "the same event under the same id"
        assert one["type"] == "conversation.completed" and one["data"]["agent_number"] == "+14155550100" and one["data"]["ended_by"] == "caller"
        assert "initial_context" not in one["data"]
        path = f"/core/webhooks/{hook['id']}/deliveries"
        wait_for("delivered", 5, lambda: t.ok("GET", path + "?state=delivered"))
        t.ok("PUT", f"/core/trunks/{trunk}", {"inbound_config": {"allowed_addresses": ["192.0.2.1"]}})
        assert Call(t.udp, "+14155550100").final() == 403
        wait_for("the refusal", 5, lambda: len(endpoint.got) > 2)
        assert endpoint.events(hook["secret"])[-1][1]["data"]["reason"] == "src_not_allowed"
        # A new secret signs beside the old one, whoever knows either; the same again changes nothing.
        new = "whsec_" + base64.b64encode(b"n" * 32).decode()
        for _ in range(2):
            t.ok("PATCH", f"/core/webhooks/{hook['id']}", {"secret": new})
        told = len(endpoint.got)
        t.ok("POST", f"/core/webhooks/{hook['id']}/test")
        wait_for("the test", 5, lambda: len(endpoint.got) > told)
        del endpoint.got[:told]
        assert endpoint.events(hook["secret"]) == endpoint.events(new)
        endpoint.statuses = [410]
        t.ok("POST", f"/core/webhooks/{hook['id']}/test")
        dead = wait_for("given up", 5, lambda: t.ok("GET", path + "?state=dead"))
        assert dead[0]["event"] == "webhook.test" and t.ok("GET", f"/core/webhooks/{hook['id']}")["enabled"] is False


def test_everything_in_readme_is_done_from_the_shell(binary):
    with Tandem(binary) as t:
        def tandem(*words, stdin=None, status=0):
            done = subprocess.run([binary, *words], capture_output=True, text=True, timeout=20, input=stdin,
                                  env={**os.environ, "TANDEM_URL": t.http, "TANDEM_API_KEY": t.key})
            assert done.returncode == status, (words, done.returncode, done.stderr)
            return done.stdout

        shown = lambda *words, **more: json.loads(tandem(*words, "--json", **more))
        overview = tandem("--help")
        for command in ("trunk create", "number create", "agent create", "agent publish", "agent deploy", "call place", "call list", "trunk decisions"):
            assert f"tandem {command}" in overview, command
        trunk = shown("trunk", "create", "--name", "My carrier", "--allow", "127.0.0.1", "--address", "127.0.0.1:9", "--username", "me",
                      "--password", "-", stdin="secret\n")["id"]
        tandem("number", "create", "+14155550100", "--trunk", trunk)
        agent = shown("agent", "create", "--data", "-", stdin='{"name": "Echo"}')["id"]
        tandem("agent", "add-version", agent, "--agent-config", '{"runtime": {"type": "echo"}}')
        tandem("agent", "publish", agent, "--number", "+14155550100")
        uri = shown("agent", "deploy", agent)["uri"]
        assert uri == f"sip:{agent}@{t.udp[0]}:{t.udp[1]}"
        for user in (agent, "+14155550100"):
            call = Call(t.udp, user)
            assert call.final() == 200
            call.bye()
        placed = shown("call", "place", "--agent", agent, "--to", "+14155550199")
        assert placed["status"] == "triggered"
        wait_for("the calls are listed", 3, lambda: len(shown("call", "list")) == 3)
        assert tandem("trunk", "decisions", trunk) and "agent_number" in tandem("call", "get", placed["id"])
        assert tandem("trunk", "get", str(uuid.uuid4()), status=1) == ""


def test_a_call_is_looked_at_and_listened_to_from_the_shell(binary):
    with Tandem(binary) as t, tempfile.TemporaryDirectory() as place:
        def tandem(*words, status=0):
            done = subprocess.run([binary, *words], capture_output=True, text=True, timeout=20,
                                  env={**os.environ, "TANDEM_URL": t.http, "TANDEM_API_KEY": t.key})
            assert done.returncode == status, (words, done.returncode, done.stderr)
            return done.stdout

        agent = t.deployed({"runtime": {"type": "play", "tones": [{"hz": 440, "ms": 20000}]}, "recording": {"enabled": True}})
        call = Call(t.udp, agent)
        assert call.final() == 200
        id = wait_for("the call is on record", 2, lambda: t.ok("GET", "/core/conversations?status=in_progress"))[0]["id"]
        tandem("call", "dtmf", id, "--digits", "7")
        call.rtp.socket.settimeout(5)
        while call.rtp.socket.recv(2048)[1] & 0x7F != 101:
            pass
        assert "INVITE sip:" in tandem("call", "trace", id)
        sent = lambda: json.loads(tandem("call", "quality", id, "--json"))["packets_sent"]
        wait_for("the figures of a second", 3, lambda: sent() > 0)
        call.bye()
        t.conversation(id, "completed")
        ladder = tandem("call", "trace", id)
        lines = ladder.splitlines()
        assert "<---" in lines[0] and "INVITE" in lines[0] and any("--->" in line and "200 OK" in line for line in lines), ladder
        assert any("BYE" in line for line in lines) and "outcome" in ladder, ladder
        assert "    Call-ID: " in tandem("call", "trace", id, "--raw")
        capture, audio = os.path.join(place, "call.pcap"), os.path.join(place, "call.wav")
        tandem("call", "trace", id, "--pcap", capture)
        with open(capture, "rb") as f:
            assert f.read(4) in (b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x0a\x0d\x0d\x0a")
        tandem("call", "recording", id, "--output", audio)
        with open(audio, "rb") as f:
            assert f.read(4) == b"RIFF"
        assert "packets_sent" in tandem("call", "quality", id) and sent() > 0
        nobody = os.path.join(place, "nobody.wav")
        tandem("call", "recording", str(uuid.uuid4()), "--output", nobody, status=1)
        assert not os.path.exists(nobody) and not os.path.exists(nobody + ".part")
