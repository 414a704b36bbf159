//! `tandem call`.

use std::io::Write;

use model::{AgentId, ConversationId, ConversationStatus, Direction, E164, TrunkId};

use crate::input::{Fields, json, number};
use crate::show::{Column, pages};
use crate::{CliError, Common};

const COLUMNS: &[Column] = &[
    ("ID", "/id"),
    ("CREATED", "/created_at"),
    ("DIRECTION", "/direction"),
    ("STATUS", "/status"),
    ("REMOTE", "/user_id"),
    ("NUMBER", "/agent_number"),
    ("AGENT", "/agent/name"),
    ("SECONDS", "/duration"),
    ("SIP", "/sip_status"),
    ("REASON", "/reason"),
];

/// Commands on calls.
#[derive(Debug, clap::Subcommand)]
pub enum Call {
    /// Lists calls, newest first.
    List {
        #[arg(long)]
        direction: Option<Direction>,
        #[arg(long)]
        status: Option<ConversationStatus>,
        #[arg(long, value_name = "ID")]
        agent: Option<AgentId>,
        #[arg(long, value_name = "ID")]
        trunk: Option<TrunkId>,
        /// Most rows.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Shows one call.
    Get {
        id: ConversationId,
        #[command(flatten)]
        common: Common,
    },
    /// Has an agent call a number.
    Place {
        /// The agent; its latest published version speaks.
        #[arg(long, value_name = "ID")]
        agent: AgentId,
        /// Whom to call.
        #[arg(long, value_parser = number)]
        to: E164,
        /// Caller ID: a number of the organization.
        #[arg(long, value_parser = number)]
        from: Option<E164>,
        /// Handed to the agent: a JSON object, @FILE, or - for standard input.
        #[arg(long, value_name = "JSON")]
        context: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Hangs up.
    End {
        id: ConversationId,
        #[command(flatten)]
        common: Common,
    },
}

impl Call {
    pub(crate) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        match self {
            Self::List { direction, status, agent, trunk, limit, common } => {
                let client = common.connection.client()?;
                let mut query = Vec::new();
                query.extend(direction.map(|d| ("direction", d.as_str().to_owned())));
                query.extend(status.map(|s| ("status", s.as_str().to_owned())));
                query.extend(agent.map(|id| ("agent_id", id.to_string())));
                query.extend(trunk.map(|id| ("trunk_id", id.to_string())));
                let rows = pages(&client, "/core/conversations", &query, limit).await?;
                common.screen(out).many(&rows, COLUMNS)
            }
            Self::Get { id, common } => {
                let client = common.connection.client()?;
                let answer = client.get(&format!("/core/conversations/{id}"), &[]).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Place { agent, to, from, context, common } => {
                let body = Fields::default()
                    .with("channel", "telephone")
                    .with("user_id", to.as_str())
                    .with("agent_id", agent.to_string())
                    .with_some("agent_number", from.map(|n| n.to_string()))
                    .with_some("initial_context", context.map(|c| json("--context", &c)).transpose()?);
                let client = common.connection.client()?;
                let answer = client.post("/core/conversations", Some(&body.into_value())).await?;
                let conversation = answer.body.get("conversation").unwrap_or(&answer.body);
                common.screen(out).one(conversation)
            }
            Self::End { id, common } => {
                let client = common.connection.client()?;
                let answer = client.post(&format!("/core/conversations/{id}/end"), None).await?;
                common.screen(out).one(&answer.body)
            }
        }
    }
}
