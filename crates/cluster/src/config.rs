//! Configuration changes: the store's change log is the truth, this only wakes its readers and tells writers when
//! the edge has caught up.

use std::time::Duration;

use tokio::sync::watch;

use crate::Cluster;

/// The edge did not take a committed change in time. The change is durable and takes effect when it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the change is saved, but the call edge has not taken it yet")]
pub struct NotApplied;

pub(crate) struct Config {
    committed: watch::Sender<i64>,
    applied: watch::Receiver<i64>,
}

/// The node's end: which sequence number has been committed, and where to report what has been applied.
pub struct ConfigFeed {
    committed: watch::Receiver<i64>,
    applied: watch::Sender<i64>,
}

impl Config {
    pub(crate) fn new() -> (Self, ConfigFeed) {
        let (committed, committed_rx) = watch::channel(0);
        let (applied, applied_rx) = watch::channel(0);
        (Self { committed, applied: applied_rx }, ConfigFeed { committed: committed_rx, applied })
    }
}

impl Cluster {
    /// Tells the edge that the change log has been committed up to `sequence`, and waits until this node's directory
    /// has it.
    pub async fn config_committed(&self, sequence: i64, limit: Duration) -> Result<(), NotApplied> {
        self.inner.config.committed.send_if_modified(|last| {
            let newer = sequence > *last;
            if newer {
                *last = sequence;
            }
            newer
        });
        let mut applied = self.inner.config.applied.clone();
        let caught_up = applied.wait_for(|seen| *seen >= sequence);
        match tokio::time::timeout(limit, caught_up).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(NotApplied),
        }
    }

    /// The sequence number this node's directory has.
    #[must_use]
    pub fn config_applied(&self) -> i64 {
        *self.inner.config.applied.borrow()
    }
}

impl ConfigFeed {
    /// Waits until something newer than `sequence` has been committed; `false` when the control plane is gone.
    pub async fn newer_than(&mut self, sequence: i64) -> bool {
        self.committed.wait_for(|committed| *committed > sequence).await.is_ok()
    }

    /// Reports that the directory has everything up to `sequence`.
    pub fn applied(&self, sequence: i64) {
        self.applied.send_replace(sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_writer_waits_for_the_edge_and_no_longer_than_its_limit() {
        let (cluster, mut feed, ..) = Cluster::in_process();
        assert_eq!(cluster.config_committed(1, Duration::from_secs(1)).await, Err(NotApplied));
        let edge = tokio::spawn(async move {
            assert!(feed.newer_than(1).await);
            feed.applied(2);
        });
        assert_eq!(cluster.config_committed(2, Duration::from_secs(1)).await, Ok(()));
        edge.await.unwrap();
    }
}
