//! The organization's inbound routing as a resource.

use model::PrivateTargets;
use serde_json::json;

use crate::support::TestApi;

const PATH: &str = "/core/inbound-routing-config";

#[tokio::test]
async fn it_is_one_an_organization() {
    let api = TestApi::start().await;
    api.get(PATH).await.expect(404);
    api.delete(PATH).await.expect(404);
    api.put(PATH, json!({"enabled": true})).await.names("workflow_definition");
    let agent = api.published_agent("a").await;
    let rules = json!({"type": "rules", "rules": [
        {"match": {"caller_prefix": "+49", "weekdays": ["mon"], "hours": {"from": "09:00", "to": "17:00"},
                   "time_zone": "Europe/Berlin"},
         "output": {"agent_id": agent, "version": 1, "initial_context": {"vip": true}}},
        {"output": {"reject": true}}
    ]});
    let made = api.put(PATH, json!({"workflow_definition": rules})).await.expect(200);
    assert_eq!(made.body["enabled"], true);
    assert_eq!(made.body["timeout_ms"], 5_000);
    assert_eq!(made.body["fallback_agent_id"], json!(null));
    assert_eq!(made.body["organization_id"], api.organization.to_string());
    assert_eq!(made.body["workflow_definition"]["rules"][0]["output"]["version"], 1);
    // What is left out stays, null clears.
    api.put(PATH, json!({"enabled": false, "fallback_agent_id": agent, "timeout_ms": 250})).await.expect(200);
    let kept = api.put(PATH, json!({"fallback_agent_id": null})).await.expect(200);
    assert_eq!((&kept.body["enabled"], &kept.body["timeout_ms"]), (&json!(false), &json!(250)));
    assert_eq!(kept.body["fallback_agent_id"], json!(null));
    assert_eq!(kept.body["workflow_definition"], made.body["workflow_definition"]);
    let (_, other) = api.other_organization().await;
    api.as_key(&other, axum::http::Method::GET, PATH, None).await.expect(404);
    api.delete(PATH).await.expect(204);
    api.get(PATH).await.expect(404);
}

#[tokio::test]
async fn faults_name_their_field() {
    let api = TestApi::start().await;
    let put =
        async |definition: serde_json::Value| api.put(PATH, json!({"workflow_definition": definition})).await;
    put(json!(null)).await.names("workflow_definition");
    put(json!({"type": "magic"})).await.names("workflow_definition.type");
    put(json!({"type": "rules", "rules": [], "x": 1})).await.names("workflow_definition.x");
    put(json!({"type": "rules", "rules": [{"match": {"caller_prefix": "49"}}]}))
        .await
        .names("workflow_definition.rules.0.match.caller_prefix");
    put(json!({"type": "rules", "rules": [{"match": {"time_zone": "Mars"}}]}))
        .await
        .names("workflow_definition.rules.0.match.time_zone");
    put(json!({"type": "rules", "rules": [{"output": {"version": 3}}]}))
        .await
        .names("workflow_definition.rules.0.output.version");
    put(json!({"type": "rules", "rules": [[]]})).await.names("workflow_definition.rules.0");
    put(json!({"type": "webhook", "url": "ftp://x"})).await.names("workflow_definition.url");
    put(json!({"type": "webhook", "url": "http://169.254.169.254/"})).await.names("workflow_definition.url");
    put(json!({"type": "webhook", "url": "https://h/", "secret": "short"}))
        .await
        .names("workflow_definition.secret");
    api.put(PATH, json!({"timeout_ms": 99, "workflow_definition": {"type": "rules", "rules": []}}))
        .await
        .names("timeout_ms");
    // What it names must be there, and the organization's own.
    let unknown = "01960000-0000-7000-8000-000000000000";
    put(json!({"type": "rules", "rules": [{"output": {"agent_id": unknown}}]})).await.expect(404);
    put(json!({"type": "rules", "rules": [{"match": {"trunk_id": unknown}}]})).await.expect(404);
    let rules = json!({"type": "rules", "rules": []});
    api.put(PATH, json!({"workflow_definition": rules, "fallback_agent_id": unknown})).await.expect(404);
    api.get(PATH).await.expect(404);
}

#[tokio::test]
async fn a_webhooks_secret_is_shown_once_and_never_stands_in_clear() {
    let api = TestApi::start().await;
    let hook = json!({"workflow_definition": {"type": "webhook", "url": "http://127.0.0.1:9/route"}});
    let made = api.put(PATH, hook.clone()).await.expect(200);
    let secret = made.body["workflow_definition"]["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_"));
    assert!(api.get(PATH).await.expect(200).body["workflow_definition"].get("secret").is_none());
    // The one on file stays.
    assert!(api.put(PATH, hook).await.expect(200).body["workflow_definition"].get("secret").is_none());
    let own =
        json!({"type": "webhook", "url": "http://h/", "secret": "whsec_c4n4ryc4n4ryc4n4ryc4n4ryc4n4ryAA"});
    let text = api.put(PATH, json!({"workflow_definition": own})).await.expect(200).text;
    assert!(!text.contains("c4n4ry"));
    let files = String::from_utf8_lossy(&api.files()).into_owned();
    assert!(!files.contains(&secret) && !files.contains("c4n4ryc4n4ry"));
}

#[tokio::test]
async fn private_targets_are_the_nodes_to_allow() {
    let api = TestApi::start_with(|setup| setup.targets = PrivateTargets::Deny).await;
    let hook = json!({"type": "webhook", "url": "https://10.0.0.1/"});
    api.put(PATH, json!({"workflow_definition": hook})).await.names("workflow_definition.url");
    let outbound = |address: &str| json!({"address": address, "auth_username": "u", "auth_password": "p"});
    let trunk = json!({"name": "t", "outbound_config": outbound("192.168.0.9")});
    api.post("/core/trunks", trunk).await.names("outbound_config.address");
    let mut config = outbound("203.0.113.9");
    config["fallback_addresses"] = json!(["203.0.113.10", "127.0.0.1:5080"]);
    let trunk = json!({"name": "t", "outbound_config": config});
    api.post("/core/trunks", trunk).await.names("outbound_config.fallback_addresses.1");
    api.post("/core/trunks", json!({"name": "t", "outbound_config": outbound("203.0.113.9")}))
        .await
        .expect(200);
}

#[tokio::test]
async fn an_agent_it_falls_back_to_stays() {
    let api = TestApi::start().await;
    let agent = api.published_agent("a").await;
    let rules = json!({"type": "rules", "rules": []});
    api.put(PATH, json!({"workflow_definition": rules, "fallback_agent_id": agent})).await.expect(200);
    api.delete(&format!("/core/agents/{agent}")).await.expect(409);
    api.delete(PATH).await.expect(204);
    api.delete(&format!("/core/agents/{agent}")).await.expect(204);
}
