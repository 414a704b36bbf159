//! Runtimes that live outside the node: how a voice bot is reached and what it is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{CarrierAddress, E164, Invalid, Runtime, Secret, TransferTarget, TrunkId};

/// Longest URL, in bytes.
pub const MAX_URL: usize = 2_048;
/// Longest secret, in bytes.
pub const MAX_SECRET: usize = 512;
/// Most parameters of a media stream.
pub const MAX_PARAMETERS: usize = 64;
/// Longest name or value of a parameter, in bytes.
pub const MAX_PARAMETER: usize = 1_024;
/// Longest instructions, in bytes.
pub const MAX_INSTRUCTIONS: usize = 65_536;
/// Longest model name or voice, in bytes.
pub const MAX_NAME: usize = 128;
/// Largest `session` of an OpenAI runtime, in bytes of JSON.
pub const MAX_SESSION: usize = 262_144;
/// Sample rates an agent may choose from, in hertz.
pub const SAMPLE_RATES: [u32; 3] = [8_000, 16_000, 24_000];

/// A bot that speaks Twilio's Media Streams, or a cousin of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediaStream {
    /// `ws://` or `wss://`; we connect.
    pub url: String,
    /// Handed to the bot as `customParameters`.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Signs the upgrade (`X-Twilio-Signature`), and is the password of the hang-up shim. Write-only.
    #[serde(default, skip_serializing)]
    pub secret: Option<Secret>,
    /// How the messages are spelled.
    #[serde(default)]
    pub dialect: StreamDialect,
}

/// Spelling of a media stream's messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamDialect {
    /// Twilio's.
    #[default]
    Twilio,
    /// Telnyx's.
    Telnyx,
}

/// A server of the OpenAI Realtime API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenaiRealtime {
    /// `ws://` or `wss://`, without the model; OpenAI's own when left out.
    #[serde(default = "defaults::realtime_url")]
    pub url: String,
    /// Model, sent as `model` in the query.
    #[serde(default = "defaults::realtime_model")]
    pub model: String,
    /// Sent as `Authorization: Bearer`. Write-only.
    #[serde(default, skip_serializing)]
    pub api_key: Option<Secret>,
    /// Which spelling the server speaks.
    #[serde(default)]
    pub dialect: RealtimeDialect,
    /// What the model is told to be.
    #[serde(default)]
    pub instructions: Option<String>,
    /// The model's voice.
    #[serde(default)]
    pub voice: Option<String>,
    /// Whether the model speaks first.
    #[serde(default = "defaults::yes")]
    pub greeting: bool,
    /// Fields of the session update, laid over ours.
    #[serde(default)]
    pub session: Option<Map<String, Value>>,
    /// Where the model's function calls are posted, signed; `http://` or `https://`.
    #[serde(default)]
    pub tools_url: Option<String>,
    /// Signs them (Standard Webhooks, `whsec_…`); `api_key` does when left out. Write-only.
    #[serde(default, skip_serializing)]
    pub tools_secret: Option<Secret>,
}

/// Spelling of the OpenAI Realtime API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RealtimeDialect {
    /// As of general availability.
    #[default]
    Ga,
    /// As of the beta, which compatible servers still speak.
    Beta,
}

/// A bot that speaks Tandem's own protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TandemLink {
    /// `ws://` or `wss://`; we connect.
    pub url: String,
    /// 8,000, 16,000 or 24,000 hertz, both ways.
    #[serde(default = "defaults::tandem_rate")]
    pub sample_rate: u32,
    /// Signs the upgrade (`X-Tandem-Signature`). Write-only.
    #[serde(default, skip_serializing)]
    pub secret: Option<Secret>,
}

/// A bot that speaks Asterisk's AudioSocket. There is neither a password nor encryption: for a private network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audiosocket {
    /// `host:port`; we connect.
    pub address: String,
    /// 8,000, 16,000 or 24,000 hertz, both ways.
    #[serde(default = "defaults::audiosocket_rate")]
    pub sample_rate: u32,
}

/// Somebody at a telephone, called over a trunk and bridged to the caller. The caller's call is answered first and
/// hears ringback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dial {
    /// A number (`+14155550100`), or `sip:user@host` with the host of one of the organization's trunks.
    pub to: String,
    /// The trunk to leave by; the caller's own when neither this nor `agent_number` is given.
    #[serde(default)]
    pub trunk_id: Option<TrunkId>,
    /// The caller ID, and with it the trunk.
    #[serde(default)]
    pub agent_number: Option<E164>,
    /// How long it may ring, in seconds.
    #[serde(default = "defaults::dial_timeout_s")]
    pub timeout_s: u32,
    /// Who speaks when nobody answers; the call ends without.
    #[serde(default)]
    pub fallback: Option<Box<Runtime>>,
}

impl Dial {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        self.to.parse::<TransferTarget>().map_err(|rule| Invalid::field("to", rule))?;
        if self.trunk_id.is_some() && self.agent_number.is_some() {
            return Err(Invalid::field("trunk_id", "cannot be given together with agent_number"));
        }
        if !(1..=120).contains(&self.timeout_s) {
            return Err(Invalid::field("timeout_s", format!("is {}; 1 to 120 is allowed", self.timeout_s)));
        }
        match self.fallback.as_deref() {
            Some(Runtime::Dial(_)) => Err(Invalid::field("fallback", "must not be another dial")),
            Some(fallback) => fallback.check().map_err(|e| e.within("fallback")),
            None => Ok(()),
        }
    }
}

mod defaults {
    pub(super) fn dial_timeout_s() -> u32 {
        30
    }
    pub(super) fn realtime_url() -> String {
        "wss://api.openai.com/v1/realtime".to_owned()
    }
    pub(super) fn realtime_model() -> String {
        "gpt-realtime".to_owned()
    }
    pub(super) fn yes() -> bool {
        true
    }
    pub(super) fn tandem_rate() -> u32 {
        16_000
    }
    pub(super) fn audiosocket_rate() -> u32 {
        8_000
    }
}

impl MediaStream {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        url("url", &self.url, ["wss://", "ws://"])?;
        if self.parameters.len() > MAX_PARAMETERS {
            return Err(Invalid::field("parameters", format!("may have at most {MAX_PARAMETERS} entries")));
        }
        for (name, value) in &self.parameters {
            if name.is_empty() || name.len() > MAX_PARAMETER || value.len() > MAX_PARAMETER {
                let rule = format!("names and values must be at most {MAX_PARAMETER} bytes, names not empty");
                return Err(Invalid::field("parameters", rule));
            }
        }
        secret("secret", self.secret.as_ref())
    }
}

impl OpenaiRealtime {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        url("url", &self.url, ["wss://", "ws://"])?;
        text("model", &self.model, MAX_NAME)?;
        secret("api_key", self.api_key.as_ref())?;
        if let Some(instructions) = self.instructions.as_ref().filter(|t| t.len() > MAX_INSTRUCTIONS) {
            let length = instructions.len();
            return Err(Invalid::field(
                "instructions",
                format!("has {length} bytes; at most {MAX_INSTRUCTIONS} are allowed"),
            ));
        }
        if let Some(voice) = &self.voice {
            text("voice", voice, MAX_NAME)?;
        }
        if let Some(session) = &self.session {
            let length = serde_json::to_string(session).map_or(usize::MAX, |text| text.len());
            if length > MAX_SESSION {
                return Err(Invalid::field(
                    "session",
                    format!("has more than the {MAX_SESSION} bytes of JSON that are allowed"),
                ));
            }
            self.audio().map_err(|e| e.within("session"))?;
        }
        if let Some(tools) = &self.tools_url {
            url("tools_url", tools, ["https://", "http://"])?;
        }
        if self.tools_secret.is_some() && self.tools_url.is_none() {
            return Err(Invalid::field("tools_secret", "needs tools_url"));
        }
        secret("tools_secret", self.tools_secret.as_ref())
    }

    pub(crate) fn check_secrets(&self) -> Result<(), Invalid> {
        if self.tools_url.is_some() && self.tools_secret.is_none() && self.api_key.is_none() {
            return Err(Invalid::field(
                "tools_secret",
                "or api_key is required with tools_url: function calls are never posted unsigned",
            ));
        }
        Ok(())
    }

    /// The audio format both ways, as `session` has it; G.711 µ-law when it says nothing.
    pub fn audio(&self) -> Result<RealtimeAudio, Invalid> {
        let Some(session) = &self.session else { return Ok(RealtimeAudio::Pcmu) };
        let mut chosen = None;
        for side in ["input", "output"] {
            let (path, value) = match self.dialect {
                RealtimeDialect::Ga => (
                    vec!["audio", side, "format"],
                    session.get("audio").and_then(|a| a.get(side)).and_then(|s| s.get("format")),
                ),
                RealtimeDialect::Beta if side == "input" => {
                    (vec!["input_audio_format"], session.get("input_audio_format"))
                }
                RealtimeDialect::Beta => (vec!["output_audio_format"], session.get("output_audio_format")),
            };
            let Some(value) = value else { continue };
            let format = match self.dialect {
                RealtimeDialect::Ga => match value.get("type").and_then(Value::as_str) {
                    Some("audio/pcmu") => Some(RealtimeAudio::Pcmu),
                    Some("audio/pcma") => Some(RealtimeAudio::Pcma),
                    Some("audio/pcm") => Some(RealtimeAudio::Pcm24),
                    _ => None,
                },
                RealtimeDialect::Beta => match value.as_str() {
                    Some("g711_ulaw") => Some(RealtimeAudio::Pcmu),
                    Some("g711_alaw") => Some(RealtimeAudio::Pcma),
                    Some("pcm16") => Some(RealtimeAudio::Pcm24),
                    _ => None,
                },
            };
            let invalid = |message: &str| Invalid {
                path: path.iter().map(|p| (*p).to_owned()).collect(),
                message: message.to_owned(),
            };
            let Some(format) = format else {
                return Err(invalid(match self.dialect {
                    RealtimeDialect::Ga => "must have the type audio/pcmu, audio/pcma or audio/pcm (24 kHz)",
                    RealtimeDialect::Beta => "must be g711_ulaw, g711_alaw or pcm16",
                }));
            };
            if chosen.is_some_and(|other| other != format) {
                return Err(invalid("must be the same as the other direction's"));
            }
            chosen = Some(format);
        }
        Ok(chosen.unwrap_or(RealtimeAudio::Pcmu))
    }
}

/// Audio format of an OpenAI Realtime session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RealtimeAudio {
    /// G.711 µ-law, 8 kHz.
    Pcmu,
    /// G.711 A-law, 8 kHz.
    Pcma,
    /// 16-bit little-endian samples, 24 kHz.
    Pcm24,
}

impl TandemLink {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        url("url", &self.url, ["wss://", "ws://"])?;
        sample_rate(self.sample_rate)?;
        secret("secret", self.secret.as_ref())
    }
}

impl Audiosocket {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let rule = "must be a host and a port, for example 127.0.0.1:9092";
        match self.address.parse::<CarrierAddress>() {
            Ok(address) if address.port.is_some() => sample_rate(self.sample_rate),
            Ok(_) => Err(Invalid::field("address", rule)),
            Err(problem) => Err(Invalid::field("address", format!("{rule} ({problem})"))),
        }
    }
}

fn sample_rate(rate: u32) -> Result<(), Invalid> {
    if SAMPLE_RATES.contains(&rate) {
        Ok(())
    } else {
        Err(Invalid::field("sample_rate", format!("is {rate}; 8000, 16000 or 24000 is allowed")))
    }
}

fn text(field: &str, value: &str, longest: usize) -> Result<(), Invalid> {
    crate::invalid::no_control_characters(field, value)?;
    if value.is_empty() || value.len() > longest {
        return Err(Invalid::field(field, format!("must be 1 to {longest} bytes")));
    }
    Ok(())
}

/// A secret goes into headers and keys: visible ASCII only. Says nothing of its value.
fn secret(field: &str, value: Option<&Secret>) -> Result<(), Invalid> {
    let Some(value) = value.map(Secret::expose) else { return Ok(()) };
    let sound = (1..=MAX_SECRET).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic());
    if sound {
        Ok(())
    } else {
        Err(Invalid::field(field, format!("must be 1 to {MAX_SECRET} visible ASCII characters")))
    }
}

fn url(field: &str, url: &str, schemes: [&str; 2]) -> Result<(), Invalid> {
    let rule = format!(
        "must be a {} or {} URL with a host, without user, password or fragment",
        schemes[0], schemes[1]
    );
    if url.len() > MAX_URL {
        return Err(Invalid::field(field, format!("is longer than {MAX_URL} bytes")));
    }
    let rest = schemes.iter().find_map(|scheme| url.strip_prefix(scheme));
    let authority = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let sound = authority.is_some_and(|a| !a.is_empty() && !a.starts_with(':') && !a.contains('@'))
        && !url.contains('#')
        && url.bytes().all(|b| b.is_ascii_graphic());
    if sound { Ok(()) } else { Err(Invalid::field(field, rule)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::AgentConfig;

    fn fault(runtime: serde_json::Value) -> String {
        match serde_json::from_value::<AgentConfig>(json!({ "runtime": runtime })) {
            Ok(config) => {
                let checked = config.check().and_then(|()| config.check_secrets());
                checked.expect_err("must be refused").path.join(".")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn faults_name_their_field() {
        let stream = |extra: serde_json::Value| {
            let mut runtime = json!({"type": "media_stream", "url": "ws://bot:9/x"});
            runtime.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            fault(runtime)
        };
        for bad in ["http://h/", "ws://", "ws://u@h/", "ws://h/#f", "ws://h /", "ws://:80/", "wss:/h"] {
            assert_eq!(fault(json!({"type": "media_stream", "url": bad})), "runtime.url", "{bad}");
        }
        assert_eq!(stream(json!({"secret": ""})), "runtime.secret");
        assert_eq!(stream(json!({"secret": "a\nb"})), "runtime.secret");
        assert_eq!(stream(json!({"parameters": {"": "x"}})), "runtime.parameters");
        let openai = |session: serde_json::Value, dialect: &str| {
            fault(json!({"type": "openai_realtime", "session": session, "dialect": dialect}))
        };
        assert_eq!(
            openai(json!({"audio": {"input": {"format": {"type": "g711_ulaw"}}}}), "ga"),
            "runtime.session.audio.input.format"
        );
        assert_eq!(
            openai(json!({"input_audio_format": "pcm16", "output_audio_format": "g711_ulaw"}), "beta"),
            "runtime.session.output_audio_format"
        );
        assert_eq!(fault(json!({"type": "openai_realtime", "tools_url": "ftp://x"})), "runtime.tools_url");
        assert_eq!(
            fault(json!({"type": "openai_realtime", "tools_url": "http://x"})),
            "runtime.tools_secret"
        );
        assert_eq!(
            fault(json!({"type": "tandem", "url": "ws://h", "sample_rate": 44100})),
            "runtime.sample_rate"
        );
        assert_eq!(fault(json!({"type": "audiosocket", "address": "h"})), "runtime.address");
        assert_eq!(fault(json!({"type": "dial", "to": "1234"})), "runtime.to");
        let fallback =
            json!({"type": "dial", "to": "+14155550100", "fallback": {"type": "tandem", "url": "x"}});
        assert_eq!(fault(fallback), "runtime.fallback.url");
    }

    #[test]
    fn a_secret_is_read_and_never_shown() {
        let config: AgentConfig = serde_json::from_value(json!({"runtime": {
            "type": "openai_realtime", "api_key": "sk-1", "tools_url": "http://h/", "tools_secret": "whsec_MQ=="
        }}))
        .unwrap();
        config.check().unwrap();
        let shown = serde_json::to_string(&config).unwrap() + &format!("{config:?}");
        assert!(!shown.contains("sk-1") && !shown.contains("whsec"), "{shown}");
        let mut again: AgentConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_ne!(again, config);
        for (name, secret) in config.runtime.secrets() {
            assert!(again.runtime.set_secret(name, secret.clone()));
        }
        assert_eq!(again, config);
        assert!(!again.runtime.set_secret("url", crate::Secret::new("x".to_owned())));
        let dial: AgentConfig = serde_json::from_value(json!({"runtime": {
            "type": "dial", "to": "+14155550100", "fallback": {"type": "media_stream", "url": "ws://h/", "secret": "s"}
        }}))
        .unwrap();
        let mut again: AgentConfig = serde_json::from_str(&serde_json::to_string(&dial).unwrap()).unwrap();
        let mut dying: AgentConfig = serde_json::from_value(json!({
            "runtime": {"type": "tandem", "url": "ws://h/", "secret": "t"},
            "fallback": {"type": "dial", "to": "+14155550100", "fallback": {"type": "media_stream", "url": "ws://h/", "secret": "s"}}
        }))
        .unwrap();
        let names: Vec<&str> = dying.secrets().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["secret", "config.fallback.fallback.secret"]);
        let whole = dying.clone();
        dying = serde_json::from_str(&serde_json::to_string(&dying).unwrap()).unwrap();
        assert!(dying.secrets().is_empty());
        dying.keep_secrets(&whole);
        assert_eq!(dying, whole);
        dying = serde_json::from_value(json!({"runtime": {"type": "tandem", "url": "ws://h/"}})).unwrap();
        dying.keep_secrets(&whole);
        assert_eq!(dying.secrets().len(), 1);
        assert_eq!(dial.runtime.secrets()[0].0, "fallback.secret");
        assert!(again.runtime.set_secret("fallback.secret", crate::Secret::new("s".to_owned())));
        assert_eq!(again, dial);
    }
}
