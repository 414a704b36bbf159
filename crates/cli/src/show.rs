//! Answers on the screen: tables for people, JSON for programs.

use std::io::Write;

use api::client::Client;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::CliError;

/// Rows asked for at once.
const PAGE: usize = 100;

/// A column of a table: its title, and where its value stands in a row (RFC 6901).
pub(crate) type Column = (&'static str, &'static str);

/// Where answers go.
pub(crate) struct Screen<'a> {
    out: &'a mut (dyn Write + Send),
    json: bool,
}

impl<'a> Screen<'a> {
    pub(crate) fn new(out: &'a mut (dyn Write + Send), json: bool) -> Self {
        Self { out, json }
    }

    fn print_json(&mut self, value: &Value) -> Result<(), CliError> {
        // Text in an answer is escaped by the encoder, control characters included.
        writeln!(self.out, "{value:#}")?;
        Ok(())
    }

    /// One thing: a line a field.
    pub(crate) fn one(&mut self, value: &Value) -> Result<(), CliError> {
        if self.json {
            return self.print_json(value);
        }
        let mut table = plain();
        fields(&mut table, "", value);
        writeln!(self.out, "{table}")?;
        Ok(())
    }

    /// Many things: a line each.
    pub(crate) fn many(&mut self, rows: &[Value], columns: &[Column]) -> Result<(), CliError> {
        if self.json {
            return self.print_json(&Value::Array(rows.to_vec()));
        }
        let mut table = plain();
        table.set_header(columns.iter().map(|(title, _)| *title));
        for row in rows {
            table.add_row(columns.iter().map(|(_, place)| row.pointer(place).map(text).unwrap_or_default()));
        }
        writeln!(self.out, "{table}")?;
        Ok(())
    }

    /// Something that has no answer was done.
    pub(crate) fn done(&mut self, sentence: &str) -> Result<(), CliError> {
        if !self.json {
            writeln!(self.out, "{sentence}")?;
        }
        Ok(())
    }
}

/// Reads a list, page by page, up to `limit` rows.
pub(crate) async fn pages(
    client: &Client,
    path: &str,
    query: &[(&str, String)],
    limit: usize,
) -> Result<Vec<Value>, CliError> {
    let mut rows = Vec::new();
    let mut cursor: Option<String> = None;
    while rows.len() < limit {
        let page = (limit - rows.len()).min(PAGE).to_string();
        let mut query: Vec<(&str, &str)> =
            query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        query.push(("limit", &page));
        if let Some(cursor) = &cursor {
            query.push(("cursor", cursor));
        }
        let answer = client.get(path, &query).await?;
        if let Value::Array(mut more) = answer.body {
            rows.append(&mut more);
        }
        let before = std::mem::replace(&mut cursor, answer.next_cursor);
        if cursor.is_none() || cursor == before {
            break;
        }
    }
    Ok(rows)
}

/// Some of a row's values on one line.
pub(crate) fn line(row: &Value, places: &[&str]) -> String {
    places.iter().map(|place| row.pointer(place).map(text).unwrap_or_default()).collect::<Vec<_>>().join("  ")
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Adds an object's fields, those of inner objects under dotted names.
fn fields(table: &mut Table, prefix: &str, value: &Value) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (name, value) in object {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                fields(table, &name, value);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for (index, value) in list.iter().enumerate() {
                fields(table, &format!("{prefix}[{index}]"), value);
            }
        }
        other => {
            table.add_row([prefix.to_owned(), text(other)]);
        }
    }
}

/// A value in a cell. What came from the network moves no cursor and rings no bell.
pub(crate) fn text(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.iter().all(|v| !v.is_object() && !v.is_array()) => {
            list.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(json: bool, show: impl FnOnce(&mut Screen<'_>)) -> String {
        let mut out = Vec::new();
        show(&mut Screen::new(&mut out, json));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_has_a_line_each_and_no_escape_sequence() {
        let rows = [json!({"id": 1, "in": {"name": "a\u{1b}[2Jb"}}), json!({"id": 2, "in": null})];
        let text = shown(false, |s| s.many(&rows, &[("ID", "/id"), ("NAME", "/in/name")]).unwrap());
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("ID") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn one_thing_shows_inner_fields_under_dotted_names() {
        let value = json!({"id": "x", "sip": {"uri": "sip:a@b", "deployed": true}, "list": ["1", "2"], "v": [{"n": 1}]});
        let text = shown(false, |s| s.one(&value).unwrap());
        for part in ["sip.uri", "sip:a@b", "1, 2", "v[0].n"] {
            assert!(text.contains(part), "{text}");
        }
        let json: Value = serde_json::from_str(&shown(true, |s| s.one(&value).unwrap())).unwrap();
        assert_eq!(json, value);
    }
}
