//! Who may ask what: a matrix over every operation of the description, and what one organization can learn of another.

use axum::body::Body;
use axum::http::{Method, Request};
use model::{Scope, Timestamp};
use serde_json::{Value, json};

use crate::support::{Reply, TestApi, echo};

/// A guarded operation as the description has it.
struct Operation {
    method: Method,
    path: String,
    scopes: Vec<Scope>,
}

fn operations() -> Vec<Operation> {
    let description = serde_json::to_value(api::openapi()).unwrap();
    let mut found = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(security) = operation["security"].as_array() else { continue };
            let scope = |requirement: &Value| requirement["bearer"][0].as_str().unwrap().parse().unwrap();
            found.push(Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                scopes: security.iter().map(scope).collect(),
            });
        }
    }
    found
}

impl Operation {
    /// The path with these values for its parameters.
    fn at(&self, id: &str, number: &str) -> String {
        let path = self.path.replace("{id}", id).replace("{version}", "1").replace("{phone_number}", number);
        path.replace("{delivery_id}", id).replace("{decision_id}", id).replace("{step}", "complete")
    }

    /// A body that would be valid for no operation: nobody without the scope may learn that.
    async fn ask(&self, api: &TestApi, headers: &[(&str, String)]) -> Reply {
        let mut request = Request::builder().method(self.method.clone()).uri(self.at("not-an-id", "x"));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        api.raw(request.body(Body::from("{\"nonsense")).unwrap()).await
    }
}

fn bearer(token: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {token}"))
}

#[tokio::test]
async fn every_operation_refuses_every_credential_that_does_not_suffice() {
    let api = TestApi::start().await;
    let operations = operations();
    assert!(operations.len() >= 31, "{}", operations.len());
    let (other, _) = api.other_organization().await;
    let past = Timestamp(Timestamp::now().0 - 1_000_000);
    let expired = api.store.create_key(api.organization, "old", Scope::ALL, Some(past)).await.unwrap();
    let revoked = api.store.create_key(api.organization, "gone", Scope::ALL, None).await.unwrap();
    api.store.revoke_key(revoked.id).await.unwrap();
    let token =
        api.store.create_token("ann@example.com", &[api.organization], Scope::ALL, None).await.unwrap();
    let (expired, revoked, token) = (expired.token.expose(), revoked.token.expose(), token.token.expose());
    let mut wrong = api.key.clone();
    let last = wrong.pop().unwrap();
    wrong.push(if last == 'A' { 'B' } else { 'A' });
    let mine = api.organization.to_string();
    let foreign = other.to_string();
    for operation in &operations {
        let name = format!("{} {}", operation.method, operation.path);
        let unauthorized: Vec<(&str, Vec<(&str, String)>)> = vec![
            ("none", vec![]),
            ("basic", vec![("authorization", format!("Basic {}", api.key))]),
            ("bare", vec![("authorization", api.key.clone())]),
            ("empty", vec![("authorization", "Bearer ".to_owned())]),
            ("malformed", vec![bearer("ak_x.y")]),
            ("unknown", vec![bearer(&wrong)]),
            ("truncated", vec![bearer(&api.key[..api.key.len() - 3])]),
            ("long", vec![bearer(&"a".repeat(5_000))]),
            ("expired", vec![bearer(expired)]),
            ("revoked", vec![bearer(revoked)]),
            ("two", vec![bearer(&api.key), bearer(&api.key)]),
            ("token without organization", vec![bearer(token)]),
        ];
        for (kind, headers) in unauthorized {
            let reply = operation.ask(&api, &headers).await;
            assert_eq!(reply.status, 401, "{name}: {kind}: {}", reply.text);
            assert_eq!(reply.headers["www-authenticate"], "Bearer", "{name}: {kind}");
            if kind == "token without organization" {
                assert_eq!(reply.detail(), "Token is missing organization claim.");
            }
        }
        let insufficient: Vec<Scope> = Scope::ALL
            .iter()
            .copied()
            .filter(|held| !operation.scopes.iter().any(|needed| held.satisfies(*needed)))
            .collect();
        let under = api.key(&insufficient).await;
        let forbidden: Vec<(&str, Vec<(&str, String)>)> = vec![
            ("under-scoped", vec![bearer(&under)]),
            ("key, foreign header", vec![bearer(&api.key), ("x-anyreach-org", foreign.clone())]),
            ("key, foreign alias", vec![bearer(&api.key), ("x-tandem-org", foreign.clone())]),
            ("key, nonsense header", vec![bearer(&api.key), ("x-anyreach-org", "x".to_owned())]),
            (
                "key, both headers",
                vec![bearer(&api.key), ("x-anyreach-org", mine.clone()), ("x-tandem-org", foreign.clone())],
            ),
            ("token, foreign header", vec![bearer(token), ("x-anyreach-org", foreign.clone())]),
            ("token, nonsense header", vec![bearer(token), ("x-anyreach-org", "x".to_owned())]),
        ];
        for (kind, headers) in forbidden {
            let reply = operation.ask(&api, &headers).await;
            assert_eq!(reply.status, 403, "{name}: {kind}: {}", reply.text);
        }
        // With any one of its scopes alone, the request gets as far as its path and body.
        for scope in &operation.scopes {
            let key = api.key(&[*scope]).await;
            for headers in [vec![bearer(&key)], vec![bearer(token), ("x-tandem-org", mine.clone())]] {
                let reply = operation.ask(&api, &headers).await;
                let free =
                    matches!(operation.path.as_str(), "/core/organization" | "/core/agent-config-schema")
                        || operation.method == Method::GET && !operation.path.contains('{');
                let passed = match (operation.method.as_str(), operation.path.as_str()) {
                    ("GET" | "DELETE", "/core/inbound-routing-config") => 404,
                    ("GET", _) if free => 200,
                    _ => 422,
                };
                assert_eq!(reply.status, passed, "{name}: {scope}: {}", reply.text);
            }
        }
    }
}

#[tokio::test]
async fn the_same_key_is_refused_as_soon_as_it_is_revoked() {
    let api = TestApi::start().await;
    let made = api.store.create_key(api.organization, "k", &[Scope::TrunksRead], None).await.unwrap();
    let key = made.token.expose();
    api.as_key(key, Method::GET, "/core/trunks", None).await.expect(200);
    api.store.revoke_key(made.id).await.unwrap();
    api.as_key(key, Method::GET, "/core/trunks", None).await.expect(401);
}

#[tokio::test]
async fn another_organizations_things_are_as_if_they_were_not() {
    let api = TestApi::start().await;
    let trunk = api.trunk("t").await;
    api.number("+14155550100", &trunk).await;
    let agent = api.published_agent("a").await;
    let publish = format!("/core/agents/{agent}/versions/1/publish");
    api.post(&publish, json!({"phone_numbers": ["+14155550100"], "direction": "both"})).await.expect(200);
    let body = json!({"channel": "telephone", "user_id": "+4930123456", "agent_id": agent});
    let call = api.post("/core/conversations", body).await.expect(202).body["conversation"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let version = api.get(&format!("/core/agents/{agent}/versions/1")).await.expect(200).id();
    let (_, stranger) = api.other_organization().await;
    let bodies = |operation: &Operation| match (operation.method.as_str(), operation.path.as_str()) {
        ("PUT", path) if path.contains("versions") => Some(json!({"config": echo()})),
        ("POST", "/core/agents/{id}/versions") => Some(json!({"config": echo()})),
        ("PUT" | "PATCH", _) => Some(json!({})),
        ("POST", path) if path.ends_with("/simulate") => {
            Some(json!({"source": "192.0.2.1", "from": "", "to": "+14155550100"}))
        }
        ("POST", path) if path.ends_with("/transfer") => Some(json!({"to": "+14155550199"})),
        ("POST", path) if path.ends_with("/play") => Some(json!({"tones": [{"hz": 440, "ms": 100}]})),
        ("POST", path) if path.ends_with("/dtmf") => Some(json!({"digits": "1"})),
        _ => None,
    };
    let webhook = api.post("/core/webhooks", json!({"url": "https://hook.example/"})).await.expect(200).id();
    let key = api.post("/admin/organization-pats", json!({"name": "own"})).await.expect(200).id();
    let before = snapshot(&api, &trunk, &agent, &call).await;
    let mut compared = 0;
    for operation in operations().iter().filter(|operation| operation.path.contains('{')) {
        let own = match operation.path.split('/').nth(2) {
            Some("conversations") => &call,
            Some("agents") => &agent,
            Some("trunks") => &trunk,
            Some("webhooks") => &webhook,
            Some("organization-pats") => &key,
            Some("phone-numbers") => &trunk,
            other => panic!("{other:?} has no thing of the organization's own to ask for: make one here"),
        };
        let body = bodies(operation);
        let ask = |path: String| {
            let (api, stranger, method, body) = (&api, &stranger, operation.method.clone(), body.clone());
            async move { api.as_key(stranger, method, &path, body.as_ref()).await }
        };
        let foreign = ask(operation.at(own, "%2B14155550100")).await;
        let unknown = ask(operation.at("01960000-0000-7000-8000-000000000000", "%2B14155559999")).await;
        let name = format!("{} {}", operation.method, operation.path);
        assert_eq!((foreign.status.as_u16(), &foreign.text), (404, &unknown.text), "{name}");
        let headers = |reply: &Reply| reply.headers.keys().cloned().collect::<Vec<_>>();
        assert_eq!(headers(&foreign), headers(&unknown), "{name}");
        compared += 1;
    }
    assert!(compared >= 20, "{compared}");
    // Ids inside bodies, filters and cursors.
    let as_stranger = |path: &'static str, body: Value| {
        let (api, stranger) = (&api, &stranger);
        async move { api.as_key(stranger, Method::POST, path, Some(&body)).await }
    };
    as_stranger("/core/phone-numbers", json!({"phone_number": "+14155550102", "trunk_id": trunk}))
        .await
        .expect(404);
    for speaker in [json!({"agent_id": agent}), json!({"agent_version_id": version})] {
        let mut body = json!({"channel": "telephone", "user_id": "+4930123456"});
        body.as_object_mut().unwrap().extend(speaker.as_object().unwrap().clone());
        as_stranger("/core/conversations", body).await.expect(404);
    }
    let body = json!({"channel": "telephone", "user_id": "+4930123456", "agent_config": echo(), "agent_number": "+14155550100"});
    let foreign = as_stranger("/core/conversations", body.clone()).await.expect(400);
    let mut body = body;
    body["agent_number"] = json!("+14155559999");
    let unknown = as_stranger("/core/conversations", body).await.expect(400);
    assert_eq!(foreign.detail().replace("0100", ""), unknown.detail().replace("9999", ""));
    let theirs = as_stranger("/core/agents", json!({"name": "s"})).await.expect(200).id();
    api.as_key(
        &stranger,
        Method::POST,
        &format!("/core/agents/{theirs}/versions"),
        Some(&json!({"config": echo()})),
    )
    .await
    .expect(200);
    let publish = format!("/core/agents/{theirs}/versions/1/publish");
    let body = json!({"phone_numbers": ["+14155550100"]});
    api.as_key(&stranger, Method::POST, &publish, Some(&body)).await.expect(404);
    for list in ["/core/webhooks", "/core/trunks", "/core/phone-numbers", "/core/conversations"] {
        let plain = list.ends_with("trunks") || list.ends_with("hooks");
        let filter = if plain { String::new() } else { format!("?trunk_id={trunk}") };
        assert_eq!(
            api.as_key(&stranger, Method::GET, &format!("{list}{filter}"), None).await.expect(200).body,
            json!([])
        );
    }
    assert_eq!(snapshot(&api, &trunk, &agent, &call).await, before, "nothing was touched");
}

async fn snapshot(api: &TestApi, trunk: &str, agent: &str, call: &str) -> Vec<String> {
    let mut seen = Vec::new();
    for path in [
        format!("/core/trunks/{trunk}"),
        format!("/core/agents/{agent}"),
        format!("/core/conversations/{call}"),
        "/core/phone-numbers".to_owned(),
        "/core/organization".to_owned(),
    ] {
        seen.push(api.get(&path).await.expect(200).text);
    }
    seen
}

#[tokio::test]
async fn a_credential_beyond_its_rate_is_told_when_to_come_back() {
    let api = TestApi::start_with(|setup| setup.rate = std::num::NonZeroU32::new(2)).await;
    let other = api.key(&[Scope::TrunksRead]).await;
    let mut limited = None;
    // However slow the machine, requests in a row outrun two a second sooner or later.
    for _ in 0..1_000 {
        let reply = api.get("/core/trunks").await;
        if reply.status == 429 {
            limited = Some(reply);
            break;
        }
    }
    let limited = limited.expect("the bucket has an end");
    assert_eq!(limited.headers["retry-after"], "1");
    api.as_key(&other, Method::GET, "/core/trunks", None).await.expect(200);
    api.as_key("ak_unknown.x", Method::GET, "/core/trunks", None).await.expect(401);
}
