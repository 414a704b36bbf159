//! Who speaks on a call and under which rules: how a version's `config` stands in JSON, and its JSON Schema.

use axum::Json;
use model::AgentConfig;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::auth::{AgentsRead, Caller};
use crate::error::ApiError;
use crate::routes::{Routes, operations};
use crate::wire::{E164Text, TrunkIdText};

/// Reads the config that stands in `field` of a body, with every secret it needs.
pub(super) fn read(field: &str, raw: &Value) -> Result<AgentConfig, ApiError> {
    let config = read_change(field, raw)?;
    config.check_secrets().map_err(|invalid| ApiError::body(invalid.within(field)))?;
    Ok(config)
}

/// Reads the config that replaces the one of a draft, which keeps secrets that are not named.
pub(super) fn read_change(field: &str, raw: &Value) -> Result<AgentConfig, ApiError> {
    let config: AgentConfig = crate::extract::tree(field, raw)?;
    config.check().map_err(|invalid| ApiError::body(invalid.within(field)))?;
    Ok(config)
}

/// How a config is shown.
pub(super) fn show(config: &AgentConfig) -> Value {
    // Every field has a JSON form, so this cannot fail; null would say so in every test.
    serde_json::to_value(config).unwrap_or_default()
}

/// Who speaks on a call and under which rules. Unknown fields are refused.
#[derive(ToSchema)]
#[schema(as = AgentConfig)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::AgentConfig; a test holds the two together")]
pub(super) struct AgentConfigSchema {
    runtime: RuntimeSchema,
    /// How long the runtime may take to be ready, in milliseconds.
    #[schema(required = false, default = 10_000, minimum = 100, maximum = 120_000)]
    answer_timeout_ms: u32,
    /// How long an outbound call may ring, in seconds.
    #[schema(required = false, default = 60, minimum = 1, maximum = 600)]
    ring_timeout_s: u32,
    /// Longest call, in seconds.
    #[schema(required = false, default = 7_200, minimum = 1, maximum = 86_400)]
    max_duration_s: u32,
    /// Whether the agent hears what the callee's side sends before it answers.
    #[schema(required = false, default = false)]
    early_media: bool,
    #[schema(required = false)]
    recording: RecordingSchema,
    /// On outbound calls, listen for the beep of a voicemail box: the conversation's `voicemail_beep_at` has its time,
    /// and a `tandem` agent is told with `voicemail_beep`. Null: not.
    #[schema(required = false)]
    voicemail_detection: Option<VoicemailDetectionSchema>,
    /// What a caller hears who waits: while a `dial` agent rings (null: ringback), and in a warm transfer (null: quiet
    /// music).
    hold_music: Option<SoundSchema>,
    /// Who speaks when the runtime's connection breaks in the middle of a call: any runtime, `dial` among them. The
    /// call ends without.
    #[schema(required = false, value_type = Option<Object>)]
    fallback: (),
}

/// Something to play: exactly one of `file` and `tones`.
#[derive(ToSchema)]
#[schema(as = Sound)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::Sound; a test holds the two together")]
struct SoundSchema {
    /// WAV file, relative to the node's audio directory.
    #[schema(min_length = 1, max_length = 1024)]
    file: Option<String>,
    /// Tones, one after the other.
    #[schema(min_items = 1, max_items = 1_000)]
    tones: Option<Vec<ToneSchema>>,
}

/// How a voicemail box is noticed.
#[derive(ToSchema)]
#[schema(as = VoicemailDetection)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::VoicemailDetection; a test holds the two together")]
struct VoicemailDetectionSchema {
    /// How long from the answer on its beep is listened for, in seconds.
    #[schema(required = false, default = 60, minimum = 1, maximum = 300)]
    timeout_s: u32,
}

/// Whether and how calls are recorded.
#[derive(ToSchema)]
#[schema(as = Recording)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::Recording; a test holds the two together")]
struct RecordingSchema {
    #[schema(required = false, default = false)]
    enabled: bool,
    #[schema(inline, required = false)]
    format: RecordingFormatSchema,
}

/// `wav` when left out.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes model::agent::RecordingFormat")]
pub(super) enum RecordingFormatSchema {
    Wav,
    Ogg,
}

/// Who speaks.
#[derive(ToSchema)]
#[schema(as = Runtime)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes model::Runtime; a test holds the two together")]
enum RuntimeSchema {
    Echo(EchoSchema),
    Play(PlaySchema),
    MediaStream(MediaStreamSchema),
    OpenaiRealtime(OpenaiRealtimeSchema),
    Tandem(TandemSchema),
    Audiosocket(AudiosocketSchema),
    Dial(DialSchema),
}

/// Somebody at a telephone, called over a trunk and bridged to the caller, who hears ringback meanwhile.
#[derive(ToSchema)]
#[schema(as = DialRuntime)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::Dial; a test holds the two together")]
struct DialSchema {
    #[schema(inline)]
    r#type: DialKind,
    /// A number (`+14155550100`), or `sip:user@host` with the host of one of the organization's trunks.
    to: String,
    /// The trunk to leave by; the caller's own when neither this nor `agent_number` is given.
    trunk_id: Option<TrunkIdText>,
    /// The caller ID, and with it the trunk.
    agent_number: Option<E164Text>,
    /// How long it may ring, in seconds.
    #[schema(required = false, default = 30, minimum = 1, maximum = 120)]
    timeout_s: u32,
    /// Who speaks when nobody answers: a runtime other than `dial`. The call ends without.
    #[schema(required = false, value_type = Option<Object>)]
    fallback: (),
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes a constant")]
enum DialKind {
    Dial,
}

/// A bot that speaks Twilio's Media Streams.
#[derive(ToSchema)]
#[schema(as = MediaStreamRuntime)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::MediaStream; a test holds the two together")]
struct MediaStreamSchema {
    #[schema(inline)]
    r#type: MediaStreamKind,
    /// `ws://` or `wss://`; we connect.
    #[schema(max_length = 2048)]
    url: String,
    /// Handed to the bot as `customParameters`: an object of strings.
    #[schema(required = false, value_type = Object)]
    parameters: (),
    /// Signs the upgrade (`X-Twilio-Signature`), and is the password of the hang-up shim.
    #[schema(required = false, write_only, min_length = 1, max_length = 512)]
    secret: Option<String>,
    #[schema(inline, required = false)]
    dialect: StreamDialectSchema,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes a constant")]
enum MediaStreamKind {
    MediaStream,
}

/// How the messages are spelled; `twilio` when left out.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes model::runtime::StreamDialect")]
enum StreamDialectSchema {
    Twilio,
    Telnyx,
}

/// A server of the OpenAI Realtime API.
#[derive(ToSchema)]
#[schema(as = OpenaiRealtimeRuntime)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::OpenaiRealtime; a test holds the two together")]
struct OpenaiRealtimeSchema {
    #[schema(inline)]
    r#type: OpenaiRealtimeKind,
    /// `ws://` or `wss://`, without the model.
    #[schema(required = false, default = "wss://api.openai.com/v1/realtime", max_length = 2048)]
    url: String,
    /// Sent as `model` in the query.
    #[schema(required = false, default = "gpt-realtime", min_length = 1, max_length = 128)]
    model: String,
    /// Sent as `Authorization: Bearer`.
    #[schema(required = false, write_only, min_length = 1, max_length = 512)]
    api_key: Option<String>,
    #[schema(inline, required = false)]
    dialect: RealtimeDialectSchema,
    /// What the model is told to be.
    #[schema(max_length = 65536)]
    instructions: Option<String>,
    /// The model's voice.
    #[schema(min_length = 1, max_length = 128)]
    voice: Option<String>,
    /// Whether the model speaks first.
    #[schema(required = false, default = true)]
    greeting: bool,
    /// Fields of the session update, laid over ours. The audio formats are G.711 or 24 kHz PCM, the same both ways.
    #[schema(required = false, value_type = Option<Object>)]
    session: (),
    /// Where the model's function calls are posted, signed; `http://` or `https://`.
    #[schema(max_length = 2048)]
    tools_url: Option<String>,
    /// Signs them (Standard Webhooks, `whsec_…`); `api_key` does when left out.
    #[schema(required = false, write_only, min_length = 1, max_length = 512)]
    tools_secret: Option<String>,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes a constant")]
enum OpenaiRealtimeKind {
    OpenaiRealtime,
}

/// Which spelling the server speaks; `ga` when left out.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes model::runtime::RealtimeDialect")]
enum RealtimeDialectSchema {
    Ga,
    Beta,
}

/// A bot that speaks Tandem's own protocol.
#[derive(ToSchema)]
#[schema(as = TandemRuntime)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::TandemLink; a test holds the two together")]
struct TandemSchema {
    #[schema(inline)]
    r#type: TandemKind,
    /// `ws://` or `wss://`; we connect.
    #[schema(max_length = 2048)]
    url: String,
    /// Both ways, in hertz: 8000, 16000 or 24000.
    #[schema(required = false, default = 16_000, minimum = 8_000, maximum = 24_000, multiple_of = 8_000)]
    sample_rate: u32,
    /// Signs the upgrade (`X-Tandem-Signature`).
    #[schema(required = false, write_only, min_length = 1, max_length = 512)]
    secret: Option<String>,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes a constant")]
enum TandemKind {
    Tandem,
}

/// A bot that speaks Asterisk's AudioSocket: neither password nor encryption, so for a private network.
#[derive(ToSchema)]
#[schema(as = AudiosocketRuntime)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::Audiosocket; a test holds the two together")]
struct AudiosocketSchema {
    #[schema(inline)]
    r#type: AudiosocketKind,
    /// `host:port`; we connect.
    address: String,
    /// Both ways, in hertz: 8000, 16000 or 24000.
    #[schema(required = false, default = 8_000, minimum = 8_000, maximum = 24_000, multiple_of = 8_000)]
    sample_rate: u32,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes a constant")]
enum AudiosocketKind {
    Audiosocket,
}

/// Returns the caller's audio.
#[derive(ToSchema)]
#[schema(as = EchoRuntime)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::Runtime; a test holds the two together")]
struct EchoSchema {
    #[schema(inline)]
    r#type: EchoKind,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes a constant")]
enum EchoKind {
    Echo,
}

/// Plays a file or tones: exactly one of `file` and `tones`.
#[derive(ToSchema)]
#[schema(as = PlayRuntime)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::Play; a test holds the two together")]
struct PlaySchema {
    #[schema(inline)]
    r#type: PlayKind,
    /// WAV file, relative to the node's audio directory.
    #[schema(min_length = 1, max_length = 1024)]
    file: Option<String>,
    /// Tones, one after the other.
    #[schema(min_items = 1, max_items = 1_000)]
    tones: Option<Vec<ToneSchema>>,
    /// Start over at the end until the call ends; otherwise the agent hangs up when it has played.
    #[schema(required = false, default = false)]
    repeat: bool,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes a constant")]
enum PlayKind {
    Play,
}

/// A sine tone.
#[derive(ToSchema)]
#[schema(as = Tone)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::Tone; a test holds the two together")]
pub(super) struct ToneSchema {
    /// Frequency in hertz; 0 is silence.
    #[schema(minimum = 0, maximum = 4_000)]
    hz: f32,
    /// Duration in milliseconds.
    #[schema(minimum = 1, maximum = 600_000)]
    ms: u32,
}

/// The JSON Schema of an agent's config.
#[utoipa::path(get, path = "/core/agent-config-schema", operation_id = "get_agent_config_schema", tag = "Agents",
    responses((status = 200, description = "A JSON Schema (2020-12).", body = Object)))]
async fn schema(_: Caller<AgentsRead>) -> Json<Value> {
    Json(standalone())
}

/// Where the description keeps its schemas, and where a schema that stands alone does.
const COMPONENTS: &str = "#/components/schemas/";
const DEFINITIONS: &str = "#/$defs/";

/// The config's schema with everything it refers to.
fn standalone() -> Value {
    use utoipa::ToSchema;

    let mut found = vec![(
        AgentConfigSchema::name().into_owned(),
        <AgentConfigSchema as utoipa::PartialSchema>::schema(),
    )];
    AgentConfigSchema::schemas(&mut found);
    let mut definitions: Map<String, Value> = found
        .into_iter()
        .map(|(name, schema)| (name, relocated(serde_json::to_value(schema).unwrap_or_default())))
        .collect();
    let mut root = json!({"$schema": "https://json-schema.org/draft/2020-12/schema"});
    let own = definitions.shift_remove(AgentConfigSchema::name().as_ref());
    if let (Some(root), Some(Value::Object(own))) = (root.as_object_mut(), own) {
        root.extend(own);
        root.insert("$defs".to_owned(), Value::Object(definitions));
    }
    root
}

fn relocated(schema: Value) -> Value {
    match schema {
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(k, v)| (k, relocated(v))).collect()),
        Value::Array(items) => Value::Array(items.into_iter().map(relocated).collect()),
        Value::String(text) => Value::String(text.replace(COMPONENTS, DEFINITIONS)),
        other => other,
    }
}

pub(super) fn routes() -> Routes {
    operations!(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(schema: &Value) -> Vec<String> {
        let mut names: Vec<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        names.sort();
        names
    }

    fn keys(value: &Value) -> Vec<String> {
        let mut names: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        names.sort();
        names
    }

    #[test]
    fn the_schema_and_the_model_have_the_same_fields_and_defaults() {
        let schema = standalone();
        let config = read("config", &json!({"runtime": {"type": "echo"}})).unwrap();
        let shown = show(&config);
        assert_eq!(names(&schema), keys(&shown));
        for (name, property) in schema["properties"].as_object().unwrap() {
            if let Some(default) = property.get("default") {
                assert_eq!(default, &shown[name], "{name}");
            }
        }
        assert_eq!(names(&schema["$defs"]["Recording"]), keys(&shown["recording"]));
        assert_eq!(names(&schema["$defs"]["EchoRuntime"]), keys(&shown["runtime"]));
        for (name, write_only, raw) in [
            ("MediaStreamRuntime", &["secret"][..], json!({"type": "media_stream", "url": "ws://h/"})),
            ("OpenaiRealtimeRuntime", &["api_key", "tools_secret"], json!({"type": "openai_realtime"})),
            ("TandemRuntime", &["secret"], json!({"type": "tandem", "url": "ws://h/"})),
            ("AudiosocketRuntime", &[], json!({"type": "audiosocket", "address": "h:1"})),
            ("DialRuntime", &[], json!({"type": "dial", "to": "+14155550100"})),
        ] {
            let shown = show(&read("config", &json!({ "runtime": raw })).unwrap());
            let described: Vec<String> = names(&schema["$defs"][name])
                .into_iter()
                .filter(|field| !write_only.contains(&field.as_str()))
                .collect();
            assert_eq!(described, keys(&shown["runtime"]), "{name}");
            for (field, property) in schema["$defs"][name]["properties"].as_object().unwrap() {
                if let Some(default) = property.get("default") {
                    assert_eq!(default, &shown["runtime"][field], "{name}.{field}");
                }
            }
        }
        let waiting = json!({"runtime": {"type": "echo"}, "hold_music": {"tones": [{"hz": 440, "ms": 500}]}});
        let shown = show(&read("config", &waiting).unwrap());
        assert_eq!(names(&schema["$defs"]["Sound"]), keys(&shown["hold_music"]));
        let mut fields = Vec::new();
        for play in [
            json!({"type": "play", "file": "a.wav"}),
            json!({"type": "play", "tones": [{"hz": 440, "ms": 500}]}),
        ] {
            let shown = show(&read("config", &json!({"runtime": play})).unwrap());
            fields.extend(keys(&shown["runtime"]));
            if let Some(tone) = shown["runtime"]["tones"].get(0) {
                assert_eq!(names(&schema["$defs"]["Tone"]), keys(tone));
            }
        }
        fields.sort();
        fields.dedup();
        assert_eq!(names(&schema["$defs"]["PlayRuntime"]), fields);
    }

    #[test]
    fn faults_name_their_field() {
        for (raw, detail) in [
            (json!({}), "config.runtime is required."),
            (json!([]), "config must be an object."),
            (json!({"runtime": ["echo"]}), "config.runtime must be an object."),
            (
                json!({"runtime": {"type": "sing"}}),
                "config.runtime.type must be one of echo, play, media_stream, openai_realtime, tandem, audiosocket, dial.",
            ),
            (json!({"runtime": {}}), "config.runtime.type is required."),
            (json!({"runtime": {"type": "echo", "x": 1}}), "config.runtime.x is not a field of this object."),
            (json!({"runtime": {"type": "echo"}, "y": 1}), "config.y is not a field of this object."),
            (
                json!({"runtime": {"type": "echo"}, "ring_timeout_s": -1}),
                "config.ring_timeout_s must be a non-negative integer.",
            ),
            (
                json!({"runtime": {"type": "echo"}, "ring_timeout_s": 0}),
                "config.ring_timeout_s is 0; 1 to 600 is allowed.",
            ),
            (
                json!({"runtime": {"type": "echo"}, "hold_music": {}}),
                "config.hold_music.file one of file and tones is required.",
            ),
            (
                json!({"runtime": {"type": "echo"}, "fallback": {"type": "tandem", "url": "x"}}),
                "config.fallback.url must be a wss:// or ws:// URL with a host, without user, password or fragment.",
            ),
            (
                json!({"runtime": {"type": "play", "tones": [[440, 500]]}}),
                "config.runtime.tones.0 must be an object.",
            ),
        ] {
            let error = read("config", &raw).unwrap_err();
            assert_eq!(error.status(), 422);
            assert_eq!(error.detail(), detail, "{raw}");
        }
    }
}
