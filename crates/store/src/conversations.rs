//! Calls and decisions: written behind in groups, many rows a transaction.

use model::{
    AgentId, AgentVersionId, CallQuality, Conversation, ConversationId, ConversationStatus, DecisionId,
    DecisionRecord, Direction, E164, EndedBy, OrganizationId, PackedTrace, PhoneNumber, Timestamp, Trunk,
    TrunkId,
};
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, SqliteConnection};

use crate::calls_out::admit;
use crate::deliveries::enqueue;
use crate::organizations::own;
use crate::page::{MAX_SCANS, Page, SCAN_ROWS, Times, contains, push_contains, push_page};
use crate::phone_numbers::number;
use crate::{Store, StoreError, traces};

/// Rows of one statement; 14 values each stay far below the engine's limit of bound values. Of 1,000 calls a second it
/// takes a whole batch: each further one is a turn between the engine's thread and ours.
pub(crate) const ROWS: usize = 300;
/// Decisions kept in all.
const MAX_DECISIONS: i64 = 100_000;

/// A fact to keep.
#[derive(Debug, Clone)]
// Nearly all are conversations, so boxing them would only add an allocation to each.
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum Record {
    Conversation(Conversation),
    Decision(DecisionRecord),
    Trace(PackedTrace),
    Quality(ConversationId, Box<CallQuality>),
}

/// Which calls to list.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct ConversationFilter {
    pub direction: Option<Direction>,
    pub status: Option<ConversationStatus>,
    pub agent_id: Option<AgentId>,
    pub agent_version_id: Option<AgentVersionId>,
    pub trunk_id: Option<TrunkId>,
    pub user_id: Option<String>,
    pub agent_number: Option<E164>,
    pub duration_above: Option<i64>,
    pub duration_below: Option<i64>,
    pub custom_metadata: Option<Value>,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
}

const CORRUPT: StoreError = StoreError::Corrupt("conversation");

fn conversation(row: &SqliteRow) -> Result<Conversation, StoreError> {
    let record: String = row.try_get("record")?;
    serde_json::from_str(&record).map_err(|_| CORRUPT)
}

impl Store {
    /// Writes a call out down before it is placed, when the organization may call there and has a call left today.
    /// The count and the call are one transaction, so that no race exceeds the limit.
    pub async fn create_conversation(&self, conversation: &Conversation) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let organization = own(&mut transaction, conversation.organization_id).await?;
        admit(&mut transaction, &organization, &conversation.user_id, conversation.created_at).await?;
        enqueue(&mut transaction, &[Record::Conversation(conversation.clone())]).await?;
        upsert(&mut transaction, &[conversation]).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Writes facts down, all or none. A call's final status never changes.
    pub async fn write_records(&self, records: &[Record]) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        enqueue(&mut transaction, records).await?;
        let calls: Vec<&Conversation> = records
            .iter()
            .filter_map(|r| if let Record::Conversation(c) = r { Some(c) } else { None })
            .collect();
        for group in calls.chunks(ROWS) {
            upsert(&mut transaction, group).await?;
        }
        let decisions: Vec<&DecisionRecord> =
            records.iter().filter_map(|r| if let Record::Decision(d) = r { Some(d) } else { None }).collect();
        for group in decisions.chunks(ROWS) {
            insert_decisions(&mut transaction, group).await?;
        }
        let kept: Vec<&PackedTrace> =
            records.iter().filter_map(|r| if let Record::Trace(t) = r { Some(t) } else { None }).collect();
        traces::upsert(&mut transaction, &kept).await?;
        let qualities: Vec<(ConversationId, &CallQuality)> = records
            .iter()
            .filter_map(|r| if let Record::Quality(id, quality) = r { Some((*id, &**quality)) } else { None })
            .collect();
        for group in qualities.chunks(ROWS) {
            upsert_qualities(&mut transaction, group).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// How a call that is over sounded; `None` when nothing was measured.
    pub async fn conversation_quality(
        &self,
        organization: OrganizationId,
        id: ConversationId,
    ) -> Result<Option<CallQuality>, StoreError> {
        let record: Option<String> = sqlx::query_scalar("SELECT q.record FROM conversation_qualities q JOIN conversations c ON c.id = q.conversation_id WHERE q.conversation_id = $1 AND c.organization_id = $2")
            .bind(id.to_string())
            .bind(organization.to_string())
            .fetch_optional(&self.read)
            .await?;
        record.map(|text| serde_json::from_str(&text).map_err(|_| CORRUPT)).transpose()
    }

    /// Forgets how calls sounded that were created before.
    pub async fn prune_qualities(&self, before: Timestamp) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM conversation_qualities WHERE conversation_id IN (SELECT id FROM conversations WHERE created_at < $1)")
            .bind(before.0)
            .execute(&self.write)
            .await?;
        Ok(())
    }

    /// Forgets the oldest decisions beyond what is kept.
    pub async fn prune_decisions(&self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM decisions WHERE id IN (SELECT id FROM decisions ORDER BY created_at DESC, id DESC LIMIT -1 OFFSET $1)")
            .bind(MAX_DECISIONS)
            .execute(&self.write)
            .await?;
        Ok(())
    }

    /// An organization's calls, newest first.
    pub async fn conversations(
        &self,
        organization: OrganizationId,
        filter: ConversationFilter,
        page: Page,
    ) -> Result<Vec<Conversation>, StoreError> {
        let mut found = Vec::new();
        let mut page = page;
        let wanted = page.limit as usize;
        if filter.custom_metadata.is_some() {
            page.limit = page.limit.max(SCAN_ROWS);
        }
        for _ in 0..MAX_SCANS {
            let mut query = QueryBuilder::new("SELECT record FROM conversations WHERE organization_id = ");
            query.push_bind(organization.to_string());
            for (condition, value) in [
                (" AND direction = ", filter.direction.map(|d| d.as_str().to_owned())),
                (" AND status = ", filter.status.map(|s| s.as_str().to_owned())),
                (" AND agent_id = ", filter.agent_id.map(|id| id.to_string())),
                (" AND agent_version_id = ", filter.agent_version_id.map(|id| id.to_string())),
                (" AND trunk_id = ", filter.trunk_id.map(|id| id.to_string())),
                (" AND agent_number = ", filter.agent_number.as_ref().map(ToString::to_string)),
            ] {
                if let Some(value) = value {
                    query.push(condition).push_bind(value);
                }
            }
            push_contains(&mut query, "user_id", filter.user_id.as_deref());
            if let Some(seconds) = filter.duration_above {
                query.push(" AND duration >= ").push_bind(seconds);
            }
            if let Some(seconds) = filter.duration_below {
                query.push(" AND duration <= ").push_bind(seconds);
            }
            let ConversationFilter { created_after, created_before, .. } = filter;
            Times { created_after, created_before, updated_after: None, updated_before: None }
                .push(&mut query);
            push_page(&mut query, &page, "id");
            let rows = query.build().fetch_all(&self.read).await?;
            for row in &rows {
                let call = conversation(row)?;
                page.before = Some((call.created_at, Some(call.id.0)));
                let matches = match (&filter.custom_metadata, &call.custom_metadata) {
                    (None, _) => true,
                    (Some(part), Some(whole)) => contains(whole, part),
                    (Some(_), None) => false,
                };
                if matches && found.len() < wanted {
                    found.push(call);
                }
            }
            if rows.len() < page.limit as usize || found.len() >= wanted {
                break;
            }
        }
        Ok(found)
    }

    /// One call.
    pub async fn conversation(
        &self,
        organization: OrganizationId,
        id: ConversationId,
    ) -> Result<Conversation, StoreError> {
        let row = sqlx::query("SELECT record FROM conversations WHERE id = $1 AND organization_id = $2")
            .bind(id.to_string())
            .bind(organization.to_string())
            .fetch_one(&self.read)
            .await?;
        conversation(&row)
    }

    /// Closes the calls that a crash left open. Returns how many.
    pub async fn close_orphans(&self) -> Result<usize, StoreError> {
        let rows =
            sqlx::query("SELECT record FROM conversations WHERE NOT final").fetch_all(&self.read).await?;
        let now = Timestamp::now();
        let mut records = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut call = conversation(row)?;
            call.status = ConversationStatus::Failed;
            call.ended_by = Some(EndedBy::System);
            call.reason = Some("node_crash".to_owned());
            call.ended_at = Some(now);
            call.updated_at = now;
            records.push(Record::Conversation(call));
        }
        self.write_records(&records).await?;
        Ok(records.len())
    }

    /// A trunk's calls that are not over.
    pub async fn open_calls(&self, organization: OrganizationId, trunk: TrunkId) -> Result<i64, StoreError> {
        let count = sqlx::query_scalar(
            "SELECT COUNT(*) FROM conversations WHERE NOT final AND trunk_id = $1 AND organization_id = $2",
        );
        Ok(count.bind(trunk.to_string()).bind(organization.to_string()).fetch_one(&self.read).await?)
    }

    /// A trunk's decisions, newest first.
    pub async fn decisions(
        &self,
        organization: OrganizationId,
        trunk: TrunkId,
        page: Page,
    ) -> Result<Vec<DecisionRecord>, StoreError> {
        let mut query = QueryBuilder::new("SELECT record FROM decisions WHERE organization_id = ");
        query.push_bind(organization.to_string()).push(" AND trunk_id = ").push_bind(trunk.to_string());
        push_page(&mut query, &page, "id");
        let rows = query.build().fetch_all(&self.read).await?;
        rows.iter()
            .map(|row| {
                let record: String = row.try_get("record")?;
                serde_json::from_str(&record).map_err(|_| StoreError::Corrupt("decision"))
            })
            .collect()
    }

    /// One decision of a trunk.
    pub async fn decision(
        &self,
        organization: OrganizationId,
        trunk: TrunkId,
        id: DecisionId,
    ) -> Result<DecisionRecord, StoreError> {
        let record: Option<String> = sqlx::query_scalar(
            "SELECT record FROM decisions WHERE id = $1 AND organization_id = $2 AND trunk_id = $3",
        )
        .bind(id.to_string())
        .bind(organization.to_string())
        .bind(trunk.to_string())
        .fetch_optional(&self.read)
        .await?;
        let record = record.ok_or(StoreError::NotFound)?;
        serde_json::from_str(&record).map_err(|_| StoreError::Corrupt("decision"))
    }

    /// Which number an outbound call shows, and the trunk it leaves by: the one asked for when the organization owns
    /// it; else the one whose outbound slot holds the version; else one of the agent's; else any with a way out.
    pub async fn caller_id(
        &self,
        organization: OrganizationId,
        version: Option<AgentVersionId>,
        agent: Option<AgentId>,
        wanted: Option<E164>,
    ) -> Result<(PhoneNumber, Trunk), StoreError> {
        let chosen = match wanted {
            Some(wanted) => self.number(organization, &wanted).await.map_err(|error| match error {
                StoreError::NotFound => StoreError::Refused(format!(
                    "agent_number {wanted} is not a phone number of this organization."
                )),
                other => other,
            })?,
            None => self.own_caller_id(organization, version, agent).await?.ok_or_else(|| {
                StoreError::Refused(
                    "The organization has no phone number on a trunk with an outbound_config to call from."
                        .to_owned(),
                )
            })?,
        };
        let trunk = self.trunk(organization, chosen.trunk_id).await?;
        if trunk.outbound_config.is_none() {
            return Err(StoreError::Refused(format!(
                "The trunk of {} has no outbound_config, so no call can leave by it.",
                chosen.phone_number
            )));
        }
        Ok((chosen, trunk))
    }

    async fn own_caller_id(
        &self,
        organization: OrganizationId,
        version: Option<AgentVersionId>,
        agent: Option<AgentId>,
    ) -> Result<Option<PhoneNumber>, StoreError> {
        // Ranked: the version's own, the agent's own, a shared one, a free one, any other.
        let row = sqlx::query("SELECT n.* FROM phone_numbers n JOIN trunks t ON t.id = n.trunk_id LEFT JOIN agent_versions v ON v.id = n.outbound_agent_version_id WHERE n.organization_id = $1 AND t.outbound_config IS NOT NULL ORDER BY CASE WHEN v.id = $2 THEN 0 WHEN v.agent_id = $3 THEN 1 WHEN n.outbound_shareable THEN 2 WHEN v.id IS NULL THEN 3 ELSE 4 END, n.created_at LIMIT 1")
            .bind(organization.to_string())
            .bind(version.map(|v| v.to_string()))
            .bind(agent.map(|a| a.to_string()))
            .fetch_optional(&self.read)
            .await?;
        row.as_ref().map(number).transpose()
    }
}

async fn upsert(connection: &mut SqliteConnection, calls: &[&Conversation]) -> Result<(), StoreError> {
    if calls.is_empty() {
        return Ok(());
    }
    let texts: Result<Vec<String>, _> = calls.iter().map(serde_json::to_string).collect();
    let texts = texts.map_err(|_| CORRUPT)?;
    let mut query = QueryBuilder::new(
        "INSERT INTO conversations (id, organization_id, direction, status, final, user_id, agent_id, agent_version_id, agent_number, trunk_id, duration, created_at, updated_at, record) ",
    );
    query.push_values(calls.iter().zip(texts), |mut row, (call, text)| {
        row.push_bind(call.id.to_string())
            .push_bind(call.organization_id.to_string())
            .push_bind(call.direction.as_str())
            .push_bind(call.status.as_str())
            .push_bind(call.status.is_final())
            .push_bind(&call.user_id)
            .push_bind(call.agent_id.map(|id| id.to_string()))
            .push_bind(call.agent_version_id.map(|id| id.to_string()))
            .push_bind(call.agent_number.as_ref().map(E164::as_str))
            .push_bind(call.trunk_id.map(|id| id.to_string()))
            .push_bind(call.duration())
            .push_bind(call.created_at.0)
            .push_bind(call.updated_at.0)
            .push_bind(text);
    });
    query.push(" ON CONFLICT (id) DO UPDATE SET status = excluded.status, final = excluded.final, duration = excluded.duration, updated_at = excluded.updated_at, record = excluded.record WHERE NOT conversations.final");
    // Not kept prepared: every number of rows is a statement of its own, and large ones.
    query.build().persistent(false).execute(connection).await?;
    Ok(())
}

async fn upsert_qualities(
    connection: &mut SqliteConnection,
    qualities: &[(ConversationId, &CallQuality)],
) -> Result<(), StoreError> {
    let texts: Result<Vec<String>, _> =
        qualities.iter().map(|(_, quality)| serde_json::to_string(quality)).collect();
    let texts = texts.map_err(|_| CORRUPT)?;
    let mut query = QueryBuilder::new("INSERT INTO conversation_qualities (conversation_id, record) ");
    query.push_values(qualities.iter().zip(texts), |mut row, ((id, _), text)| {
        row.push_bind(id.to_string()).push_bind(text);
    });
    query.push(" ON CONFLICT (conversation_id) DO UPDATE SET record = excluded.record");
    // Not kept prepared: every number of rows is a statement of its own, and large ones.
    query.build().persistent(false).execute(connection).await?;
    Ok(())
}

async fn insert_decisions(
    connection: &mut SqliteConnection,
    decisions: &[&DecisionRecord],
) -> Result<(), StoreError> {
    if decisions.is_empty() {
        return Ok(());
    }
    let texts: Result<Vec<String>, _> = decisions.iter().map(serde_json::to_string).collect();
    let texts = texts.map_err(|_| StoreError::Corrupt("decision"))?;
    let mut query = QueryBuilder::new(
        "INSERT INTO decisions (id, organization_id, trunk_id, conversation_id, sip_call_id, created_at, record) ",
    );
    query.push_values(decisions.iter().zip(texts), |mut row, (decision, text)| {
        row.push_bind(decision.id.to_string())
            .push_bind(decision.organization_id.map(|id| id.to_string()))
            .push_bind(decision.trunk_id.map(|id| id.to_string()))
            .push_bind(decision.conversation_id.map(|id| id.to_string()))
            .push_bind(decision.sip_call_id.as_deref())
            .push_bind(decision.at.0)
            .push_bind(text);
    });
    query.push(" ON CONFLICT (id) DO NOTHING");
    // Not kept prepared: every number of rows is a statement of its own, and large ones.
    query.build().persistent(false).execute(connection).await?;
    Ok(())
}
