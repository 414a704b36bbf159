//! What trunks' carriers last answered to OPTIONS.

use model::{OrganizationId, Timestamp, TrunkId};
use sqlx::Row as _;

use crate::{Store, StoreError};

/// What a carrier answered, or that it did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// When it was last asked.
    pub at: Timestamp,
    /// Since when it answers, or does not, as it does now.
    pub since: Timestamp,
    /// Whether it answered at all.
    pub reachable: bool,
    /// SIP status of its answer.
    pub sip_status: Option<u16>,
    /// In words.
    pub detail: String,
}

impl Store {
    /// Writes down what a carrier answered just now. Nothing for a trunk that is gone.
    pub async fn note_probe(
        &self,
        trunk: TrunkId,
        sip_status: Option<u16>,
        detail: &str,
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO trunk_probes (trunk_id, at, since, reachable, sip_status, detail) SELECT id, $2, $2, $3, $4, $5 FROM trunks WHERE id = $1 ON CONFLICT (trunk_id) DO UPDATE SET at = excluded.at, since = CASE WHEN trunk_probes.reachable = excluded.reachable THEN trunk_probes.since ELSE excluded.since END, reachable = excluded.reachable, sip_status = excluded.sip_status, detail = excluded.detail")
            .bind(trunk.to_string())
            .bind(Timestamp::now().0)
            .bind(sip_status.is_some())
            .bind(sip_status.map(i64::from))
            .bind(detail)
            .execute(&self.write)
            .await?;
        Ok(())
    }

    /// What a trunk's carrier last answered; `None` when it was never asked.
    pub async fn last_probe(
        &self,
        organization: OrganizationId,
        trunk: TrunkId,
    ) -> Result<Option<Probe>, StoreError> {
        let row = sqlx::query("SELECT p.* FROM trunk_probes p JOIN trunks t ON t.id = p.trunk_id WHERE p.trunk_id = $1 AND t.organization_id = $2")
            .bind(trunk.to_string())
            .bind(organization.to_string())
            .fetch_optional(&self.read)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let status: Option<i64> = row.try_get("sip_status")?;
        Ok(Some(Probe {
            at: Timestamp(row.try_get("at")?),
            since: Timestamp(row.try_get("since")?),
            reachable: row.try_get("reachable")?,
            sip_status: status.map(u16::try_from).transpose().map_err(|_| StoreError::Corrupt("probe"))?,
            detail: row.try_get("detail")?,
        }))
    }
}
