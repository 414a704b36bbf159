//! What is played: tones, or a WAV file of the node's audio directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ahash::AHashMap;
use media::session::Player;
use model::Sound;
use parking_lot::Mutex;

use super::NotReady;

/// Files kept decoded; forgotten all at once when there are more.
const MAX_FILES: usize = 64;

/// The player of what needs no file.
pub(super) fn tones(sound: &Sound, repeat: bool) -> Option<Player> {
    let tones: Vec<(f32, u32)> = sound.tones.as_ref()?.iter().map(|tone| (tone.hz, tone.ms)).collect();
    Some(Player::tones(&tones, repeat))
}

/// Decoded audio files, shared by the calls that play them.
#[derive(Default)]
pub(crate) struct AudioFiles(Mutex<AHashMap<PathBuf, Decoded>>);

/// When the file was changed last, and its samples.
type Decoded = (SystemTime, Arc<[i16]>);

impl AudioFiles {
    pub(crate) async fn open(
        &self,
        sound: &Sound,
        repeat: bool,
        audio_dir: &Path,
    ) -> Result<Player, NotReady> {
        if let Some(player) = tones(sound, repeat) {
            return Ok(player);
        }
        let Some(file) = &sound.file else {
            return Err(NotReady::failed("neither a file nor tones are named".to_owned()));
        };
        let path = audio_dir.join(file);
        let changed = tokio::fs::metadata(&path).await.and_then(|m| m.modified());
        let changed = changed.map_err(|e| {
            NotReady::failed(format!("the audio file {file:?} of the agent cannot be read: {e}"))
        })?;
        let known =
            self.0.lock().get(&path).filter(|(at, _)| *at == changed).map(|(_, samples)| Arc::clone(samples));
        let samples = match known {
            Some(samples) => samples,
            None => {
                let source = path.clone();
                let read = tokio::task::spawn_blocking(move || media::wav::read(&source)).await;
                let samples: Arc<[i16]> = match read {
                    Ok(Ok(samples)) => samples.into(),
                    Ok(Err(e)) => {
                        return Err(NotReady::failed(format!(
                            "the audio file {file:?} of the agent cannot be played: {e}"
                        )));
                    }
                    Err(_) => {
                        return Err(NotReady::failed(format!(
                            "the audio file {file:?} of the agent broke its decoder"
                        )));
                    }
                };
                let mut files = self.0.lock();
                if files.len() >= MAX_FILES {
                    files.clear();
                }
                files.insert(path, (changed, Arc::clone(&samples)));
                samples
            }
        };
        Ok(Player::samples(samples, repeat))
    }
}
