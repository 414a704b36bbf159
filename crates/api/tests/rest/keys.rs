//! API keys over the API.

use axum::http::Method;
use model::Scope;
use serde_json::json;

use crate::support::TestApi;

const PATH: &str = "/admin/organization-pats";

#[tokio::test]
async fn a_key_is_made_shown_once_used_and_revoked_at_once() {
    let api = TestApi::start().await;
    let made =
        api.post(PATH, json!({"name": " ci ", "scopes": ["trunks:read", "trunks:read"]})).await.expect(200);
    assert_eq!(made.body["name"], "ci");
    assert_eq!(made.body["scopes"], json!(["trunks:read"]));
    let token = made.body["token"].as_str().unwrap().to_owned();
    let id = made.id();
    assert!(token.starts_with(&format!("ak_{id}.")));
    assert_eq!(made.headers["location"], format!("{PATH}/{id}"));
    assert!(!String::from_utf8_lossy(&api.files()).contains(token.split('.').nth(1).unwrap()));
    api.as_key(&token, Method::GET, "/core/trunks", None).await.expect(200);
    api.as_key(&token, Method::POST, "/core/trunks", Some(&json!({"name": "t"}))).await.expect(403);
    let one = api.get(&format!("{PATH}/{id}")).await.expect(200);
    assert!(one.body.get("token").is_none());
    assert_eq!(one.body["revoked_at"], json!(null));
    let all = api.get(PATH).await.expect(200);
    assert_eq!(all.body.as_array().unwrap().len(), 2);
    assert_eq!(all.body[0]["id"], id.as_str());
    api.delete(&format!("{PATH}/{id}")).await.expect(204);
    api.as_key(&token, Method::GET, "/core/trunks", None).await.expect(401);
    api.delete(&format!("{PATH}/{id}")).await.expect(204);
    assert!(api.get(&format!("{PATH}/{id}")).await.expect(200).body["revoked_at"].is_string());
}

#[tokio::test]
async fn a_key_does_not_revoke_itself_and_changes_only_as_its_reader_saw_it() {
    let api = TestApi::start().await;
    let own = api.get(PATH).await.expect(200).body[0]["id"].as_str().unwrap().to_owned();
    let refused = api.delete(&format!("{PATH}/{own}")).await.expect(409);
    assert!(refused.detail().contains("itself"), "{}", refused.detail());
    api.get(PATH).await.expect(200);
    let other = format!("{PATH}/{}", api.post(PATH, json!({"name": "b"})).await.expect(200).id());
    let tag = api.get(&other).await.expect(200).headers["etag"].to_str().unwrap().to_owned();
    let delete = async |tag: &str| {
        let request = axum::http::Request::builder().method(Method::DELETE).uri(&other);
        let request = request.header("authorization", format!("Bearer {}", api.key)).header("if-match", tag);
        api.raw(request.body(axum::body::Body::empty()).unwrap()).await
    };
    delete("\"1\"").await.expect(412);
    delete(&tag).await.expect(204);
    assert_ne!(api.get(&other).await.expect(200).headers["etag"], tag);
}

#[tokio::test]
async fn a_key_holds_no_more_than_its_maker() {
    let api = TestApi::start().await;
    let maker = api.key(&[Scope::OrganizationsManage, Scope::TrunksManage]).await;
    let ask = async |body: serde_json::Value| api.as_key(&maker, Method::POST, PATH, Some(&body)).await;
    ask(json!({"name": "a", "scopes": ["agents:read"]})).await.expect(403);
    ask(json!({"name": "a", "scopes": ["trunks:manage", "conversations:manage"]})).await.expect(403);
    // manage holds read.
    ask(json!({"name": "a", "scopes": ["trunks:read"]})).await.expect(200);
    let same = ask(json!({"name": "b"})).await.expect(200);
    assert_eq!(same.body["scopes"], json!(["organizations:manage", "trunks:manage"]));
    ask(json!({"name": "a", "scopes": []})).await.names("scopes");
    ask(json!({"name": "a", "scopes": vec!["trunks:read"; 65]})).await.names("scopes");
    ask(json!({"name": "a", "scopes": ["trunks:own"]})).await.names("scopes.0");
    ask(json!({"name": "a", "expires_at": "2020-01-01T00:00:00Z"})).await.names("expires_at");
    ask(json!({"name": " "})).await.names("name");
    let reader = api.key(&[Scope::TrunksRead]).await;
    api.as_key(&reader, Method::GET, PATH, None).await.expect(403);
}

#[tokio::test]
async fn another_organizations_key_is_not_there() {
    let api = TestApi::start().await;
    let (_, other) = api.other_organization().await;
    let id = api.post(PATH, json!({"name": "mine"})).await.expect(200).id();
    let unknown =
        api.as_key(&other, Method::GET, &format!("{PATH}/01960000-0000-7000-8000-000000000000"), None).await;
    let foreign = api.as_key(&other, Method::GET, &format!("{PATH}/{id}"), None).await.expect(404);
    assert_eq!(unknown.text, foreign.text);
    api.as_key(&other, Method::DELETE, &format!("{PATH}/{id}"), None).await.expect(404);
    assert_eq!(api.get(&format!("{PATH}/{id}")).await.expect(200).body["revoked_at"], json!(null));
}

#[tokio::test]
async fn any_credential_may_ask_what_it_may_do() {
    let api = TestApi::start().await;
    let key = api.key(&[Scope::CampaignsRead]).await;
    let mine = api.as_key(&key, Method::GET, "/admin/members/me/scopes", None).await.expect(200);
    assert_eq!(
        mine.body,
        json!({"organization_id": api.organization.to_string(), "scopes": ["campaigns:read"]})
    );
}
