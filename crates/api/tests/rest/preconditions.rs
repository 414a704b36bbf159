//! `ETag` and `If-Match`: a write happens to the state its client has seen, or not at all.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::support::{Reply, TestApi, echo};

async fn ask(api: &TestApi, method: Method, path: &str, tag: &str, body: Option<&Value>) -> Reply {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {}", api.key))
        .header("if-match", tag);
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    api.raw(request.body(body).unwrap()).await
}

fn tag(reply: &Reply) -> String {
    reply.headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_resource_has_a_tag_and_keeps_to_it() {
    let api = TestApi::start().await;
    let trunk = api.trunk("t").await;
    api.number("+14155550100", &trunk).await;
    let agent = api.published_agent("a").await;
    api.post(&format!("/core/agents/{agent}/versions"), json!({"config": echo()})).await.expect(200);
    let spare = api.post("/core/agents", json!({"name": "spare"})).await.expect(200).id();
    api.put(
        "/core/inbound-routing-config",
        json!({"workflow_definition": {"type": "rules", "rules": []}, "fallback_agent_id": agent}),
    )
    .await
    .expect(200);
    let version = json!({"config": echo()});
    for (path, method, body) in [
        (format!("/core/trunks/{trunk}"), Method::PUT, json!({"name": "u"})),
        ("/core/phone-numbers/%2B14155550100".to_owned(), Method::PATCH, json!({"outbound_shareable": true})),
        (format!("/core/agents/{agent}"), Method::PUT, json!({"name": "b"})),
        (format!("/core/agents/{agent}/versions/2"), Method::PUT, version),
        ("/core/organization".to_owned(), Method::PATCH, json!({"daily_call_limit": 7})),
        ("/core/inbound-routing-config".to_owned(), Method::PUT, json!({"timeout_ms": 700})),
    ] {
        let before = tag(&api.get(&path).await.expect(200));
        let changed = ask(&api, method.clone(), &path, &before, Some(&body)).await.expect(200);
        let after = tag(&changed);
        assert_ne!(before, after, "{path}");
        assert_eq!(after, tag(&api.get(&path).await.expect(200)), "{path}");
        for stale in [before.as_str(), "\"0\"", "W/\"0\"", &format!("W/{after}"), "junk"] {
            ask(&api, method.clone(), &path, stale, Some(&body)).await.expect(412);
        }
        assert_eq!(after, tag(&api.get(&path).await.expect(200)), "{path}: a 412 changes nothing");
        let either = format!("\"0\", {after}");
        ask(&api, method.clone(), &path, &either, Some(&body)).await.expect(200);
        ask(&api, method, &path, "*", Some(&body)).await.expect(200);
    }
    for path in [
        "/core/inbound-routing-config".to_owned(),
        "/core/phone-numbers/%2B14155550100".to_owned(),
        format!("/core/trunks/{trunk}"),
        format!("/core/agents/{spare}"),
    ] {
        let tag = tag(&api.get(&path).await.expect(200));
        ask(&api, Method::DELETE, &path, "\"0\"", None).await.expect(412);
        ask(&api, Method::DELETE, &path, &tag, None).await.expect(204);
        ask(&api, Method::DELETE, &path, &tag, None).await.expect(404);
    }
}

#[tokio::test]
async fn of_many_writers_that_saw_one_state_one_wins() {
    let api = std::sync::Arc::new(TestApi::start().await);
    let path = format!("/core/trunks/{}", api.trunk("t").await);
    let seen = tag(&api.get(&path).await.expect(200));
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let (api, path, seen) = (std::sync::Arc::clone(&api), path.clone(), seen.clone());
            tokio::spawn(async move {
                ask(&api, Method::PUT, &path, &seen, Some(&json!({"name": format!("n{n}")})))
                    .await
                    .status
                    .as_u16()
            })
        })
        .collect();
    let mut statuses = Vec::new();
    for task in tasks {
        statuses.push(task.await.unwrap());
    }
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|s| **s == 412).count(), 19, "{statuses:?}");
}
