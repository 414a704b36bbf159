//! Agent links: what stands at the other end of a call's audio.

mod play;

use std::path::Path;

use model::{AgentConfig, Runtime};

pub(crate) use play::AudioFiles;

/// Why an agent cannot take a call: one sentence for the decision record.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotReady(pub(crate) String);

/// Whether the agent is ready at once, without waiting for anything.
pub(crate) fn ready_now(config: &AgentConfig) -> Option<media::session::Agent> {
    match &config.runtime {
        Runtime::Echo {} => Some(media::session::Agent::Echo),
        Runtime::Play(play) => play::tones(play).map(media::session::Agent::Play),
    }
}

/// Makes the agent ready to take a call.
pub(crate) async fn prepare(
    config: &AgentConfig,
    files: &AudioFiles,
    audio_dir: &Path,
) -> Result<media::session::Agent, NotReady> {
    if let Some(agent) = ready_now(config) {
        return Ok(agent);
    }
    match &config.runtime {
        Runtime::Play(play) => files.open(play, audio_dir).await.map(media::session::Agent::Play),
        Runtime::Echo {} => Ok(media::session::Agent::Echo),
    }
}
