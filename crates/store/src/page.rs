//! Pages of lists, newest first, and the filters every list has.

use model::Timestamp;
use sqlx::{QueryBuilder, Sqlite};
use uuid::Uuid;

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

/// Adds a case-insensitive, literal substring condition.
pub(crate) fn push_contains(query: &mut QueryBuilder<Sqlite>, column: &str, part: Option<&str>) {
    if let Some(part) = part {
        let mut literal = String::with_capacity(part.len() + 2);
        literal.push('%');
        for c in part.chars() {
            if matches!(c, '%' | '_' | '\\') {
                literal.push('\\');
            }
            literal.push(c);
        }
        literal.push('%');
        query.push(format!(" AND LOWER({column}) LIKE LOWER(")).push_bind(literal).push(") ESCAPE '\\'");
    }
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
