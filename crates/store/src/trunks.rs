//! Trunks. The carrier's password stands sealed in a column of its own, never in the configuration's text.

use model::{InboundConfig, OrganizationId, OutboundConfig, Secret, Timestamp, Trunk, TrunkId};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, SqliteConnection};

use crate::organizations::{ranges_from_text, ranges_to_text};
use crate::page::{Page, Times, push_contains, push_page};
use crate::sqlite::log;
use crate::{Seq, Store, StoreError};

/// A trunk to make.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewTrunk {
    pub name: String,
    pub managed_account_id: Option<String>,
    pub inbound_config: Option<InboundConfig>,
    pub outbound_config: Option<OutboundConfig>,
}

/// What to change: outer `None` keeps, inner `None` clears.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct TrunkUpdate {
    pub name: Option<String>,
    pub inbound_config: Option<Option<InboundConfig>>,
    pub outbound_config: Option<Option<OutboundConfig>>,
}

/// Which trunks to list.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct TrunkFilter {
    pub name: Option<String>,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    pub updated_after: Option<Timestamp>,
    pub updated_before: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct InboundText {
    enable_noise_cancellation: bool,
    media_encryption: String,
    allowed_addresses: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct OutboundText {
    address: String,
    auth_username: String,
    transport: String,
    media_encryption: String,
}

fn inbound_text(config: &InboundConfig) -> Result<String, StoreError> {
    let text = InboundText {
        enable_noise_cancellation: config.enable_noise_cancellation,
        media_encryption: config.media_encryption.as_str().to_owned(),
        allowed_addresses: ranges_to_text(config.allowed_addresses.as_ref()),
    };
    serde_json::to_string(&text).map_err(|_| CORRUPT)
}

fn outbound_text(config: &OutboundConfig) -> Result<String, StoreError> {
    let text = OutboundText {
        address: config.address.to_string(),
        auth_username: config.auth_username.clone(),
        transport: config.transport.as_str().to_owned(),
        media_encryption: config.media_encryption.as_str().to_owned(),
    };
    serde_json::to_string(&text).map_err(|_| CORRUPT)
}

const CORRUPT: StoreError = StoreError::Corrupt("trunk");

fn place(organization: &str, id: &str) -> String {
    format!("{organization}|trunks|{id}|outbound_password|1")
}

/// A row with its password still sealed: the API never needs it open.
pub(crate) fn trunk(row: &SqliteRow, password: Option<Secret>) -> Result<Trunk, StoreError> {
    let (id, organization): (String, String) = (row.try_get("id")?, row.try_get("organization_id")?);
    let inbound: Option<String> = row.try_get("inbound_config")?;
    let inbound_config = inbound
        .map(|text| {
            let text: InboundText = serde_json::from_str(&text).map_err(|_| CORRUPT)?;
            Ok::<_, StoreError>(InboundConfig {
                enable_noise_cancellation: text.enable_noise_cancellation,
                media_encryption: text.media_encryption.parse().map_err(|_: String| CORRUPT)?,
                allowed_addresses: ranges_from_text(text.allowed_addresses.as_deref())?,
            })
        })
        .transpose()?;
    let outbound: Option<String> = row.try_get("outbound_config")?;
    let outbound_config = outbound
        .map(|text| {
            let text: OutboundText = serde_json::from_str(&text).map_err(|_| CORRUPT)?;
            Ok::<_, StoreError>(OutboundConfig {
                address: text.address.parse().map_err(|_: String| CORRUPT)?,
                auth_username: text.auth_username,
                auth_password: password.unwrap_or_else(|| Secret::new(String::new())),
                transport: text.transport.parse().map_err(|_: String| CORRUPT)?,
                media_encryption: text.media_encryption.parse().map_err(|_: String| CORRUPT)?,
            })
        })
        .transpose()?;
    Ok(Trunk {
        id: id.parse().map_err(|_| CORRUPT)?,
        organization_id: organization.parse().map_err(|_| CORRUPT)?,
        name: row.try_get("name")?,
        managed_account_id: row.try_get("managed_account_id")?,
        inbound_config,
        outbound_config,
        created_at: Timestamp(row.try_get("created_at")?),
        updated_at: Timestamp(row.try_get("updated_at")?),
    })
}

impl Store {
    /// An organization's trunks, newest first. Passwords stay sealed: they come empty.
    pub async fn trunks(
        &self,
        organization: OrganizationId,
        filter: TrunkFilter,
        page: Page,
    ) -> Result<Vec<Trunk>, StoreError> {
        let mut query = QueryBuilder::new("SELECT * FROM trunks WHERE organization_id = ");
        query.push_bind(organization.to_string());
        push_contains(&mut query, "name", filter.name.as_deref());
        let TrunkFilter { created_after, created_before, updated_after, updated_before, .. } = filter;
        Times { created_after, created_before, updated_after, updated_before }.push(&mut query);
        push_page(&mut query, &page, "id");
        let rows = query.build().fetch_all(&self.read).await?;
        rows.iter().map(|row| trunk(row, None)).collect()
    }

    /// One trunk. The password stays sealed: it comes empty.
    pub async fn trunk(&self, organization: OrganizationId, id: TrunkId) -> Result<Trunk, StoreError> {
        let row = sqlx::query("SELECT * FROM trunks WHERE id = $1 AND organization_id = $2")
            .bind(id.to_string())
            .bind(organization.to_string())
            .fetch_one(&self.read)
            .await?;
        trunk(&row, None)
    }

    /// The trunk with its password open, for the data plane. A password that does not open leaves the trunk without
    /// its outbound configuration: no call goes out with an empty one.
    pub(crate) async fn open_trunk(
        &self,
        row: &SqliteRow,
        connection: &mut SqliteConnection,
    ) -> Result<Trunk, StoreError> {
        let sealed: Option<String> = row.try_get("outbound_password")?;
        let (id, organization): (String, String) = (row.try_get("id")?, row.try_get("organization_id")?);
        let Some(sealed) = sealed else { return trunk(row, None) };
        let opened = match self.data_key(connection, &organization).await {
            Ok(key) => key.open(&sealed, &place(&organization, &id)),
            Err(error) => Err(error),
        };
        match opened {
            Ok(password) => trunk(row, Some(password)),
            Err(error) => {
                tracing::error!(trunk = %id, %error, "the carrier's password cannot be opened; the trunk places no calls");
                trunk(row, None).map(|trunk| Trunk { outbound_config: None, ..trunk })
            }
        }
    }

    async fn sealed(
        &self,
        connection: &mut SqliteConnection,
        organization: OrganizationId,
        id: TrunkId,
        config: Option<&OutboundConfig>,
    ) -> Result<Option<String>, StoreError> {
        let Some(config) = config else { return Ok(None) };
        let organization = organization.to_string();
        let key = self.data_key(connection, &organization).await?;
        key.seal(&config.auth_password, &place(&organization, &id.to_string())).map(Some)
    }

    /// Makes a trunk.
    pub async fn create_trunk(
        &self,
        organization: OrganizationId,
        new: NewTrunk,
    ) -> Result<(Trunk, Seq), StoreError> {
        let (id, now) = (TrunkId::new(), Timestamp::now());
        let mut transaction = self.begin().await?;
        let password = self.sealed(&mut transaction, organization, id, new.outbound_config.as_ref()).await?;
        let row = sqlx::query("INSERT INTO trunks (id, organization_id, name, managed_account_id, inbound_config, outbound_config, outbound_password, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) RETURNING *")
            .bind(id.to_string())
            .bind(organization.to_string())
            .bind(&new.name)
            .bind(&new.managed_account_id)
            .bind(new.inbound_config.as_ref().map(inbound_text).transpose()?)
            .bind(new.outbound_config.as_ref().map(outbound_text).transpose()?)
            .bind(password)
            .bind(now.0)
            .fetch_one(&mut *transaction)
            .await?;
        let seq = log(&mut transaction, "trunk", &id.to_string()).await?;
        transaction.commit().await?;
        Ok((trunk(&row, None)?, seq))
    }

    /// Changes a trunk.
    pub async fn update_trunk(
        &self,
        organization: OrganizationId,
        id: TrunkId,
        change: TrunkUpdate,
        allow_managed: bool,
    ) -> Result<(Trunk, Seq), StoreError> {
        let mut transaction = self.begin().await?;
        let row = own_trunk(&mut transaction, organization, id, allow_managed).await?;
        let old = trunk(&row, None)?;
        let inbound = change.inbound_config.unwrap_or(old.inbound_config);
        let (outbound, password) = match change.outbound_config {
            None => (old.outbound_config, row.try_get("outbound_password")?),
            Some(new) => {
                let password = self.sealed(&mut transaction, organization, id, new.as_ref()).await?;
                (new, password)
            }
        };
        let row = sqlx::query("UPDATE trunks SET name = $2, inbound_config = $3, outbound_config = $4, outbound_password = $5, updated_at = $6 WHERE id = $1 RETURNING *")
            .bind(id.to_string())
            .bind(change.name.unwrap_or(old.name))
            .bind(inbound.as_ref().map(inbound_text).transpose()?)
            .bind(outbound.as_ref().map(outbound_text).transpose()?)
            .bind(password)
            .bind(Timestamp::now().0)
            .fetch_one(&mut *transaction)
            .await?;
        let seq = log(&mut transaction, "trunk", &id.to_string()).await?;
        transaction.commit().await?;
        Ok((trunk(&row, None)?, seq))
    }

    /// Deletes a trunk without numbers.
    pub async fn delete_trunk(
        &self,
        organization: OrganizationId,
        id: TrunkId,
        allow_managed: bool,
    ) -> Result<Seq, StoreError> {
        let mut transaction = self.begin().await?;
        own_trunk(&mut transaction, organization, id, allow_managed).await?;
        let numbers: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM phone_numbers WHERE trunk_id = $1")
            .bind(id.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        if numbers > 0 {
            return Err(StoreError::Conflict(format!(
                "The trunk still has {numbers} phone numbers; delete them first."
            )));
        }
        sqlx::query("DELETE FROM trunks WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        let seq = log(&mut transaction, "trunk", &id.to_string()).await?;
        transaction.commit().await?;
        Ok(seq)
    }
}

/// The organization's trunk, for a write.
pub(crate) async fn own_trunk(
    connection: &mut SqliteConnection,
    organization: OrganizationId,
    id: TrunkId,
    allow_managed: bool,
) -> Result<SqliteRow, StoreError> {
    let row = sqlx::query("SELECT * FROM trunks WHERE id = $1 AND organization_id = $2")
        .bind(id.to_string())
        .bind(organization.to_string())
        .fetch_one(connection)
        .await?;
    let managed: Option<String> = row.try_get("managed_account_id")?;
    if managed.is_some() && !allow_managed { Err(StoreError::Managed) } else { Ok(row) }
}
