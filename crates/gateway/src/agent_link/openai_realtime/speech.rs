//! What the model says: its audio on the way to the caller, and how much of it was heard when the caller interrupts.

use media::codec::g711;
use model::Timestamp;
use model::runtime::RealtimeAudio;
use serde_json::{Value, json};

use super::super::dialect::Io;
use super::super::media_stream::LENIENT;
use super::{RealtimeClient, remember, text};
use base64::Engine as _;
pub(super) struct Said {
    pub(super) id: String,
    response: String,
    content_index: u64,
    /// Position in playout at which it begins, and its length, in samples.
    begins: u64,
    length: u64,
    pub(super) at: Timestamp,
}

impl RealtimeClient {
    pub(super) fn delta(&mut self, event: &Value, io: &mut Io) {
        let response = text(event, "response_id");
        if self.dropped.iter().any(|id| id == response) {
            return;
        }
        let item = text(event, "item_id");
        let Some(delta) = event.get("delta").and_then(Value::as_str) else {
            io.fault("audio without a delta");
            return;
        };
        self.bytes.clear();
        if LENIENT.decode_vec(delta.as_bytes(), &mut self.bytes).is_err() {
            io.fault("a delta that is not Base64");
            return;
        }
        self.samples.clear();
        match self.audio {
            RealtimeAudio::Pcmu => {
                self.samples.extend(self.bytes.iter().map(|&byte| g711::decode_ulaw(byte)));
            }
            RealtimeAudio::Pcma => {
                self.samples.extend(self.bytes.iter().map(|&byte| g711::decode_alaw(byte)));
            }
            RealtimeAudio::Pcm24 => {
                let (pairs, _) = self.bytes.as_chunks::<2>();
                self.samples.extend(pairs.iter().map(|pair| i16::from_le_bytes(*pair)));
            }
        }
        let progress = io.link.progress();
        let lost = io.link.say(&self.samples);
        let length = self.samples.len().saturating_sub(lost) as u64;
        match self.said.back_mut().filter(|said| said.id == item) {
            Some(said) => said.length += length,
            None => {
                // What has been heard whole is of no more interest.
                self.said.retain(|said| said.begins + said.length > progress.played);
                let said = Said {
                    id: item.to_owned(),
                    response: response.to_owned(),
                    content_index: event.get("content_index").and_then(Value::as_u64).unwrap_or(0),
                    begins: progress.played + progress.queued,
                    length,
                    at: Timestamp::now(),
                };
                remember(&mut self.said, said);
            }
        }
    }

    /// The caller speaks: silence at once, and the model learns how much of each item was heard.
    pub(super) fn interrupt(&mut self, io: &mut Io) {
        if !self.interrupts {
            return;
        }
        let played = io.link.progress().played;
        io.link.clear();
        for said in std::mem::take(&mut self.said) {
            let heard = played.saturating_sub(said.begins).min(said.length);
            if heard == said.length {
                continue;
            }
            let ms = heard * 1_000 / u64::from(Self::rate(self.audio));
            io.json(&json!({
                "type": "conversation.item.truncate", "item_id": said.id, "content_index": said.content_index,
                "audio_end_ms": ms,
            }));
            self.drop_response(said.response);
            remember(&mut self.interrupted, said.id);
        }
        // What the server is still saying is not wanted either.
        if let Some(active) = self.active.clone() {
            self.drop_response(active);
        }
    }

    /// No more of this response is said. A server that names no responses would be silenced for good by its first.
    fn drop_response(&mut self, id: String) {
        if !id.is_empty() && !self.dropped.contains(&id) {
            remember(&mut self.dropped, id);
        }
    }
}
