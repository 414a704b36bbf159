//! Tells webhooks of events: takes from the outbox what is due, POSTs it, and writes down what became of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::Webhooks;
use model::{DeliveryState, Timestamp, WebhookId};
use store::{Attempted, Due, Fact, Store};
use tokio::task::JoinSet;

/// How often the outbox is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long an endpoint may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Tellings under way to one endpoint: a slow one holds up nobody else.
const EACH: usize = 4;
/// Tellings under way in all.
const ALL: usize = 256;
/// How long a telling is this node's. Longer than one can take.
const LEASE: Duration = Duration::from_secs(60);
/// Pauses between attempts; after the last, a telling is given up.
const PAUSES: [u64; 9] = [5, 30, 120, 600, 1_800, 3_600, 7_200, 18_000, 36_000];
/// How often old tellings are dropped.
const PRUNE: Duration = Duration::from_secs(600);

/// Runs until it is aborted.
pub(crate) async fn run(store: Store, webhooks: Webhooks) {
    let webhooks = Arc::new(webhooks);
    let mut under_way: JoinSet<WebhookId> = JoinSet::new();
    let mut busy: HashMap<WebhookId, usize> = HashMap::new();
    let mut pruned: Option<Instant> = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            Some(done) = under_way.join_next() => {
                done_with(&mut busy, done);
                while let Some(done) = under_way.try_join_next() {
                    done_with(&mut busy, done);
                }
            }
        }
        if under_way.len() < ALL {
            match store.take_due(EACH, &busy, micros(LEASE)).await {
                Ok(due) => {
                    for due in due {
                        *busy.entry(due.webhook.id).or_default() += 1;
                        under_way.spawn(tell(store.clone(), Arc::clone(&webhooks), due));
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the webhooks' outbox cannot be read yet");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        if pruned.is_none_or(|at| at.elapsed() >= PRUNE) {
            pruned = Some(Instant::now());
            if let Err(error) = store.prune_deliveries().await {
                tracing::warn!(%error, "old webhook deliveries cannot be dropped yet");
            }
        }
    }
}

/// A task that panicked leaves its endpoint with one place less until the next start; its lease runs out.
fn done_with(busy: &mut HashMap<WebhookId, usize>, done: Result<WebhookId, tokio::task::JoinError>) {
    let Ok(webhook) = done else { return };
    if let Some(count) = busy.get_mut(&webhook) {
        *count -= 1;
        if *count == 0 {
            busy.remove(&webhook);
        }
    }
}

async fn tell(store: Store, webhooks: Arc<Webhooks>, due: Due) -> WebhookId {
    let webhook = due.webhook.id;
    let body = body(&store, &due).await.to_string().into_bytes();
    let id = format!("msg_{}", due.delivery.id.0.simple());
    let answer = webhooks.deliver(&due.webhook.url, &due.secrets, &id, body, PATIENCE).await;
    let outcome = outcome(&due, answer, Timestamp::now());
    if matches!(outcome, Attempted::Failed { again: None, .. }) {
        tracing::warn!(%webhook, delivery = %due.delivery.id, "a webhook delivery is given up; it is in the dead-letter list");
    }
    if let Err(error) = store.attempted(&due.delivery, outcome).await {
        tracing::error!(%error, "what became of a webhook delivery cannot be written down; it is told again");
    }
    webhook
}

async fn body(store: &Store, due: &Due) -> serde_json::Value {
    let agent = match &due.fact {
        Fact::Conversation(call) => call.agent_id.map(|agent| (call.organization_id, agent)),
        Fact::Decision(_) | Fact::Test => None,
    };
    let name = match agent {
        Some((organization, agent)) => store.agent(organization, agent).await.ok().map(|agent| agent.name),
        None => None,
    };
    api::event_json(due, name)
}

fn outcome(due: &Due, answer: Result<u16, String>, now: Timestamp) -> Attempted {
    debug_assert_eq!(due.delivery.state, DeliveryState::Pending);
    let (status, error) = match answer {
        Ok(status @ 200..=299) => return Attempted::Delivered { status },
        Ok(status) => (Some(status), format!("the endpoint answered {status}")),
        Err(error) => (None, error),
    };
    // Standard Webhooks: 410 means that the endpoint wants nothing more.
    let gone = status == Some(410);
    let pause = PAUSES.get(due.delivery.attempts.saturating_sub(1) as usize).filter(|_| !gone);
    let again = pause.map(|seconds| Timestamp(now.0 + spread(due, micros(Duration::from_secs(*seconds)))));
    Attempted::Failed { status, error, again, gone }
}

/// Up to a tenth more, so that what failed together is not tried again together.
fn spread(due: &Due, pause: i64) -> i64 {
    let share = i64::from(due.delivery.id.0.as_bytes()[15]);
    pause + pause / 10 * share / 255
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Delivery, DeliveryId, OrganizationId, Secret, Webhook, WebhookEvent};

    fn due(attempts: u32) -> Due {
        let (id, now) = (WebhookId::new(), Timestamp(0));
        Due {
            delivery: Delivery {
                id: DeliveryId::new(),
                webhook_id: id,
                event: WebhookEvent::Test,
                state: DeliveryState::Pending,
                attempts,
                due_at: Some(now),
                http_status: None,
                error: None,
                created_at: now,
                updated_at: now,
            },
            webhook: Webhook {
                id,
                organization_id: OrganizationId::new(),
                url: "http://127.0.0.1:9/".to_owned(),
                events: None,
                enabled: true,
                created_at: now,
                updated_at: now,
            },
            secrets: vec![Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned())],
            fact: Fact::Test,
        }
    }

    #[test]
    fn a_telling_is_tried_again_later_and_later_and_then_given_up() {
        let mut before = 0;
        for attempt in 1..=u32::try_from(PAUSES.len()).unwrap() {
            let Attempted::Failed { again: Some(at), gone: false, .. } =
                outcome(&due(attempt), Err("x".to_owned()), Timestamp(0))
            else {
                panic!("attempt {attempt} is the last")
            };
            assert!(at.0 > before, "{attempt}");
            before = at.0;
        }
        let last = outcome(&due(10), Ok(500), Timestamp(0));
        assert!(matches!(last, Attempted::Failed { again: None, status: Some(500), .. }));
        let gone = outcome(&due(1), Ok(410), Timestamp(0));
        assert!(matches!(gone, Attempted::Failed { again: None, gone: true, .. }));
        assert_eq!(outcome(&due(1), Ok(204), Timestamp(0)), Attempted::Delivered { status: 204 });
    }
}
