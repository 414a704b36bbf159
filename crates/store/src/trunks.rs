//! Trunks. The carrier's password stands sealed in a column of its own, never in the configuration's text.

use model::{InboundAuth, InboundConfig, OrganizationId, OutboundConfig, Secret, Timestamp, Trunk, TrunkId};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, SqliteConnection};

use crate::organizations::{ranges_from_text, ranges_to_text};
use crate::page::{Page, Times, folded, push_name, push_page};
use crate::precondition::later_than;
use crate::sqlite::log;
use crate::{Precondition, Seq, Store, StoreError};

/// A trunk to make.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewTrunk {
    pub name: String,
    pub managed_account_id: Option<String>,
    pub inbound_config: Option<InboundConfig>,
    pub outbound_config: Option<OutboundConfig>,
    pub max_concurrent_calls: Option<u32>,
    pub max_calls_per_second: Option<u32>,
}

/// What to change: outer `None` keeps, inner `None` clears.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct TrunkUpdate {
    pub name: Option<String>,
    pub inbound_config: Option<Option<InboundConfig>>,
    pub outbound_config: Option<Option<OutboundConfig>>,
    pub max_concurrent_calls: Option<Option<u32>>,
    pub max_calls_per_second: Option<Option<u32>>,
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
    #[serde(default)]
    auth_username: Option<String>,
    #[serde(default)]
    media_addresses: Option<String>,
    #[serde(default)]
    allow_transfers: bool,
    #[serde(default)]
    dtmf_tones: bool,
}

#[derive(Serialize, Deserialize)]
struct OutboundText {
    address: String,
    auth_username: String,
    transport: String,
    media_encryption: String,
    #[serde(default)]
    register: bool,
    #[serde(default)]
    fallback_addresses: Vec<String>,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    dtmf_tones: bool,
}

fn inbound_text(config: &InboundConfig) -> Result<String, StoreError> {
    let text = InboundText {
        enable_noise_cancellation: config.enable_noise_cancellation,
        media_encryption: config.media_encryption.as_str().to_owned(),
        allowed_addresses: ranges_to_text(config.allowed_addresses.as_ref()),
        auth_username: config.auth.as_ref().map(|auth| auth.username.clone()),
        media_addresses: ranges_to_text(config.media_addresses.as_ref()),
        allow_transfers: config.allow_transfers,
        dtmf_tones: config.dtmf_tones,
    };
    serde_json::to_string(&text).map_err(|_| CORRUPT)
}

fn outbound_text(config: &OutboundConfig) -> Result<String, StoreError> {
    let text = OutboundText {
        address: config.address.to_string(),
        auth_username: config.auth_username.clone(),
        transport: config.transport.as_str().to_owned(),
        media_encryption: config.media_encryption.as_str().to_owned(),
        register: config.register,
        fallback_addresses: config.fallback_addresses.iter().map(ToString::to_string).collect(),
        headers: config.headers.clone(),
        dtmf_tones: config.dtmf_tones,
    };
    serde_json::to_string(&text).map_err(|_| CORRUPT)
}

const CORRUPT: StoreError = StoreError::Corrupt("trunk");

fn place(organization: &str, id: &str, column: &str) -> String {
    format!("{organization}|trunks|{id}|{column}|1")
}

/// Columns of sealed passwords.
const INBOUND: &str = "inbound_password";
const OUTBOUND: &str = "outbound_password";

/// A trunk's passwords, open.
#[derive(Default)]
struct Passwords {
    inbound: Option<Secret>,
    outbound: Option<Secret>,
}

fn limit(row: &SqliteRow, column: &str) -> Result<Option<u32>, StoreError> {
    row.try_get::<Option<i64>, _>(column)?.map(u32::try_from).transpose().map_err(|_| CORRUPT)
}

/// A row; without passwords they come empty: the API never needs them open.
fn trunk(row: &SqliteRow, passwords: Passwords) -> Result<Trunk, StoreError> {
    let sealed = || Secret::new(String::new());
    let (id, organization): (String, String) = (row.try_get("id")?, row.try_get("organization_id")?);
    let inbound: Option<String> = row.try_get("inbound_config")?;
    let inbound_config = inbound
        .map(|text| {
            let text: InboundText = serde_json::from_str(&text).map_err(|_| CORRUPT)?;
            Ok::<_, StoreError>(InboundConfig {
                enable_noise_cancellation: text.enable_noise_cancellation,
                media_encryption: text.media_encryption.parse().map_err(|_: String| CORRUPT)?,
                allowed_addresses: ranges_from_text(text.allowed_addresses.as_deref())?,
                auth: text.auth_username.map(|username| InboundAuth {
                    username,
                    password: passwords.inbound.unwrap_or_else(sealed),
                }),
                media_addresses: ranges_from_text(text.media_addresses.as_deref())?,
                allow_transfers: text.allow_transfers,
                dtmf_tones: text.dtmf_tones,
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
                auth_password: passwords.outbound.unwrap_or_else(sealed),
                transport: text.transport.parse().map_err(|_: String| CORRUPT)?,
                media_encryption: text.media_encryption.parse().map_err(|_: String| CORRUPT)?,
                register: text.register,
                fallback_addresses: text
                    .fallback_addresses
                    .iter()
                    .map(|address| address.parse())
                    .collect::<Result<_, String>>()
                    .map_err(|_| CORRUPT)?,
                headers: text.headers,
                dtmf_tones: text.dtmf_tones,
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
        max_concurrent_calls: limit(row, "max_concurrent_calls")?,
        max_calls_per_second: limit(row, "max_calls_per_second")?,
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
        push_name(&mut query, filter.name.as_deref());
        let TrunkFilter { created_after, created_before, updated_after, updated_before, .. } = filter;
        Times { created_after, created_before, updated_after, updated_before }.push(&mut query);
        push_page(&mut query, &page, "id");
        let rows = query.build().fetch_all(&self.read).await?;
        rows.iter().map(|row| trunk(row, Passwords::default())).collect()
    }

    /// One trunk. The password stays sealed: it comes empty.
    pub async fn trunk(&self, organization: OrganizationId, id: TrunkId) -> Result<Trunk, StoreError> {
        let row = sqlx::query("SELECT * FROM trunks WHERE id = $1 AND organization_id = $2")
            .bind(id.to_string())
            .bind(organization.to_string())
            .fetch_one(&self.read)
            .await?;
        trunk(&row, Passwords::default())
    }

    /// The trunk with its passwords open, for the data plane. An outbound password that does not open leaves the trunk
    /// without its outbound configuration: no call goes out with an empty one. An inbound one leaves it with a
    /// password nobody knows: no call comes in with an empty one.
    pub(crate) async fn open_trunk(
        &self,
        row: &SqliteRow,
        connection: &mut SqliteConnection,
    ) -> Result<Trunk, StoreError> {
        let (id, organization): (String, String) = (row.try_get("id")?, row.try_get("organization_id")?);
        let sealed = |column: &str| row.try_get::<Option<String>, _>(column);
        let (inbound, outbound) = (sealed(INBOUND)?, sealed(OUTBOUND)?);
        if inbound.is_none() && outbound.is_none() {
            return trunk(row, Passwords::default());
        }
        let key = self.data_key(connection, &organization).await;
        let open = |sealed: Option<String>, column: &str| {
            let sealed = sealed?;
            let opened = key.as_ref().map_err(ToString::to_string).and_then(|key| {
                key.open(&sealed, &place(&organization, &id, column)).map_err(|e| e.to_string())
            });
            if let Err(error) = &opened {
                tracing::error!(trunk = %id, %error, column, "the password cannot be opened; the trunk carries no such calls");
            }
            opened.ok()
        };
        let unopened = outbound.is_some();
        let inbound = inbound.map(|sealed| {
            open(Some(sealed), INBOUND).unwrap_or_else(|| Secret::new(uuid::Uuid::new_v4().to_string()))
        });
        let outbound = open(outbound, OUTBOUND);
        let unopened = unopened && outbound.is_none();
        let trunk = trunk(row, Passwords { inbound, outbound })?;
        Ok(if unopened { Trunk { outbound_config: None, ..trunk } } else { trunk })
    }

    async fn seal(
        &self,
        connection: &mut SqliteConnection,
        organization: OrganizationId,
        id: TrunkId,
        column: &str,
        password: Option<&Secret>,
    ) -> Result<Option<String>, StoreError> {
        let Some(password) = password else { return Ok(None) };
        let organization = organization.to_string();
        let key = self.data_key(connection, &organization).await?;
        key.seal(password, &place(&organization, &id.to_string(), column)).map(Some)
    }

    /// Makes a trunk.
    pub async fn create_trunk(
        &self,
        organization: OrganizationId,
        new: NewTrunk,
    ) -> Result<(Trunk, Seq), StoreError> {
        let (id, now) = (TrunkId::new(), Timestamp::now());
        let mut transaction = self.begin().await?;
        let inbound = inbound_secret(new.inbound_config.as_ref());
        let inbound = self.seal(&mut transaction, organization, id, INBOUND, inbound).await?;
        let outbound = new.outbound_config.as_ref().map(|config| &config.auth_password);
        let outbound = self.seal(&mut transaction, organization, id, OUTBOUND, outbound).await?;
        let row = sqlx::query("INSERT INTO trunks (id, organization_id, name, managed_account_id, inbound_config, inbound_password, outbound_config, outbound_password, max_concurrent_calls, max_calls_per_second, created_at, updated_at, name_folded) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12) RETURNING *")
            .bind(id.to_string())
            .bind(organization.to_string())
            .bind(&new.name)
            .bind(&new.managed_account_id)
            .bind(new.inbound_config.as_ref().map(inbound_text).transpose()?)
            .bind(inbound)
            .bind(new.outbound_config.as_ref().map(outbound_text).transpose()?)
            .bind(outbound)
            .bind(new.max_concurrent_calls)
            .bind(new.max_calls_per_second)
            .bind(now.0)
            .bind(folded(&new.name))
            .fetch_one(&mut *transaction)
            .await?;
        let seq = log(&mut transaction, "trunk", &id.to_string()).await?;
        transaction.commit().await?;
        Ok((trunk(&row, Passwords::default())?, seq))
    }

    /// Changes a trunk.
    pub async fn update_trunk(
        &self,
        organization: OrganizationId,
        id: TrunkId,
        change: TrunkUpdate,
        allow_managed: bool,
        precondition: &Precondition,
    ) -> Result<(Trunk, Seq), StoreError> {
        let mut transaction = self.begin().await?;
        let row = own_trunk(&mut transaction, organization, id, allow_managed).await?;
        let old = trunk(&row, Passwords::default())?;
        precondition.check(old.updated_at)?;
        let (inbound, inbound_password) = match change.inbound_config {
            None => (old.inbound_config, row.try_get(INBOUND)?),
            Some(new) => {
                let secret = inbound_secret(new.as_ref());
                let sealed = self.seal(&mut transaction, organization, id, INBOUND, secret).await?;
                (new, sealed)
            }
        };
        let (outbound, outbound_password) = match change.outbound_config {
            None => (old.outbound_config, row.try_get(OUTBOUND)?),
            Some(new) => {
                let secret = new.as_ref().map(|config| &config.auth_password);
                let sealed = self.seal(&mut transaction, organization, id, OUTBOUND, secret).await?;
                (new, sealed)
            }
        };
        let name = change.name.unwrap_or(old.name);
        let row = sqlx::query("UPDATE trunks SET name = $2, inbound_config = $3, inbound_password = $4, outbound_config = $5, outbound_password = $6, max_concurrent_calls = $7, max_calls_per_second = $8, updated_at = $9, name_folded = $10 WHERE id = $1 RETURNING *")
            .bind(id.to_string())
            .bind(&name)
            .bind(inbound.as_ref().map(inbound_text).transpose()?)
            .bind(inbound_password)
            .bind(outbound.as_ref().map(outbound_text).transpose()?)
            .bind(outbound_password)
            .bind(change.max_concurrent_calls.unwrap_or(old.max_concurrent_calls))
            .bind(change.max_calls_per_second.unwrap_or(old.max_calls_per_second))
            .bind(later_than(old.updated_at))
            .bind(folded(&name))
            .fetch_one(&mut *transaction)
            .await?;
        let seq = log(&mut transaction, "trunk", &id.to_string()).await?;
        transaction.commit().await?;
        Ok((trunk(&row, Passwords::default())?, seq))
    }

    /// Deletes a trunk without numbers.
    pub async fn delete_trunk(
        &self,
        organization: OrganizationId,
        id: TrunkId,
        allow_managed: bool,
        precondition: &Precondition,
    ) -> Result<Seq, StoreError> {
        let mut transaction = self.begin().await?;
        let row = own_trunk(&mut transaction, organization, id, allow_managed).await?;
        precondition.check(Timestamp(row.try_get("updated_at")?))?;
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

fn inbound_secret(config: Option<&InboundConfig>) -> Option<&Secret> {
    config?.auth.as_ref().map(|auth| &auth.password)
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
