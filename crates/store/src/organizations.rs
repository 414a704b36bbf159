//! Organizations and their data keys.

use model::{AddressRange, Organization, OrganizationId, Timestamp};
use sqlx::{Row as _, SqliteConnection};

use crate::key_ring::DataKey;
use crate::sqlite::log;
use crate::{Seq, Store, StoreError};

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
        created_at: Timestamp(row.try_get("created_at")?),
        updated_at: Timestamp(row.try_get("updated_at")?),
    })
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
            Organization { id, name, sip_endpoint_allowed_addresses: None, created_at: now, updated_at: now },
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

    /// Restricts who may call the organization's agent URIs; `None` lifts it.
    pub async fn update_organization(
        &self,
        id: OrganizationId,
        ranges: Option<Vec<AddressRange>>,
    ) -> Result<(Organization, Seq), StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query("UPDATE organizations SET sip_endpoint_allowed_addresses = $2, updated_at = $3 WHERE id = $1 RETURNING *")
            .bind(id.to_string())
            .bind(ranges_to_text(ranges.as_ref()))
            .bind(Timestamp::now().0)
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
