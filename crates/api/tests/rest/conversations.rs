//! Placing, showing and ending calls.

use axum::http::Method;
use cluster::CallError;
use model::{ConversationId, ConversationStatus, RecordStep, Scope, Timestamp};
use serde_json::{Value, json};

use crate::support::{TestApi, echo};

/// An agent with a number on a trunk whose outbound slot it holds.
async fn ready() -> (TestApi, String) {
    let api = TestApi::start().await;
    let trunk = api.trunk("t").await;
    api.number("+14155550100", &trunk).await;
    let agent = api.published_agent("Ann").await;
    let body = json!({"phone_numbers": ["+14155550100"], "direction": "both"});
    api.post(&format!("/core/agents/{agent}/versions/1/publish"), body).await.expect(200);
    (api, agent)
}

fn call(agent: &str) -> Value {
    json!({"channel": "telephone", "user_id": "+4930123456", "agent_id": agent})
}

#[tokio::test]
async fn a_call_is_handed_to_the_edge_and_answered_with_202() {
    let (api, agent) = ready().await;
    let mut body = call(&agent);
    body["initial_context"] = json!({"order": 7});
    body["custom_metadata"] = json!({"k": "v"});
    let placed = api.post("/core/conversations", body).await.expect(202);
    assert_eq!(placed.body["starting_message"], Value::Null);
    let conversation = &placed.body["conversation"];
    let id = conversation["id"].as_str().unwrap();
    assert_eq!(placed.headers["location"], format!("/core/conversations/{id}"));
    for (field, value) in [
        ("direction", json!("outbound")),
        ("channel", json!("telephone")),
        ("status", json!("triggered")),
        ("user_id", json!("+4930123456")),
        ("agent_number", json!("+14155550100")),
        ("agent_id", json!(agent)),
        ("agent", json!({"id": agent, "name": "Ann"})),
        ("duration", Value::Null),
        ("initial_context", json!({"order": 7})),
    ] {
        assert_eq!(conversation[field], value, "{field}");
    }
    let placed = api.edge.lock().unwrap().placed.clone();
    assert_eq!(placed.len(), 1);
    assert_eq!(placed[0].0.id.to_string(), id);
    assert_eq!(&api.get(&format!("/core/conversations/{id}")).await.expect(200).body, conversation);
}

#[tokio::test]
async fn a_call_names_its_channel_callee_and_one_speaker() {
    let (api, agent) = ready().await;
    let version = api.get(&format!("/core/agents/{agent}/versions/1")).await.expect(200).id();
    let with = |change: Value| {
        let mut body = call(&agent);
        for (field, value) in change.as_object().unwrap() {
            match value {
                Value::Null => drop(body.as_object_mut().unwrap().remove(field)),
                value => body[field] = value.clone(),
            }
        }
        body
    };
    for (change, field) in [
        (json!({"channel": "web"}), "channel"),
        (json!({"channel": null}), "channel"),
        (json!({"user_id": "4930123456"}), "user_id"),
        (json!({"user_id": "+49\r\nX: 1"}), "user_id"),
        (json!({"user_id": null}), "user_id"),
        (json!({"agent_id": null}), "agent_id"),
        (json!({"agent_version_id": version}), "agent_id"),
        (json!({"agent_config": echo()}), "agent_id"),
        (json!({"agent_id": null, "agent_version_id": version, "agent_config": echo()}), "agent_version_id"),
        (json!({"agent_id": null, "agent_version_id": version, "version": 1}), "version"),
        (json!({"version": 0}), "version"),
        (json!({"agent_id": null, "agent_config": {"runtime": {}}}), "agent_config.runtime.type"),
        (json!({"agent_number": "100"}), "agent_number"),
        (json!({"initial_context": "x"}), "initial_context"),
        (json!({"custom_metadata": []}), "custom_metadata"),
        (json!({"status": "completed"}), "status"),
    ] {
        api.post("/core/conversations", with(change)).await.names(field);
    }
    let unknown = "01960000-0000-7000-8000-000000000000";
    api.post("/core/conversations", with(json!({"agent_id": unknown}))).await.expect(404);
    api.post("/core/conversations", with(json!({"agent_id": null, "agent_version_id": unknown})))
        .await
        .expect(404);
    api.post("/core/conversations", with(json!({"version": 9}))).await.expect(404);
    api.post("/core/conversations", with(json!({"agent_number": "+14155559999"}))).await.expect(400);
    assert!(api.edge.lock().unwrap().placed.is_empty());
    for good in [
        json!({}),
        json!({"version": 1}),
        json!({"agent_id": null, "agent_version_id": version}),
        json!({"agent_id": null, "agent_config": echo(), "agent_number": "+14155550100"}),
        json!({"agent_number": "+14155550100"}),
    ] {
        api.post("/core/conversations", with(good)).await.expect(202);
    }
    let inline = api.edge.lock().unwrap().placed[3].0.clone();
    assert_eq!((inline.agent_id, inline.agent_version_id), (None, None));
}

#[tokio::test]
async fn an_agent_without_a_published_version_or_number_places_no_call() {
    let api = TestApi::start().await;
    let agent = api.post("/core/agents", json!({"name": "a"})).await.expect(200).id();
    api.post("/core/conversations", call(&agent)).await.expect(400);
    let agent = api.published_agent("b").await;
    api.post("/core/conversations", call(&agent)).await.expect(400);
}

#[tokio::test]
async fn a_trunk_without_outbound_config_places_no_call() {
    let (api, agent) = ready().await;
    let trunk = api.get("/core/trunks").await.body[0]["id"].as_str().unwrap().to_owned();
    api.put(&format!("/core/trunks/{trunk}"), json!({"outbound_config": null})).await.expect(200);
    let refused = api.post("/core/conversations", call(&agent)).await.expect(400);
    assert!(refused.detail().contains("outbound_config"), "{}", refused.detail());
}

#[tokio::test]
async fn a_call_the_edge_refuses_is_on_record_as_failed() {
    let (api, agent) = ready().await;
    for error in [CallError::Busy, CallError::Down] {
        api.edge.lock().unwrap().refuse = Some(error);
        api.post("/core/conversations", call(&agent)).await.expect(503);
    }
    let failed = api.get("/core/conversations?status=failed").await.expect(200).body;
    assert_eq!(failed.as_array().unwrap().len(), 2);
    assert_eq!(failed[0]["ended_by"], "system");
}

#[tokio::test]
async fn ending_a_call_hangs_up_once_and_is_idempotent() {
    let (api, agent) = ready().await;
    let id = api.post("/core/conversations", call(&agent)).await.expect(202).body["conversation"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let end = format!("/core/conversations/{id}/end");
    for _ in 0..2 {
        let ended = api.as_key(&api.key, Method::POST, &end, None).await.expect(200).body;
        assert_eq!((&ended["status"], &ended["ended_by"]), (&json!("cancelled"), &json!("api")));
    }
    assert!(api.edge.lock().unwrap().live.is_empty());
    let unknown = "/core/conversations/01960000-0000-7000-8000-000000000000/end";
    assert_eq!(
        api.as_key(&api.key, Method::POST, unknown, None).await.expect(404).detail(),
        "Conversation not found."
    );
}

#[tokio::test]
async fn a_call_the_edge_has_lost_is_closed() {
    let (api, agent) = ready().await;
    let id = api.post("/core/conversations", call(&agent)).await.expect(202).body["conversation"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    api.edge.lock().unwrap().live.clear();
    let ended = api
        .as_key(&api.key, Method::POST, &format!("/core/conversations/{id}/end"), None)
        .await
        .expect(200)
        .body;
    assert_eq!((&ended["status"], &ended["reason"]), (&json!("cancelled"), &json!("not_live")));
}

#[tokio::test]
async fn sensitive_fields_need_their_scope() {
    let (api, agent) = ready().await;
    let mut body = call(&agent);
    body["initial_context"] = json!({"pin": 1});
    let writer = api.key(&[Scope::ConversationsManage]).await;
    let placed = api.as_key(&writer, Method::POST, "/core/conversations", Some(&body)).await.expect(202);
    let id = placed.body["conversation"]["id"].as_str().unwrap().to_owned();
    let path = format!("/core/conversations/{id}");
    let fields = ["summary", "initial_context", "custom_metadata", "conversation", "recording_details"];
    let reader = api.key(&[Scope::ConversationsRead]).await;
    let plain = api.as_key(&reader, Method::GET, &path, None).await.expect(200).body;
    let both = api.key(&[Scope::ConversationsRead, Scope::ConversationsReadSensitive]).await;
    let full = api.as_key(&both, Method::GET, &path, None).await.expect(200).body;
    for field in fields {
        assert!(plain.get(field).is_none(), "{field}");
        assert!(placed.body["conversation"].get(field).is_none(), "{field}");
        assert!(full.get(field).is_some(), "{field}");
    }
    assert_eq!(full["initial_context"], json!({"pin": 1}));
    let alone = api.key(&[Scope::ConversationsReadSensitive]).await;
    api.as_key(&alone, Method::GET, &path, None).await.expect(403);
}

#[tokio::test]
async fn calls_are_filtered() {
    let (api, agent) = ready().await;
    let mut body = call(&agent);
    body["custom_metadata"] = json!({"campaign": "x", "n": 1});
    let id = api.post("/core/conversations", body).await.expect(202).body["conversation"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let trunk = api.get("/core/trunks").await.body[0]["id"].as_str().unwrap().to_owned();
    let version = api.get(&format!("/core/agents/{agent}/versions/1")).await.expect(200).id();
    // One call that was answered and lasted 90 s.
    let id: ConversationId = id.parse().unwrap();
    let mut answered = api.store.conversation(api.organization, id).await.unwrap();
    answered.id = ConversationId::new();
    answered.status = ConversationStatus::Completed;
    answered.custom_metadata = None;
    let now = Timestamp::now();
    answered.answered_at = Some(now);
    answered.ended_at = Some(Timestamp(now.0 + 90_000_000));
    api.store.write_records(&[store::Record::Conversation(answered)]).await.unwrap();
    let unknown = "01960000-0000-7000-8000-000000000000";
    for (query, expected) in [
        (String::new(), 2),
        ("direction=outbound".into(), 2),
        ("direction=inbound".into(), 0),
        ("channel=telephone".into(), 2),
        ("channel=web".into(), 0),
        ("status=completed".into(), 1),
        (format!("agent_id={agent}"), 2),
        (format!("agent_id={unknown}"), 0),
        (format!("agent_version_id={version}"), 2),
        (format!("trunk_id={trunk}"), 2),
        (format!("trunk_id={unknown}"), 0),
        ("user_id=30123".into(), 2),
        ("user_id=%2B49".into(), 2),
        ("user_id=99".into(), 0),
        ("agent_number=%2B14155550100".into(), 2),
        ("agent_number=+14155550100".into(), 2),
        ("agent_number=14155550101".into(), 0),
        ("duration_above=90".into(), 1),
        ("duration_above=91".into(), 0),
        ("duration_below=90".into(), 1),
        ("duration_below=89".into(), 0),
        ("custom_metadata=%7B%22campaign%22%3A%22x%22%7D".into(), 1),
        ("created_after=2020-01-01T00:00:00Z".into(), 2),
        ("created_before=2020-01-01T00:00:00Z".into(), 0),
    ] {
        let found = api.get(&format!("/core/conversations?{query}")).await.expect(200).body;
        assert_eq!(found.as_array().unwrap().len(), expected, "{query}");
    }
    let listed = api.get("/core/conversations?status=completed").await.expect(200).body;
    assert_eq!(listed[0]["duration"], 90);
    assert_eq!(listed[0]["agent"]["name"], "Ann");
    assert!(listed[0].get("initial_context").is_none());
    for (query, field) in [
        ("status=busy", "status"),
        ("direction=up", "direction"),
        ("duration_above=-1", "duration_above"),
        ("agent_number=x", "agent_number"),
    ] {
        api.get(&format!("/core/conversations?{query}")).await.names(field);
    }
    let health = api.get(&format!("/core/trunks/{trunk}/health")).await.expect(200).body;
    assert_eq!(
        (&health["state"], &health["active_calls"], &health["answer_seizure_ratio"]),
        (&json!("ok"), &json!(1), &json!(1.0))
    );
    let shown = api.get(&format!("/core/agents/{agent}")).await.expect(200).body;
    assert_eq!(shown["conversation_statistics"]["total"], 2);
}

#[tokio::test]
async fn a_live_call_is_transferred() {
    let (api, agent) = ready().await;
    let placed = api.post("/core/conversations", call(&agent)).await.expect(202);
    let id = placed.body["conversation"]["id"].as_str().unwrap().to_owned();
    let path = format!("/core/conversations/{id}/transfer");
    let begun = api.post(&path, json!({"to": "+14155550199"})).await.expect(202);
    assert_eq!(begun.body["id"], json!(id));
    let body = json!({"to": "sip:1001@pbx.example:5070", "mode": "bridge", "timeout_s": 60});
    api.post(&path, body).await.expect(202);
    let asked: Vec<_> = {
        let edge = api.edge.lock().unwrap();
        edge.transferred.iter().map(|t| (t.to.to_string(), t.mode.as_str(), t.timeout.as_secs())).collect()
    };
    assert_eq!(
        asked,
        [("+14155550199".to_owned(), "auto", 30), ("sip:1001@pbx.example:5070".to_owned(), "bridge", 60)]
    );
    for (body, field) in [
        (json!({}), "to"),
        (json!({"to": "1001"}), "to"),
        (json!({"to": "sip:a@b;transport=tcp"}), "to"),
        (json!({"to": "+14155550199", "mode": "hot"}), "mode"),
        (json!({"to": "+14155550199", "timeout_s": 4}), "timeout_s"),
        (json!({"to": "+14155550199", "timeout_s": 121}), "timeout_s"),
        (json!({"to": "+14155550199", "x": 1}), "x"),
    ] {
        let refused = api.post(&path, body).await.expect(422);
        assert!(refused.detail().contains(field), "{}", refused.detail());
    }
    for (error, status) in [
        (CallError::NotLive, 409),
        (CallError::NotAnswered, 409),
        (CallError::Transferring, 409),
        (CallError::NoBot, 409),
        (CallError::TargetRefused, 400),
        (CallError::NoWayOut, 400),
        (CallError::Busy, 503),
    ] {
        api.edge.lock().unwrap().refuse = Some(error);
        api.post(&path, json!({"to": "+14155550199"})).await.expect(status);
    }
    api.edge.lock().unwrap().refuse = Some(CallError::NoTarget);
    api.as_key(&api.key, Method::POST, &format!("{path}/complete"), None).await.expect(409);
    api.edge.lock().unwrap().refuse = None;
    for step in ["complete", "cancel", "conference"] {
        api.as_key(&api.key, Method::POST, &format!("{path}/{step}"), None).await.expect(200);
    }
    api.as_key(&api.key, Method::POST, &format!("{path}/sing"), None).await.expect(422);
    let play = format!("/core/conversations/{id}/play");
    api.post(&play, json!({"tones": [{"hz": 440, "ms": 100}]})).await.expect(202);
    for (body, field) in [
        (json!({}), "file"),
        (json!({"file": "../x.wav"}), "file"),
        (json!({"tones": [{"hz": 5000, "ms": 1}]}), "tones.0.hz"),
        (json!({"file": "a.wav", "repeat": true}), "repeat"),
    ] {
        let refused = api.post(&play, body).await.expect(422);
        assert!(refused.detail().contains(field), "{}", refused.detail());
    }
    let unknown = "/core/conversations/01960000-0000-7000-8000-000000000000/transfer";
    api.post(unknown, json!({"to": "+14155550199"})).await.expect(404);
    api.as_key(&api.key, Method::POST, &format!("/core/conversations/{id}/end"), None).await.expect(200);
    api.post(&path, json!({"to": "+14155550199"})).await.expect(409);
}

#[tokio::test]
async fn a_recording_is_begun_paused_and_resumed() {
    let (api, agent) = ready().await;
    let placed = api.post("/core/conversations", call(&agent)).await.expect(202);
    let id = placed.body["conversation"]["id"].as_str().unwrap().to_owned();
    let path = format!("/core/conversations/{id}/recording");
    let step = async |name: &str| {
        api.as_key(&api.key, Method::POST, &format!("{path}/{name}"), None).await.expect(200).id()
    };
    for name in ["start", "pause", "resume"] {
        assert_eq!(step(name).await, id);
    }
    api.post(&format!("{path}/start"), json!({"format": "ogg"})).await.expect(200);
    let asked = std::mem::take(&mut api.edge.lock().unwrap().recorded);
    let ogg = RecordStep::Start(Some(model::RecordingFormat::Ogg));
    assert_eq!(asked, [RecordStep::Start(None), RecordStep::Pause, RecordStep::Resume, ogg]);
    for (body, field) in [(json!({"format": "mp3"}), "format"), (json!({"speed": 2}), "speed")] {
        api.post(&format!("{path}/start"), body).await.names(field);
    }
    for (error, status) in [
        (CallError::NotLive, 409),
        (CallError::NotAnswered, 409),
        (CallError::NotRecorded, 409),
        (CallError::OtherFormat, 409),
        (CallError::Busy, 503),
    ] {
        api.edge.lock().unwrap().refuse = Some(error);
        api.as_key(&api.key, Method::POST, &format!("{path}/start"), None).await.expect(status);
    }
    api.edge.lock().unwrap().refuse = None;
    // Who may only read changes nothing, and nobody else's call is found.
    let reader = api.key(&[Scope::ConversationsRead]).await;
    let (_, other) = api.other_organization().await;
    let before = api.edge.lock().unwrap().recorded.len();
    for name in ["start", "pause", "resume"] {
        let path = format!("{path}/{name}");
        api.as_key(&reader, Method::POST, &path, None).await.expect(403);
        api.as_key(&other, Method::POST, &path, None).await.expect(404);
    }
    assert_eq!(api.edge.lock().unwrap().recorded.len(), before);
    api.as_key(&api.key, Method::POST, &format!("/core/conversations/{id}/end"), None).await.expect(200);
    api.as_key(&api.key, Method::POST, &format!("{path}/start"), None).await.expect(409);
}
