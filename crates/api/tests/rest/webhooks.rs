//! Where organizations hear of their calls, and the outbox behind it.

use std::collections::HashMap;

use model::Timestamp;
use serde_json::{Value, json};
use store::{Attempted, Due};

use crate::support::{TestApi, echo};

const PATH: &str = "/core/webhooks";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Any lease: nothing here waits for its end.
const LEASE: i64 = 60_000_000;

async fn webhook(api: &TestApi, body: Value) -> String {
    api.post(PATH, body).await.expect(200).id()
}

async fn due(api: &TestApi) -> Vec<Due> {
    api.store.take_due(100, &HashMap::new(), LEASE).await.unwrap()
}

async fn call(api: &TestApi, to: &str) -> String {
    let body = json!({"channel": "telephone", "user_id": to, "agent_config": echo(),
        "initial_context": {"secret": "context"}});
    let placed = api.post("/core/conversations", body).await.expect(202);
    placed.body["conversation"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_webhook_is_made_changed_and_deleted_and_its_secret_shown_once() {
    let api = TestApi::start().await;
    let made = api.post(PATH, json!({"url": "https://crm.example/x?y=1"})).await.expect(200);
    let secret = made.body["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_") && made.body["enabled"] == true && made.body["events"].is_null());
    let path = format!("{PATH}/{}", made.id());
    assert_eq!(made.headers["location"], path);
    let shown = api.get(&path).await.expect(200);
    assert!(!shown.text.contains(&secret) && shown.body.get("secret").is_none());
    assert!(!String::from_utf8_lossy(&api.files()).contains(&secret));
    let given = api.post(PATH, json!({"url": "https://a.example", "secret": SECRET})).await.expect(200);
    assert!(given.body.get("secret").is_none());
    let events = json!(["conversation.failed", "conversation.completed", "conversation.failed"]);
    let changed = api.patch(&path, json!({"events": events, "enabled": false})).await.expect(200);
    assert_eq!(changed.body["events"], json!(["conversation.completed", "conversation.failed"]));
    assert_eq!(changed.body["url"], "https://crm.example/x?y=1");
    assert!(api.patch(&path, json!({"events": null})).await.expect(200).body["events"].is_null());
    assert_eq!(api.get(PATH).await.expect(200).body.as_array().unwrap().len(), 2);
    for (body, field) in [
        (json!({"url": "ftp://x"}), "url"),
        (json!({"url": "https://u@x/"}), "url"),
        (json!({"url": "http://169.254.169.254/"}), "url"),
        (json!({"url": "https://x/", "secret": "whsec_c2hvcnQ="}), "secret"),
        (json!({"url": "https://x/", "events": []}), "events"),
        (json!({"url": "https://x/", "events": ["call.made"]}), "events.0"),
        (json!({"enabled": true}), "url"),
    ] {
        api.post(PATH, body).await.names(field);
    }
    api.delete(&path).await.expect(204);
    api.get(&path).await.expect(404);
    api.delete(&path).await.expect(404);
}

#[tokio::test]
async fn each_change_of_a_call_is_told_once_to_each_who_wants_it() {
    let api = TestApi::start().await;
    let trunk = api.trunk("t").await;
    api.number("+14155550100", &trunk).await;
    let all = webhook(&api, json!({"url": "https://all.example/"})).await;
    let ends =
        webhook(&api, json!({"url": "https://ends.example/", "events": ["conversation.cancelled"]})).await;
    webhook(&api, json!({"url": "https://off.example/", "enabled": false})).await;
    let (_, other) = api.other_organization().await;
    let foreign = json!({"url": "https://other.example/"});
    api.as_key(&other, axum::http::Method::POST, PATH, Some(&foreign)).await.expect(200);
    let id = call(&api, "+14155550199").await;
    api.as_key(&api.key, axum::http::Method::POST, &format!("/core/conversations/{id}/end"), None)
        .await
        .expect(200);
    let told = due(&api).await;
    let mut seen: Vec<(String, String)> =
        told.iter().map(|due| (due.webhook.id.to_string(), due.delivery.event.as_str().to_owned())).collect();
    seen.sort();
    let mut expected = vec![
        (all.clone(), "conversation.triggered".to_owned()),
        (all.clone(), "conversation.cancelled".to_owned()),
        (ends.clone(), "conversation.cancelled".to_owned()),
    ];
    expected.sort();
    assert_eq!(seen, expected);
    let event = api::event_json(&told[0], None);
    assert_eq!(event["data"]["id"], id);
    assert!(event["type"].as_str().unwrap().starts_with("conversation."));
    assert!(!event.to_string().contains("secret"), "sensitive fields are not told: {event}");
    assert!(due(&api).await.is_empty(), "what is under way is nobody else's");
}

#[tokio::test]
async fn what_fails_is_tried_again_then_dead_then_tried_anew_by_hand() {
    let api = TestApi::start().await;
    let id = webhook(&api, json!({"url": "https://hook.example/"})).await;
    let path = format!("{PATH}/{id}");
    let post = async |path: String| api.as_key(&api.key, axum::http::Method::POST, &path, None).await;
    let test = post(format!("{path}/test")).await.expect(200);
    assert_eq!((&test.body["state"], &test.body["event"]), (&json!("pending"), &json!("webhook.test")));
    let taken = due(&api).await.pop().unwrap();
    assert_eq!(taken.delivery.attempts, 1);
    let failed = |again| Attempted::Failed { status: Some(500), error: "x".to_owned(), again, gone: false };
    api.store.attempted(&taken.delivery, failed(Some(Timestamp::now()))).await.unwrap();
    let taken = due(&api).await.pop().unwrap();
    assert_eq!(taken.delivery.attempts, 2);
    api.store.attempted(&taken.delivery, failed(None)).await.unwrap();
    assert!(due(&api).await.is_empty());
    let dead = api.get(&format!("{path}/deliveries?state=dead")).await.expect(200).body;
    assert_eq!((&dead[0]["http_status"], &dead[0]["error"]), (&json!(500), &json!("x")));
    assert!(dead[0]["due_at"].is_null());
    let delivery = dead[0]["id"].as_str().unwrap().to_owned();
    let retried = post(format!("{path}/deliveries/{delivery}/retry")).await.expect(200);
    assert_eq!((&retried.body["state"], &retried.body["attempts"]), (&json!("pending"), &json!(0)));
    let taken = due(&api).await.pop().unwrap();
    api.store.attempted(&taken.delivery, Attempted::Delivered { status: 204 }).await.unwrap();
    let delivered = api.get(&format!("{path}/deliveries?state=delivered")).await.expect(200).body;
    assert_eq!((&delivered[0]["id"], &delivered[0]["error"]), (&json!(delivery), &Value::Null));
    // An endpoint that is gone is told nothing more.
    post(format!("{path}/test")).await.expect(200);
    let taken = due(&api).await.pop().unwrap();
    let gone = Attempted::Failed { status: Some(410), error: "x".to_owned(), again: None, gone: true };
    api.store.attempted(&taken.delivery, gone).await.unwrap();
    assert_eq!(api.get(&path).await.expect(200).body["enabled"], false);
    post(format!("{path}/test")).await.expect(409);
    api.get(&format!("{path}/deliveries?state=lost")).await.names("state");
}

#[tokio::test]
async fn a_refused_call_is_told_with_its_decision() {
    let api = TestApi::start().await;
    let trunk = api.trunk("t").await;
    api.number("+14155550100", &trunk).await;
    webhook(&api, json!({"url": "https://hook.example/", "events": ["call.refused"]})).await;
    api.patch("/core/organization", json!({"allowed_destinations": ["+1"]})).await.expect(200);
    let body = json!({"channel": "telephone", "user_id": "+4930123456", "agent_config": echo()});
    api.post("/core/conversations", body).await.expect(403);
    let told = due(&api).await;
    let event = api::event_json(&told[0], None);
    assert_eq!(event["type"], "call.refused");
    assert_eq!(event["data"]["reason"], "destination_not_allowed");
}
