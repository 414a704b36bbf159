//! Organizations and their data keys.

use model::{AddressRange, DestinationPrefix, Organization, OrganizationId, Timestamp};
use sqlx::{Row as _, SqliteConnection};

use crate::key_ring::DataKey;
use crate::precondition::later_than;
use crate::sqlite::log;
use crate::{Precondition, Seq, Store, StoreError};

/// What to change: outer `None` keeps, inner `None` lifts.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct OrganizationUpdate {
    pub sip_endpoint_allowed_addresses: Option<Option<Vec<AddressRange>>>,
    pub allowed_destinations: Option<Option<Vec<DestinationPrefix>>>,
    pub daily_call_limit: Option<Option<u32>>,
}

pub(crate) fn ranges_to_text(ranges: Option<&Vec<AddressRange>>) -> Option<String> {
    let ranges = ranges?;
    serde_json::to_string(&ranges.iter().map(AddressRange::as_str).collect::<Vec<_>>()).ok()
}

pub(crate) fn ranges_from_text(text: Option<&str>) -> Result<Option<Vec<AddressRange>>, StoreError> {
    let Some(text) = text else { return Ok(None) };
    let corrupt = || StoreError::Corrupt("address list");
    let list: Vec<String> = serde_json::from_str(text).map_err(|_| corrupt())?;
    let ranges: Result<Vec<AddressRange>, _> = list.iter().map(|entry| entry.parse()).collect();
    Ok(Some(ranges.map_err(|_: String| corrupt())?))
}

fn organization(row: &sqlx::sqlite::SqliteRow) -> Result<Organization, StoreError> {
    let id: String = row.try_get("id")?;
    Ok(Organization {
        id: id.parse().map_err(|_| StoreError::Corrupt("organization"))?,
        name: row.try_get("name")?,
        sip_endpoint_allowed_addresses: ranges_from_text(row.try_get("sip_endpoint_allowed_addresses")?)?,
        allowed_destinations: destinations(row)?,
        daily_call_limit: row
            .try_get::<Option<i64>, _>("daily_call_limit")?
            .map(u32::try_from)
            .transpose()
            .map_err(|_| StoreError::Corrupt("organization"))?,
        created_at: Timestamp(row.try_get("created_at")?),
        updated_at: Timestamp(row.try_get("updated_at")?),
    })
}

/// One organization, inside a transaction.
pub(crate) async fn own(
    connection: &mut SqliteConnection,
    id: OrganizationId,
) -> Result<Organization, StoreError> {
    let row = sqlx::query("SELECT * FROM organizations WHERE id = $1");
    organization(&row.bind(id.to_string()).fetch_one(connection).await?)
}

pub(crate) fn destinations(
    row: &sqlx::sqlite::SqliteRow,
) -> Result<Option<Vec<DestinationPrefix>>, StoreError> {
    row.try_get::<Option<String>, _>("allowed_destinations")?
        .map(|text| text.split_whitespace().map(str::parse).collect::<Result<_, String>>())
        .transpose()
        .map_err(|_| StoreError::Corrupt("organization"))
}

impl Store {
    /// Makes an organization.
    pub async fn create_organization(&self, name: &str) -> Result<(Organization, Seq), StoreError> {
        let name = model::trunk::parse_name(name).map_err(|e| StoreError::Refused(e.to_string()))?;
        let (id, now) = (OrganizationId::new(), Timestamp::now());
        let wrapped = self.keys.wrap(&DataKey::new()?, &id.to_string())?;
        let mut transaction = self.begin().await?;
        sqlx::query("INSERT INTO organizations (id, name, created_at, updated_at) VALUES ($1, $2, $3, $3)")
            .bind(id.to_string())
            .bind(&name)
            .bind(now.0)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("INSERT INTO organization_keys (organization_id, wrapped) VALUES ($1, $2)")
            .bind(id.to_string())
            .bind(wrapped)
            .execute(&mut *transaction)
            .await?;
        let seq = log(&mut transaction, "organization", &id.to_string()).await?;
        transaction.commit().await?;
        Ok((
            Organization {
                id,
                name,
                sip_endpoint_allowed_addresses: None,
                allowed_destinations: None,
                daily_call_limit: None,
                created_at: now,
                updated_at: now,
            },
            seq,
        ))
    }

    /// Every organization, oldest first.
    pub async fn organizations(&self) -> Result<Vec<Organization>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM organizations ORDER BY created_at, id").fetch_all(&self.read).await?;
        rows.iter().map(organization).collect()
    }

    /// One organization.
    pub async fn organization(&self, id: OrganizationId) -> Result<Organization, StoreError> {
        let row = sqlx::query("SELECT * FROM organizations WHERE id = $1")
            .bind(id.to_string())
            .fetch_one(&self.read)
            .await?;
        organization(&row)
    }

    /// Changes an organization's rules.
    pub async fn update_organization(
        &self,
        id: OrganizationId,
        change: OrganizationUpdate,
        precondition: &Precondition,
    ) -> Result<(Organization, Seq), StoreError> {
        let mut transaction = self.begin().await?;
        let old = own(&mut transaction, id).await?;
        precondition.check(old.updated_at)?;
        let ranges = change.sip_endpoint_allowed_addresses.unwrap_or(old.sip_endpoint_allowed_addresses);
        let destinations = change.allowed_destinations.unwrap_or(old.allowed_destinations);
        let destinations =
            destinations.map(|list| list.iter().map(DestinationPrefix::as_str).collect::<Vec<_>>().join(" "));
        let row = sqlx::query("UPDATE organizations SET sip_endpoint_allowed_addresses = $2, allowed_destinations = $3, daily_call_limit = $4, updated_at = $5 WHERE id = $1 RETURNING *")
            .bind(id.to_string())
            .bind(ranges_to_text(ranges.as_ref()))
            .bind(destinations)
            .bind(change.daily_call_limit.unwrap_or(old.daily_call_limit))
            .bind(later_than(old.updated_at))
            .fetch_one(&mut *transaction)
            .await?;
        let seq = log(&mut transaction, "organization", &id.to_string()).await?;
        transaction.commit().await?;
        Ok((organization(&row)?, seq))
    }

    /// Whether there is no organization yet.
    pub async fn is_empty(&self) -> Result<bool, StoreError> {
        let count: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM organizations").fetch_one(&self.read).await?;
        Ok(count == 0)
    }

    pub(crate) async fn data_key(
        &self,
        connection: &mut SqliteConnection,
        id: &str,
    ) -> Result<DataKey, StoreError> {
        let wrapped: String =
            sqlx::query_scalar("SELECT wrapped FROM organization_keys WHERE organization_id = $1")
                .bind(id)
                .fetch_one(connection)
                .await?;
        self.keys.unwrap(&wrapped, id)
    }
}
