//! Brings configuration changes from the store to the gateway's directory: at once when this node's API made them,
//! and within a moment when another process did (the admin commands).

use std::time::Duration;

use cluster::ConfigFeed;
use gateway::DirectoryHandle;
use store::{Seq, Store};

/// How often the change log is looked at without being told.
const LOOK: Duration = Duration::from_millis(250);
/// Changes taken at once.
const BATCH: u32 = 1_000;

pub(crate) async fn run(store: Store, mut feed: ConfigFeed, directory: DirectoryHandle, mut sequence: Seq) {
    loop {
        let told = tokio::time::timeout(LOOK, feed.newer_than(sequence)).await;
        if told == Ok(false) {
            return;
        }
        loop {
            match store.changes_after(sequence, BATCH).await {
                Ok((last, _)) if last == sequence => break,
                Ok((last, changes)) => {
                    directory.apply(changes);
                    sequence = last;
                    feed.applied(sequence);
                }
                Err(error) => {
                    tracing::error!(%error, "configuration changes cannot be read; calls go on with what is known");
                    tokio::time::sleep(LOOK).await;
                    break;
                }
            }
        }
    }
}
