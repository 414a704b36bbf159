//! What holds for every operation: bodies, pages, ids, health, and answers for what is not there.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::support::TestApi;

fn post(api: &TestApi) -> axum::http::request::Builder {
    Request::builder()
        .method(Method::POST)
        .uri("/core/trunks")
        .header("authorization", format!("Bearer {}", api.key))
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_refused() {
    let api = TestApi::start().await;
    for (body, status) in [
        ("", 422),
        ("{", 422),
        ("{\"name\": \"a\"", 422),
        ("[]", 422),
        ("[\"name\"]", 422),
        ("\"name\"", 422),
        ("null", 422),
        ("7", 422),
        ("{\"name\": \"a\"} x", 422),
        ("{\"name\": \"a\"}{}", 422),
        ("{\"name\": \"a\", \"name\": \"b\"}", 422),
        ("{'name': 'a'}", 422),
        ("{\"name\": \"\\ud800\"}", 422),
        ("{\"name\": \"a\"}", 200),
        (" {\"name\": \"a\"} ", 200),
        ("{\"name\": \"a\", \"inbound_config\": [true]}", 422),
    ] {
        let request = post(&api).header("content-type", "application/json").body(Body::from(body)).unwrap();
        let reply = api.raw(request).await.expect(status);
        if status == 422 {
            assert_eq!(reply.body["errors"][0]["loc"][0], "body", "{body}");
            assert!(reply.detail().ends_with('.'));
        }
    }
    let deep = format!("{{\"name\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let request = post(&api).header("content-type", "application/json").body(Body::from(deep)).unwrap();
    api.raw(request).await.expect(422);
    let duplicate = post(&api).body(Body::from("{\"name\": \"a\", \"name\": \"b\"}")).unwrap();
    api.raw(duplicate).await.names("name");
}

#[tokio::test]
async fn bodies_of_another_type_are_415() {
    let api = TestApi::start().await;
    let body = "{\"name\": \"a\"}";
    for (kind, status) in [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("application/merge-patch+json", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("", 415),
    ] {
        let request = post(&api).header("content-type", kind).body(Body::from(body)).unwrap();
        api.raw(request).await.expect(status);
    }
    let request = post(&api).header("content-type", "application/json").header("content-encoding", "gzip");
    api.raw(request.body(Body::from(body)).unwrap()).await.expect(415);
}

#[tokio::test]
async fn bodies_over_a_mebibyte_are_413() {
    let api = TestApi::start().await;
    let body = |size: usize| {
        let frame = "{\"name\": \"a\", \"x\": \"\"}".len();
        format!("{{\"name\": \"a\", \"x\": \"{}\"}}", "x".repeat(size - frame))
    };
    for (size, status) in [(api::MAX_BODY, 422), (api::MAX_BODY + 1, 413)] {
        let body = body(size);
        assert_eq!(body.len(), size);
        let request = post(&api).header("content-type", "application/json").body(Body::from(body)).unwrap();
        api.raw(request).await.expect(status);
    }
}

#[tokio::test]
async fn what_is_not_there_is_answered_in_json() {
    let api = TestApi::start().await;
    for path in ["/", "/core", "/core/trunks/", "/core/nothing", "/core/trunks/a/b/c"] {
        assert!(api.get(path).await.expect(404).detail().ends_with('.'), "{path}");
    }
    for (method, path) in [
        (Method::DELETE, "/core/trunks"),
        (Method::PATCH, "/core/trunks/x"),
        (Method::POST, "/healthz"),
        (Method::TRACE, "/core/trunks"),
    ] {
        let reply = api.as_key(&api.key, method, path, None).await.expect(405);
        assert!(reply.detail().ends_with('.'), "{path}");
        assert!(reply.headers["allow"].to_str().unwrap().contains("GET") || path.ends_with('x'), "{path}");
    }
}

#[tokio::test]
async fn a_request_id_is_echoed_or_made() {
    let api = TestApi::start().await;
    let ask = |id: &'static str| {
        Request::builder().uri("/healthz").header("x-request-id", id).body(Body::empty()).unwrap()
    };
    assert_eq!(api.raw(ask("abc-DEF_123")).await.headers["x-request-id"], "abc-DEF_123");
    for bad in ["", "a b", "a;b", "é"] {
        let made = api.raw(ask(bad)).await.headers["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!(made.len(), 36, "{bad}");
    }
    assert!(api.get("/core/nothing").await.headers.contains_key("x-request-id"));
}

#[tokio::test]
async fn pages_show_each_row_once_under_equal_times_while_rows_come_and_go() {
    let api = TestApi::start().await;
    for index in 0..25 {
        api.post("/core/trunks", json!({"name": format!("t{index}")})).await.expect(200);
    }
    let mut seen = Vec::new();
    let mut path = "/core/trunks?limit=10&name=t".to_owned();
    loop {
        let page = api.get(&path).await.expect(200);
        seen.extend(page.body.as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap().to_owned()));
        let last = page.body.as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
        let Some(link) = page.headers.get("link") else {
            assert!(!page.headers.contains_key("x-next-cursor"));
            break;
        };
        let link = link.to_str().unwrap();
        let next = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
        assert!(next.contains("limit=10") && next.contains("name=t"), "{next}");
        assert!(next.ends_with(page.headers["x-next-cursor"].to_str().unwrap()));
        path = next;
        // The row the cursor stands on goes, and a new one comes: neither moves the next page.
        api.delete(&format!("/core/trunks/{last}")).await.expect(204);
        api.post("/core/trunks", json!({"name": "tnew"})).await.expect(200);
    }
    let expected: Vec<String> = (0..25).rev().map(|index| format!("t{index}")).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn base64_of_the_last_rows_created_at_is_a_cursor() {
    use base64::Engine;
    let api = TestApi::start().await;
    for index in 0..3 {
        api.post("/core/trunks", json!({"name": format!("t{index}")})).await.expect(200);
    }
    let page = api.get("/core/trunks?limit=2").await.expect(200);
    let last = page.body[1]["created_at"].as_str().unwrap();
    let cursor = base64::engine::general_purpose::STANDARD.encode(last);
    let next = api.get(&format!("/core/trunks?limit=2&cursor={cursor}")).await.expect(200).body;
    assert_eq!(next.as_array().unwrap().iter().map(|t| &t["name"]).collect::<Vec<_>>(), ["t0"]);
}

#[tokio::test]
async fn bad_cursors_and_limits_are_422() {
    let api = TestApi::start().await;
    for bad in ["0", "101", "-1", "x", "", "1.5", "99999999999999999999"] {
        api.get(&format!("/core/trunks?limit={bad}")).await.names("limit");
    }
    for bad in ["x", "", "%00", "AAAA"] {
        api.get(&format!("/core/agents?cursor={bad}")).await.names("cursor");
    }
    api.get("/core/trunks?limit=100").await.expect(200);
}

#[tokio::test]
async fn a_write_the_edge_does_not_take_is_503_and_saved() {
    let mut api = TestApi::start_with(|setup| setup.apply = false).await;
    let mut feed = api.feed.take().unwrap();
    let write = api.post("/core/trunks", json!({"name": "late"}));
    let told = async {
        // Once the edge is told, the write waits for nothing but the edge: now time may run ahead.
        assert!(feed.newer_than(0).await);
        tokio::time::pause();
    };
    let (reply, ()) = tokio::join!(write, told);
    tokio::time::resume();
    assert!(reply.expect(503).detail().contains("saved"));
    assert_eq!(api.get("/core/trunks").await.expect(200).body[0]["name"], "late");
}

#[tokio::test]
async fn the_node_tells_its_state_without_a_credential() {
    let api = TestApi::start().await;
    let ask = |path: &'static str| Request::builder().uri(path).body(Body::empty()).unwrap();
    assert_eq!(api.raw(ask("/healthz")).await.expect(200).body["status"], "ok");
    let ready = api.raw(ask("/readyz")).await.expect(200).body;
    assert_eq!((&ready["ready"], &ready["checks"][0]["name"]), (&json!(true), &json!("store")));
    let metrics = api.raw(ask("/metrics")).await.expect(200);
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
}

#[tokio::test]
async fn the_documentation_page_needs_nothing_from_elsewhere() {
    let api = TestApi::start().await;
    let ask = |path: String| Request::builder().uri(path).body(Body::empty()).unwrap();
    for path in ["/docs", "/docs/"] {
        let page = api.raw(ask(path.to_owned())).await.expect(200);
        assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"));
        assert!(!page.text.contains("http://") && !page.text.contains("https://"), "{}", page.text);
        let mut files = 0;
        for attribute in page.text.split(['"']).filter(|part| part.starts_with("/docs/")) {
            api.raw(ask(attribute.to_owned())).await.expect(200);
            files += 1;
        }
        assert!(files >= 3, "{}", page.text);
    }
    let start = api.raw(ask("/docs/swagger-initializer.js".to_owned())).await.expect(200);
    assert!(start.text.contains("/openapi.json"));
    api.raw(ask("/docs/nothing.js".to_owned())).await.expect(404);
    let description = api.raw(ask("/openapi.json".to_owned())).await.expect(200);
    assert_eq!(description.body["openapi"], "3.1.0");
}

#[tokio::test]
async fn the_organization_is_shown_and_its_addresses_changed() {
    let api = TestApi::start().await;
    let shown = api.get("/core/organization").await.expect(200).body;
    assert_eq!((&shown["name"], &shown["sip_endpoint_allowed_addresses"]), (&json!("Acme"), &Value::Null));
    let field = "sip_endpoint_allowed_addresses";
    let changed = api.patch("/core/organization", json!({field: ["", "10.0.0.0/8"]})).await.expect(200).body;
    assert_eq!(changed[field], json!(["10.0.0.0/8"]));
    assert_eq!(
        api.patch("/core/organization", json!({})).await.expect(200).body[field],
        json!(["10.0.0.0/8"])
    );
    assert_eq!(
        api.patch("/core/organization", json!({field: []})).await.expect(200).body[field],
        Value::Null
    );
    api.patch("/core/organization", json!({field: ["x"]})).await.names("sip_endpoint_allowed_addresses.0");
    api.patch("/core/organization", json!({"name": "x"})).await.names("name");
}

#[tokio::test]
async fn names_are_found_without_case_in_every_script() {
    let api = TestApi::start().await;
    api.trunk("MÜNCHEN Straße").await;
    api.post("/core/agents", json!({"name": "Ωmega 100%_\\"})).await.expect(200);
    let count = async |path: &str| api.get(path).await.expect(200).body.as_array().unwrap().len();
    assert_eq!(count("/core/trunks?name=m%C3%BCnchen").await, 1);
    assert_eq!(count("/core/trunks?name=M%C3%9CNCH").await, 1);
    assert_eq!(count("/core/trunks?name=munchen").await, 0);
    assert_eq!(count("/core/agents?name=%CF%89MEGA").await, 1);
    for (literal, found) in [("%25", 1), ("_", 1), ("%5C", 1), ("0%25_%5C", 1), ("0_0", 0)] {
        assert_eq!(count(&format!("/core/agents?name={literal}")).await, found, "{literal}");
    }
}

#[tokio::test]
async fn a_rare_piece_of_metadata_is_found_however_deep_it_lies() {
    let api = TestApi::start().await;
    api.post("/core/agents", json!({"name": "deep", "metadata": {"a": {"b": [1, 2]}}})).await.expect(200);
    for n in 0..450 {
        api.post("/core/agents", json!({"name": format!("a{n}"), "metadata": {"a": 1}})).await.expect(200);
    }
    let found = api.get("/core/agents?limit=1&metadata=%7B%22a%22%3A%7B%22b%22%3A%5B2%5D%7D%7D").await;
    let found = found.expect(200);
    assert_eq!(found.body[0]["name"], "deep");
    assert!(!found.headers.contains_key("x-next-cursor"));
}
