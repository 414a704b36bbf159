//! Extractors for path, query and body whose failures are 422 with the field's place. Handlers name the caller
//! first, so that a credential is judged before any of these looks at the request.

use std::time::Duration;

use axum::body::Body as HttpBody;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{ApiError, FieldErrorOut};

/// Largest body, in bytes.
pub const MAX_BODY: usize = 1024 * 1024;

/// How long a body may take to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The path's parameters.
pub(crate) struct At<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let bad_encoding =
            |_| ApiError::Invalid(vec![fault("path", "is not UTF-8 once percent-decoded", "value")]);
        let raw = RawPathParams::from_request_parts(parts, state).await.map_err(bad_encoding)?;
        let map = raw.iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
        from_strings("path", map).map(Self)
    }
}

/// The query's parameters. Every field is read from a string, and none may be given twice.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let malformed = |_| ApiError::Invalid(vec![fault("query", "is malformed", "value")]);
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map_err(malformed)?;
        let mut map = Map::new();
        for (name, value) in pairs {
            if map.contains_key(&name) {
                let loc = vec!["query".to_owned(), name];
                let msg = "is given more than once".to_owned();
                return Err(ApiError::Invalid(vec![FieldErrorOut { loc, msg, kind: "duplicate" }]));
            }
            map.insert(name, Value::from(value));
        }
        from_strings("query", map).map(Self)
    }
}

/// A JSON body, required.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match OptionalBody::from_request(request, state).await? {
            OptionalBody(Some(body)) => Ok(Self(body)),
            OptionalBody(None) => {
                Err(ApiError::Invalid(vec![fault("body", "must be a JSON object; none was sent", "missing")]))
            }
        }
    }
}

/// A JSON body that may be left out.
pub(crate) struct OptionalBody<T>(pub(crate) Option<T>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        check_media_type(&parts.headers)?;
        if bytes.trim_ascii() == b"null" {
            return Ok(Self(None));
        }
        parse(&bytes).map(|body| Self(Some(body)))
    }
}

/// Reads a whole body within its limits.
pub(crate) async fn read(body: HttpBody) -> Result<bytes::Bytes, ApiError> {
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Err(_) => Err(ApiError::BodyTimeout),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge),
        Ok(Err(_)) => Err(ApiError::Invalid(vec![fault("body", "broke off before its end", "json")])),
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let rule = "The body must be JSON: send Content-Type: application/json, without Content-Encoding.";
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(ApiError::UnsupportedMediaType(rule));
    }
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let json =
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if json { Ok(()) } else { Err(ApiError::UnsupportedMediaType(rule)) }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        // Derived structs would take an array of their fields' values as well.
        let msg = if serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok() {
            "must be a JSON object"
        } else {
            "is not well-formed JSON"
        };
        return Err(ApiError::Invalid(vec![fault("body", msg, "json")]));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let raw = || Value::deserialize(&mut serde_json::Deserializer::from_slice(bytes)).unwrap_or_default();
        describe(&["body".to_owned()], raw, &error)
    })?;
    deserializer
        .end()
        .map_err(|_| ApiError::Invalid(vec![fault("body", "goes on after its JSON object", "json")]))?;
    Ok(value)
}

fn from_strings<T: DeserializeOwned>(place: &str, map: Map<String, Value>) -> Result<T, ApiError> {
    let raw = Value::Object(map);
    serde_path_to_error::deserialize(&raw)
        .map_err(|error| describe(&[place.to_owned()], || raw.clone(), &error))
}

fn fault(place: &str, msg: &str, kind: &'static str) -> FieldErrorOut {
    FieldErrorOut { loc: vec![place.to_owned()], msg: msg.to_owned(), kind }
}

/// Reads a domain type that stands in `field` of a body. The tree it comes as shows where an array stands in for an
/// object, which derived structures would take.
pub(crate) fn tree<T: DeserializeOwned + serde::Serialize>(field: &str, raw: &Value) -> Result<T, ApiError> {
    let place = [String::from("body"), field.to_owned()];
    let value: T =
        serde_path_to_error::deserialize(raw).map_err(|error| describe(&place, || raw.clone(), &error))?;
    // What has just been read from a tree can be written as one.
    let canonical = serde_json::to_value(&value).unwrap_or_default();
    let mut path = vec![field.to_owned()];
    if array_for_object(raw, &canonical, &mut path) {
        return Err(ApiError::body(model::Invalid { path, message: "must be an object".to_owned() }));
    }
    Ok(value)
}

/// Whether `raw` has an array where `canonical` has an object; `path` is then where.
fn array_for_object(raw: &Value, canonical: &Value, path: &mut Vec<String>) -> bool {
    let mut descend = |name: String, raw: &Value, canonical: Option<&Value>| {
        path.push(name);
        let found = canonical.is_some_and(|canonical| array_for_object(raw, canonical, path));
        if !found {
            path.pop();
        }
        found
    };
    match (raw, canonical) {
        (Value::Array(_), Value::Object(_)) => true,
        (Value::Object(raw), Value::Object(canonical)) => {
            raw.iter().any(|(name, value)| descend(name.clone(), value, canonical.get(name)))
        }
        (Value::Array(raw), Value::Array(canonical)) => {
            raw.iter().enumerate().any(|(at, value)| descend(at.to_string(), value, canonical.get(at)))
        }
        _ => false,
    }
}

/// Turns a deserializer's complaint into a field and a rule. What was sent is never repeated: it may be a secret.
/// `place` is where the value `raw` stands, which is only looked at when it must be.
fn describe(
    place: &[String],
    raw: impl FnOnce() -> Value,
    error: &serde_path_to_error::Error<serde_json::Error>,
) -> ApiError {
    use serde_json::error::Category;
    use serde_path_to_error::Segment;

    let inner = error.inner();
    if matches!(inner.classify(), Category::Syntax | Category::Eof | Category::Io) {
        let msg = format!("is not well-formed JSON (line {}, column {})", inner.line(), inner.column());
        return ApiError::Invalid(vec![FieldErrorOut { loc: place.to_vec(), msg, kind: "json" }]);
    }
    let (mut loc, mut way) = (place.to_vec(), String::new());
    for segment in error.path() {
        match segment {
            Segment::Seq { index } => {
                loc.push(index.to_string());
                way.push_str(&format!("/{index}"));
            }
            Segment::Map { key } => {
                loc.push(key.clone());
                way.push_str(&format!("/{}", key.replace('~', "~0").replace('/', "~1")));
            }
            // Names of Rust variants mean nothing to a client.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    let text = inner.to_string();
    let text = text.rfind(" at line ").map_or(text.as_str(), |at| text.get(..at).unwrap_or(&text));
    let (field, msg, kind) = rule(text);
    // One of several words stands for itself; one of several objects is told by its type.
    let field = field.filter(|field| *field != TAG || raw().pointer(&way).is_some_and(Value::is_object));
    if let Some(field) = field
        && (loc.len() == place.len() || loc.last().map(String::as_str) != Some(field))
    {
        loc.push(field.to_owned());
    }
    ApiError::Invalid(vec![FieldErrorOut { loc, msg, kind }])
}

/// The field that tells of which kind an object is.
const TAG: &str = "type";

/// The field a message of serde's names, the rule in our words, and the kind of fault.
fn rule(text: &str) -> (Option<&str>, String, &'static str) {
    let quoted = |prefix: &str| text.strip_prefix(prefix)?.split('`').next();
    if let Some(field) = quoted("missing field `") {
        return (Some(field), crate::error::REQUIRED.to_owned(), "missing");
    }
    if let Some(field) = quoted("unknown field `") {
        return (Some(field), "is not a field of this object".to_owned(), "unknown_field");
    }
    if let Some(field) = quoted("duplicate field `") {
        return (Some(field), "is given more than once".to_owned(), "duplicate");
    }
    if text.starts_with("unknown variant `") {
        let expected = text.rsplit_once("expected ").map_or("", |(_, e)| e);
        let values: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        return (Some(TAG), format!("must be one of {}", values.join(", ")), "value");
    }
    for prefix in ["invalid type: ", "invalid value: ", "invalid length "] {
        if text.starts_with(prefix) {
            let expected = text.rsplit_once(", expected ").map_or("something else", |(_, e)| e);
            return (None, format!("must be {}", wanted(expected)), "type");
        }
    }
    (None, text.to_owned(), "value")
}

fn wanted(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a non-negative integer",
        "i8" | "i16" | "i32" | "i64" | "isize" => "an integer",
        "f32" | "f64" => "a number",
        "a sequence" => "an array",
        "a map" => "an object",
        other if other.starts_with("struct ") || other.contains(" enum ") || other.starts_with("enum ") => {
            "an object"
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn take(body: HttpBody) -> Result<Option<Map<String, Value>>, ApiError> {
        let OptionalBody(body) = OptionalBody::from_request(Request::new(body), &()).await?;
        Ok(body)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let silent = futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
        let started = tokio::time::Instant::now();
        assert!(matches!(take(HttpBody::from_stream(silent)).await, Err(ApiError::BodyTimeout)));
        assert_eq!(started.elapsed().as_secs(), BODY_TIMEOUT.as_secs());
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_or_outgrows_the_limit_is_refused() {
        let pieces = [Ok(bytes::Bytes::from_static(b"{")), Err(std::io::Error::other("reset"))];
        let broken = HttpBody::from_stream(futures_util::stream::iter(pieces));
        assert!(matches!(take(broken).await, Err(ApiError::Invalid(_))));
        let endless = futures_util::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b' '; 4096]))
        });
        assert!(matches!(take(HttpBody::from_stream(endless)).await, Err(ApiError::TooLarge)));
    }

    #[test]
    fn what_was_sent_is_not_repeated() {
        for text in [
            "invalid type: string \"hunter2, expected x\", expected a boolean",
            "invalid value: integer `-1`, expected u32",
            "invalid length 3, expected struct Tone with 2 elements",
            "unknown variant `hunter2`, expected `echo` or `play`",
        ] {
            let (_, msg, _) = rule(text);
            assert!(msg.starts_with("must be ") && !msg.contains("hunter2"), "{msg}");
        }
    }
}
