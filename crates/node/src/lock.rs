//! One node a database: a second one would close the first one's live calls as lost.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use crate::Failure;
use crate::settings::Settings;

/// Held while the node runs; the system lets go of it however the process ends.
#[derive(Debug)]
pub(crate) struct NodeLock {
    _file: Option<File>,
}

/// The database's file.
pub(crate) fn database(settings: &Settings) -> PathBuf {
    let path = settings.store_url.trim_start_matches("sqlite:");
    PathBuf::from(path.strip_prefix("//").unwrap_or(path))
}

fn lock_path(settings: &Settings) -> PathBuf {
    let mut path = database(settings).into_os_string();
    path.push(".lock");
    PathBuf::from(path)
}

/// Takes the lock, or says who has it.
pub(crate) fn take(settings: &Settings) -> Result<NodeLock, Failure> {
    let path = lock_path(settings);
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = opened.map_err(|e| {
        Failure::usage(format!("store.url = {}: {}: {e}", settings.store_url, path.display()))
    })?;
    match file.try_lock() {
        Ok(()) => {
            let process = std::process::id().to_string();
            // For people and `doctor` only; the lock itself does not depend on it.
            let _ = file
                .set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| file.write_all(process.as_bytes()));
            Ok(NodeLock { _file: Some(file) })
        }
        Err(TryLockError::WouldBlock) => {
            let holder =
                process_in(&mut file).map_or_else(|| "a process".to_owned(), |id| format!("process {id}"));
            let rule = format!(
                "another node runs on it ({holder}); stop that one, or give this one a data_dir of its own"
            );
            Err(Failure::usage(format!("store.url = {}: {rule}", settings.store_url)))
        }
        Err(TryLockError::Error(error)) => {
            tracing::warn!(%error, "this file system has no locks: nothing keeps a second node off the database");
            Ok(NodeLock { _file: None })
        }
    }
}

/// The process of the node that runs on the database, 0 when it is not known; `None` when none runs.
pub(crate) fn holder(settings: &Settings) -> Option<u32> {
    let mut file = File::open(lock_path(settings)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(process_in(&mut file).unwrap_or(0)),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn process_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_node_on_the_same_database_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let settings = crate::settings::of(&[format!("data_dir={}", directory.path().display())]).unwrap();
        assert_eq!(holder(&settings), None);
        let first = take(&settings).unwrap();
        assert_eq!(holder(&settings), Some(std::process::id()));
        let refused = take(&settings).unwrap_err();
        assert_eq!(refused.status, crate::USAGE);
        assert!(refused.message.starts_with("store.url = "), "{}", refused.message);
        drop(first);
        assert!(take(&settings).is_ok());
    }
}
