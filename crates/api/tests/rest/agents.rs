//! Agents, versions, publish, deploy-as-sip.

use axum::http::Method;
use model::Scope;
use serde_json::{Value, json};

use crate::support::{TestApi, echo, presence};

const UNKNOWN: &str = "01960000-0000-7000-8000-000000000000";

#[tokio::test]
async fn an_agent_is_made_shown_changed_and_deleted() {
    let api = TestApi::start().await;
    let made = api.post("/core/agents", json!({"name": " Ann "})).await.expect(200);
    let path = format!("/core/agents/{}", made.id());
    assert_eq!(made.headers["location"], path);
    for (field, value) in [
        ("name", json!("Ann")),
        ("description", Value::Null),
        ("active", json!(true)),
        ("is_demo", json!(false)),
        ("metadata", json!({})),
    ] {
        assert_eq!(made.body[field], value, "{field}");
    }
    let shown = api.get(&path).await.expect(200).body;
    assert_eq!(shown["versions"], json!([]));
    assert_eq!(shown["phone_numbers"], json!([]));
    assert_eq!(shown["conversation_statistics"]["total"], 0);
    let change = json!({"description": "reception\nsecond line", "active": false, "metadata": {"team": "a", "n": {"x": [1]}}});
    let changed = api.put(&path, change).await.expect(200).body;
    assert_eq!(changed["name"], "Ann");
    assert_eq!(changed["active"], false);
    assert_eq!(changed["metadata"]["n"]["x"][0], 1);
    let cleared = api.put(&path, json!({"description": null, "metadata": null})).await.expect(200).body;
    assert_eq!((&cleared["description"], &cleared["metadata"]), (&Value::Null, &json!({})));
    for (field, bad) in [
        ("name", json!(null)),
        ("name", json!("")),
        ("active", json!(null)),
        ("is_demo", json!("yes")),
        ("metadata", json!([])),
        ("organization_id", json!(UNKNOWN)),
        ("description", json!("x".repeat(10_001))),
    ] {
        api.put(&path, json!({field: bad})).await.names(field);
        let mut body = json!({"name": "b"});
        body[field] = bad;
        if !(field == "active" && body[field].is_null()) {
            api.post("/core/agents", body).await.names(field);
        }
    }
    api.delete(&path).await.expect(204);
    assert_eq!(api.get(&path).await.expect(404).detail(), "Agent not found.");
}

#[tokio::test]
async fn agents_are_filtered() {
    let api = TestApi::start().await;
    api.post("/core/agents", json!({"name": "Ann", "metadata": {"team": "a", "tags": {"x": 1, "y": 2}}}))
        .await
        .expect(200);
    api.post("/core/agents", json!({"name": "Bob", "active": false, "is_demo": true})).await.expect(200);
    let count = |reply: Value| reply.as_array().unwrap().len();
    for (query, expected) in [
        ("active=true", 1),
        ("active=True", 1),
        ("active=0", 1),
        ("is_demo=true", 1),
        ("name=bO", 1),
        ("metadata=%7B%22team%22%3A%22a%22%7D", 1),
        ("metadata=%7B%22tags%22%3A%7B%22x%22%3A1%7D%7D", 1),
        ("metadata=%7B%22team%22%3A%22b%22%7D", 0),
        ("metadata=%7B%7D", 2),
    ] {
        assert_eq!(
            count(api.get(&format!("/core/agents?{query}")).await.expect(200).body),
            expected,
            "{query}"
        );
    }
    api.get("/core/agents?metadata=[]").await.names("metadata");
    api.get("/core/agents?active=maybe").await.names("active");
}

#[tokio::test]
async fn versions_are_drafted_changed_published_and_then_fixed() {
    let api = TestApi::start().await;
    let agent = api.post("/core/agents", json!({"name": "v"})).await.expect(200).id();
    let path = format!("/core/agents/{agent}/versions");
    api.get(&format!("{path}/latest")).await.expect(404);
    api.get(&format!("{path}/1")).await.expect(404);
    let first = api.post(&path, json!({"config": echo()})).await.expect(200);
    assert_eq!(first.headers["location"], format!("{path}/1"));
    assert_eq!((&first.body["version"], &first.body["published"]), (&json!(1), &json!(false)));
    assert_eq!(first.body["config"]["ring_timeout_s"], 60, "defaults are shown");
    for (body, field) in [
        (json!({}), "config"),
        (json!({"config": echo(), "base_version": 1}), "base_version"),
        (json!({"base_version": 0}), "base_version"),
        (json!({"base_version": "latest"}), "base_version"),
        (json!({"config": {"runtime": {"type": "sing"}}}), "config.runtime.type"),
        (json!({"config": {"runtime": {"type": "echo"}, "max_duration_s": 0}}), "config.max_duration_s"),
        (json!({"config": {"runtime": {"type": "play", "file": "../etc/passwd"}}}), "config.runtime.file"),
        (
            json!({"config": {"runtime": {"type": "echo"}, "voicemail_detection": {"timeout_s": 0}}}),
            "config.voicemail_detection.timeout_s",
        ),
        (json!({"config": echo(), "published": true}), "published"),
    ] {
        api.post(&path, body).await.names(field);
    }
    api.post(&path, json!({"base_version": 9})).await.expect(404);
    let play = json!({"runtime": {"type": "play", "tones": [{"hz": 440.0, "ms": 500}], "repeat": true}});
    let changed = api.put(&format!("{path}/1"), json!({"config": play})).await.expect(200).body;
    assert_eq!(changed["config"]["runtime"]["tones"][0]["hz"], 440.0);
    api.put(&format!("{path}/1"), json!({})).await.names("config");
    api.post(&format!("{path}/1/publish"), json!({})).await.expect(200);
    api.put(&format!("{path}/1"), json!({"config": echo()})).await.expect(400);
    // With agents:read alone nothing is made.
    let reader = api.key(&[Scope::AgentsRead]).await;
    let newest = api.as_key(&reader, Method::GET, &format!("{path}/latest"), None).await.expect(200).body;
    assert_eq!((&newest["version"], &newest["published"]), (&json!(1), &json!(true)));
    let draft = api.get(&format!("{path}/latest")).await.expect(200).body;
    assert_eq!((&draft["version"], &draft["published"]), (&json!(2), &json!(false)));
    assert_eq!(draft["config"], changed["config"]);
    assert_eq!(
        api.get(&format!("{path}/latest")).await.expect(200).body["version"],
        2,
        "one draft is enough"
    );
    let based = api.post(&path, json!({"base_version": 1})).await.expect(200).body;
    assert_eq!((&based["version"], &based["config"]), (&json!(3), &changed["config"]));
    let count = |reply: Value| reply.as_array().unwrap().len();
    for (query, expected) in
        [("", 3), ("?published=true", 1), ("?published=false", 2), ("?version=2", 1), ("?version=9", 0)]
    {
        assert_eq!(count(api.get(&format!("{path}{query}")).await.expect(200).body), expected, "{query}");
    }
    api.get(&format!("{path}/newest")).await.names("version");
    assert_eq!(
        count(api.get(&format!("/core/agents/{agent}")).await.expect(200).body["versions"].clone()),
        3
    );
}

#[tokio::test]
async fn publish_writes_the_slots_all_or_nothing() {
    let api = TestApi::start().await;
    let trunk = api.trunk("t").await;
    for number in ["+14155550100", "+14155550101"] {
        api.number(number, &trunk).await;
    }
    let agent = api.published_agent("a").await;
    let publish = format!("/core/agents/{agent}/versions/1/publish");
    let version = api.get(&format!("/core/agents/{agent}/versions/1")).await.expect(200).id();
    let body = json!({"phone_numbers": ["+14155550100", "+14155550100"]});
    let numbers = api.post(&publish, body).await.expect(200).body;
    assert_eq!(numbers.as_array().unwrap().len(), 1, "each number once");
    assert_eq!(numbers[0]["inbound_agent_version_id"], version);
    assert_eq!(numbers[0]["outbound_agent_version_id"], Value::Null);
    let body = json!({"phone_numbers": ["+14155550101", "+14155559999"], "direction": "both"});
    api.post(&publish, body).await.expect(404);
    let untouched = api.get("/core/phone-numbers/14155550101").await.expect(200).body;
    assert_eq!(untouched["inbound_agent_version_id"], Value::Null);
    api.post(&publish, json!({"phone_numbers": ["+14155550101"], "direction": "outbound"})).await.expect(200);
    let other = api.published_agent("b").await;
    let theirs = format!("/core/agents/{other}/versions/1/publish");
    api.post(&theirs, json!({"unassign_phone_numbers": ["+14155550100"]})).await.expect(200);
    let held = api.get("/core/phone-numbers/14155550100").await.expect(200).body;
    assert_eq!(held["inbound_agent_version_id"], version, "another agent's slot is not cleared");
    api.delete(&format!("/core/agents/{agent}")).await.expect(409);
    let shown = api.get(&format!("/core/agents/{agent}")).await.expect(200).body;
    assert_eq!(shown["phone_numbers"].as_array().unwrap().len(), 2);
    let body = json!({"unassign_phone_numbers": ["+14155550100", "+14155550101"], "direction": "both"});
    api.post(&publish, body).await.expect(200);
    api.delete(&format!("/core/agents/{agent}")).await.expect(204);
    for (body, field) in [
        (json!({"direction": "up"}), "direction"),
        (json!({"phone_numbers": ["x"]}), "phone_numbers.0"),
        (json!({"phone_numbers": "x"}), "phone_numbers"),
        (json!({"numbers": []}), "numbers"),
    ] {
        api.post(&theirs, body).await.names(field);
    }
    api.post(&format!("/core/agents/{other}/versions/7/publish"), json!({})).await.expect(404);
    // Publishing again, without a body at all, is allowed.
    api.as_key(&api.key, Method::POST, &theirs, None).await.expect(200);
}

#[tokio::test]
async fn deploy_as_sip_needs_a_published_version_and_is_idempotent() {
    let api = TestApi::start().await;
    let unknown = format!("/core/agents/{UNKNOWN}/deploy-as-sip");
    api.as_key(&api.key, Method::POST, &unknown, None).await.expect(404);
    let agent = api.post("/core/agents", json!({"name": "s"})).await.expect(200).id();
    let path = format!("/core/agents/{agent}");
    let deploy = format!("{path}/deploy-as-sip");
    api.as_key(&api.key, Method::POST, &deploy, None).await.expect(409);
    api.post(&format!("{path}/versions"), json!({"config": echo()})).await.expect(200);
    api.as_key(&api.key, Method::POST, &deploy, None).await.expect(409);
    let uri = format!("sip:{agent}@sip.example.net");
    assert_eq!(api.get(&path).await.body["sip_endpoint"], json!({"uri": uri, "deployed": false}));
    api.as_key(&api.key, Method::POST, &format!("{path}/versions/1/publish"), None).await.expect(200);
    for _ in 0..2 {
        let deployed = api.as_key(&api.key, Method::POST, &deploy, None).await.expect(200).body;
        assert_eq!(deployed, json!({"uri": uri, "deployed": true}));
    }
    assert_eq!(api.get(&path).await.body["sip_endpoint"]["deployed"], true);
    api.cluster.set_sip_presence(None);
    assert_eq!(api.get(&path).await.body["sip_endpoint"], Value::Null);
    api.cluster.set_sip_presence(Some(presence()));
    for _ in 0..2 {
        api.delete(&deploy).await.expect(204);
    }
    assert_eq!(api.get(&path).await.body["sip_endpoint"]["deployed"], false);
    api.delete(&unknown).await.expect(404);
}

#[tokio::test]
async fn the_config_schema_stands_alone() {
    let api = TestApi::start().await;
    let schema = api.get("/core/agent-config-schema").await.expect(200);
    assert_eq!(schema.body["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema.body["required"], json!(["runtime"]));
    assert_eq!(schema.body["additionalProperties"], false);
    assert!(!schema.text.contains("#/components/"));
    for reference in schema.text.split("#/$defs/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schema.body["$defs"].get(name).is_some(), "{name}");
    }
}
