//! Lists: newest first, in pages that stay put under equal timestamps and concurrent inserts.

use axum::Json;
use axum::http::header::LINK;
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use model::Timestamp;
use serde::Serialize;
use store::Page;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use uuid::Uuid;

use crate::wire::{Text, Wire};

/// Rows of a page when the client does not say.
pub(crate) const DEFAULT_LIMIT: u32 = 50;
/// Most rows of a page.
pub(crate) const MAX_LIMIT: u32 = 100;
/// Longest cursor, in characters.
const MAX_CURSOR: usize = 128;

/// The cursor of the next page.
pub(crate) static X_NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

/// `limit` of a list.
pub(crate) type LimitText = Text<Limit>;

/// See [`LimitText`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(u32);

impl Wire for Limit {
    const NAME: &'static str = "Limit";
    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(n @ 1..=MAX_LIMIT) => Ok(Self(n)),
            _ => Err(format!("must be a whole number from 1 to {MAX_LIMIT}")),
        }
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
    fn describe() -> Object {
        let builder =
            ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(MAX_LIMIT));
        builder.default(Some(DEFAULT_LIMIT.into())).description(Some("Rows of a page.")).build()
    }
}

/// `cursor` of a list.
pub(crate) type CursorText = Text<Cursor>;

/// The row a page ends with. Rows strictly older than it follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    at: Timestamp,
    /// Tells rows of one instant apart. Absent in the hosted API's own form, Base64 of the row's `created_at`.
    id: Option<Uuid>,
}

/// Standard alphabet, with or without padding.
const STANDARD: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// URL-safe alphabet, with or without padding.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Cursor {
    fn decode(text: &str) -> Option<Self> {
        if text.len() > MAX_CURSOR {
            return None;
        }
        // A `+` of the standard alphabet that was not percent-encoded arrives as a space.
        let text = text.replace(' ', "+");
        let bytes = STANDARD.decode(&text).or_else(|_| URL_SAFE.decode(&text)).ok()?;
        let plain = String::from_utf8(bytes).ok()?;
        match plain.split_once('/') {
            Some((at, id)) => {
                Some(Self { at: Timestamp(at.parse().ok()?), id: Some(Uuid::parse_str(id).ok()?) })
            }
            None => Some(Self { at: plain.parse().ok()?, id: None }),
        }
    }
}

impl Wire for Cursor {
    const NAME: &'static str = "Cursor";
    fn parse(text: &str) -> Result<Self, String> {
        Self::decode(text).ok_or_else(|| {
            "must be the X-Next-Cursor of an earlier page, or Base64 of the last row's created_at".to_owned()
        })
    }
    fn show(&self) -> String {
        match self.id {
            Some(id) => URL_SAFE_NO_PAD.encode(format!("{}/{}", self.at.0, id.simple())),
            None => STANDARD.encode(self.at.to_string()),
        }
    }
    fn describe() -> Object {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "The X-Next-Cursor of the page before, or Base64 of its last row's created_at.",
            ))
            .build()
    }
}

/// What the store is asked for: one row more than is shown, to know whether there is more.
pub(crate) fn page(limit: Option<LimitText>, cursor: Option<CursorText>) -> Page {
    let limit = limit.map_or(DEFAULT_LIMIT, |l| l.0.0);
    Page { limit: limit + 1, before: cursor.map(|c| (c.0.at, c.0.id)) }
}

/// The answer to a list: the rows, and where the next page begins.
pub(crate) struct Listed {
    rows: Response,
    next: Option<String>,
    uri: Uri,
}

/// Cuts the extra row off and makes the answer. `key` gives a row's place in the order.
pub(crate) fn listed<R, O: Serialize>(
    uri: Uri,
    page: &Page,
    mut rows: Vec<R>,
    key: impl Fn(&R) -> (Timestamp, Uuid),
    show: impl Fn(R) -> O,
) -> Listed {
    let shown = page.limit.saturating_sub(1) as usize;
    let more = rows.len() > shown;
    rows.truncate(shown);
    let next = rows.last().filter(|_| more).map(|row| {
        let (at, id) = key(row);
        Cursor { at, id: Some(id) }.show()
    });
    let rows: Vec<O> = rows.into_iter().map(show).collect();
    Listed { rows: Json(rows).into_response(), next, uri }
}

impl IntoResponse for Listed {
    fn into_response(self) -> Response {
        let mut response = self.rows;
        if let Some(next) = self.next {
            let link = format!("<{}>; rel=\"next\"", with_cursor(&self.uri, &next));
            // A cursor is Base64 and a request's URI is ASCII, so both are header values.
            if let (Ok(next), Ok(link)) = (HeaderValue::try_from(next), HeaderValue::try_from(link)) {
                response.headers_mut().insert(X_NEXT_CURSOR.clone(), next);
                response.headers_mut().insert(LINK, link);
            }
        }
        response
    }
}

fn with_cursor(uri: &Uri, cursor: &str) -> String {
    let kept = uri
        .query()
        .unwrap_or("")
        .split('&')
        .filter(|p| !p.is_empty() && p.split('=').next() != Some("cursor"));
    let mut query: Vec<String> = kept.map(|p| p.replace('>', "%3E")).collect();
    query.push(format!("cursor={cursor}"));
    format!("{}?{}", uri.path(), query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let cursor = Cursor { at: Timestamp(1_700_000_000_123_456), id: Some(Uuid::now_v7()) };
        assert_eq!(Cursor::parse(&cursor.show()), Ok(cursor));
    }

    #[test]
    fn base64_of_created_at_is_a_cursor_in_every_alphabet_and_padding() {
        let at = Timestamp(1_700_000_000_123_456);
        for text in ["2023-11-14T22:13:20.123456Z", "2023-11-14T22:13:20.123456+00:00"] {
            for encoded in [STANDARD.encode(text), URL_SAFE.encode(text), URL_SAFE_NO_PAD.encode(text)] {
                assert_eq!(Cursor::parse(&encoded), Ok(Cursor { at, id: None }), "{encoded}");
            }
        }
        for bad in
            ["", "x", "not base64!", &STANDARD.encode("yesterday"), &STANDARD.encode("1/2"), &"A".repeat(200)]
        {
            assert!(Cursor::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_next_link_keeps_the_filters_and_replaces_the_cursor() {
        let uri: Uri = "/core/trunks?name=a%20b&cursor=old&limit=2".parse().unwrap();
        assert_eq!(with_cursor(&uri, "new"), "/core/trunks?name=a%20b&limit=2&cursor=new");
        assert_eq!(with_cursor(&"/core/trunks".parse().unwrap(), "new"), "/core/trunks?cursor=new");
    }
}
