//! `tandem agent`.

use std::io::Write;

use model::{AgentId, E164};

use crate::input::{Data, Fields, json, number};
use crate::show::{Column, pages};
use crate::{CliError, Common};

const COLUMNS: &[Column] =
    &[("ID", "/id"), ("NAME", "/name"), ("ACTIVE", "/active"), ("CREATED", "/created_at")];
const VERSIONS: &[Column] = &[
    ("VERSION", "/version"),
    ("PUBLISHED", "/published"),
    ("RUNTIME", "/config/runtime/type"),
    ("ID", "/id"),
    ("CREATED", "/created_at"),
];
const NUMBERS: &[Column] = &[
    ("NUMBER", "/phone_number"),
    ("INBOUND VERSION", "/inbound_agent_version_id"),
    ("OUTBOUND VERSION", "/outbound_agent_version_id"),
];

/// Commands on agents.
#[derive(Debug, clap::Subcommand)]
pub enum Agent {
    /// Lists agents, newest first.
    List {
        /// Part of the name.
        #[arg(long)]
        name: Option<String>,
        /// Most rows.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Shows one agent with its versions, numbers and SIP endpoint.
    Get {
        id: AgentId,
        #[command(flatten)]
        common: Common,
    },
    /// Makes an agent; with --agent-config also its first version.
    Create {
        #[arg(long, required_unless_present = "data")]
        name: Option<String>,
        #[arg(long)]
        description: Option<String>,
        /// Config of its first version: JSON, @FILE, or - for standard input.
        #[arg(long, value_name = "JSON")]
        agent_config: Option<String>,
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        common: Common,
    },
    /// Changes an agent.
    Update {
        id: AgentId,
        #[arg(long)]
        name: Option<String>,
        #[arg(long)]
        description: Option<String>,
        /// An inactive agent answers no call.
        #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
        active: Option<bool>,
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        common: Common,
    },
    /// Deletes an agent.
    Delete {
        id: AgentId,
        #[command(flatten)]
        common: Common,
    },
    /// Lists an agent's versions.
    Versions {
        id: AgentId,
        /// Most rows.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Makes a version.
    AddVersion {
        id: AgentId,
        /// JSON, @FILE, or - for standard input.
        #[arg(long, value_name = "JSON")]
        agent_config: String,
        #[command(flatten)]
        common: Common,
    },
    /// Publishes a version, and puts it on numbers.
    Publish {
        id: AgentId,
        /// The version's number, or `latest`.
        #[arg(long, default_value = "latest", value_parser = version)]
        version: String,
        /// A number whose slot gets the version; may be given several times.
        #[arg(long, value_parser = number)]
        number: Vec<E164>,
        /// A number whose slot is cleared; may be given several times.
        #[arg(long, value_parser = number)]
        unassign: Vec<E164>,
        /// Which slots.
        #[arg(long, value_parser = ["inbound", "outbound", "both"])]
        direction: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Makes the agent answer at a SIP URI of its own.
    Deploy {
        id: AgentId,
        #[command(flatten)]
        common: Common,
    },
    /// Takes the agent's SIP URI down.
    Undeploy {
        id: AgentId,
        #[command(flatten)]
        common: Common,
    },
}

fn version(text: &str) -> Result<String, String> {
    let counted = text.parse::<u32>().is_ok_and(|n| n > 0);
    if counted || text == "latest" {
        Ok(text.to_owned())
    } else {
        Err("must be a version's number or latest".to_owned())
    }
}

fn texts(numbers: &[E164]) -> Option<Vec<String>> {
    (!numbers.is_empty()).then(|| numbers.iter().map(ToString::to_string).collect())
}

impl Agent {
    pub(crate) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        match self {
            Self::List { name, limit, common } => {
                let query: Vec<_> = name.into_iter().map(|name| ("name", name)).collect();
                let rows = pages(&common.connection.client()?, "/core/agents", &query, limit).await?;
                common.screen(out).many(&rows, COLUMNS)
            }
            Self::Get { id, common } => {
                let answer = common.connection.client()?.get(&format!("/core/agents/{id}"), &[]).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Create { name, description, agent_config, data, common } => {
                // Read before anything is made, so that a typo leaves no agent behind.
                let config = agent_config.map(|config| json("--agent-config", &config)).transpose()?;
                let client = common.connection.client()?;
                let body = data.fields()?.with_some("name", name).with_some("description", description);
                let agent = client.post("/core/agents", Some(&body.into_value())).await?.body;
                if let (Some(config), Some(id)) = (config, agent["id"].as_str()) {
                    let body = Fields::default().with("config", config).into_value();
                    client.post(&format!("/core/agents/{id}/versions"), Some(&body)).await?;
                }
                common.screen(out).one(&agent)
            }
            Self::Update { id, name, description, active, data, common } => {
                let body = data
                    .fields()?
                    .with_some("name", name)
                    .with_some("description", description)
                    .with_some("active", active)
                    .some()?;
                let answer = common.connection.client()?.put(&format!("/core/agents/{id}"), &body).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Delete { id, common } => {
                common.connection.client()?.delete(&format!("/core/agents/{id}")).await?;
                common.screen(out).done(&format!("Agent {id} is deleted."))
            }
            Self::Versions { id, limit, common } => {
                let client = common.connection.client()?;
                let rows = pages(&client, &format!("/core/agents/{id}/versions"), &[], limit).await?;
                common.screen(out).many(&rows, VERSIONS)
            }
            Self::AddVersion { id, agent_config, common } => {
                let body =
                    Fields::default().with("config", json("--agent-config", &agent_config)?).into_value();
                let client = common.connection.client()?;
                let answer = client.post(&format!("/core/agents/{id}/versions"), Some(&body)).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Publish { id, version, number, unassign, direction, common } => {
                let body = Fields::default()
                    .with_some("phone_numbers", texts(&number))
                    .with_some("unassign_phone_numbers", texts(&unassign))
                    .with_some("direction", direction)
                    .into_value();
                let client = common.connection.client()?;
                let version = resolve(&client, id, version).await?;
                let path = format!("/core/agents/{id}/versions/{version}/publish");
                let answer = client.post(&path, Some(&body)).await?;
                let rows = answer.body.as_array().cloned().unwrap_or_default();
                common.screen(out).many(&rows, NUMBERS)
            }
            Self::Deploy { id, common } => {
                let client = common.connection.client()?;
                let answer = client.post(&format!("/core/agents/{id}/deploy-as-sip"), None).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Undeploy { id, common } => {
                common.connection.client()?.delete(&format!("/core/agents/{id}/deploy-as-sip")).await?;
                common.screen(out).done(&format!("Agent {id} answers at no SIP URI."))
            }
        }
    }
}

/// The number of the newest version for `latest`. The API's own `latest` would make a draft of it first.
async fn resolve(client: &api::client::Client, id: AgentId, version: String) -> Result<String, CliError> {
    if version != "latest" {
        return Ok(version);
    }
    let newest = client.get(&format!("/core/agents/{id}/versions"), &[("limit", "1")]).await?;
    let number = newest.body.pointer("/0/version").and_then(serde_json::Value::as_i64);
    number
        .map(|n| n.to_string())
        .ok_or_else(|| CliError::Usage(format!("agent {id} has no version; add one with add-version")))
}
