//! The stream of call states.

use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{TestApi, echo};

struct Stream(BodyDataStream, String);

impl Stream {
    async fn open(api: &TestApi, key: &str) -> Result<Self, axum::response::Response> {
        let request = Request::builder()
            .uri("/core/events")
            .header("authorization", format!("Bearer {key}"))
            .header("accept", "text/event-stream");
        let response = api.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        if response.status() != 200 {
            return Err(response);
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Ok(Self(response.into_body().into_data_stream(), String::new()))
    }

    /// The data of the next event; `None` when the stream has ended.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.1.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: ").map(str::to_owned));
                self.1 = rest.to_owned();
                match data {
                    Some(data) => return Some(serde_json::from_str(&data).unwrap()),
                    None => continue,
                }
            }
            let more = self.0.next().await?.unwrap();
            self.1.push_str(std::str::from_utf8(&more).unwrap());
        }
    }
}

async fn place(api: &TestApi) -> String {
    let body = json!({"channel": "telephone", "user_id": "+14155550199", "agent_config": echo()});
    let placed = api.post("/core/conversations", body).await.expect(202);
    placed.body["conversation"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_stream_shows_its_own_organizations_calls_until_its_key_is_revoked() {
    let api = TestApi::start().await;
    let trunk = api.trunk("t").await;
    api.number("+14155550100", &trunk).await;
    let reader =
        api.store.create_key(api.organization, "r", &[model::Scope::ConversationsRead], None).await.unwrap();
    let (_, other) = api.other_organization().await;
    let mut own = Stream::open(&api, reader.token.expose()).await.unwrap();
    let mut foreign = Stream::open(&api, &other).await.unwrap();
    let call = place(&api).await;
    let event = own.next().await.unwrap();
    assert_eq!((&event["id"], &event["status"]), (&json!(call), &json!("triggered")));
    assert!(event.get("custom_metadata").is_none(), "not without read_sensitive");
    api.store.revoke_key(reader.id).await.unwrap();
    place(&api).await;
    assert_eq!(own.next().await, None);
    let nothing = tokio::time::timeout(std::time::Duration::from_millis(50), foreign.next()).await;
    assert!(nothing.is_err(), "another organization's calls are nobody else's");
}

#[tokio::test]
async fn an_organization_holds_no_more_than_its_share_of_streams() {
    let api = TestApi::start().await;
    let mut open = Vec::new();
    let refused = loop {
        match Stream::open(&api, &api.key).await {
            Ok(stream) => open.push(stream),
            Err(refused) => break refused,
        }
    };
    assert_eq!((open.len(), refused.status().as_u16()), (64, 429));
    assert!(refused.headers().contains_key("retry-after"));
    let (_, other) = api.other_organization().await;
    assert!(Stream::open(&api, &other).await.is_ok());
    open.pop();
    assert!(Stream::open(&api, &api.key).await.is_ok());
}
