//! The change log as the data plane reads it: what changed, with its present value and secrets open.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::directory::{AgentEntry, DirectoryChange, OrganizationEntry, VersionEntry};
use sqlx::{QueryBuilder, Row as _, SqliteConnection};

use crate::organizations::{destinations, ranges_from_text};
use crate::phone_numbers::number;
use crate::{Seq, Store, StoreError};

const CORRUPT: StoreError = StoreError::Corrupt("change");

/// What a change names.
#[derive(Clone, Copy)]
enum Kind {
    Organization,
    Trunk,
    Number,
    Agent,
    Version,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Organization, Self::Trunk, Self::Agent, Self::Version, Self::Number];

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "organization" => Self::Organization,
            "trunk" => Self::Trunk,
            "number" => Self::Number,
            "agent" => Self::Agent,
            "version" => Self::Version,
            _ => return None,
        })
    }

    /// The rows, and the column that names one.
    fn select(self) -> (&'static str, &'static str) {
        match self {
            Self::Organization => ("SELECT * FROM organizations", "id"),
            Self::Trunk => ("SELECT * FROM trunks", "id"),
            Self::Number => ("SELECT * FROM phone_numbers", "phone_number"),
            Self::Agent => (
                "SELECT a.*, (SELECT v.id FROM agent_versions v WHERE v.agent_id = a.id AND v.published ORDER BY v.published_at DESC, v.version DESC LIMIT 1) AS latest FROM agents a",
                "id",
            ),
            Self::Version => (
                "SELECT v.*, (SELECT a.organization_id FROM agents a WHERE a.id = v.agent_id) AS organization_id FROM agent_versions v",
                "id",
            ),
        }
    }

    fn gone(self, reference: &str) -> Result<DirectoryChange, StoreError> {
        Ok(match self {
            Self::Organization => {
                DirectoryChange::Organization(reference.parse().map_err(|_| CORRUPT)?, None)
            }
            Self::Trunk => DirectoryChange::Trunk(reference.parse().map_err(|_| CORRUPT)?, None),
            Self::Number => DirectoryChange::Number(reference.parse().map_err(|_: String| CORRUPT)?, None),
            Self::Agent => DirectoryChange::Agent(reference.parse().map_err(|_| CORRUPT)?, None),
            Self::Version => DirectoryChange::Version(reference.parse().map_err(|_| CORRUPT)?, None),
        })
    }
}

impl Store {
    /// The last position of the change log.
    pub async fn latest_change(&self) -> Result<Seq, StoreError> {
        Ok(sqlx::query_scalar("SELECT COALESCE(MAX(seq), 0) FROM changes").fetch_one(&self.read).await?)
    }

    /// What changed after a position, each thing once with its present value, and the position this goes up to.
    pub async fn changes_after(
        &self,
        seq: Seq,
        limit: u32,
    ) -> Result<(Seq, Vec<DirectoryChange>), StoreError> {
        let mut transaction = self.read.begin().await?;
        let rows = sqlx::query("SELECT seq, kind, ref FROM changes WHERE seq > $1 ORDER BY seq LIMIT $2")
            .bind(seq)
            .bind(i64::from(limit))
            .fetch_all(&mut *transaction)
            .await?;
        let mut last = seq;
        let mut seen = BTreeSet::new();
        let mut changes = Vec::new();
        for row in rows {
            last = row.try_get("seq")?;
            let (name, reference): (String, String) = (row.try_get("kind")?, row.try_get("ref")?);
            let kind = Kind::parse(&name).ok_or(CORRUPT)?;
            if seen.insert((name, reference.clone())) {
                let present = self.load(&mut transaction, kind, Some(&reference)).await?.pop();
                changes.push(match present {
                    Some(change) => change,
                    None => kind.gone(&reference)?,
                });
            }
        }
        Ok((last, changes))
    }

    /// Everything, and the position it is at.
    pub async fn directory(&self) -> Result<(Seq, Vec<DirectoryChange>), StoreError> {
        let mut transaction = self.read.begin().await?;
        let seq = sqlx::query_scalar("SELECT COALESCE(MAX(seq), 0) FROM changes")
            .fetch_one(&mut *transaction)
            .await?;
        let mut changes = Vec::new();
        for kind in Kind::ALL {
            changes.append(&mut self.load(&mut transaction, kind, None).await?);
        }
        Ok((seq, changes))
    }

    async fn load(
        &self,
        connection: &mut SqliteConnection,
        kind: Kind,
        one: Option<&str>,
    ) -> Result<Vec<DirectoryChange>, StoreError> {
        let (select, column) = kind.select();
        let mut query = QueryBuilder::new(select);
        if let Some(reference) = one {
            query.push(format!(" WHERE {column} = ")).push_bind(reference);
        }
        let rows = query.build().fetch_all(&mut *connection).await?;
        let mut changes = Vec::with_capacity(rows.len());
        for row in &rows {
            let text = |column: &str| -> Result<String, StoreError> { Ok(row.try_get(column)?) };
            changes.push(match kind {
                Kind::Organization => {
                    let id = text("id")?.parse().map_err(|_| CORRUPT)?;
                    let ranges: Option<String> = row.try_get("sip_endpoint_allowed_addresses")?;
                    let sip_endpoint_allowed_addresses = ranges_from_text(ranges.as_deref())?;
                    DirectoryChange::Organization(
                        id,
                        Some(Arc::new(OrganizationEntry {
                            id,
                            sip_endpoint_allowed_addresses,
                            allowed_destinations: destinations(row)?,
                            inbound_routing: self.open_routing(connection, &text("id")?).await?,
                        })),
                    )
                }
                Kind::Trunk => {
                    let trunk = self.open_trunk(row, connection).await?;
                    DirectoryChange::Trunk(trunk.id, Some(Arc::new(trunk)))
                }
                Kind::Number => {
                    let number = number(row)?;
                    DirectoryChange::Number(number.phone_number.clone(), Some(Arc::new(number)))
                }
                Kind::Agent => {
                    let id = text("id")?.parse().map_err(|_| CORRUPT)?;
                    let latest: Option<String> = row.try_get("latest")?;
                    let entry = AgentEntry {
                        id,
                        organization_id: text("organization_id")?.parse().map_err(|_| CORRUPT)?,
                        active: row.try_get("active")?,
                        sip_deployed: row.try_get("sip_deployed")?,
                        latest_published: latest.map(|v| v.parse()).transpose().map_err(|_| CORRUPT)?,
                    };
                    DirectoryChange::Agent(id, Some(Arc::new(entry)))
                }
                Kind::Version => {
                    let id = text("id")?;
                    match self.open_version(connection, &text("organization_id")?, row).await {
                        Ok(version) => {
                            let entry = VersionEntry {
                                id: version.id,
                                agent_id: version.agent_id,
                                version: version.version,
                                config: Arc::new(version.config),
                            };
                            DirectoryChange::Version(version.id, Some(Arc::new(entry)))
                        }
                        // Without its secret a bot would be asked unsigned, so the version is not there.
                        Err(error @ StoreError::Secret(_)) => {
                            tracing::error!(version = %id, %error, "an agent version's secrets cannot be opened; it takes no calls");
                            kind.gone(&id)?
                        }
                        Err(error) => return Err(error),
                    }
                }
            });
        }
        Ok(changes)
    }
}
