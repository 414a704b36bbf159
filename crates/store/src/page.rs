//! Pages of lists, newest first, and the filters every list has.

use model::Timestamp;
use sqlx::{QueryBuilder, Sqlite};
use uuid::Uuid;

/// Rows read at once to fill a page of a list that is filtered by JSON containment, which SQL does not know.
pub(crate) const SCAN_ROWS: u32 = 1_000;
/// How often so many are read before the page is left as full as it is.
pub(crate) const MAX_SCANS: usize = 200;

/// Which rows of a list.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Most rows.
    pub limit: u32,
    /// Only rows strictly older than this: by creation time and id, or by creation time alone.
    pub before: Option<(Timestamp, Option<Uuid>)>,
}

pub(crate) struct Times {
    pub(crate) created_after: Option<Timestamp>,
    pub(crate) created_before: Option<Timestamp>,
    pub(crate) updated_after: Option<Timestamp>,
    pub(crate) updated_before: Option<Timestamp>,
}

impl Times {
    pub(crate) fn push(&self, query: &mut QueryBuilder<Sqlite>) {
        for (condition, time) in [
            (" AND created_at >= ", self.created_after),
            (" AND created_at <= ", self.created_before),
            (" AND updated_at >= ", self.updated_after),
            (" AND updated_at <= ", self.updated_before),
        ] {
            if let Some(time) = time {
                query.push(condition).push_bind(time.0);
            }
        }
    }
}

/// Adds the page's conditions; `id` is the column that breaks ties.
pub(crate) fn push_page(query: &mut QueryBuilder<Sqlite>, page: &Page, id: &str) {
    match page.before {
        Some((time, Some(tie))) => {
            query
                .push(format!(" AND (created_at, {id}) < ("))
                .push_bind(time.0)
                .push(", ")
                .push_bind(tie.to_string())
                .push(")");
        }
        Some((time, None)) => {
            query.push(" AND created_at < ").push_bind(time.0);
        }
        None => {}
    }
    query.push(format!(" ORDER BY created_at DESC, {id} DESC LIMIT ")).push_bind(i64::from(page.limit));
}

/// Adds a case-insensitive, literal substring condition on a column of ASCII text.
pub(crate) fn push_contains(query: &mut QueryBuilder<Sqlite>, column: &str, part: Option<&str>) {
    if let Some(part) = part {
        let part = literal(part);
        query.push(format!(" AND LOWER({column}) LIKE LOWER(")).push_bind(part).push(") ESCAPE '\\'");
    }
}

/// Adds a case-insensitive, literal substring condition on the name.
pub(crate) fn push_name(query: &mut QueryBuilder<Sqlite>, part: Option<&str>) {
    if let Some(part) = part {
        query.push(" AND name_folded LIKE ").push_bind(literal(&folded(part))).push(" ESCAPE '\\'");
    }
}

/// A name as `name_folded` holds it: without case, in every script.
pub(crate) fn folded(name: &str) -> String {
    name.to_lowercase()
}

/// A pattern that finds `part` anywhere, and nothing but it.
fn literal(part: &str) -> String {
    let mut literal = String::with_capacity(part.len() + 2);
    literal.push('%');
    for c in part.chars() {
        if matches!(c, '%' | '_' | '\\') {
            literal.push('\\');
        }
        literal.push(c);
    }
    literal.push('%');
    literal
}

/// Whether `whole` holds everything that `part` holds (JSON containment, as PostgreSQL's `@>`).
pub(crate) fn contains(whole: &serde_json::Value, part: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Object};
    match (whole, part) {
        (Object(whole), Object(part)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|w| contains(w, value)))
        }
        (Array(whole), Array(part)) => part.iter().all(|value| whole.iter().any(|w| contains(w, value))),
        (whole, part) => whole == part,
    }
}
