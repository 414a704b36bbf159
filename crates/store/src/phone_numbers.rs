//! Phone numbers.

use model::{E164, OrganizationId, PhoneNumber, Timestamp, TrunkId};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _};

use crate::error::is_unique_violation;
use crate::page::{Page, Times, push_contains, push_page};
use crate::precondition::later_than;
use crate::sqlite::log;
use crate::trunks::own_trunk;
use crate::{Precondition, Seq, Store, StoreError};

/// Most numbers of one organization.
const MAX_NUMBERS: i64 = 10_000;

/// A number to add.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewNumber {
    pub phone_number: E164,
    pub trunk_id: TrunkId,
    pub outbound_shareable: bool,
    /// The operator may add numbers to managed trunks.
    pub allow_managed: bool,
}

/// Which numbers to list.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct NumberFilter {
    pub phone_number: Option<String>,
    pub trunk_id: Option<TrunkId>,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    pub updated_after: Option<Timestamp>,
    pub updated_before: Option<Timestamp>,
}

pub(crate) fn number(row: &SqliteRow) -> Result<PhoneNumber, StoreError> {
    let corrupt = || StoreError::Corrupt("phone number");
    let id = |column: &str| -> Result<Option<String>, StoreError> { Ok(row.try_get(column)?) };
    let text = |column: &str| -> Result<String, StoreError> { Ok(row.try_get(column)?) };
    Ok(PhoneNumber {
        phone_number: text("phone_number")?.parse().map_err(|_: String| corrupt())?,
        organization_id: text("organization_id")?.parse().map_err(|_| corrupt())?,
        trunk_id: text("trunk_id")?.parse().map_err(|_| corrupt())?,
        inbound_agent_version_id: id("inbound_agent_version_id")?
            .map(|v| v.parse())
            .transpose()
            .map_err(|_| corrupt())?,
        outbound_agent_version_id: id("outbound_agent_version_id")?
            .map(|v| v.parse())
            .transpose()
            .map_err(|_| corrupt())?,
        outbound_shareable: row.try_get("outbound_shareable")?,
        created_at: Timestamp(row.try_get("created_at")?),
        updated_at: Timestamp(row.try_get("updated_at")?),
    })
}

impl Store {
    /// An organization's numbers, newest first.
    pub async fn numbers(
        &self,
        organization: OrganizationId,
        filter: NumberFilter,
        page: Page,
    ) -> Result<Vec<PhoneNumber>, StoreError> {
        let mut query = QueryBuilder::new("SELECT * FROM phone_numbers WHERE organization_id = ");
        query.push_bind(organization.to_string());
        push_contains(&mut query, "phone_number", filter.phone_number.as_deref());
        if let Some(trunk) = filter.trunk_id {
            query.push(" AND trunk_id = ").push_bind(trunk.to_string());
        }
        let NumberFilter { created_after, created_before, updated_after, updated_before, .. } = filter;
        Times { created_after, created_before, updated_after, updated_before }.push(&mut query);
        // Creation times are unique by construction, so that the time alone is a place in the list.
        push_page(
            &mut query,
            &Page { before: page.before.map(|(time, _)| (time, None)), ..page },
            "phone_number",
        );
        let rows = query.build().fetch_all(&self.read).await?;
        rows.iter().map(number).collect()
    }

    /// One number.
    pub async fn number(&self, organization: OrganizationId, key: &E164) -> Result<PhoneNumber, StoreError> {
        let row = sqlx::query("SELECT * FROM phone_numbers WHERE phone_number = $1 AND organization_id = $2")
            .bind(key.as_str())
            .bind(organization.to_string())
            .fetch_one(&self.read)
            .await?;
        number(&row)
    }

    /// Adds a number; each exists once in the whole system.
    pub async fn create_number(
        &self,
        organization: OrganizationId,
        new: NewNumber,
    ) -> Result<(PhoneNumber, Seq), StoreError> {
        let mut transaction = self.begin().await?;
        own_trunk(&mut transaction, organization, new.trunk_id, new.allow_managed).await?;
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM phone_numbers WHERE organization_id = $1")
            .bind(organization.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        if count >= MAX_NUMBERS {
            return Err(StoreError::Refused(format!(
                "The organization has {MAX_NUMBERS} phone numbers, which is the limit."
            )));
        }
        let newest: Option<i64> =
            sqlx::query_scalar("SELECT MAX(created_at) FROM phone_numbers WHERE organization_id = $1")
                .bind(organization.to_string())
                .fetch_one(&mut *transaction)
                .await?;
        let now = Timestamp::now().0.max(newest.map_or(i64::MIN, |at| at + 1));
        let row = sqlx::query("INSERT INTO phone_numbers (phone_number, organization_id, trunk_id, outbound_shareable, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5) RETURNING *")
            .bind(new.phone_number.as_str())
            .bind(organization.to_string())
            .bind(new.trunk_id.to_string())
            .bind(new.outbound_shareable)
            .bind(now)
            .fetch_one(&mut *transaction)
            .await
            .map_err(|error| {
                if is_unique_violation(&error) {
                    StoreError::Conflict(format!("The phone number {} is taken already.", new.phone_number))
                } else {
                    error.into()
                }
            })?;
        let seq = log(&mut transaction, "number", new.phone_number.as_str()).await?;
        transaction.commit().await?;
        Ok((number(&row)?, seq))
    }

    /// Changes whether other agents of the organization may use the number as caller ID.
    pub async fn update_number(
        &self,
        organization: OrganizationId,
        key: &E164,
        outbound_shareable: bool,
        precondition: &Precondition,
    ) -> Result<(PhoneNumber, Seq), StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query("SELECT * FROM phone_numbers WHERE phone_number = $1 AND organization_id = $2")
            .bind(key.as_str())
            .bind(organization.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        let old = number(&row)?;
        precondition.check(old.updated_at)?;
        let row = sqlx::query("UPDATE phone_numbers SET outbound_shareable = $3, updated_at = $4 WHERE phone_number = $1 AND organization_id = $2 RETURNING *")
            .bind(key.as_str())
            .bind(organization.to_string())
            .bind(outbound_shareable)
            .bind(later_than(old.updated_at))
            .fetch_one(&mut *transaction)
            .await?;
        let seq = log(&mut transaction, "number", key.as_str()).await?;
        transaction.commit().await?;
        Ok((number(&row)?, seq))
    }

    /// Deletes a number.
    pub async fn delete_number(
        &self,
        organization: OrganizationId,
        key: &E164,
        allow_managed: bool,
        precondition: &Precondition,
    ) -> Result<Seq, StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query("SELECT * FROM phone_numbers WHERE phone_number = $1 AND organization_id = $2")
            .bind(key.as_str())
            .bind(organization.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        let old = number(&row)?;
        own_trunk(&mut transaction, organization, old.trunk_id, allow_managed).await?;
        precondition.check(old.updated_at)?;
        sqlx::query("DELETE FROM phone_numbers WHERE phone_number = $1")
            .bind(key.as_str())
            .execute(&mut *transaction)
            .await?;
        let seq = log(&mut transaction, "number", key.as_str()).await?;
        transaction.commit().await?;
        Ok(seq)
    }
}
