//! What commands read: secrets and JSON from files or standard input, bodies of changes.

use std::io::Read as _;

use model::E164;
use serde_json::{Map, Value};

use crate::CliError;

/// Most bytes read of a file or of standard input.
const MAX_INPUT: u64 = 1024 * 1024;

/// Reads `path`, or standard input for `-`.
fn read(path: &str) -> Result<String, CliError> {
    let mut text = String::new();
    let done = if path == "-" {
        std::io::stdin().lock().take(MAX_INPUT).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_INPUT).read_to_string(&mut text))
    };
    let name = if path == "-" { "standard input" } else { path };
    done.map_err(|error| CliError::Usage(format!("{name} cannot be read: {error}")))?;
    Ok(text)
}

/// A password: as given, or from standard input for `-`, without its line end.
pub(crate) fn password(given: String) -> Result<String, CliError> {
    if given == "-" { Ok(read("-")?.trim_end_matches(['\r', '\n']).to_owned()) } else { Ok(given) }
}

/// JSON as given, from `@path`, or from standard input for `-`.
pub(crate) fn json(flag: &str, given: &str) -> Result<Value, CliError> {
    let text = match given.strip_prefix('@') {
        Some(path) => read(path)?,
        None if given == "-" => read("-")?,
        None => given.to_owned(),
    };
    serde_json::from_str(&text).map_err(|error| CliError::Usage(format!("{flag} is not JSON: {error}")))
}

/// A body as the API takes it, which flags go over.
#[derive(Debug, Default, clap::Args)]
pub struct Data {
    /// The body as the API takes it: JSON, @FILE, or - for standard input. Other flags go over it.
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
}

impl Data {
    /// The object given; an empty one when none is.
    pub(crate) fn fields(self) -> Result<Fields, CliError> {
        let Some(given) = self.data else { return Ok(Fields::default()) };
        match json("--data", &given)? {
            Value::Object(fields) => Ok(Fields(fields)),
            _ => Err(CliError::Usage("--data must be a JSON object".to_owned())),
        }
    }
}

/// An E.164 number, with or without its `+`.
pub(crate) fn number(text: &str) -> Result<E164, String> {
    let text = text.trim();
    if text.starts_with('+') { text.parse() } else { format!("+{text}").parse() }
}

/// A number as it stands in a path: `+` would need an escape, the bare digits do not.
pub(crate) fn in_path(number: &E164) -> &str {
    number.as_str().trim_start_matches('+')
}

/// A JSON object of the fields that were given.
#[derive(Default)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// The object with the fields of another over its own.
    pub(crate) fn over(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn with_some(self, name: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The object with the field when it was given, or with null in it when it is to be cleared.
    pub(crate) fn with_cleared(self, name: &str, clear: bool, value: Option<impl Into<Value>>) -> Self {
        if clear { self.with(name, Value::Null) } else { self.with_some(name, value) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// The object, or the error of a change that changes nothing.
    pub(crate) fn some(self) -> Result<Value, CliError> {
        if self.is_empty() {
            return Err(CliError::Usage("nothing to change was given; see --help".to_owned()));
        }
        Ok(self.into_value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_come_without_their_plus() {
        assert_eq!(number("14155550100").unwrap().as_str(), "+14155550100");
        assert_eq!(in_path(&number("+14155550100").unwrap()), "14155550100");
        assert!(number("0").is_err() && number("a/b").is_err());
    }

    #[test]
    fn flags_go_over_the_data() {
        let data = Data { data: Some("{\"name\": \"a\", \"x\": 1}".to_owned()) };
        let body = data.fields().unwrap().with("name", "b").into_value();
        assert_eq!(body, serde_json::json!({"name": "b", "x": 1}));
        assert_eq!(Data { data: Some("[]".to_owned()) }.fields().err().map(|e| e.status()), Some(2));
    }

    #[test]
    fn json_is_read_as_given_or_from_a_file() {
        assert_eq!(json("--config", "{\"a\":1}").unwrap()["a"], 1);
        assert!(json("--config", "{").unwrap_err().to_string().starts_with("--config is not JSON"));
        assert_eq!(json("--config", "@/nonexistent/x").unwrap_err().status(), 2);
    }
}
