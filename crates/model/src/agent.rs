//! Agents: who speaks on a call, and under which rules.

use serde::{Deserialize, Serialize};

use crate::runtime::{Audiosocket, Dial, MediaStream, OpenaiRealtime, TandemLink};
use crate::{AgentId, AgentVersionId, Invalid, OrganizationId, Secret, Timestamp};

/// An agent; what it does is in its versions.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Identifier; the user part of its SIP URI.
    pub id: AgentId,
    /// Owner.
    pub organization_id: OrganizationId,
    /// Name, 1–255 characters.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// An inactive agent answers no call (480).
    pub active: bool,
    /// Marks demonstrations.
    pub is_demo: bool,
    /// A JSON object of the customer's own.
    pub metadata: serde_json::Value,
    /// Whether `sip:<agent-uuid>@host` is answered.
    pub sip_deployed: bool,
    /// Creation time.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

/// One version of an agent. A draft may change; a published one never does.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentVersion {
    /// Identifier; what a number's slot names.
    pub id: AgentVersionId,
    /// The agent.
    pub agent_id: AgentId,
    /// Counts from 1.
    pub version: i64,
    /// Whether it has been published.
    pub published: bool,
    /// When it was published last (publishing again is a rollback); `None` for a draft. The agent's latest
    /// published version, which answers its SIP URI, is the one published last.
    pub published_at: Option<Timestamp>,
    /// What it does.
    pub config: AgentConfig,
    /// Creation time.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

/// Who speaks and under which rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Who speaks.
    pub runtime: Runtime,
    /// How long the runtime may take to be ready before the call is refused with 480, in milliseconds.
    #[serde(default = "defaults::answer_timeout_ms")]
    pub answer_timeout_ms: u32,
    /// How long an outbound call may ring, in seconds.
    #[serde(default = "defaults::ring_timeout_s")]
    pub ring_timeout_s: u32,
    /// Longest call, in seconds.
    #[serde(default = "defaults::max_duration_s")]
    pub max_duration_s: u32,
    /// Whether the agent hears what the callee's side sends before it answers.
    #[serde(default)]
    pub early_media: bool,
    /// Whether calls are recorded.
    #[serde(default)]
    pub recording: Recording,
    /// On outbound calls, whether the beep of a voicemail box is listened for; `None`: not.
    #[serde(default)]
    pub voicemail_detection: Option<VoicemailDetection>,
    /// What a caller hears who waits for somebody else; `None`: music of ours, and ringback under `dial`.
    #[serde(default)]
    pub hold_music: Option<Sound>,
    /// Who speaks when the runtime is gone in the middle of a call; `None`: the call ends.
    #[serde(default)]
    pub fallback: Option<Runtime>,
}

/// How a voicemail box is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoicemailDetection {
    /// How long from the answer on its beep is listened for, in seconds.
    #[serde(default = "defaults::voicemail_timeout_s")]
    pub timeout_s: u32,
}

/// Whether and how calls are recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// Whether they are.
    #[serde(default)]
    pub enabled: bool,
    /// File format.
    #[serde(default)]
    pub format: RecordingFormat,
}

/// File format of a recording.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordingFormat {
    /// WAV.
    #[default]
    Wav,
    /// Opus in Ogg.
    Ogg,
}

mod defaults {
    pub(super) fn answer_timeout_ms() -> u32 {
        10_000
    }
    pub(super) fn ring_timeout_s() -> u32 {
        60
    }
    pub(super) fn max_duration_s() -> u32 {
        7_200
    }
    pub(super) fn voicemail_timeout_s() -> u32 {
        60
    }
}

/// Who speaks on the call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Runtime {
    /// Returns the caller's audio bit for bit.
    Echo {},
    /// Plays a file or tones.
    Play(Play),
    /// A bot that speaks Twilio's Media Streams.
    MediaStream(MediaStream),
    /// A server of the OpenAI Realtime API.
    OpenaiRealtime(OpenaiRealtime),
    /// A bot that speaks Tandem's own protocol.
    Tandem(TandemLink),
    /// A bot that speaks Asterisk's AudioSocket.
    Audiosocket(Audiosocket),
    /// Somebody at a telephone.
    Dial(Dial),
}

/// Where the secrets of a fallback stand.
const WITHIN: &str = "fallback.";
const FALLBACK: [&str; 3] = ["fallback.secret", "fallback.api_key", "fallback.tools_secret"];

impl Runtime {
    /// Checks every value; paths are relative to the runtime.
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Echo {} => Ok(()),
            Self::Play(play) => play.check(),
            Self::MediaStream(stream) => stream.check(),
            Self::OpenaiRealtime(openai) => openai.check(),
            Self::Tandem(link) => link.check(),
            Self::Audiosocket(socket) => socket.check(),
            Self::Dial(dial) => dial.check(),
        }
    }

    /// Its `type`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Echo {} => "echo",
            Self::Play(_) => "play",
            Self::MediaStream(_) => "media_stream",
            Self::OpenaiRealtime(_) => "openai_realtime",
            Self::Tandem(_) => "tandem",
            Self::Audiosocket(_) => "audiosocket",
            Self::Dial(_) => "dial",
        }
    }

    /// The secrets that are set, by their fields' names.
    #[must_use]
    pub fn secrets(&self) -> Vec<(&'static str, &Secret)> {
        if let Self::Dial(dial) = self {
            let inner = dial.fallback.as_deref().map(Self::secrets).unwrap_or_default();
            let named = |(name, secret)| {
                Some((*FALLBACK.iter().find(|f| f.strip_prefix(WITHIN) == Some(name))?, secret))
            };
            return inner.into_iter().filter_map(named).collect();
        }
        let named: &[(&'static str, &Option<Secret>)] = match self {
            Self::MediaStream(stream) => &[("secret", &stream.secret)],
            Self::OpenaiRealtime(openai) => {
                &[("api_key", &openai.api_key), ("tools_secret", &openai.tools_secret)]
            }
            Self::Tandem(link) => &[("secret", &link.secret)],
            Self::Echo {} | Self::Play(_) | Self::Audiosocket(_) | Self::Dial(_) => &[],
        };
        named.iter().filter_map(|(name, secret)| Some((*name, secret.as_ref()?))).collect()
    }

    /// Sets a secret by its field's name. `false` when this runtime has none of that name.
    pub fn set_secret(&mut self, name: &str, secret: Secret) -> bool {
        if let Self::Dial(dial) = self {
            let inner = name.strip_prefix(WITHIN).zip(dial.fallback.as_deref_mut());
            return inner.is_some_and(|(name, fallback)| fallback.set_secret(name, secret));
        }
        let slot = match (self, name) {
            (Self::MediaStream(stream), "secret") => &mut stream.secret,
            (Self::OpenaiRealtime(openai), "api_key") => &mut openai.api_key,
            (Self::OpenaiRealtime(openai), "tools_secret") => &mut openai.tools_secret,
            (Self::Tandem(link), "secret") => &mut link.secret,
            _ => return false,
        };
        *slot = Some(secret);
        true
    }
}

/// What the `play` runtime plays: exactly one of `file` and `tones`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Play {
    /// Path of a WAV file (PCM 16 bit or G.711, mono or stereo, any rate), relative to the node's
    /// `<data_dir>/audio` directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Tones, one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tones: Option<Vec<Tone>>,
    /// Start over at the end until the call ends; otherwise the agent hangs up when it has played.
    #[serde(default)]
    pub repeat: bool,
}

/// Something to play: exactly one of `file` and `tones`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sound {
    /// As in [`Play::file`].
    #[serde(default)]
    pub file: Option<String>,
    /// Tones, one after the other.
    #[serde(default)]
    pub tones: Option<Vec<Tone>>,
}

/// A sine tone; 0 Hz is silence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tone {
    /// Frequency in hertz, 0 to 4,000.
    pub hz: f32,
    /// Duration in milliseconds, 1 to 600,000.
    pub ms: u32,
}

/// Most tones in one `play`.
pub const MAX_TONES: usize = 1_000;
/// Longest tone, in milliseconds.
pub const MAX_TONE_MS: u32 = 600_000;

impl AgentConfig {
    /// Checks the ranges of every value; paths are relative to the config.
    pub fn check(&self) -> Result<(), Invalid> {
        range("answer_timeout_ms", self.answer_timeout_ms, 100, 120_000)?;
        range("ring_timeout_s", self.ring_timeout_s, 1, 600)?;
        range("max_duration_s", self.max_duration_s, 1, 86_400)?;
        if let Some(detection) = &self.voicemail_detection {
            range("timeout_s", detection.timeout_s, 1, 300).map_err(|e| e.within("voicemail_detection"))?;
        }
        if let Some(music) = &self.hold_music {
            music.check().map_err(|e| e.within("hold_music"))?;
        }
        if let Some(fallback) = &self.fallback {
            fallback.check().map_err(|e| e.within("fallback"))?;
        }
        self.runtime.check().map_err(|e| e.within("runtime"))
    }
}

impl AgentConfig {
    /// Checks that the secrets are there that the runtime cannot do without. A draft that is changed keeps the ones
    /// it has, so this is asked of the whole.
    pub fn check_secrets(&self) -> Result<(), Invalid> {
        let check = |field: &str, runtime: &Runtime| match runtime {
            Runtime::OpenaiRealtime(openai) => openai.check_secrets().map_err(|e| e.within(field)),
            _ => Ok(()),
        };
        check("runtime", &self.runtime)?;
        self.fallback.as_ref().map_or(Ok(()), |fallback| check("fallback", fallback))
    }

    /// The secrets that are set: the runtime's by their fields' names, the fallback's below `config.fallback`.
    #[must_use]
    pub fn secrets(&self) -> Vec<(&'static str, &Secret)> {
        let inner = self.fallback.as_ref().map(Runtime::secrets).unwrap_or_default();
        let named = |(name, secret)| {
            let full = CONFIG_FALLBACK.iter().find(|f| f.strip_prefix(OF_CONFIG) == Some(name))?;
            Some((*full, secret))
        };
        self.runtime.secrets().into_iter().chain(inner.into_iter().filter_map(named)).collect()
    }

    /// Sets a secret by its name. `false` when there is no place for it.
    pub fn set_secret(&mut self, name: &str, secret: Secret) -> bool {
        match (name.strip_prefix(OF_CONFIG), &mut self.fallback) {
            (None, _) => self.runtime.set_secret(name, secret),
            (Some(name), Some(fallback)) => fallback.set_secret(name, secret),
            (Some(_), None) => false,
        }
    }

    /// Takes the secrets of an older config where this one names none of its own and the runtime is of the same kind.
    pub fn keep_secrets(&mut self, old: &Self) {
        let kind = std::mem::discriminant::<Runtime>;
        let same_runtime = kind(&self.runtime) == kind(&old.runtime);
        let same_fallback = self.fallback.as_ref().map(kind) == old.fallback.as_ref().map(kind);
        for (name, secret) in old.secrets() {
            let same = if name.starts_with(OF_CONFIG) { same_fallback } else { same_runtime };
            if same && !self.secrets().iter().any(|(own, _)| *own == name) {
                self.set_secret(name, secret.clone());
            }
        }
    }
}

/// Where the secrets of a config's own fallback stand.
const OF_CONFIG: &str = "config.fallback.";
const CONFIG_FALLBACK: [&str; 6] = [
    "config.fallback.secret",
    "config.fallback.api_key",
    "config.fallback.tools_secret",
    "config.fallback.fallback.secret",
    "config.fallback.fallback.api_key",
    "config.fallback.fallback.tools_secret",
];

impl Play {
    fn check(&self) -> Result<(), Invalid> {
        self.sound().check()
    }

    /// What it plays.
    #[must_use]
    pub fn sound(&self) -> Sound {
        Sound { file: self.file.clone(), tones: self.tones.clone() }
    }
}

impl Sound {
    /// Checks every value; paths are relative to it.
    pub fn check(&self) -> Result<(), Invalid> {
        match (&self.file, &self.tones) {
            (Some(file), None) => {
                crate::invalid::no_control_characters("file", file)?;
                let relative = !file.is_empty()
                    && file.len() <= 1_024
                    && std::path::Path::new(file)
                        .components()
                        .all(|c| matches!(c, std::path::Component::Normal(_)));
                if relative {
                    Ok(())
                } else {
                    Err(Invalid::field(
                        "file",
                        "must be a path below the node's audio directory, without .. and not absolute",
                    ))
                }
            }
            (None, Some(tones)) => {
                if tones.is_empty() || tones.len() > MAX_TONES {
                    return Err(Invalid::field("tones", format!("must have 1 to {MAX_TONES} entries")));
                }
                for (index, tone) in tones.iter().enumerate() {
                    if !(0.0..=4_000.0).contains(&tone.hz) {
                        let e = Invalid::field("hz", "must be from 0 (silence) to 4000");
                        return Err(e.within(index.to_string()).within("tones"));
                    }
                    range("ms", tone.ms, 1, MAX_TONE_MS)
                        .map_err(|e| e.within(index.to_string()).within("tones"))?;
                }
                Ok(())
            }
            (Some(_), Some(_)) => Err(Invalid::field("file", "only one of file and tones may be given")),
            (None, None) => Err(Invalid::field("file", "one of file and tones is required")),
        }
    }
}

fn range(field: &str, value: u32, low: u32, high: u32) -> Result<(), Invalid> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(Invalid::field(field, format!("is {value}; {low} to {high} is allowed")))
    }
}
