//! What limits an organization and its trunks, and what carriers ask of a trunk.

use std::num::NonZeroU32;

use cluster::CallError;
use serde_json::{Value, json};

use crate::support::{CANARY, TestApi, echo, outbound};

fn call(to: &str) -> Value {
    json!({"channel": "telephone", "user_id": to, "agent_config": echo()})
}

async fn ready() -> TestApi {
    let api = TestApi::start().await;
    let trunk = api.trunk("t").await;
    api.number("+14155550100", &trunk).await;
    api
}

#[tokio::test]
async fn destinations_are_the_organizations_to_allow() {
    let api = ready().await;
    let path = "/core/organization";
    api.patch(path, json!({"allowed_destinations": ["+1", "+4420"]})).await.expect(200);
    api.post("/core/conversations", call("+14155550199")).await.expect(202);
    api.post("/core/conversations", call("+442055501")).await.expect(202);
    let refused = api.post("/core/conversations", call("+4930123456")).await.expect(403);
    assert!(refused.detail().contains("allowed_destinations"), "{}", refused.detail());
    let trunk = api.get("/core/trunks").await.body[0]["id"].as_str().unwrap().to_owned();
    let decisions = api.get(&format!("/core/trunks/{trunk}/decisions")).await.expect(200).body;
    assert_eq!(decisions[0]["reason"], "destination_not_allowed");
    assert_eq!(decisions[0]["to_number"], "+4930123456");
    assert_eq!(api.get("/core/conversations").await.body.as_array().unwrap().len(), 2);
    api.patch(path, json!({"allowed_destinations": ["1"]})).await.names("allowed_destinations.0");
    api.patch(path, json!({"allowed_destinations": []})).await.expect(200);
    api.post("/core/conversations", call("+4930123456")).await.expect(202);
}

#[tokio::test]
async fn a_transfer_is_a_call_out_too() {
    let api = ready().await;
    let placed = api.post("/core/conversations", call("+14155550199")).await.expect(202);
    let id = placed.body["conversation"]["id"].as_str().unwrap().to_owned();
    let path = format!("/core/conversations/{id}/transfer");
    let rules = json!({"allowed_destinations": ["+1"], "daily_call_limit": 2});
    api.patch("/core/organization", rules).await.expect(200);
    for to in [
        "+4930123456",
        "sip:+4930123456@sip.carrier.example:5080",
        "sip:004930123456@sip.carrier.example:5080",
    ] {
        let refused = api.post(&path, json!({"to": to})).await.expect(403);
        assert!(refused.detail().contains("allowed_destinations"), "{to}: {}", refused.detail());
    }
    api.post(&path, json!({"to": "sip:1001@sip.carrier.example:5080"})).await.expect(202);
    api.post(&path, json!({"to": "+14155550198"})).await.expect(202);
    api.post(&path, json!({"to": "+14155550198"})).await.expect(429);
    assert_eq!(api.edge.lock().unwrap().transferred.len(), 2);
}

#[tokio::test]
async fn the_daily_limit_is_exact_under_races() {
    let api = std::sync::Arc::new(ready().await);
    api.patch("/core/organization", json!({"daily_call_limit": 7})).await.expect(200);
    let tasks: Vec<_> = (0..30)
        .map(|n| {
            let api = std::sync::Arc::clone(&api);
            tokio::spawn(async move {
                let reply = api.post("/core/conversations", call(&format!("+141555502{n:02}"))).await;
                reply.status.as_u16()
            })
        })
        .collect();
    let mut placed = 0;
    for task in tasks {
        match task.await.unwrap() {
            202 => placed += 1,
            429 => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(placed, 7);
    let late = api.post("/core/conversations", call("+14155550299")).await.expect(429);
    let wait: u64 = late.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&wait), "{wait}");
    assert!(late.detail().contains("daily_call_limit"));
    api.patch("/core/organization", json!({"daily_call_limit": null})).await.expect(200);
    api.post("/core/conversations", call("+14155550300")).await.expect(202);
}

#[tokio::test]
async fn health_counts_every_open_call_and_tells_the_last_probe() {
    let api = ready().await;
    let trunk = api.get("/core/trunks").await.body[0]["id"].as_str().unwrap().to_owned();
    let path = format!("/core/trunks/{trunk}/health");
    let health = api.get(&path).await.expect(200).body;
    assert_eq!((&health["state"], &health["last_probe"]), (&json!("unknown"), &Value::Null));
    for n in 0..120 {
        api.post("/core/conversations", call(&format!("+1415555{n:04}"))).await.expect(202);
    }
    api.as_key(&api.key, axum::http::Method::POST, &format!("/core/trunks/{trunk}/test"), None)
        .await
        .expect(200);
    let health = api.get(&path).await.expect(200).body;
    assert_eq!(health["active_calls"], 120);
    assert_eq!(health["state"], "failing");
    assert_eq!(health["since"], health["last_probe"]["since"]);
    assert_eq!(health["last_probe"]["detail"], "silent");
    assert_eq!(health["last_error"]["reason"], "no_answer_to_options");
}

#[tokio::test]
async fn a_full_trunk_is_409_and_the_call_is_on_record() {
    let api = ready().await;
    api.edge.lock().unwrap().refuse = Some(CallError::TrunkFull);
    let refused = api.post("/core/conversations", call("+14155550199")).await.expect(409);
    assert!(refused.detail().contains("max_concurrent_calls"));
    let calls = api.get("/core/conversations").await.expect(200);
    assert_eq!(calls.body[0]["status"], "failed");
    assert_eq!(calls.body[0]["reason"], "trunk_limit");
}

#[tokio::test]
async fn a_trunk_keeps_everything_carriers_ask_and_shows_no_password() {
    let api = TestApi::start().await;
    let mut config = outbound();
    config["register"] = json!(true);
    config["fallback_addresses"] = json!(["b.carrier.example", "[2001:db8::1]:5070"]);
    config["headers"] = json!({"X-Account": "7", "P-Charging-Vector": "icid-value=1"});
    let body = json!({
        "name": "t",
        "inbound_config": {"auth_username": "carrier", "auth_password": CANARY, "media_addresses": ["198.51.100.0/24", ""]},
        "outbound_config": config, "max_concurrent_calls": 30, "max_calls_per_second": 5
    });
    let made = api.post("/core/trunks", body).await.expect(200);
    let path = format!("/core/trunks/{}", made.id());
    let shown = api.get(&path).await.expect(200);
    assert_eq!(shown.text, made.text);
    assert_eq!(shown.body["inbound_config"]["auth_username"], "carrier");
    assert_eq!(shown.body["inbound_config"]["media_addresses"], json!(["198.51.100.0/24"]));
    assert_eq!(shown.body["outbound_config"]["register"], true);
    assert_eq!(shown.body["outbound_config"]["fallback_addresses"][1], "[2001:db8::1]:5070");
    assert_eq!(shown.body["outbound_config"]["headers"]["X-Account"], "7");
    assert_eq!(
        (&shown.body["max_concurrent_calls"], &shown.body["max_calls_per_second"]),
        (&json!(30), &json!(5))
    );
    assert!(!String::from_utf8_lossy(&api.files()).contains(CANARY));
    // Left out stays, null clears.
    let kept = api.put(&path, json!({"max_calls_per_second": null})).await.expect(200);
    assert_eq!(kept.body["max_concurrent_calls"], 30);
    assert!(kept.body.get("max_calls_per_second").is_none());
    let replaced = api.put(&path, json!({"inbound_config": {}})).await.expect(200);
    assert!(replaced.body["inbound_config"].get("auth_username").is_none());
    for (body, field) in [
        (json!({"inbound_config": {"auth_username": "x"}}), "inbound_config.auth_password"),
        (json!({"inbound_config": {"auth_password": "x"}}), "inbound_config.auth_username"),
        (
            json!({"inbound_config": {"auth_username": "", "auth_password": "x"}}),
            "inbound_config.auth_username",
        ),
        (json!({"inbound_config": {"media_addresses": ["x"]}}), "inbound_config.media_addresses.0"),
        (json!({"max_concurrent_calls": 0}), "max_concurrent_calls"),
        (json!({"max_calls_per_second": -1}), "max_calls_per_second"),
    ] {
        api.put(&path, body).await.names(field);
    }
    for (field, value) in [
        ("fallback_addresses.0", json!(["sip:x"])),
        ("headers.Via", json!({"Via": "x"})),
        ("headers.v", json!({"v": "x"})),
        ("headers.X-A", json!({"X-A": "a\r\nB: c"})),
        ("headers.X A", json!({"X A": "a"})),
        ("headers.X-A", json!({"X-A": 7})),
    ] {
        let mut config = outbound();
        config[field.split('.').next().unwrap()] = value;
        api.put(&path, json!({"outbound_config": config})).await.names(&format!("outbound_config.{field}"));
    }
}

#[tokio::test]
async fn every_answer_to_a_credential_tells_its_rate_limit() {
    let api = TestApi::start_with(|setup| setup.rate = NonZeroU32::new(2)).await;
    let first = api.get("/core/trunks").await.expect(200);
    assert_eq!(first.headers["ratelimit-limit"], "2");
    assert_eq!(first.headers["ratelimit-remaining"], "1");
    api.get("/core/trunks").await.expect(200);
    let limited = api.get("/core/trunks").await.expect(429);
    assert_eq!(limited.headers["ratelimit-remaining"], "0");
    assert!(limited.headers.contains_key("retry-after") && limited.headers.contains_key("ratelimit-reset"));
}

#[tokio::test]
async fn a_simulation_takes_addresses_in_every_form() {
    let api = ready().await;
    let trunk = api.get("/core/trunks").await.body[0]["id"].as_str().unwrap().to_owned();
    let path = format!("/core/trunks/{trunk}/simulate");
    for source in ["203.0.113.7", "203.0.113.7:5060", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:5060"] {
        let body = json!({"source": source, "from": "+1", "to": "+14155550100"});
        let reply = api.post(&path, body).await.expect(200);
        assert_eq!(reply.body["status"], 404);
        assert_eq!(reply.body["steps"][0]["rule"], "number");
    }
    api.post(&path, json!({"source": "carrier", "from": "", "to": ""})).await.names("source");
    api.post(&path, json!({"source": "::1", "from": "a\r\n", "to": ""})).await.names("from");
    let test = api.post(&format!("/core/trunks/{trunk}/test"), json!({})).await;
    test.expect(200);
    let (_, other) = api.other_organization().await;
    let body = json!({"source": "::1", "from": "", "to": ""});
    api.as_key(&other, axum::http::Method::POST, &path, Some(&body)).await.expect(404);
}
