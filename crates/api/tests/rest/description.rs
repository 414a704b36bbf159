//! The description of the API: committed, sound, and the same as the router both ways.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::Value;

use crate::support::TestApi;

#[test]
fn the_committed_description_is_the_codes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    let made = api::openapi().to_pretty_json().unwrap() + "\n";
    assert!(
        committed == made,
        "openapi.json is out of date: cargo run -p api --example openapi > openapi.json"
    );
}

fn operations(description: &Value) -> Vec<(String, String, Value)> {
    let paths = description["paths"].as_object().unwrap();
    let each = |(path, item): (&String, &Value)| {
        let item = item.as_object().unwrap().clone();
        let path = path.clone();
        item.into_iter().map(move |(method, operation)| (method, path.clone(), operation)).collect::<Vec<_>>()
    };
    paths.iter().flat_map(each).collect()
}

#[test]
fn every_operation_is_described_in_full() {
    let description = serde_json::to_value(api::openapi()).unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for (method, path, operation) in operations(&description) {
        let name = format!("{method} {path}");
        assert!(
            ids.insert(operation["operationId"].as_str().expect(&name).to_owned()),
            "{name}: the id is taken"
        );
        assert!(!operation["summary"].as_str().expect(&name).is_empty());
        assert_eq!(operation["tags"].as_array().expect(&name).len(), 1, "{name}");
        let guarded = operation.get("security").is_some();
        assert_eq!(guarded, path.starts_with("/core/") || path.starts_with("/admin/"), "{name}");
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(!response["description"].as_str().expect(&name).is_empty(), "{name} {status}");
            let body = !matches!(status.as_str(), "101" | "204");
            assert_eq!(response.get("content").is_some(), body, "{name} {status}");
        }
        for parameter in path.split('{').skip(1).map(|part| part.split('}').next().unwrap()) {
            let described = operation["parameters"].as_array().expect(&name);
            assert!(
                described.iter().any(|p| p["in"] == "path" && p["name"] == parameter),
                "{name}: {parameter}"
            );
        }
    }
    let tags: Vec<&Value> = description["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    for (_, path, operation) in operations(&description) {
        assert!(tags.contains(&&operation["tags"][0]), "{path}");
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_body_refuses_unknown_fields() {
    let description = serde_json::to_value(api::openapi()).unwrap();
    let text = description.to_string();
    let schemas = description["components"]["schemas"].as_object().unwrap();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
    for (_, path, operation) in operations(&description) {
        // The hang-up shim takes a form, of whose fields it knows one, like the original.
        let Some(json) = operation.pointer("/requestBody/content/application~1json") else { continue };
        let schema = json["schema"].to_string();
        let name =
            schema.split("#/components/schemas/").nth(1).unwrap().split('"').next().unwrap().to_owned();
        assert_eq!(schemas[&name]["additionalProperties"], false, "{path}");
    }
    for (name, schema) in schemas {
        let secret = schema["properties"].get("auth_password");
        assert!(secret.is_none() || name.ends_with("In"), "{name} shows a password");
        let password = &schema["properties"]["auth_password"];
        assert!(password.is_null() || password["writeOnly"] == true, "{name}");
    }
}

#[tokio::test]
async fn the_router_has_what_is_described_and_nothing_else_under_core() {
    let api = TestApi::start().await;
    let description = serde_json::to_value(api::openapi()).unwrap();
    let described = operations(&description);
    for (_, path, _) in &described {
        let at = path.replace("{id}", "x").replace("{version}", "x").replace("{phone_number}", "x");
        let at = at.replace("{delivery_id}", "x").replace("{decision_id}", "x");
        for method in ["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
            let known = described.iter().any(|(m, p, _)| m.eq_ignore_ascii_case(method) && p == path);
            let request = Request::builder()
                .method(method.parse::<Method>().unwrap())
                .uri(&at)
                .body(Body::empty())
                .unwrap();
            let answer = api.raw(request).await;
            let status = answer.status.as_u16();
            assert_eq!(status != 405, known, "{method} {path} answered {status}");
            // Without a good token there is nothing to listen to; everything else asks who it is first.
            let nothing_there = status == 404 && path != "/listen";
            assert!(!nothing_there, "{method} {path}");
        }
    }
}

/// A schema that asks for two types at once, or has a `default` of another type, refuses every value. A field that is
/// `inline` and has a description or a default of its own becomes one: both belong to its type.
fn check_defaults(place: &str, value: &Value) {
    if let (Some(default), Some(kind)) = (value.get("default"), value.get("type")) {
        let fits = |kind: &Value| match kind.as_str() {
            Some("string") => default.is_string(),
            Some("integer") => default.is_i64(),
            Some("number") => default.is_number(),
            Some("boolean") => default.is_boolean(),
            Some("array") => default.is_array(),
            Some("object") => default.is_object(),
            Some("null") => default.is_null(),
            _ => true,
        };
        assert!(kind.as_array().map_or_else(|| fits(kind), |kinds| kinds.iter().any(fits)), "{place}");
    }
    let kinds = value["allOf"].as_array().into_iter().flatten().filter_map(|part| part.get("type"));
    let kinds: std::collections::BTreeSet<String> = kinds.map(Value::to_string).collect();
    assert!(kinds.len() <= 1, "{place} is of {kinds:?} at once");
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| check_defaults(&format!("{place}/{name}"), value));
        }
        Value::Array(list) => list.iter().for_each(|value| check_defaults(place, value)),
        _ => {}
    }
}

#[test]
fn defaults_are_of_the_type_they_stand_beside() {
    check_defaults("", &serde_json::to_value(api::openapi()).unwrap()["components"]["schemas"]);
}
