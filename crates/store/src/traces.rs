//! The messages of calls that have ended, and why calls ended as they did.

use model::{Conversation, DecisionRecord, Trace};
use sqlx::{Row as _, SqliteConnection};

use crate::{Store, StoreError};

/// Traces kept in all.
const MAX_TRACES: i64 = 20_000;
/// Decisions of one call that are shown.
const MAX_OF_CALL: i64 = 100;
const CORRUPT: StoreError = StoreError::Corrupt("trace");

impl Store {
    /// What was kept of a call; `None` when nothing was, or it is forgotten.
    pub async fn trace(&self, call: &Conversation) -> Result<Option<Trace>, StoreError> {
        let row =
            sqlx::query("SELECT record FROM traces WHERE conversation_id = $1 AND organization_id = $2")
                .bind(call.id.to_string())
                .bind(call.organization_id.to_string())
                .fetch_optional(&self.read)
                .await?;
        let Some(row) = row else { return Ok(None) };
        let record: String = row.try_get("record")?;
        serde_json::from_str(&record).map(Some).map_err(|_| CORRUPT)
    }

    /// The decisions on a call, in order: its own, and those on INVITEs of its Call-ID before it began.
    pub async fn decisions_of_call(&self, call: &Conversation) -> Result<Vec<DecisionRecord>, StoreError> {
        let rows = sqlx::query("SELECT record FROM decisions WHERE organization_id = $1 AND (conversation_id = $2 OR sip_call_id = $3) ORDER BY created_at, id LIMIT $4")
            .bind(call.organization_id.to_string())
            .bind(call.id.to_string())
            .bind(&call.sip_call_id)
            .bind(MAX_OF_CALL)
            .fetch_all(&self.read)
            .await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            let record: String = row.try_get("record")?;
            serde_json::from_str(&record).map_err(|_| StoreError::Corrupt("decision"))
        };
        rows.iter().map(read).collect()
    }

    /// Forgets the oldest traces beyond what is kept.
    pub async fn prune_traces(&self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM traces WHERE conversation_id IN (SELECT conversation_id FROM traces ORDER BY created_at DESC, conversation_id DESC LIMIT -1 OFFSET $1)")
            .bind(MAX_TRACES)
            .execute(&self.write)
            .await?;
        Ok(())
    }
}

/// Writes traces down; a later one of a call replaces an earlier one.
pub(crate) async fn upsert(connection: &mut SqliteConnection, traces: &[&Trace]) -> Result<(), StoreError> {
    for trace in traces {
        let record = serde_json::to_string(trace).map_err(|_| CORRUPT)?;
        sqlx::query("INSERT INTO traces (conversation_id, organization_id, created_at, record) VALUES ($1, $2, $3, $4) ON CONFLICT (conversation_id) DO UPDATE SET record = excluded.record")
            .bind(trace.conversation_id.to_string())
            .bind(trace.organization_id.to_string())
            .bind(trace.at.0)
            .bind(record)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
