//! Writes calls and decisions behind: what comes within a moment goes into one transaction, and of a call only its
//! latest state.

use std::collections::HashMap;
use std::time::Duration;

use model::ConversationId;
use store::Store;
use tokio::sync::mpsc;

/// How long facts are gathered: an end is visible well within a second.
const GATHER: Duration = Duration::from_millis(100);
/// Facts in one transaction.
const MAX_BATCH: usize = 5_000;
/// Pause after the store refused, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long the last facts may take when the node ends.
pub(crate) const LAST_FLUSH: Duration = Duration::from_secs(10);

/// Runs until the queue's other end is gone and everything is written.
pub(crate) async fn run(store: Store, mut queue: mpsc::Receiver<gateway::Record>) {
    let mut gathered = Vec::with_capacity(256);
    loop {
        if queue.recv_many(&mut gathered, MAX_BATCH).await == 0 {
            return;
        }
        if gathered.len() < MAX_BATCH {
            tokio::time::sleep(GATHER).await;
            while gathered.len() < MAX_BATCH {
                match queue.try_recv() {
                    Ok(record) => gathered.push(record),
                    Err(_) => break,
                }
            }
        }
        let batch = latest(gathered.drain(..));
        let mut pause = FIRST_PAUSE;
        while let Err(error) = store.write_records(&batch).await {
            tracing::error!(%error, records = batch.len(), "calls cannot be written down yet; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Keeps the latest state of each call, in the order they first came.
fn latest(records: impl Iterator<Item = gateway::Record>) -> Vec<store::Record> {
    let mut places: HashMap<ConversationId, usize> = HashMap::new();
    let mut batch = Vec::new();
    for record in records {
        match record {
            gateway::Record::Decision(decision) => batch.push(store::Record::Decision(*decision)),
            gateway::Record::Conversation(conversation) => {
                match places.get(&conversation.id).and_then(|at| batch.get_mut(*at)) {
                    Some(slot) => *slot = store::Record::Conversation(*conversation),
                    None => {
                        places.insert(conversation.id, batch.len());
                        batch.push(store::Record::Conversation(*conversation));
                    }
                }
            }
        }
    }
    batch
}
