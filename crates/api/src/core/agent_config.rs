//! Who speaks on a call and under which rules: how a version's `config` stands in JSON, and its JSON Schema.

use axum::Json;
use model::AgentConfig;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::auth::{AgentsRead, Caller};
use crate::error::ApiError;
use crate::routes::{Routes, operations};

/// Reads the config that stands in `field` of a body.
pub(super) fn read(field: &str, raw: &Value) -> Result<AgentConfig, ApiError> {
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
    /// Null: this release tells no voicemail box from a person.
    #[schema(required = false, value_type = Option<Object>)]
    voicemail_detection: (),
}

/// Whether and how calls are recorded. This release records none.
#[derive(ToSchema)]
#[schema(as = Recording)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::Recording; a test holds the two together")]
struct RecordingSchema {
    #[schema(required = false, default = false)]
    enabled: bool,
    /// `wav` when left out.
    #[schema(inline, required = false)]
    format: RecordingFormatSchema,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes model::agent::RecordingFormat")]
enum RecordingFormatSchema {
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
struct ToneSchema {
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
            (json!({"runtime": {"type": "sing"}}), "config.runtime.type must be one of echo, play."),
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
