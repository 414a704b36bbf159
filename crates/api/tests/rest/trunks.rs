//! The seed's trunk table, clause by clause.

use axum::http::Method;
use serde_json::{Value, json};

use crate::support::{CANARY, TestApi, outbound};

#[tokio::test]
async fn a_trunk_is_made_shown_listed_and_deleted() {
    let api = TestApi::start().await;
    let made = api.post("/core/trunks", json!({"name": "  Carrier  "})).await.expect(200);
    let id = made.id();
    assert_eq!(made.headers["location"], format!("/core/trunks/{id}"));
    assert_eq!(made.body["name"], "Carrier");
    assert_eq!(made.body["organization_id"], api.organization.to_string());
    for null in ["managed_account_id", "inbound_config", "outbound_config"] {
        assert_eq!(made.body[null], Value::Null, "{null}");
    }
    let keys: Vec<&String> = made.body.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 8, "{keys:?}");
    assert!(made.body["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(api.get(&format!("/core/trunks/{id}")).await.expect(200).body, made.body);
    assert_eq!(api.get("/core/trunks").await.expect(200).body, json!([made.body]));
    let gone = api.delete(&format!("/core/trunks/{id}")).await.expect(204);
    assert!(gone.text.is_empty());
    api.get(&format!("/core/trunks/{id}")).await.expect(404);
    api.delete(&format!("/core/trunks/{id}")).await.expect(404);
    api.put(&format!("/core/trunks/{id}"), json!({})).await.expect(404);
}

#[tokio::test]
async fn configs_get_the_documented_defaults() {
    let api = TestApi::start().await;
    let body = json!({"name": "d", "inbound_config": {}, "outbound_config": outbound()});
    let made = api.post("/core/trunks", body).await.expect(200).body;
    assert_eq!(
        made["inbound_config"],
        json!({"enable_noise_cancellation": false, "media_encryption": "SIP_MEDIA_ENCRYPT_DISABLE", "allowed_addresses": null})
    );
    assert_eq!(
        made["outbound_config"],
        json!({"address": "sip.carrier.example:5080", "auth_username": "user", "transport": "SIP_TRANSPORT_UDP",
               "media_encryption": "SIP_MEDIA_ENCRYPT_DISABLE"})
    );
}

#[tokio::test]
async fn every_enum_value_is_taken_and_no_other() {
    let api = TestApi::start().await;
    for policy in ["SIP_MEDIA_ENCRYPT_DISABLE", "SIP_MEDIA_ENCRYPT_ALLOW", "SIP_MEDIA_ENCRYPT_REQUIRE"] {
        let body = json!({"name": "e", "inbound_config": {"media_encryption": policy}});
        let made = api.post("/core/trunks", body).await.expect(200).body;
        assert_eq!(made["inbound_config"]["media_encryption"], policy);
    }
    for transport in ["SIP_TRANSPORT_UDP", "SIP_TRANSPORT_TCP", "SIP_TRANSPORT_TLS"] {
        let mut config = outbound();
        config["transport"] = json!(transport);
        config["media_encryption"] = json!("SIP_MEDIA_ENCRYPT_ALLOW");
        let made =
            api.post("/core/trunks", json!({"name": "e", "outbound_config": config})).await.expect(200).body;
        assert_eq!(made["outbound_config"]["transport"], transport);
        assert_eq!(made["outbound_config"]["media_encryption"], "SIP_MEDIA_ENCRYPT_ALLOW");
    }
    for bad in [
        json!("SIP_TRANSPORT_SCTP"),
        json!("udp"),
        json!(""),
        json!(1),
        json!(null),
        json!([]),
        json!({"SIP_TRANSPORT_UDP": null}),
    ] {
        let mut config = outbound();
        config["transport"] = bad;
        api.post("/core/trunks", json!({"name": "e", "outbound_config": config}))
            .await
            .names("outbound_config.transport");
    }
    let body = json!({"name": "e", "inbound_config": {"media_encryption": "ALLOW"}});
    let refused = api.post("/core/trunks", body).await.names("inbound_config.media_encryption");
    assert!(refused.detail().contains("SIP_MEDIA_ENCRYPT_REQUIRE"));
}

#[tokio::test]
async fn allowed_addresses_are_stripped_normalised_and_checked() {
    let api = TestApi::start().await;
    for (sent, kept) in [
        (json!(null), json!(null)),
        (json!([]), json!(null)),
        (json!(["", "  "]), json!(null)),
        (
            json!(["", "203.0.113.7", " 198.51.100.0/24 ", "2001:db8::/32"]),
            json!(["203.0.113.7", "198.51.100.0/24", "2001:db8::/32"]),
        ),
    ] {
        let body = json!({"name": "a", "inbound_config": {"allowed_addresses": sent}});
        let made = api.post("/core/trunks", body).await.expect(200).body;
        assert_eq!(made["inbound_config"]["allowed_addresses"], kept, "{sent}");
    }
    let with = |list: Value| json!({"name": "a", "inbound_config": {"allowed_addresses": list}});
    let refused = api.post("/core/trunks", with(json!(["203.0.113.7", "", "sip.example.com"]))).await;
    let refused = refused.names("inbound_config.allowed_addresses.2");
    assert!(refused.detail().contains("sip.example.com"), "{}", refused.detail());
    for bad in ["10.0.0.0/33", "1.2.3", "10.0.0.1\r\nX: y"] {
        api.post("/core/trunks", with(json!([bad]))).await.names("inbound_config.allowed_addresses.0");
    }
    api.post("/core/trunks", with(json!(vec!["10.0.0.1"; 256]))).await.expect(200);
    api.post("/core/trunks", with(json!(vec!["10.0.0.1"; 257])))
        .await
        .names("inbound_config.allowed_addresses");
    api.post("/core/trunks", with(json!("10.0.0.1"))).await.names("inbound_config.allowed_addresses");
    api.post("/core/trunks", with(json!([7]))).await.names("inbound_config.allowed_addresses.0");
}

#[tokio::test]
async fn a_node_may_ask_every_trunk_for_its_list() {
    let api = TestApi::start_with(|setup| setup.allow_list = true).await;
    let field = "inbound_config.allowed_addresses";
    let with = |list: Value| json!({"name": "t", "inbound_config": {"allowed_addresses": list}});
    for open in [
        json!({"name": "t"}),
        json!({"name": "t", "inbound_config": null}),
        with(Value::Null),
        with(json!([])),
    ] {
        api.post("/core/trunks", open).await.names(field);
    }
    // One fault, one error.
    let wrong = api.post("/core/trunks", with(json!(["nowhere"]))).await.names(&format!("{field}.0"));
    assert_eq!(wrong.body["errors"].as_array().unwrap().len(), 1);
    let id = api.post("/core/trunks", with(json!(["198.51.100.0/24"]))).await.expect(200).id();
    let path = format!("/core/trunks/{id}");
    api.put(&path, json!({"inbound_config": null})).await.names(field);
    api.put(&path, json!({"inbound_config": {"allowed_addresses": [""]}})).await.names(field);
    // What is left out stays as it is.
    api.put(&path, json!({"name": "u"})).await.expect(200);
    let open = TestApi::start().await;
    open.post("/core/trunks", with(json!([]))).await.expect(200);
}

#[tokio::test]
async fn an_outbound_config_needs_its_three_fields() {
    let api = TestApi::start().await;
    for field in ["address", "auth_username", "auth_password"] {
        let name = format!("outbound_config.{field}");
        let mut config = outbound();
        config.as_object_mut().unwrap().remove(field);
        let refused =
            api.post("/core/trunks", json!({"name": "o", "outbound_config": config})).await.names(&name);
        assert_eq!(refused.body["errors"][0]["type"], "missing");
        for bad in [
            json!(""),
            json!(null),
            json!(5),
            json!("a\r\nX-Injected: 1"),
            json!("a\u{0}b"),
            json!("a\u{7f}"),
            json!("a\u{85}"),
        ] {
            let mut config = outbound();
            config[field] = bad;
            api.post("/core/trunks", json!({"name": "o", "outbound_config": config})).await.names(&name);
        }
    }
    let all = api.post("/core/trunks", json!({"name": "o", "outbound_config": {}})).await.expect(422);
    assert_eq!(all.body["errors"].as_array().unwrap().len(), 3, "{}", all.text);
    for address in
        ["sip:a.example", "u@a.example", "a.example;transport=tcp", "a b", "a.example:0", "a..b", "http://a"]
    {
        let mut config = outbound();
        config["address"] = json!(address);
        api.post("/core/trunks", json!({"name": "o", "outbound_config": config}))
            .await
            .names("outbound_config.address");
    }
    let mut config = outbound();
    config["auth_password"] = json!(format!("{CANARY} \"ü:@;<>\\%\""));
    config["auth_username"] = json!("a b@c;\"d\"");
    api.post("/core/trunks", json!({"name": "o", "outbound_config": config})).await.expect(200);
}

#[tokio::test]
async fn names_are_1_to_255_characters_after_trimming() {
    let api = TestApi::start().await;
    for good in ["a".repeat(255), "é".repeat(255), format!(" {} ", "a".repeat(255))] {
        api.post("/core/trunks", json!({"name": good})).await.expect(200);
    }
    for bad in
        [json!(""), json!("   "), json!("a".repeat(256)), json!("a\nb"), json!(null), json!(1), json!(["a"])]
    {
        api.post("/core/trunks", json!({"name": bad})).await.names("name");
    }
    api.post("/core/trunks", json!({})).await.names("name");
}

#[tokio::test]
async fn unknown_fields_are_refused_by_name() {
    let api = TestApi::start().await;
    let id = api.trunk("t").await;
    let path = format!("/core/trunks/{id}");
    for field in ["organization_id", "managed_account_id", "id", "created_at", "inbound", "max_calls"] {
        let refused = api.post("/core/trunks", json!({"name": "u", field: "x"})).await.names(field);
        assert_eq!(refused.body["errors"][0]["type"], "unknown_field");
        api.put(&path, json!({field: null})).await.names(field);
    }
    for field in ["auth_user", "media_address", "allowed_adresses"] {
        let body = json!({"name": "u", "inbound_config": {field: "x"}});
        api.post("/core/trunks", body).await.names(&format!("inbound_config.{field}"));
    }
    for field in ["registers", "fallback_address", "max_calls_per_second"] {
        let mut config = outbound();
        config[field] = json!(true);
        let refused = api.put(&path, json!({"outbound_config": config})).await;
        refused.names(&format!("outbound_config.{field}"));
    }
}

#[tokio::test]
async fn put_keeps_what_is_left_out_clears_null_and_replaces_objects() {
    let api = TestApi::start().await;
    let body = json!({"name": "p", "inbound_config": {"enable_noise_cancellation": true, "allowed_addresses": ["10.0.0.1"]},
                      "outbound_config": outbound()});
    let made = api.post("/core/trunks", body).await.expect(200);
    let path = format!("/core/trunks/{}", made.id());
    let kept = api.put(&path, json!({"name": "q"})).await.expect(200).body;
    assert_eq!(kept["name"], "q");
    assert_eq!(kept["inbound_config"], made.body["inbound_config"]);
    assert_eq!(kept["outbound_config"], made.body["outbound_config"]);
    assert_eq!(kept["created_at"], made.body["created_at"]);
    assert!(kept["updated_at"].as_str() > made.body["updated_at"].as_str());
    api.put(&path, json!({})).await.expect(200);
    let replaced = api.put(&path, json!({"inbound_config": {}})).await.expect(200).body;
    assert_eq!(replaced["inbound_config"]["enable_noise_cancellation"], false);
    assert_eq!(replaced["inbound_config"]["allowed_addresses"], Value::Null);
    let refused =
        api.put(&path, json!({"outbound_config": {"address": "b.example", "auth_username": "u"}})).await;
    refused.names("outbound_config.auth_password");
    let mut config = outbound();
    config["address"] = json!("b.example");
    assert_eq!(
        api.put(&path, json!({"outbound_config": config})).await.expect(200).body["outbound_config"]["address"],
        "b.example"
    );
    let cleared =
        api.put(&path, json!({"inbound_config": null, "outbound_config": null})).await.expect(200).body;
    assert_eq!((&cleared["inbound_config"], &cleared["outbound_config"]), (&Value::Null, &Value::Null));
    api.put(&path, json!({"name": null})).await.names("name");
    api.put(&path, json!({"name": " "})).await.names("name");
    assert_eq!(api.get(&path).await.body["name"], "q");
}

#[tokio::test]
async fn a_managed_trunk_is_read_only() {
    let api = TestApi::start().await;
    let path = format!("/core/trunks/{}", api.managed_trunk().await);
    assert_eq!(api.get(&path).await.expect(200).body["managed_account_id"], "AC1");
    for refused in [api.put(&path, json!({"name": "x"})).await, api.delete(&path).await] {
        assert!(refused.expect(400).detail().contains("managed"));
    }
    api.put(&path, json!({"nome": "x"})).await.names("nome");
    assert_eq!(api.get(&path).await.expect(200).body["name"], "managed");
}

#[tokio::test]
async fn a_trunk_with_numbers_on_it_is_not_deleted() {
    let api = TestApi::start().await;
    let trunk = api.trunk("t").await;
    api.number("+14155550100", &trunk).await;
    api.delete(&format!("/core/trunks/{trunk}")).await.expect(409);
    api.delete("/core/phone-numbers/%2B14155550100").await.expect(204);
    api.delete(&format!("/core/trunks/{trunk}")).await.expect(204);
}

#[tokio::test]
async fn ids_that_are_none_are_422_and_unknown_ones_404() {
    let api = TestApi::start().await;
    for bad in ["x", "123", "00000000-0000-0000-0000-00000000000g", "%00", "%FF"] {
        api.get(&format!("/core/trunks/{bad}")).await.expect(422);
    }
    api.get("/core/trunks/x").await.names("id");
    for unknown in ["00000000-0000-0000-0000-000000000000", "01960000-0000-7000-8000-000000000000"] {
        assert_eq!(
            api.get(&format!("/core/trunks/{unknown}")).await.expect(404).detail(),
            "Trunk not found."
        );
    }
}

#[tokio::test]
async fn filters_choose_by_name_and_time() {
    let api = TestApi::start().await;
    for name in ["Alpha", "beta", "ALPHABET 100%"] {
        api.post("/core/trunks", json!({"name": name})).await.expect(200);
    }
    let all = api.get("/core/trunks").await.expect(200).body;
    assert_eq!(all[0]["name"], "ALPHABET 100%", "newest first");
    let count = |reply: Value| reply.as_array().unwrap().len();
    assert_eq!(count(api.get("/core/trunks?name=alpha").await.expect(200).body), 2);
    assert_eq!(count(api.get("/core/trunks?name=100%25").await.expect(200).body), 1);
    assert_eq!(
        count(api.get("/core/trunks?name=%25").await.expect(200).body),
        1,
        "a percent sign is a character"
    );
    assert_eq!(count(api.get("/core/trunks?name=_").await.expect(200).body), 0);
    let middle = all[1]["created_at"].as_str().unwrap();
    for (filter, expected) in
        [("created_after", 2), ("created_before", 2), ("updated_after", 2), ("updated_before", 2)]
    {
        assert_eq!(
            count(api.get(&format!("/core/trunks?{filter}={middle}")).await.expect(200).body),
            expected,
            "{filter} is inclusive"
        );
    }
    api.get("/core/trunks?created_after=yesterday").await.names("created_after");
    api.get("/core/trunks?created_after=").await.names("created_after");
    api.get("/core/trunks?limit=1&limit=2").await.names("limit");
}

#[tokio::test]
async fn no_password_is_in_an_answer_or_in_a_file() {
    let api = TestApi::start().await;
    let id = api.trunk("secret").await;
    let path = format!("/core/trunks/{id}");
    // `raw` looks for the password in every answer.
    api.get(&path).await.expect(200);
    api.get("/core/trunks").await.expect(200);
    api.put(&path, json!({"outbound_config": outbound()})).await.expect(200);
    api.put(&path, json!({"outbound_config": {"auth_password": CANARY}})).await.expect(422);
    api.put(&path, json!({"outbound_config": {"auth_password": [CANARY]}})).await.expect(422);
    api.put(&path, json!({"outbound_config": CANARY})).await.names("outbound_config");
    let long = format!("{CANARY}{}", "x".repeat(300));
    let mut config = outbound();
    config["auth_password"] = json!(long);
    api.put(&path, json!({"outbound_config": config})).await.names("outbound_config.auth_password");
    config["auth_password"] = json!(format!("{CANARY}\r\n"));
    api.put(&path, json!({"outbound_config": config})).await.names("outbound_config.auth_password");
    api.as_key(&api.key, Method::GET, &format!("{path}/health"), None).await.expect(200);
    let files = api.files();
    assert!(
        !files.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()),
        "the password is in a file"
    );
}

#[tokio::test]
async fn health_says_what_the_settings_mean() {
    let api = TestApi::start().await;
    let mut config = outbound();
    config["media_encryption"] = json!("SIP_MEDIA_ENCRYPT_REQUIRE");
    let body = json!({"name": "h", "inbound_config": {"enable_noise_cancellation": true, "media_encryption": "SIP_MEDIA_ENCRYPT_REQUIRE"},
                      "outbound_config": config});
    let id = api.post("/core/trunks", body).await.expect(200).id();
    let health = api.get(&format!("/core/trunks/{id}/health")).await.expect(200).body;
    assert_eq!(health["state"], "unknown");
    assert_eq!(health["open"], true);
    assert_eq!(health["answer_seizure_ratio"], Value::Null);
    let notes = health["notes"].to_string();
    for part in ["inbound_config.media_encryption", "outbound_config.media_encryption", "any source"] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    assert_eq!(api.get(&format!("/core/trunks/{id}/decisions")).await.expect(200).body, json!([]));
}
