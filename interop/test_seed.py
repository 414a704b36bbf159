"""The seed document, clause by clause, over HTTP."""
import glob

from tandem import Tandem

SECRET = "c4nary-p4ss-w0rd"
OUTBOUND = {"address": "sip.carrier.example", "auth_username": "u", "auth_password": SECRET}


def test_trunks_and_their_rules(binary):
    with Tandem(binary) as t:
        trunk = t.ok("POST", "/core/trunks", {"name": "Main", "inbound_config": {"allowed_addresses": ["", "10.0.0.0/8"]}, "outbound_config": OUTBOUND})
        assert trunk["organization_id"] == t.org and trunk["managed_account_id"] is None
        assert trunk["inbound_config"] == {"enable_noise_cancellation": False, "media_encryption": "SIP_MEDIA_ENCRYPT_DISABLE", "allowed_addresses": ["10.0.0.0/8"]}
        assert trunk["outbound_config"]["transport"] == "SIP_TRANSPORT_UDP" and "auth_password" not in trunk["outbound_config"]
        path = f"/core/trunks/{trunk['id']}"
        for empty in ([], [""]):
            assert t.ok("PUT", path, {"inbound_config": {"allowed_addresses": empty}})["inbound_config"]["allowed_addresses"] is None
        assert t.ok("PUT", path, {"name": "Other"})["outbound_config"]["address"] == "sip.carrier.example"
        assert t.ok("GET", "/core/trunks?name=oTHe")[0]["id"] == trunk["id"] and t.ok("GET", "/core/trunks?name=zzz") == []
        for field, body in [
            ("address", {**OUTBOUND, "address": ""}), ("auth_username", {**OUTBOUND, "auth_username": ""}),
            ("auth_password", {"address": "a.example", "auth_username": "u"}), ("transport", {**OUTBOUND, "transport": "UDP"}),
            ("media_encryption", {**OUTBOUND, "media_encryption": "NONE"}), ("address", {**OUTBOUND, "address": "a.example\r\nX: y"}),
            ("auth_username", {**OUTBOUND, "auth_username": "u\r\nX: y"}), ("auth_password", {**OUTBOUND, "auth_password": "p\nq"}),
            ("address", {**OUTBOUND, "address": "sip:a.example"}), ("typo", {**OUTBOUND, "typo": 1}),
        ]:
            status, answer = t.request("POST", "/core/trunks", {"name": "x", "outbound_config": body})
            assert status == 422 and field in answer["detail"] and SECRET not in str(answer), (field, status, answer)
        for body in ({}, {"name": ""}, {"name": "a\r\nb"}, {"name": "x", "organization_id": t.org}, {"name": "x", "managed_account_id": "a"}):
            assert t.request("POST", "/core/trunks", body)[0] == 422, body
        assert t.request("DELETE", path)[0] == 204 and t.request("GET", path)[0] == 404


def test_scopes_and_tokens(binary):
    with Tandem(binary) as t:
        read = t.admin("key", "create", "--org", t.org, "--scope", "trunks:read")
        manage = t.admin("key", "create", "--org", t.org, "--scope", "trunks:manage")
        other = t.admin("key", "create", "--org", t.org, "--scope", "agents:manage")
        assert [t.request("GET", "/core/trunks", key=k)[0] for k in (read, manage, other, "")] == [200, 200, 403, 401]
        assert [t.request("POST", "/core/trunks", {"name": "x"}, key=k)[0] for k in (read, manage, other)] == [403, 200, 403]
        token = t.admin("token", "create", "--user", "ann@example.com", "--org", t.org)
        status, answer = t.request("GET", "/core/trunks", key=token)
        assert status == 401 and answer["detail"] == "Token is missing organization claim."
        assert t.request("GET", "/core/trunks", key=token, headers=[("X-Anyreach-Org", t.org)])[0] == 200
        foreign = t.admin("org", "create", "Other")
        assert t.request("GET", "/core/trunks", key=token, headers=[("X-Anyreach-Org", foreign)])[0] == 403


def test_managed_trunks_are_read_only(binary):
    with Tandem(binary) as t:
        trunk = t.admin("managed-trunk", "create", "--org", t.org, "--name", "Managed", "--account", "twilio-1")
        path = f"/core/trunks/{trunk}"
        assert t.ok("GET", path)["managed_account_id"] == "twilio-1"
        assert t.request("PUT", path, {"name": "x"})[0] == 400 and t.request("DELETE", path)[0] == 400
        assert t.request("POST", "/core/phone-numbers", {"phone_number": "+14155550101", "trunk_id": trunk})[0] == 400


def test_deploy_as_sip(binary):
    with Tandem(binary) as t:
        agent = t.ok("POST", "/core/agents", {"name": "a"})["id"]
        path = f"/core/agents/{agent}/deploy-as-sip"
        assert t.request("POST", "/core/agents/01890000-0000-7000-8000-000000000000/deploy-as-sip")[0] == 404
        assert t.request("POST", path)[0] == 409
        endpoint = t.ok("GET", f"/core/agents/{agent}")["sip_endpoint"]
        assert endpoint["deployed"] is False
        t.ok("POST", f"/core/agents/{agent}/versions", {"config": {"runtime": {"type": "echo"}}})
        t.ok("POST", f"/core/agents/{agent}/versions/1/publish")
        first = t.ok("POST", path)
        assert first == t.ok("POST", path) == {"uri": endpoint["uri"], "deployed": True}
        assert endpoint["uri"] == f"sip:{agent}@{t.udp[0]}:{t.udp[1]}"


def test_no_password_in_clear_anywhere(binary):
    with Tandem(binary) as t:
        t.ok("POST", "/core/trunks", {"name": "x", "outbound_config": OUTBOUND})
        files = [f for f in glob.glob(t.data + "/**", recursive=True) if not f.endswith("/")]
        for name in files:
            try:
                with open(name, "rb") as f:
                    assert SECRET.encode() not in f.read(), name
            except IsADirectoryError:
                pass
        assert SECRET not in "".join(t.log)


def test_settings_end_the_start_with_one_line(binary):
    import subprocess
    for flags, key in [(["--set", "sip.typo=1"], "sip.typo"), (["--set", "limits.max_calls=0"], "limits.max_calls")]:
        done = subprocess.run([binary, *flags, "serve"], capture_output=True, text=True, timeout=10)
        assert done.returncode == 2 and key in done.stderr and done.stderr.count("\n") == 1, done
    with Tandem(binary) as t:
        taken = f"sip.udp={t.udp[0]}:{t.udp[1]}"
        done = subprocess.run([binary, "--set", f"data_dir={t.data}2", "--set", "http.listen=127.0.0.1:0", "--set", taken, "serve"], capture_output=True, text=True, timeout=10)
        assert done.returncode == 2 and "in use" in done.stderr, done
