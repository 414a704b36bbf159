//! The outbox of webhooks: what is to be told is written in the transaction of the fact itself, so that a crash
//! between the two loses nothing; it stays until the endpoint took it or it is given up.

use std::collections::{HashMap, HashSet};

use model::{
    Conversation, DecisionRecord, Delivery, DeliveryId, DeliveryState, OrganizationId, Secret, Timestamp,
    Webhook, WebhookEvent, WebhookId,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, SqliteConnection};

use crate::page::{Page, push_page};
use crate::webhooks::{events_of_text, own_webhook};
use crate::{Record, Store, StoreError};

const CORRUPT: StoreError = StoreError::Corrupt("delivery");
/// Tellings that may wait for one endpoint; what comes beyond is dead at once.
const MAX_PENDING: i64 = 10_000;
/// How long what was delivered or given up is kept.
const KEPT_US: i64 = 7 * 24 * 3_600 * 1_000_000;
/// Most of those that are kept in all.
const MAX_KEPT: i64 = 100_000;
/// Ids in one statement.
const IDS: usize = 500;

/// What is told.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Fact {
    Conversation(Box<Conversation>),
    Decision(Box<DecisionRecord>),
    /// Nothing happened: somebody tries the endpoint.
    Test,
}

/// A telling that is this worker's to make now.
#[derive(Debug)]
pub struct Due {
    /// What is known of it. `attempts` counts this one.
    pub delivery: Delivery,
    /// The endpoint.
    pub webhook: Webhook,
    /// What it is signed with, each of them.
    pub secrets: Vec<Secret>,
    /// What it tells.
    pub fact: Fact,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempted {
    /// The endpoint took it.
    Delivered {
        /// HTTP status.
        status: u16,
    },
    /// It did not; tried again then, or given up.
    Failed {
        /// HTTP status, when there was one.
        status: Option<u16>,
        /// In words.
        error: String,
        /// When it is tried again; `None` gives it up.
        again: Option<Timestamp>,
        /// The endpoint is gone for good: it is told nothing more.
        gone: bool,
    },
}

fn delivery(row: &SqliteRow) -> Result<Delivery, StoreError> {
    let text = |column: &str| -> Result<String, StoreError> { Ok(row.try_get(column)?) };
    let state: DeliveryState = text("state")?.parse().map_err(|_: String| CORRUPT)?;
    let (attempts, status): (i64, Option<i64>) = (row.try_get("attempts")?, row.try_get("http_status")?);
    let due = Timestamp(row.try_get("due_at")?);
    Ok(Delivery {
        id: text("id")?.parse().map_err(|_| CORRUPT)?,
        webhook_id: text("webhook_id")?.parse().map_err(|_| CORRUPT)?,
        event: text("event")?.parse().map_err(|_: String| CORRUPT)?,
        state,
        attempts: u32::try_from(attempts).map_err(|_| CORRUPT)?,
        due_at: (state == DeliveryState::Pending).then_some(due),
        http_status: status.map(u16::try_from).transpose().map_err(|_| CORRUPT)?,
        error: row.try_get("error")?,
        created_at: Timestamp(row.try_get("created_at")?),
        updated_at: Timestamp(row.try_get("updated_at")?),
    })
}

fn fact(event: WebhookEvent, text: Option<&str>) -> Result<Fact, StoreError> {
    Ok(match (event, text) {
        (WebhookEvent::Test, _) => Fact::Test,
        (WebhookEvent::Refused, Some(text)) => {
            Fact::Decision(Box::new(serde_json::from_str(text).map_err(|_| CORRUPT)?))
        }
        (_, Some(text)) => Fact::Conversation(Box::new(serde_json::from_str(text).map_err(|_| CORRUPT)?)),
        (_, None) => return Err(CORRUPT),
    })
}

/// Who wants to hear, by organization.
type Listeners = HashMap<OrganizationId, Vec<(String, Option<Vec<WebhookEvent>>)>>;

async fn listeners(
    connection: &mut SqliteConnection,
    organizations: &HashSet<OrganizationId>,
) -> Result<Listeners, StoreError> {
    let mut found = Listeners::new();
    let organizations: Vec<&OrganizationId> = organizations.iter().collect();
    for group in organizations.chunks(IDS) {
        let mut query = QueryBuilder::new(
            "SELECT id, organization_id, events FROM webhooks WHERE enabled AND organization_id IN (",
        );
        let mut ids = query.separated(", ");
        for organization in group {
            ids.push_bind(organization.to_string());
        }
        query.push(")");
        for row in query.build().persistent(false).fetch_all(&mut *connection).await? {
            let (id, owner): (String, String) = (row.try_get("id")?, row.try_get("organization_id")?);
            let events: Option<String> = row.try_get("events")?;
            let owner = owner.parse().map_err(|_| CORRUPT)?;
            found.entry(owner).or_default().push((id, events.as_deref().map(events_of_text)));
        }
    }
    Ok(found)
}

/// The statuses that calls have on record.
async fn statuses(
    connection: &mut SqliteConnection,
    calls: &[&Conversation],
) -> Result<HashMap<String, (String, bool)>, StoreError> {
    let mut found = HashMap::with_capacity(calls.len());
    for group in calls.chunks(IDS) {
        let mut query = QueryBuilder::new("SELECT id, status, final FROM conversations WHERE id IN (");
        let mut ids = query.separated(", ");
        for call in group {
            ids.push_bind(call.id.to_string());
        }
        query.push(")");
        for row in query.build().persistent(false).fetch_all(&mut *connection).await? {
            found.insert(row.try_get("id")?, (row.try_get("status")?, row.try_get("final")?));
        }
    }
    Ok(found)
}

/// Writes down who is to be told of these records, before they are written themselves.
pub(crate) async fn enqueue(connection: &mut SqliteConnection, records: &[Record]) -> Result<(), StoreError> {
    let organizations = records.iter().filter_map(|record| match record {
        Record::Conversation(call) => Some(call.organization_id),
        Record::Decision(decision) => decision.organization_id,
        Record::Trace(_) | Record::Quality(..) => None,
    });
    let listeners = listeners(connection, &organizations.collect()).await?;
    if listeners.is_empty() {
        return Ok(());
    }
    let heard = |record: &&Record| matches!(record, Record::Conversation(call) if listeners.contains_key(&call.organization_id));
    let calls: Vec<&Conversation> = records
        .iter()
        .filter(heard)
        .filter_map(|record| if let Record::Conversation(call) = record { Some(call) } else { None })
        .collect();
    let before = statuses(connection, &calls).await?;
    for record in records {
        let (owner, event, at, text) = match record {
            Record::Conversation(call) => {
                let known = before.get(&call.id.to_string());
                if known.is_some_and(|(status, over)| *over || status == call.status.as_str()) {
                    continue;
                }
                let owner = call.organization_id;
                (owner, WebhookEvent::from(call.status), call.updated_at, serde_json::to_string(call))
            }
            Record::Trace(_) => continue,
            // A challenge asks for the same INVITE with credentials: nothing is refused yet.
            Record::Decision(decision) if decision.is_challenge() => continue,
            Record::Decision(decision) => {
                let Some(owner) = decision.organization_id else { continue };
                (owner, WebhookEvent::Refused, decision.at, serde_json::to_string(decision))
            }
            Record::Quality(..) => continue,
        };
        let text = text.map_err(|_| CORRUPT)?;
        for (webhook, events) in listeners.get(&owner).into_iter().flatten() {
            if events.as_ref().is_none_or(|events| events.contains(&event)) {
                insert(connection, webhook, event, Some(&text), at).await?;
            }
        }
    }
    Ok(())
}

async fn insert(
    connection: &mut SqliteConnection,
    webhook: &str,
    event: WebhookEvent,
    fact: Option<&str>,
    at: Timestamp,
) -> Result<SqliteRow, StoreError> {
    let waiting: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM deliveries WHERE webhook_id = $1 AND state = 'pending'")
            .bind(webhook)
            .fetch_one(&mut *connection)
            .await?;
    let (state, error) = if waiting < MAX_PENDING {
        (DeliveryState::Pending, None)
    } else {
        (DeliveryState::Dead, Some(format!("{MAX_PENDING} tellings wait for this endpoint already")))
    };
    let now = Timestamp::now().0;
    Ok(sqlx::query("INSERT INTO deliveries (id, webhook_id, event, fact, state, attempts, due_at, error, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8, $6) RETURNING *")
        .bind(DeliveryId::new().to_string())
        .bind(webhook)
        .bind(event.as_str())
        .bind(fact)
        .bind(state.as_str())
        .bind(now)
        .bind(error)
        .bind(at.0)
        .fetch_one(connection)
        .await?)
}

impl Store {
    /// Has an endpoint told that somebody tries it.
    pub async fn test_webhook(
        &self,
        organization: OrganizationId,
        id: WebhookId,
    ) -> Result<Delivery, StoreError> {
        let mut transaction = self.begin().await?;
        let row = own_webhook(&mut transaction, organization, id).await?;
        if !row.try_get::<bool, _>("enabled")? {
            return Err(StoreError::Conflict(
                "The webhook is not enabled; enable it before testing it.".to_owned(),
            ));
        }
        let now = Timestamp::now();
        let row = insert(&mut transaction, &id.to_string(), WebhookEvent::Test, None, now).await?;
        transaction.commit().await?;
        delivery(&row)
    }

    /// A webhook's tellings, newest first.
    pub async fn deliveries(
        &self,
        organization: OrganizationId,
        id: WebhookId,
        state: Option<DeliveryState>,
        page: Page,
    ) -> Result<Vec<Delivery>, StoreError> {
        self.webhook(organization, id).await?;
        let mut query = QueryBuilder::new("SELECT * FROM deliveries WHERE webhook_id = ");
        query.push_bind(id.to_string());
        if let Some(state) = state {
            query.push(" AND state = ").push_bind(state.as_str());
        }
        push_page(&mut query, &page, "id");
        query.build().fetch_all(&self.read).await?.iter().map(delivery).collect()
    }

    /// Tries a telling anew, whatever became of it.
    pub async fn retry_delivery(
        &self,
        organization: OrganizationId,
        webhook: WebhookId,
        id: DeliveryId,
    ) -> Result<Delivery, StoreError> {
        let mut transaction = self.begin().await?;
        own_webhook(&mut transaction, organization, webhook).await?;
        let row = sqlx::query("UPDATE deliveries SET state = 'pending', attempts = 0, due_at = $3, updated_at = $3 WHERE id = $1 AND webhook_id = $2 RETURNING *")
            .bind(id.to_string())
            .bind(webhook.to_string())
            .bind(Timestamp::now().0)
            .fetch_one(&mut *transaction)
            .await?;
        transaction.commit().await?;
        delivery(&row)
    }

    /// Takes tellings that are due, at most `each` of one endpoint besides those `busy` with it, for `lease_us`
    /// microseconds: when this worker dies, another takes them after that.
    pub async fn take_due(
        &self,
        each: usize,
        busy: &HashMap<WebhookId, usize>,
        lease_us: i64,
    ) -> Result<Vec<Due>, StoreError> {
        let now = Timestamp::now().0;
        let waiting: Vec<String> = sqlx::query_scalar("SELECT id FROM webhooks w WHERE enabled AND EXISTS (SELECT 1 FROM deliveries d WHERE d.webhook_id = w.id AND d.state = 'pending' AND d.due_at <= $1)")
            .bind(now)
            .fetch_all(&self.read)
            .await?;
        let mut due = Vec::new();
        for id in waiting {
            let key: WebhookId = id.parse().map_err(|_| CORRUPT)?;
            let room = each.saturating_sub(busy.get(&key).copied().unwrap_or_default());
            if room == 0 {
                continue;
            }
            let mut transaction = self.begin().await?;
            let opened = match self.open_webhook(&mut transaction, &id).await {
                Ok(opened) => opened,
                Err(error) => {
                    tracing::error!(webhook = %id, %error, "the webhook's secret cannot be opened; it is told nothing");
                    continue;
                }
            };
            let rows = sqlx::query("UPDATE deliveries SET due_at = $3, attempts = attempts + 1, updated_at = $2 WHERE id IN (SELECT id FROM deliveries WHERE webhook_id = $1 AND state = 'pending' AND due_at <= $2 ORDER BY due_at LIMIT $4) RETURNING *")
                .bind(&id)
                .bind(now)
                .bind(now + lease_us)
                .bind(i64::try_from(room).unwrap_or(i64::MAX))
                .fetch_all(&mut *transaction)
                .await?;
            let mut unreadable = Vec::new();
            for row in &rows {
                let text: Option<String> = row.try_get("fact")?;
                let read =
                    delivery(row).and_then(|delivery| Ok((fact(delivery.event, text.as_deref())?, delivery)));
                match read {
                    Ok((fact, delivery)) => {
                        due.push(Due { fact, delivery, webhook: opened.0.clone(), secrets: opened.1.clone() })
                    }
                    Err(_) => unreadable.push(row.try_get::<String, _>("id")?),
                }
            }
            for id in unreadable {
                tracing::error!(delivery = %id, "what is to be told cannot be read; it is given up");
                sqlx::query(
                    "UPDATE deliveries SET state = 'dead', error = 'it cannot be read' WHERE id = $1",
                )
                .bind(id)
                .execute(&mut *transaction)
                .await?;
            }
            transaction.commit().await?;
        }
        Ok(due)
    }

    /// Writes down what became of an attempt.
    pub async fn attempted(&self, delivery: &Delivery, outcome: Attempted) -> Result<(), StoreError> {
        let (state, status, error, due, gone) = match outcome {
            Attempted::Delivered { status } => (DeliveryState::Delivered, Some(status), None, None, false),
            Attempted::Failed { status, error, again, gone } => {
                let state = if again.is_some() { DeliveryState::Pending } else { DeliveryState::Dead };
                (state, status, Some(error), again, gone)
            }
        };
        let mut transaction = self.begin().await?;
        sqlx::query("UPDATE deliveries SET state = $2, http_status = $3, error = $4, due_at = COALESCE($5, due_at), updated_at = $6 WHERE id = $1")
            .bind(delivery.id.to_string())
            .bind(state.as_str())
            .bind(status.map(i64::from))
            .bind(error)
            .bind(due.map(|at| at.0))
            .bind(Timestamp::now().0)
            .execute(&mut *transaction)
            .await?;
        if gone {
            sqlx::query("UPDATE webhooks SET enabled = $2, updated_at = updated_at + 1 WHERE id = $1")
                .bind(delivery.webhook_id.to_string())
                .bind(false)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Forgets old tellings that were delivered or given up.
    pub async fn prune_deliveries(&self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM deliveries WHERE state <> 'pending' AND (updated_at < $1 OR id IN (SELECT id FROM deliveries WHERE state <> 'pending' ORDER BY updated_at DESC LIMIT -1 OFFSET $2))")
            .bind(Timestamp::now().0 - KEPT_US)
            .bind(MAX_KEPT)
            .execute(&self.write)
            .await?;
        Ok(())
    }
}
