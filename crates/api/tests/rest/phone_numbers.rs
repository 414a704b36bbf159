//! Phone numbers.

use serde_json::{Value, json};

use crate::support::TestApi;

const UNKNOWN: &str = "01960000-0000-7000-8000-000000000000";

#[tokio::test]
async fn a_number_is_made_found_both_ways_changed_and_deleted() {
    let api = TestApi::start().await;
    let trunk = api.trunk("t").await;
    let made = api
        .post("/core/phone-numbers", json!({"phone_number": "+14155550100", "trunk_id": trunk}))
        .await
        .expect(200);
    assert_eq!(made.headers["location"], "/core/phone-numbers/%2B14155550100");
    let mut keys: Vec<&str> = made.body.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let mut expected = [
        "phone_number",
        "organization_id",
        "trunk_id",
        "inbound_agent_version_id",
        "outbound_agent_version_id",
        "outbound_shareable",
        "created_at",
        "updated_at",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(made.body["outbound_shareable"], false);
    assert_eq!(made.body["inbound_agent_version_id"], Value::Null);
    for key in ["%2B14155550100", "14155550100", "+14155550100"] {
        assert_eq!(api.get(&format!("/core/phone-numbers/{key}")).await.expect(200).body, made.body, "{key}");
    }
    let changed =
        api.patch("/core/phone-numbers/14155550100", json!({"outbound_shareable": true})).await.expect(200);
    assert_eq!(changed.body["outbound_shareable"], true);
    api.patch("/core/phone-numbers/14155550100", json!({})).await.expect(200);
    api.patch("/core/phone-numbers/14155550100", json!({"outbound_shareable": null}))
        .await
        .names("outbound_shareable");
    for field in ["trunk_id", "inbound_agent_version_id", "phone_number"] {
        api.patch("/core/phone-numbers/14155550100", json!({field: null})).await.names(field);
    }
    api.delete("/core/phone-numbers/14155550100").await.expect(204);
    api.get("/core/phone-numbers/14155550100").await.expect(404);
    api.delete("/core/phone-numbers/14155550100").await.expect(404);
    api.patch("/core/phone-numbers/14155550100", json!({})).await.expect(404);
}

#[tokio::test]
async fn a_number_needs_a_free_number_and_a_trunk_of_the_customer() {
    let api = TestApi::start().await;
    let trunk = api.trunk("t").await;
    for bad in ["4155550100", "+0155550100", "+1415555010012345", "+1", "+1 415 555", "+1\r\n", ""] {
        api.post("/core/phone-numbers", json!({"phone_number": bad, "trunk_id": trunk}))
            .await
            .names("phone_number");
    }
    let number = "+14155550100";
    api.post("/core/phone-numbers", json!({"phone_number": number})).await.names("trunk_id");
    api.post("/core/phone-numbers", json!({"phone_number": number, "trunk_id": "x"})).await.names("trunk_id");
    api.post("/core/phone-numbers", json!({"phone_number": number, "trunk_id": UNKNOWN})).await.expect(404);
    let managed = api.managed_trunk().await;
    api.post("/core/phone-numbers", json!({"phone_number": number, "trunk_id": managed})).await.expect(400);
    let extra = json!({"phone_number": number, "trunk_id": trunk, "inbound_agent_version_id": UNKNOWN});
    api.post("/core/phone-numbers", extra).await.names("inbound_agent_version_id");
    api.number(number, &trunk).await;
    api.post("/core/phone-numbers", json!({"phone_number": number, "trunk_id": trunk})).await.expect(409);
    let (_, stranger) = api.other_organization().await;
    let theirs = api
        .as_key(&stranger, axum::http::Method::POST, "/core/trunks", Some(&json!({"name": "x"})))
        .await
        .expect(200)
        .id();
    let body = json!({"phone_number": number, "trunk_id": theirs});
    api.as_key(&stranger, axum::http::Method::POST, "/core/phone-numbers", Some(&body)).await.expect(409);
    let body = json!({"phone_number": "+14155550101", "trunk_id": trunk});
    api.as_key(&stranger, axum::http::Method::POST, "/core/phone-numbers", Some(&body)).await.expect(404);
}

#[tokio::test]
async fn a_managed_trunks_number_is_not_deleted_here() {
    let api = TestApi::start().await;
    let trunk = api.managed_trunk().await.parse().unwrap();
    let new = store::NewNumber {
        phone_number: "+14155550111".parse().unwrap(),
        trunk_id: trunk,
        outbound_shareable: false,
        allow_managed: true,
    };
    api.store.create_number(api.organization, new).await.unwrap();
    api.delete("/core/phone-numbers/14155550111").await.expect(400);
    api.get("/core/phone-numbers/14155550111").await.expect(200);
}

#[tokio::test]
async fn filters_and_pages() {
    let api = TestApi::start().await;
    let (one, two) = (api.trunk("1").await, api.trunk("2").await);
    for (number, trunk) in [("+14155550100", &one), ("+14155550101", &two), ("+4930123456", &two)] {
        api.number(number, trunk).await;
    }
    let count = |reply: Value| reply.as_array().unwrap().len();
    for (query, expected) in
        [("phone_number=415", 2), ("phone_number=%2B49", 1), ("phone_number=+49", 1), ("phone_number=999", 0)]
    {
        assert_eq!(
            count(api.get(&format!("/core/phone-numbers?{query}")).await.expect(200).body),
            expected,
            "{query}"
        );
    }
    assert_eq!(count(api.get(&format!("/core/phone-numbers?trunk_id={two}")).await.expect(200).body), 2);
    api.get("/core/phone-numbers?trunk_id=x").await.names("trunk_id");
    api.get("/core/phone-numbers/abc").await.names("phone_number");
    let mut seen = Vec::new();
    let mut path = "/core/phone-numbers?limit=1".to_owned();
    loop {
        let page = api.get(&path).await.expect(200);
        seen.extend(
            page.body.as_array().unwrap().iter().map(|n| n["phone_number"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page.headers.get("x-next-cursor") else { break };
        path = format!("/core/phone-numbers?limit=1&cursor={}", next.to_str().unwrap());
    }
    assert_eq!(seen, ["+4930123456", "+14155550101", "+14155550100"]);
}
