//! Where an organization's agents may call, and how often: judged where it is counted, so that no race exceeds it.

use model::{E164, Organization, OrganizationId, Timestamp, organization};
use sqlx::SqliteConnection;

use crate::{Store, StoreError};

/// A day.
const DAY_US: i64 = 24 * 3_600 * 1_000_000;

/// Takes one call of the day, when the organization may call there and has one left.
pub(crate) async fn admit(
    connection: &mut SqliteConnection,
    organization: &Organization,
    to: &str,
    at: Timestamp,
) -> Result<(), StoreError> {
    if !organization::may_call(organization.allowed_destinations.as_deref(), to) {
        return Err(StoreError::Forbidden(format!(
            "Destination not allowed: {to} begins with none of the organization's allowed_destinations."
        )));
    }
    let day = at.0.div_euclid(DAY_US);
    let calls: i64 = sqlx::query_scalar("INSERT INTO daily_calls (organization_id, day, calls) VALUES ($1, $2, 1) ON CONFLICT (organization_id, day) DO UPDATE SET calls = daily_calls.calls + 1 RETURNING calls")
        .bind(organization.id.to_string())
        .bind(day)
        .fetch_one(connection)
        .await?;
    match organization.daily_call_limit {
        Some(limit) if calls > i64::from(limit) => Err(StoreError::UsedUp {
            sentence: format!(
                "The organization has placed its {limit} calls of today (daily_call_limit); the count begins anew at 00:00 UTC."
            ),
            until: Timestamp((day + 1) * DAY_US),
        }),
        _ => Ok(()),
    }
}

impl Store {
    /// Takes one call of the day for a call that is placed without a record of its own, like a transfer's.
    pub async fn admit_call_out(&self, organization: OrganizationId, to: &E164) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let organization = crate::organizations::own(&mut transaction, organization).await?;
        admit(&mut transaction, &organization, to.as_str(), Timestamp::now()).await?;
        transaction.commit().await?;
        Ok(())
    }
}
