//! Webhooks: where organizations want to hear of their calls. A secret stands sealed.

use model::{OrganizationId, Secret, Timestamp, Webhook, WebhookEvent, WebhookId};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, SqliteConnection};

use crate::page::{Page, push_page};
use crate::precondition::later_than;
use crate::{Precondition, Store, StoreError};

const CORRUPT: StoreError = StoreError::Corrupt("webhook");
/// Webhooks an organization may have: each of its events is told to all of them.
const MAX_WEBHOOKS: i64 = 20;
/// How long a secret still signs after it was replaced: receivers learn of the new one meanwhile.
const OVERLAP_US: i64 = 24 * 3_600 * 1_000_000;

/// A webhook to make.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewWebhook {
    pub url: String,
    pub secret: Secret,
    pub events: Option<Vec<WebhookEvent>>,
    pub enabled: bool,
}

/// What to change; `None` keeps.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct WebhookUpdate {
    pub url: Option<String>,
    pub secret: Option<Secret>,
    pub events: Option<Option<Vec<WebhookEvent>>>,
    pub enabled: Option<bool>,
}

fn place(organization: &str, id: &str) -> String {
    format!("{organization}|webhooks|{id}|secret|1")
}

fn webhook(row: &SqliteRow) -> Result<Webhook, StoreError> {
    let (id, organization): (String, String) = (row.try_get("id")?, row.try_get("organization_id")?);
    let events: Option<String> = row.try_get("events")?;
    Ok(Webhook {
        id: id.parse().map_err(|_| CORRUPT)?,
        organization_id: organization.parse().map_err(|_| CORRUPT)?,
        url: row.try_get("url")?,
        events: events.as_deref().map(events_of_text),
        enabled: row.try_get("enabled")?,
        created_at: Timestamp(row.try_get("created_at")?),
        updated_at: Timestamp(row.try_get("updated_at")?),
    })
}

pub(crate) fn events_of_text(text: &str) -> Vec<WebhookEvent> {
    text.split_whitespace().filter_map(|event| event.parse().ok()).collect()
}

fn events_to_text(events: Option<&Vec<WebhookEvent>>) -> Option<String> {
    Some(events?.iter().map(|event| event.as_str()).collect::<Vec<_>>().join(" "))
}

/// The organization's webhook, for a write.
pub(crate) async fn own_webhook(
    connection: &mut SqliteConnection,
    organization: OrganizationId,
    id: WebhookId,
) -> Result<SqliteRow, StoreError> {
    let query = sqlx::query("SELECT * FROM webhooks WHERE id = $1 AND organization_id = $2");
    Ok(query.bind(id.to_string()).bind(organization.to_string()).fetch_one(connection).await?)
}

impl Store {
    /// An organization's webhooks, newest first.
    pub async fn webhooks(
        &self,
        organization: OrganizationId,
        page: Page,
    ) -> Result<Vec<Webhook>, StoreError> {
        let mut query = QueryBuilder::new("SELECT * FROM webhooks WHERE organization_id = ");
        query.push_bind(organization.to_string());
        push_page(&mut query, &page, "id");
        query.build().fetch_all(&self.read).await?.iter().map(webhook).collect()
    }

    /// One webhook.
    pub async fn webhook(&self, organization: OrganizationId, id: WebhookId) -> Result<Webhook, StoreError> {
        webhook(&own_webhook(&mut *self.read.acquire().await?, organization, id).await?)
    }

    /// Makes a webhook.
    pub async fn create_webhook(
        &self,
        organization: OrganizationId,
        new: NewWebhook,
    ) -> Result<Webhook, StoreError> {
        let (id, owner, now) = (WebhookId::new(), organization.to_string(), Timestamp::now());
        let mut transaction = self.begin().await?;
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM webhooks WHERE organization_id = $1")
            .bind(&owner)
            .fetch_one(&mut *transaction)
            .await?;
        if count >= MAX_WEBHOOKS {
            return Err(StoreError::Refused(format!(
                "The organization has {MAX_WEBHOOKS} webhooks, which is the limit."
            )));
        }
        let key = self.data_key(&mut transaction, &owner).await?;
        let secret = key.seal(&new.secret, &place(&owner, &id.to_string()))?;
        let row = sqlx::query("INSERT INTO webhooks (id, organization_id, url, secret, events, enabled, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING *")
            .bind(id.to_string())
            .bind(&owner)
            .bind(&new.url)
            .bind(secret)
            .bind(events_to_text(new.events.as_ref()))
            .bind(new.enabled)
            .bind(now.0)
            .fetch_one(&mut *transaction)
            .await?;
        transaction.commit().await?;
        webhook(&row)
    }

    /// Changes a webhook.
    pub async fn update_webhook(
        &self,
        organization: OrganizationId,
        id: WebhookId,
        change: WebhookUpdate,
        precondition: &Precondition,
    ) -> Result<Webhook, StoreError> {
        let owner = organization.to_string();
        let mut transaction = self.begin().await?;
        let row = own_webhook(&mut transaction, organization, id).await?;
        let old = webhook(&row)?;
        precondition.check(old.updated_at)?;
        let now = later_than(old.updated_at);
        let (mut secret, mut previous): (String, Option<String>) =
            (row.try_get("secret")?, row.try_get("previous_secret")?);
        let mut previous_until: Option<i64> = row.try_get("previous_until")?;
        if let Some(new) = &change.secret {
            let key = self.data_key(&mut transaction, &owner).await?;
            let place = place(&owner, &id.to_string());
            // The same again replaces nothing.
            if key.open(&secret, &place)?.expose() != new.expose() {
                previous = Some(std::mem::replace(&mut secret, key.seal(new, &place)?));
                previous_until = Some(now + OVERLAP_US);
            }
        }
        let row = sqlx::query("UPDATE webhooks SET url = $2, secret = $3, events = $4, enabled = $5, updated_at = $6, previous_secret = $7, previous_until = $8 WHERE id = $1 RETURNING *")
            .bind(id.to_string())
            .bind(change.url.unwrap_or(old.url))
            .bind(secret)
            .bind(events_to_text(change.events.unwrap_or(old.events).as_ref()))
            .bind(change.enabled.unwrap_or(old.enabled))
            .bind(now)
            .bind(previous)
            .bind(previous_until)
            .fetch_one(&mut *transaction)
            .await?;
        transaction.commit().await?;
        webhook(&row)
    }

    /// Deletes a webhook and what was to be told to it.
    pub async fn delete_webhook(
        &self,
        organization: OrganizationId,
        id: WebhookId,
        precondition: &Precondition,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let old = webhook(&own_webhook(&mut transaction, organization, id).await?)?;
        precondition.check(old.updated_at)?;
        sqlx::query("DELETE FROM webhooks WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// A webhook with its secrets open, for the one who signs: the one in force, and the one before while receivers may
    /// not know of it yet.
    pub(crate) async fn open_webhook(
        &self,
        connection: &mut SqliteConnection,
        id: &str,
    ) -> Result<(Webhook, Vec<Secret>), StoreError> {
        let row =
            sqlx::query("SELECT * FROM webhooks WHERE id = $1").bind(id).fetch_one(&mut *connection).await?;
        let found = webhook(&row)?;
        let owner = found.organization_id.to_string();
        let mut sealed: Vec<String> = vec![row.try_get("secret")?];
        let until: Option<i64> = row.try_get("previous_until")?;
        if until.is_some_and(|until| until > Timestamp::now().0) {
            sealed.extend(row.try_get::<Option<String>, _>("previous_secret")?);
        }
        let key = self.data_key(connection, &owner).await?;
        let secrets: Result<Vec<Secret>, StoreError> =
            sealed.iter().map(|sealed| key.open(sealed, &place(&owner, id))).collect();
        Ok((found, secrets?))
    }
}
