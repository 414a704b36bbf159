//! The operator's commands, beside a running node and without one.

use serde_json::{Value, json};

use crate::support::Place;

const PASSWORD: &str = "c4n4ry-p4ssw0rd";

#[tokio::test]
async fn keys_made_by_the_command_are_valid_on_a_running_node_at_once() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let org = place.answer(&["org", "create", "Acme"]);
    let key = place.answer(&["key", "create", "--org", &org, "--scope", "trunks:read"]);
    let client = serving.client(&key);
    assert_eq!(client.get("/core/trunks", &[]).await.unwrap().body, json!([]));
    let refused = client.post("/core/trunks", Some(&json!({"name": "x"}))).await.unwrap_err();
    assert_eq!(refused.status(), Some(403));
    let token = place.answer(&["token", "create", "--user", "ada@example.net", "--org", &org]);
    assert!(token.starts_with("pat_"));
    let person = serving.client(&token);
    assert_eq!(person.get("/core/trunks", &[]).await.unwrap_err().status(), Some(401));
    assert!(person.in_organization(org.parse().unwrap()).get("/core/trunks", &[]).await.is_ok());
    let expired = place.answer(&["key", "create", "--org", &org, "--expires", "2020-01-01T00:00:00Z"]);
    assert_eq!(serving.client(&expired).get("/core/trunks", &[]).await.unwrap_err().status(), Some(401));
}

#[tokio::test]
async fn managed_trunks_are_the_operators_and_read_only_over_the_api() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let org = place.answer(&["org", "create", "Acme"]);
    let key = place.answer(&["key", "create", "--org", &org]);
    let client = serving.client(&key);
    let made = place.answer(&[
        "managed-trunk",
        "create",
        "--org",
        &org,
        "--name",
        "Carrier",
        "--account",
        "AC1",
        "--json",
        "--inbound-allowed-address",
        "203.0.113.0/24",
        "--outbound-address",
        "sip.carrier.example",
        "--outbound-auth-username",
        "user",
        "--outbound-auth-password",
        PASSWORD,
    ]);
    assert!(!made.contains(PASSWORD));
    let made: Value = serde_json::from_str(&made).unwrap();
    let id = made["id"].as_str().unwrap();
    let path = format!("/core/trunks/{id}");
    assert_eq!(client.get(&path, &[]).await.unwrap().body, made, "--json shows the trunk as the API does");
    assert_eq!(client.put(&path, &json!({"name": "mine"})).await.unwrap_err().status(), Some(400));
    assert_eq!(client.delete(&path).await.unwrap_err().status(), Some(400));

    // What is not given is kept, the password included.
    let changed = place.answer(&[
        "managed-trunk",
        "update",
        id,
        "--org",
        &org,
        "--outbound-transport",
        "SIP_TRANSPORT_TCP",
        "--json",
        "--inbound-enable-noise-cancellation",
        "true",
    ]);
    let changed: Value = serde_json::from_str(&changed).unwrap();
    assert_eq!(changed["outbound_config"]["address"], "sip.carrier.example");
    assert_eq!(changed["outbound_config"]["transport"], "SIP_TRANSPORT_TCP");
    assert_eq!(changed["inbound_config"]["allowed_addresses"], json!(["203.0.113.0/24"]));

    place.answer(&["managed-trunk", "number", "add", "+14155550100", "--org", &org, "--trunk", id]);
    let number = client.get("/core/phone-numbers/14155550100", &[]).await.unwrap().body;
    assert_eq!(number["trunk_id"], made["id"]);
    assert_eq!(client.delete("/core/phone-numbers/14155550100").await.unwrap_err().status(), Some(400));
    let on_it = place.run(&["managed-trunk", "delete", id, "--org", &org]);
    assert_eq!(on_it.status.code(), Some(1), "numbers are on it");
    place.answer(&["managed-trunk", "number", "remove", "+14155550100", "--org", &org]);
    place.answer(&["managed-trunk", "delete", id, "--org", &org]);
    assert_eq!(client.get(&path, &[]).await.unwrap_err().status(), Some(404));
    drop(serving);
    for entry in walk(place.0.path()) {
        let bytes = std::fs::read(&entry).unwrap();
        assert!(!bytes.windows(PASSWORD.len()).any(|w| w == PASSWORD.as_bytes()), "{}", entry.display());
    }
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn the_store_is_worked_on_without_a_node() {
    let place = Place::new();
    let org: Value = serde_json::from_str(&place.answer(&["org", "create", "Acme", "--json"])).unwrap();
    assert_eq!(org["name"], "Acme");
    let id = org["id"].as_str().unwrap();
    assert!(place.answer(&["key", "create", "--org", id]).starts_with("ak_"));
    let nobody = "01960000-0000-7000-8000-000000000000";
    let output = place.run(&["key", "create", "--org", nobody]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(nobody));
    assert!(output.stdout.is_empty());
}

#[test]
fn the_doctor_finds_a_port_that_is_taken_and_a_key_that_others_may_read() {
    let place = Place::new();
    let held = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = format!("sip.udp={}", held.local_addr().unwrap());
    let common = ["doctor", "--json", "--set", "http.listen=127.0.0.1:0", "--set", "sip.tcp=127.0.0.1:0"];
    let doctor = |more: &[&str]| {
        let output = place.run(&[&common[..], more].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["ok"].as_bool(), Some(output.status.success()), "{report}");
        report
    };
    let state = |report: &Value, check: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|c| c["check"] == check).unwrap()["state"].as_str().unwrap().to_owned()
    };
    let sound = doctor(&["--set", "sip.udp=127.0.0.1:0"]);
    assert_eq!(sound["ok"], true, "{sound}");
    assert!(!place.0.path().join("tandem-data").exists(), "looking makes nothing");
    assert_eq!(state(&doctor(&["--set", &taken]), "sip.udp"), "fault");
    place.answer(&["org", "create", "Acme"]);
    let key = place.0.path().join("tandem-data/secret.key");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(state(&doctor(&["--set", "sip.udp=127.0.0.1:0"]), "secrets.key_file"), "fault");
    std::fs::remove_file(&key).unwrap();
    assert_eq!(state(&doctor(&["--set", "sip.udp=127.0.0.1:0"]), "store"), "fault");
}

#[tokio::test]
async fn an_organizations_rules_and_its_credentials_are_the_operators_too() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let org = place.answer(&["org", "create", "Acme"]);
    let key = place.answer(&["key", "create", "--org", &org, "--name", "ci"]);
    let client = serving.client(&key);
    let changed = place.answer(&[
        "org",
        "update",
        &org,
        "--sip-endpoint-allowed-address",
        "10.0.0.0/8,192.0.2.1",
        "--allowed-destination",
        "+1",
        "--daily-call-limit",
        "7",
        "--json",
    ]);
    let changed: Value = serde_json::from_str(&changed).unwrap();
    assert_eq!(client.get("/core/organization", &[]).await.unwrap().body, changed);
    assert_eq!(changed["sip_endpoint_allowed_addresses"], json!(["10.0.0.0/8", "192.0.2.1"]));
    let lifted = place.answer(&["org", "update", "--org", &org, "--daily-call-limit", "none", "--json"]);
    let lifted: Value = serde_json::from_str(&lifted).unwrap();
    assert_eq!(
        (&lifted["daily_call_limit"], &lifted["allowed_destinations"]),
        (&Value::Null, &json!(["+1"]))
    );
    let any = place.answer(&["org", "update", &org, "--allowed-destination", "", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&any).unwrap()["allowed_destinations"], Value::Null);
    for wrong in [["--allowed-destination", "1"], ["--sip-endpoint-allowed-address", "x"]] {
        let line = place.refusal(&mut place.tandem(&[&["org", "update", &org], &wrong[..]].concat()), 2);
        assert!(line.contains(wrong[0].trim_start_matches('-').split('-').next().unwrap()), "{line}");
    }
    let id = key.strip_prefix("ak_").unwrap().split('.').next().unwrap();
    assert!(place.answer(&["key", "list", "--org", &org]).contains("ci"));
    place.run(&["key", "revoke", id]);
    assert_eq!(client.get("/core/organization", &[]).await.unwrap_err().status(), Some(401));
    assert!(place.answer(&["key", "list", "--org", &org]).contains("revoked"));
    let token = place.answer(&["token", "create", "--user", "ada@example.net", "--org", &org]);
    let person = serving.client(&token).in_organization(org.parse().unwrap());
    assert!(person.get("/core/trunks", &[]).await.is_ok());
    assert!(place.answer(&["token", "list"]).contains("ada@example.net"));
    place.run(&["token", "revoke", token.strip_prefix("pat_").unwrap().split('.').next().unwrap()]);
    assert_eq!(person.get("/core/trunks", &[]).await.unwrap_err().status(), Some(401));
}
