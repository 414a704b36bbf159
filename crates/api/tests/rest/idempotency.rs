//! `Idempotency-Key`: nothing is done twice, and nobody else's answer is replayed.

use axum::body::Body;
use axum::http::{Method, Request};
use model::Scope;
use serde_json::{Value, json};

use crate::support::{Reply, TestApi};

async fn post(api: &TestApi, token: &str, key: &str, path: &str, body: &Value) -> Reply {
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .header("idempotency-key", key)
        .body(Body::from(body.to_string()));
    api.raw(request.unwrap()).await
}

async fn trunks(api: &TestApi) -> usize {
    api.get("/core/trunks").await.expect(200).body.as_array().unwrap().len()
}

#[tokio::test]
async fn the_same_request_gets_the_first_answer() {
    let api = TestApi::start().await;
    let body = json!({"name": "once"});
    let first = post(&api, &api.key, "k1", "/core/trunks", &body).await.expect(200);
    let second = post(&api, &api.key, "k1", "/core/trunks", &body).await.expect(200);
    assert_eq!(first.text, second.text);
    for header in ["location", "etag", "content-type"] {
        assert_eq!(first.headers.get(header), second.headers.get(header), "{header}");
    }
    assert!(first.headers.get("idempotency-replayed").is_none());
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert_eq!(trunks(&api).await, 1);
    // Without the key nothing is remembered.
    api.post("/core/trunks", body).await.expect(200);
    assert_eq!(trunks(&api).await, 2);
}

#[tokio::test]
async fn another_request_with_the_key_is_422() {
    let api = TestApi::start().await;
    post(&api, &api.key, "k", "/core/trunks", &json!({"name": "a"})).await.expect(200);
    post(&api, &api.key, "k", "/core/trunks", &json!({"name": "b"})).await.names("Idempotency-Key");
    post(&api, &api.key, "k", "/core/agents", &json!({"name": "a"})).await.names("Idempotency-Key");
    assert_eq!(trunks(&api).await, 1);
}

#[tokio::test]
async fn refusals_of_the_request_itself_are_replayed_and_others_are_not() {
    let api = TestApi::start().await;
    let bad = json!({"name": ""});
    let first = post(&api, &api.key, "k", "/core/trunks", &bad).await.names("name");
    let second = post(&api, &api.key, "k", "/core/trunks", &bad).await.names("name");
    assert_eq!((first.text, second.headers["idempotency-replayed"].to_str().unwrap()), (second.text, "true"));
    let reader = api.key(&[Scope::TrunksRead]).await;
    let body = json!({"name": "a"});
    post(&api, &reader, "r", "/core/trunks", &body).await.expect(403);
    post(&api, "ak_none.none", "r", "/core/trunks", &body).await.expect(401);
    post(&api, &api.key, "r", "/core/trunks", &body).await.expect(200);
}

#[tokio::test]
async fn fifty_at_once_make_one_trunk() {
    let api = std::sync::Arc::new(TestApi::start().await);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let api = std::sync::Arc::clone(&api);
            tokio::spawn(async move {
                post(&api, &api.key, "together", "/core/trunks", &json!({"name": "one"}))
                    .await
                    .status
                    .as_u16()
            })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        match task.await.unwrap() {
            200 => made += 1,
            409 => {}
            other => panic!("{other}"),
        }
    }
    assert!(made >= 1);
    assert_eq!(trunks(&api).await, 1);
    post(&api, &api.key, "together", "/core/trunks", &json!({"name": "one"})).await.expect(200);
    assert_eq!(trunks(&api).await, 1);
}

#[tokio::test]
async fn a_key_is_its_credentials_own() {
    let api = TestApi::start().await;
    let (_, other) = api.other_organization().await;
    let body = json!({"name": "mine"});
    let mine = post(&api, &api.key, "k", "/core/trunks", &body).await.expect(200).id();
    let theirs = post(&api, &other, "k", "/core/trunks", &body).await.expect(200);
    assert_ne!(mine, theirs.id());
    assert!(theirs.headers.get("idempotency-replayed").is_none());
    // Nor does a key that may do less get the answer of one that may do more.
    let second = api.key(&[Scope::TrunksManage]).await;
    assert_ne!(mine, post(&api, &second, "k", "/core/trunks", &body).await.expect(200).id());
}

#[tokio::test]
async fn wrong_keys_are_refused_and_a_secret_is_kept_sealed() {
    let api = TestApi::start().await;
    let body = json!({"name": "a"});
    for key in ["", " ", "é", &"x".repeat(256)] {
        post(&api, &api.key, key, "/core/trunks", &body).await.names("Idempotency-Key");
    }
    post(&api, &api.key, &"x".repeat(255), "/core/trunks", &body).await.expect(200);
    let made = post(&api, &api.key, "secret", "/admin/organization-pats", &body).await.expect(200);
    let token = made.body["token"].as_str().unwrap().to_owned();
    let again = post(&api, &api.key, "secret", "/admin/organization-pats", &body).await.expect(200);
    assert_eq!(again.body["token"], token.as_str());
    let secret = token.split('.').nth(1).unwrap();
    assert!(!String::from_utf8_lossy(&api.files()).contains(secret));
}
