//! Writes calls and decisions behind: what comes within a moment goes into one transaction, and of a call only its
//! latest state.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::Cluster;
use model::ConversationId;
use store::Store;
use tokio::sync::mpsc;

/// How long facts are gathered: an end is visible well within a second.
const GATHER: Duration = Duration::from_millis(200);
/// Facts in one transaction.
const MAX_BATCH: usize = 5_000;
/// Pause after the store refused, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Rows that are no calls, after which the oldest decisions and traces are dropped, so that strangers cannot fill the disk.
const PRUNE_AFTER: usize = 4_000;
/// How long the last facts may take when the node ends.
pub(crate) const LAST_FLUSH: Duration = Duration::from_secs(10);

/// Runs until the queue's other end is gone and everything is written.
pub(crate) async fn run(store: Store, cluster: Cluster, mut queue: mpsc::Receiver<gateway::Record>) {
    let mut gathered = Vec::with_capacity(256);
    let mut unpruned = 0;
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
        unpruned += batch.iter().filter(|record| !matches!(record, store::Record::Conversation(_))).count();
        for record in batch {
            if let store::Record::Conversation(call) = record {
                cluster.call_changed(Arc::new(call));
            }
        }
        if unpruned >= PRUNE_AFTER {
            unpruned = 0;
            if let Err(error) = store.prune_traces().await {
                tracing::warn!(%error, "old traces cannot be dropped yet");
            }
            if let Err(error) = store.prune_decisions().await {
                tracing::warn!(%error, "old decisions cannot be dropped yet");
            }
        }
    }
}

/// Keeps the latest state of each call, in the order they first came.
fn latest(records: impl Iterator<Item = gateway::Record>) -> Vec<store::Record> {
    let mut places: HashMap<ConversationId, usize> = HashMap::new();
    let mut batch = Vec::with_capacity(records.size_hint().0);
    for record in records {
        match record {
            gateway::Record::Quality(id, quality) => batch.push(store::Record::Quality(id, quality)),
            gateway::Record::Decision(decision) => batch.push(store::Record::Decision(*decision)),
            gateway::Record::Trace(trace, _) => batch.push(store::Record::Trace(trace)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Conversation, ConversationStatus, Direction, OrganizationId, Timestamp};
    use store::KeyRing;

    fn call(organization: OrganizationId, status: ConversationStatus) -> Conversation {
        Conversation {
            id: ConversationId::new(),
            organization_id: organization,
            direction: Direction::Inbound,
            status,
            user_id: "+14155550100".to_owned(),
            agent_id: None,
            agent_version_id: None,
            agent_number: None,
            trunk_id: None,
            initial_context: None,
            custom_metadata: None,
            created_at: Timestamp::now(),
            updated_at: Timestamp::now(),
            ringing_at: None,
            answered_at: None,
            ended_at: None,
            ended_by: None,
            sip_call_id: None,
            sip_status: None,
            reason: None,
            codec: None,
            media_encryption: None,
            mos: None,
            recording: None,
            voicemail_beep_at: None,
            notes: Vec::new(),
            transcript: Vec::new(),
        }
    }

    #[tokio::test]
    async fn what_is_queued_when_the_gateway_goes_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let keys = KeyRing::load_or_create(&directory.path().join("key")).unwrap();
        let store =
            Store::open(&format!("sqlite:{}", directory.path().join("db").display()), keys).await.unwrap();
        let (organization, _) = store.create_organization("Acme").await.unwrap();
        let (sender, queue) = mpsc::channel(16);
        let mut one = call(organization.id, ConversationStatus::InProgress);
        sender.send(gateway::Record::Conversation(Box::new(one.clone()))).await.unwrap();
        one.status = ConversationStatus::Completed;
        sender.send(gateway::Record::Conversation(Box::new(one.clone()))).await.unwrap();
        drop(sender);
        let (cluster, ..) = Cluster::in_process();
        run(store.clone(), cluster, queue).await;
        let written = store.conversation(organization.id, one.id).await.unwrap();
        assert_eq!(written.status, ConversationStatus::Completed);
    }

    #[test]
    fn of_a_call_only_the_latest_state_is_kept_in_its_place() {
        let organization = OrganizationId::new();
        let (one, two) = (
            call(organization, ConversationStatus::Ringing),
            call(organization, ConversationStatus::Ringing),
        );
        let over = Conversation { status: ConversationStatus::Failed, ..one.clone() };
        let records = [one, two.clone(), over.clone()].map(|c| gateway::Record::Conversation(Box::new(c)));
        let batch = latest(records.into_iter());
        let kept: Vec<_> = batch
            .iter()
            .map(|r| match r {
                store::Record::Conversation(c) => c.clone(),
                _ => panic!("only conversations"),
            })
            .collect();
        assert_eq!(kept, [over, two]);
    }
}
