//! How long recordings and quality figures are kept. What is over its time is dropped once an hour; calls themselves
//! stay on record.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use model::Timestamp;
use store::Store;

/// Time between two rounds.
const ROUND: Duration = Duration::from_secs(3_600);

/// What is kept for how long; `None` is for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Retention {
    pub(crate) recordings: Option<Duration>,
    pub(crate) quality: Option<Duration>,
}

/// Runs until it is aborted.
pub(crate) async fn run(store: Store, recordings: PathBuf, retention: Retention) {
    let mut rounds = tokio::time::interval(ROUND);
    loop {
        rounds.tick().await;
        if let Some(age) = retention.recordings {
            let dir = recordings.clone();
            let oldest = SystemTime::now().checked_sub(age);
            let dropped =
                tokio::task::spawn_blocking(move || oldest.map_or(Ok(0), |at| drop_files(&dir, at)));
            match dropped.await {
                Ok(Ok(0)) | Err(_) => {}
                Ok(Ok(files)) => {
                    tracing::info!(files, "recordings past retention.recordings_days were dropped")
                }
                Ok(Err(error)) => tracing::warn!(%error, "old recordings cannot be dropped yet"),
            }
        }
        if let Some(age) = retention.quality {
            let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
            let before = Timestamp(Timestamp::now().0.saturating_sub(age));
            if let Err(error) = store.prune_qualities(before).await {
                tracing::warn!(%error, "old quality figures cannot be dropped yet");
            }
        }
    }
}

/// Drops the files that nothing was written to since. One of a live call is written to all the time.
fn drop_files(dir: &Path, oldest: SystemTime) -> io::Result<u64> {
    let mut dropped = 0;
    let organizations = match std::fs::read_dir(dir) {
        // Nothing has been recorded yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        organizations => organizations?,
    };
    for organization in organizations {
        let organization = organization?;
        if !organization.file_type()?.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(organization.path())? {
            let file = file?;
            let metadata = file.metadata()?;
            if metadata.is_file() && metadata.modified()? < oldest {
                std::fs::remove_file(file.path())?;
                dropped += 1;
            }
        }
    }
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_files_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(drop_files(&dir.path().join("none"), SystemTime::now()).unwrap(), 0);
        let organization = dir.path().join("organization");
        std::fs::create_dir(&organization).unwrap();
        let now = SystemTime::now();
        for (name, days) in [("old.wav", 10), ("new.wav", 1)] {
            let file = std::fs::File::create(organization.join(name)).unwrap();
            file.set_modified(now - Duration::from_secs(days * 86_400)).unwrap();
        }
        assert_eq!(drop_files(dir.path(), now - Duration::from_secs(7 * 86_400)).unwrap(), 1);
        let left: Vec<_> =
            std::fs::read_dir(&organization).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(left, ["new.wav"]);
    }
}
