//! `tandem trunk|number|agent|call`: the API from the shell.

use std::io::Write as _;
use std::process::{Command, Stdio};

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
fn routing_probes_limits_and_bodies_from_standard_input() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let (_, key) = (serving.answered(), serving.answered());
    let shell = Shell::new(&place, &serving, key);
    let piped = |arguments: &[&str], input: &str| -> Value {
        let mut command = shell.command(&[arguments, &["--json"]].concat());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let body = r#"{"name": "from a pipe", "outbound_config": {"address": "127.0.0.1:9", "auth_username": "u",
        "auth_password": "s3cr3t"}, "max_concurrent_calls": 3}"#;
    let trunk = piped(&["trunk", "create", "--data", "-", "--name", "Named"], body);
    assert_eq!((&trunk["name"], &trunk["max_concurrent_calls"]), (&"Named".into(), &3.into()));
    let id = trunk["id"].as_str().unwrap();
    let lifted = shell.json(&["trunk", "update", id, "--no-limits"]);
    assert_eq!(lifted.get("max_concurrent_calls"), None);
    shell.text(&["number", "create", "+14155550100", "--trunk", id]);
    let judged = ["trunk", "simulate", id, "--source", "127.0.0.1", "--to", "+14155550100"];
    assert_eq!(shell.json(&judged)["accepted"], false);
    let agent =
        shell.json(&["agent", "create", "--name", "A", "--agent-config", r#"{"runtime": {"type": "echo"}}"#]);
    let agent = agent["id"].as_str().unwrap();
    shell.text(&["agent", "publish", agent]);
    let rules = format!(r#"[{{"output": {{"agent_id": "{agent}"}}}}]"#);
    let routing = piped(&["routing", "set", "--rules", "-", "--timeout-ms", "700"], &rules);
    assert_eq!((&routing["enabled"], &routing["timeout_ms"]), (&true.into(), &700.into()));
    assert_eq!(shell.json(&judged)["agent_id"], agent);
    let routing = shell.json(&["routing", "set", "--fallback-agent", agent]);
    assert_eq!(routing["fallback_agent_id"], agent);
    assert_eq!(shell.json(&["routing", "set", "--no-fallback"])["fallback_agent_id"], Value::Null);
    assert!(shell.text(&["routing", "get"]).contains("workflow_definition.type"));
    shell.text(&["routing", "delete"]);
    let line = place.refusal(&mut shell.command(&["routing", "get"]), 1);
    assert!(line.contains("not found"), "{line}");
    assert_eq!(shell.json(&["trunk", "test", id])["reachable"], false);
    assert_eq!(shell.json(&["trunk", "health", id])["state"], "failing");
}

#[test]
fn a_call_is_watched_to_its_end() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let (_, key) = (serving.answered(), serving.answered());
    let shell = Shell::new(&place, &serving, key);
    let trunk = shell.json(&[
        "trunk",
        "create",
        "--name",
        "t",
        "--address",
        "127.0.0.1:9",
        "--username",
        "u",
        "--password",
        "p",
    ]);
    shell.text(&["number", "create", "+14155550100", "--trunk", trunk["id"].as_str().unwrap()]);
    let call = shell.json(&[
        "call",
        "place",
        "--agent-config",
        r#"{"runtime": {"type": "echo"}}"#,
        "--to",
        "+14155550199",
    ]);
    let id = call["id"].as_str().unwrap().to_owned();
    let watching = shell.command(&["call", "watch", &id, "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    shell.json(&["call", "end", &id]);
    let output = watching.wait_with_output().unwrap();
    assert!(output.status.success());
    let last = String::from_utf8(output.stdout).unwrap();
    let last: Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
    assert_eq!((&last["id"], &last["status"]), (&Value::from(id), &"cancelled".into()));
}

#[test]
fn help_and_completions_name_every_command() {
    let place = Place::new();
    let help = String::from_utf8(place.run(&["--help"]).stdout).unwrap();
    let script = String::from_utf8(place.run(&["completions", "bash"]).stdout).unwrap();
    for command in [
        "serve",
        "demo",
        "org",
        "key",
        "token",
        "managed-trunk",
        "trunk",
        "number",
        "agent",
        "call",
        "routing",
        "webhook",
        "doctor",
    ] {
        assert!(help.contains(&format!("\n  {command}")), "{command}: {help}");
        assert!(script.contains(command), "{command}");
    }
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
    let wrong = place.refusal(shell.command(&["trunk", "list"]).env("TANDEM_API_KEY", "ak_x.y"), 4);
    assert!(wrong.contains("token"), "{wrong}");
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
