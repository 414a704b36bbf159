//! Where settings come from: flags over environment over `tandem.toml` over defaults.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::key::{self, KEYS, OTHER_VARIABLES};

/// Largest `tandem.toml`, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// The file that is read when it is there and no other is named.
const DEFAULT_FILE: &str = "tandem.toml";
/// Most characters of a value repeated in an error.
const MAX_SHOWN: usize = 120;

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A flag.
    Flag,
    /// A variable of the environment.
    Environment(&'static str),
    /// A file.
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("from a flag"),
            Self::Environment(variable) => write!(f, "from {variable}"),
            Self::File(path) => write!(f, "in {}", path.display()),
        }
    }
}

/// A setting that was given. A list's entries are separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) value: String,
    pub(crate) origin: Origin,
}

/// Why there are no settings: one line that names the key, the value and the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SettingError {
    pub(crate) key: String,
    pub(crate) value: Option<String>,
    pub(crate) origin: Option<Origin>,
    pub(crate) rule: String,
}

impl SettingError {
    pub(crate) fn new(key: &str, value: impl fmt::Display, rule: impl Into<String>) -> Self {
        Self { key: key.to_owned(), value: Some(value.to_string()), origin: None, rule: rule.into() }
    }

    pub(crate) fn from(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.key))?;
        if let Some(value) = &self.value {
            write!(f, " = {}", one_line(&presentable(&self.key, value)))?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " ({})", one_line(&origin.to_string()))?;
        }
        write!(f, ": {}", one_line(&self.rule))
    }
}

impl std::error::Error for SettingError {}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The value for an error: short, and nothing of it where it may be a secret under a mistyped name or in a URL.
fn presentable(key: &str, value: &str) -> String {
    let upper = key.to_uppercase();
    let names_secret = ["API_KEY", "TOKEN", "SECRET", "PASS"].iter().any(|word| upper.contains(word))
        && key::named(key).is_none();
    let is_secret = ["ak_", "pat_"].iter().any(|prefix| value.starts_with(prefix));
    if names_secret || is_secret {
        return "(not shown)".to_owned();
    }
    let value = match (value.find("://"), value.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}://…{}", value.get(..scheme).unwrap_or_default(), value.get(at..).unwrap_or_default())
        }
        _ => value.to_owned(),
    };
    match value.char_indices().nth(MAX_SHOWN) {
        Some((cut, _)) => format!("{}…", value.get(..cut).unwrap_or_default()),
        None => value,
    }
}

/// What flags say of settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    /// `--config`.
    pub(crate) config: Option<PathBuf>,
    /// `key=value`, of `--set` and of the flags that are short for it.
    pub(crate) set: Vec<String>,
}

/// Everything that was given, the strongest source of each setting.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources(pub(super) BTreeMap<&'static str, Given>);

impl Sources {
    /// Reads all sources, the weakest first.
    pub(crate) fn read(
        flags: &Flags,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingError> {
        let mut sources = Self::default();
        let default = Path::new(DEFAULT_FILE);
        match &flags.config {
            Some(path) => sources.read_file(path)?,
            None if default.exists() => sources.read_file(default)?,
            None => {}
        }
        sources.read_environment(environment)?;
        sources.read_pairs(&flags.set)?;
        Ok(sources)
    }

    /// Takes what `key=value` pairs say, and nothing from outside.
    pub(crate) fn of(pairs: &[String]) -> Result<Self, SettingError> {
        let mut sources = Self::default();
        sources.read_pairs(pairs)?;
        Ok(sources)
    }

    fn read_pairs(&mut self, pairs: &[String]) -> Result<(), SettingError> {
        for pair in pairs {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(SettingError {
                    key: "--set".to_owned(),
                    value: Some(pair.clone()),
                    origin: None,
                    rule: "must be key=value".to_owned(),
                });
            };
            self.put(name.trim(), value.trim().to_owned(), Origin::Flag)?;
        }
        Ok(())
    }

    /// The settings that `other` gives another value.
    pub(crate) fn changed(&self, other: &Self) -> Vec<&'static str> {
        let differs =
            |name: &&str| self.0.get(*name).map(|g| &g.value) != other.0.get(*name).map(|g| &g.value);
        KEYS.iter().map(|key| key.name).filter(differs).collect()
    }

    fn put(&mut self, name: &str, value: String, origin: Origin) -> Result<(), SettingError> {
        let Some(key) = key::named(name) else {
            let hint = key::closest(name, KEYS.iter().map(|k| k.name));
            let hint = hint.map_or(String::new(), |near| format!("; did you mean {near}?"));
            return Err(
                SettingError::new(name, value, format!("there is no such setting{hint}")).from(origin)
            );
        };
        // Written out, a default is what it was before: also where it is a word such as `none` or `detected`.
        if value == key.default {
            self.0.remove(key.name);
            return Ok(());
        }
        if !key.available {
            let rule = "this setting is not available in this release; leave it out";
            return Err(SettingError::new(name, value, rule).from(origin));
        }
        self.0.insert(key.name, Given { value, origin });
        Ok(())
    }

    fn read_environment(
        &mut self,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<(), SettingError> {
        for (name, value) in environment {
            let name = name.to_string_lossy();
            if !name.starts_with("TANDEM_") || OTHER_VARIABLES.contains(&name.as_ref()) {
                continue;
            }
            let Some(key) = KEYS.iter().find(|key| key.variable == name) else {
                let names = KEYS.iter().map(|k| k.variable).chain(OTHER_VARIABLES.iter().copied());
                let hint = key::closest(&name, names)
                    .map_or(String::new(), |near| format!("; did you mean {near}?"));
                let rule = format!("there is no such variable{hint}");
                return Err(SettingError::new(&name, value.to_string_lossy(), rule));
            };
            let origin = Origin::Environment(key.variable);
            let Some(text) = value.to_str() else {
                return Err(
                    SettingError::new(key.name, value.to_string_lossy(), "must be UTF-8").from(origin)
                );
            };
            self.put(key.name, text.trim().to_owned(), origin)?;
        }
        Ok(())
    }

    fn read_file(&mut self, path: &Path) -> Result<(), SettingError> {
        let fault = |rule: String| SettingError::new("--config", path.display(), rule);
        let size = std::fs::metadata(path).map_err(|e| fault(format!("cannot be read: {e}")))?.len();
        if size > MAX_FILE {
            return Err(fault(format!("is larger than {MAX_FILE} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| fault(format!("cannot be read: {e}")))?;
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(1, |before| before.matches('\n').count() + 1);
            fault(format!("line {line}: {}", e.message()))
        })?;
        self.read_table("", &table, path)
    }

    fn read_table(&mut self, section: &str, table: &toml::Table, path: &Path) -> Result<(), SettingError> {
        for (name, value) in table {
            let name = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            let origin = Origin::File(path.to_owned());
            match value {
                toml::Value::Table(inner) if section.is_empty() => {
                    if !KEYS.iter().any(|key| key.name.split_once('.').is_some_and(|(part, _)| part == name))
                    {
                        return Err(SettingError::new(&format!("[{name}]"), "…", "there is no such section")
                            .from(origin));
                    }
                    self.read_table(&name, inner, path)?;
                }
                toml::Value::Array(list) => {
                    let texts: Option<Vec<String>> = list.iter().map(scalar).collect();
                    let Some(texts) = texts else {
                        return Err(SettingError::new(
                            &name,
                            "a list of lists",
                            "a list may hold texts and numbers only",
                        )
                        .from(origin));
                    };
                    self.put(&name, texts.join(","), origin)?;
                }
                other => {
                    let Some(text) = scalar(other) else {
                        return Err(SettingError::new(&name, "a table", "must be a value").from(origin));
                    };
                    self.put(&name, text, origin)?;
                }
            }
        }
        Ok(())
    }
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.trim().to_owned()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Datetime(at) => Some(at.to_string()),
        toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str, value: &str) -> Result<Sources, String> {
        let pairs = [(OsString::from(name), OsString::from(value))];
        Sources::read(&Flags { config: Some("/dev/null".into()), set: Vec::new() }, pairs.into_iter())
            .map_err(|e| e.to_string())
    }

    fn file(text: &str) -> Result<Sources, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tandem.toml");
        std::fs::write(&path, text).unwrap();
        Sources::read(&Flags { config: Some(path), set: Vec::new() }, std::iter::empty())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_stronger_source_wins() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tandem.toml");
        std::fs::write(
            &path,
            "data_dir = 'a'\n[sip]\nudp = ['127.0.0.1:1', '127.0.0.1:2']\n[limits]\nmax_calls = 5\n",
        )
        .unwrap();
        let flags = Flags { config: Some(path), set: vec!["data_dir=c".to_owned()] };
        let pairs =
            [("TANDEM_DATA_DIR", "b"), ("TANDEM_LIMITS__MAX_CALLS", "6"), ("TANDEM_URL", "x"), ("HOME", "/")];
        let sources = Sources::read(&flags, pairs.into_iter().map(|(n, v)| (n.into(), v.into()))).unwrap();
        let value = |name: &str| sources.0.get(name).map(|g| g.value.as_str());
        assert_eq!(value("data_dir"), Some("c"));
        assert_eq!(value("limits.max_calls"), Some("6"));
        assert_eq!(value("sip.udp"), Some("127.0.0.1:1,127.0.0.1:2"));
    }

    #[test]
    fn what_is_unknown_ends_the_start_with_one_line() {
        for (name, near) in [
            ("TANDEM_SIP__UPD", "TANDEM_SIP__UDP"),
            ("TANDEM_API_KEYS", "TANDEM_API_KEY"),
            ("TANDEM_TANDEM_DATA_DIR", ""),
            ("TANDEM_SIP.UDP", "TANDEM_SIP__UDP"),
        ] {
            let line = environment(name, "x\ny").unwrap_err();
            assert!(line.starts_with(name) && line.contains(near) && !line.contains('\n'), "{line}");
        }
        for text in [
            "nosuch = 1",
            "[sip]\nupd = 1",
            "[nosuch]\n",
            "[sip.udp]\nx = 1",
            "[sip]\nudp = [[1]]",
            "[sip",
            "a = \"\"\"\nb\"\"\"",
        ] {
            let line = file(text).unwrap_err();
            assert!(!line.contains('\n') && line.contains("tandem.toml"), "{line}");
        }
    }

    #[test]
    fn what_comes_later_is_refused_unless_it_is_its_default() {
        assert!(
            environment("TANDEM_BUS__URL", "nats://x").unwrap_err().contains("not available in this release")
        );
        assert!(environment("TANDEM_BUS__URL", "none").is_ok());
        assert!(file("[bus]\nurl = 'none'").is_ok() && file("[bus]\nurl = 'nats://x'").is_err());
    }

    #[test]
    fn secrets_under_a_mistyped_name_or_in_a_url_are_not_shown() {
        for (name, value) in [
            ("TANDEM_APIKEY", "ak_1.s3cr3t"),
            ("TANDEM_TOKEN", "s3cr3t"),
            ("TANDEM_BUS__URL", "nats://user:s3cr3t@bus:4222"),
        ] {
            let line = environment(name, value).unwrap_err();
            assert!(line.contains(name.trim_end_matches("_BUS__URL")) || line.contains("bus.url"), "{line}");
            assert!(!line.contains("s3cr3t"), "{line}");
        }
    }
}
