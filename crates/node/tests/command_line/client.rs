//! `tandem trunk|number|agent|call`: the API from the shell.

use std::process::Command;

use serde_json::Value;

use crate::support::{Place, Serving};

struct Shell<'a> {
    place: &'a Place,
    url: String,
    key: String,
}

impl<'a> Shell<'a> {
    fn new(place: &'a Place, serving: &Serving, key: String) -> Self {
        Self { place, url: format!("http://{}", serving.http), key }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.tandem(arguments);
        command.env("TANDEM_URL", &self.url).env("TANDEM_API_KEY", &self.key);
        command
    }

    #[track_caller]
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[arguments, &["--json"]].concat())).unwrap()
    }
}

#[test]
fn a_trunk_a_number_and_an_agent_are_made_shown_and_taken_down() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let (_, key) = (serving.answered(), serving.answered());
    let shell = Shell::new(&place, &serving, key);
    let trunk = shell.json(&[
        "trunk",
        "create",
        "--name",
        "Carrier",
        "--allow",
        "127.0.0.1",
        "--address",
        "127.0.0.1:9",
        "--username",
        "u",
        "--password",
        "s3cr3t",
    ]);
    assert!(!trunk.to_string().contains("s3cr3t"));
    let id = trunk["id"].as_str().unwrap();
    assert!(shell.text(&["trunk", "list"]).contains("127.0.0.1:9"));
    assert_eq!(shell.json(&["trunk", "update", id, "--name", "Other"])["name"], "Other");
    assert_eq!(shell.json(&["trunk", "update", id, "--no-inbound"])["inbound_config"], Value::Null);
    shell.text(&["number", "create", "14155550100", "--trunk", id]);

    let agent = shell.json(&[
        "agent",
        "create",
        "--name",
        "Echo",
        "--agent-config",
        r#"{"runtime": {"type": "echo"}}"#,
    ]);
    let agent = agent["id"].as_str().unwrap();
    let numbers = shell.json(&["agent", "publish", agent, "--number", "+14155550100", "--direction", "both"]);
    assert_eq!(numbers[0]["phone_number"], "+14155550100");
    let version = &shell.json(&["agent", "versions", agent])[0];
    assert_eq!(numbers[0]["inbound_agent_version_id"], version["id"]);
    let endpoint = shell.json(&["agent", "deploy", agent]);
    assert_eq!(endpoint["uri"], format!("sip:{agent}@{}", serving.udp));
    assert!(shell.text(&["agent", "get", agent]).contains("sip_endpoint.uri"));

    let call = shell.json(&["call", "place", "--agent", agent, "--to", "14155550199"]);
    let call = call["id"].as_str().unwrap();
    assert_eq!(shell.json(&["call", "end", call])["id"], call);
    assert_eq!(shell.json(&["call", "list", "--direction", "outbound"]).as_array().unwrap().len(), 1);
    shell.text(&["agent", "undeploy", agent]);
    shell.text(&["number", "delete", "14155550100"]);
    shell.text(&["trunk", "delete", id]);
    assert_eq!(shell.json(&["trunk", "list"]), Value::Array(Vec::new()));
}

#[test]
fn what_the_api_refuses_is_one_line_and_status_1() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let (_, key) = (serving.answered(), serving.answered());
    let shell = Shell::new(&place, &serving, key);
    let nobody = "01960000-0000-7000-8000-000000000000";
    let line = place.refusal(&mut shell.command(&["trunk", "get", nobody]), 1);
    assert!(line.contains("not found"), "{line}");
    let line =
        place.refusal(&mut shell.command(&["trunk", "create", "--name", "x", "--allow", "nowhere"]), 1);
    assert!(line.contains("inbound_config.allowed_addresses.0"), "{line}");
    let line = place.refusal(shell.command(&["trunk", "list"]).env_remove("TANDEM_API_KEY"), 2);
    assert!(line.contains("TANDEM_API_KEY"), "{line}");
    let line = place.refusal(shell.command(&["trunk", "list"]).env("TANDEM_URL", "http://127.0.0.1:1"), 1);
    assert!(line.contains("http://127.0.0.1:1"), "{line}");
}

#[test]
fn a_list_is_read_page_by_page() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let (_, key) = (serving.answered(), serving.answered());
    let client = serving.client(&key);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for n in 0..105 {
            client.post("/core/agents", Some(&serde_json::json!({"name": format!("a{n}")}))).await.unwrap();
        }
    });
    let shell = Shell::new(&place, &serving, key);
    assert_eq!(shell.json(&["agent", "list", "--limit", "103"]).as_array().unwrap().len(), 103);
    assert_eq!(shell.json(&["agent", "list", "--limit", "1000"]).as_array().unwrap().len(), 105);
}
