//! The messages of calls that have ended, and why calls ended as they did.

use model::{Conversation, DecisionRecord, PackedTrace, Trace};
use sqlx::{QueryBuilder, Row as _, SqliteConnection};

use crate::conversations::ROWS;
use crate::{Store, StoreError};

/// Traces kept in all.
const MAX_TRACES: i64 = 20_000;
/// Decisions of one call that are shown.
const MAX_OF_CALL: i64 = 100;
const CORRUPT: StoreError = StoreError::Corrupt("trace");

impl Store {
    /// What was kept of a call; `None` when nothing was, or it is forgotten.
    pub async fn trace(&self, call: &Conversation) -> Result<Option<Trace>, StoreError> {
        let row = sqlx::query(
            "SELECT packed, record FROM traces WHERE conversation_id = $1 AND organization_id = $2",
        )
        .bind(call.id.to_string())
        .bind(call.organization_id.to_string())
        .fetch_optional(&self.read)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let packed: Option<Vec<u8>> = row.try_get("packed")?;
        let trace = match packed {
            Some(packed) => Trace::unpack(&packed).ok_or(CORRUPT)?,
            None => serde_json::from_str(row.try_get("record")?).map_err(|_| CORRUPT)?,
        };
        Ok(Some(trace))
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
pub(crate) async fn upsert(
    connection: &mut SqliteConnection,
    traces: &[&PackedTrace],
) -> Result<(), StoreError> {
    for group in traces.chunks(ROWS) {
        let mut query = QueryBuilder::new(
            "INSERT INTO traces (conversation_id, organization_id, created_at, record, packed) ",
        );
        query.push_values(group, |mut row, trace| {
            row.push_bind(trace.conversation_id.to_string())
                .push_bind(trace.organization_id.to_string())
                .push_bind(trace.at.0)
                .push("''")
                .push_bind(&trace.packed);
        });
        query.push(" ON CONFLICT (conversation_id) DO UPDATE SET packed = excluded.packed");
        // Not kept prepared: every number of rows is a statement of its own, and large ones.
        query.build().persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}
