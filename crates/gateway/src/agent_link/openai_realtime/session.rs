//! The session update of a Realtime session: ours, with the config's own fields laid over it.

use model::OpenaiRealtime;
use model::runtime::{RealtimeAudio, RealtimeDialect};
use serde_json::{Map, Value, json};

/// The session that the update asks for.
pub(super) fn update(config: &OpenaiRealtime, audio: RealtimeAudio) -> Value {
    let detection = json!({
        "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500,
        "create_response": true, "interrupt_response": true,
    });
    let mut session = match config.dialect {
        RealtimeDialect::Ga => {
            let format = match audio {
                RealtimeAudio::Pcmu => json!({"type": "audio/pcmu"}),
                RealtimeAudio::Pcma => json!({"type": "audio/pcma"}),
                RealtimeAudio::Pcm24 => json!({"type": "audio/pcm", "rate": 24_000}),
            };
            json!({
                "type": "realtime", "output_modalities": ["audio"],
                "audio": {
                    "input": {
                        "format": format, "transcription": {"model": "gpt-4o-mini-transcribe"},
                        "turn_detection": detection,
                    },
                    "output": {"format": format},
                },
            })
        }
        RealtimeDialect::Beta => {
            let format = match audio {
                RealtimeAudio::Pcmu => "g711_ulaw",
                RealtimeAudio::Pcma => "g711_alaw",
                RealtimeAudio::Pcm24 => "pcm16",
            };
            json!({
                "modalities": ["audio", "text"], "input_audio_format": format, "output_audio_format": format,
                "input_audio_transcription": {"model": "whisper-1"}, "turn_detection": detection,
            })
        }
    };
    if let Some(instructions) = &config.instructions {
        session["instructions"] = json!(instructions);
    }
    if let Some(voice) = &config.voice {
        match config.dialect {
            RealtimeDialect::Ga => session["audio"]["output"]["voice"] = json!(voice),
            RealtimeDialect::Beta => session["voice"] = json!(voice),
        }
    }
    if let Some(own) = &config.session {
        lay_over(&mut session, own);
    }
    session
}

/// Lays fields over others: objects within objects are laid over as well, everything else replaces.
fn lay_over(base: &mut Value, own: &Map<String, Value>) {
    let Some(base) = base.as_object_mut() else { return };
    for (name, value) in own {
        match (base.get_mut(name), value) {
            // A turn detection of another kind has other fields.
            (Some(slot @ Value::Object(_)), Value::Object(inner))
                if inner.get("type").is_none() || inner.get("type") == slot.get("type") =>
            {
                lay_over(slot, inner);
            }
            _ => {
                base.insert(name.clone(), value.clone());
            }
        }
    }
}
