//! `tandem routing`: the organization's inbound routing.

use std::io::Write;

use model::AgentId;
use serde_json::Value;

use crate::input::{Data, Fields, json, password};
use crate::{CliError, Common};

/// Where it stands.
const PATH: &str = "/core/inbound-routing-config";

/// Commands on inbound routing.
#[derive(Debug, clap::Subcommand)]
pub enum Routing {
    /// Shows the routing.
    Get {
        #[command(flatten)]
        common: Common,
    },
    /// Makes or changes the routing; what is not given is kept.
    Set {
        /// Rules, in order: a JSON array, @FILE, or - for standard input.
        #[arg(long, value_name = "JSON", conflicts_with_all = ["webhook", "data"])]
        rules: Option<String>,
        /// A webhook that decides: a signed POST to this URL.
        #[arg(long, value_name = "URL", conflicts_with = "data")]
        webhook: Option<String>,
        /// What its POST is signed with, `whsec_…`; `-` reads standard input. Left out: one is made and shown once.
        #[arg(long, value_name = "SECRET", requires = "webhook")]
        secret: Option<String>,
        /// Who answers when the decision fails or is late.
        #[arg(long, value_name = "ID")]
        fallback_agent: Option<AgentId>,
        /// Nobody answers then: the call is refused.
        #[arg(long, conflicts_with = "fallback_agent")]
        no_fallback: bool,
        /// How long the decision may take.
        #[arg(long, value_name = "MILLISECONDS")]
        timeout_ms: Option<u32>,
        /// Whether it decides; otherwise the numbers' own slots do.
        #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
        enabled: Option<bool>,
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        common: Common,
    },
    /// Deletes the routing: the numbers' own slots answer again.
    Delete {
        #[command(flatten)]
        common: Common,
    },
}

impl Routing {
    pub(crate) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        match self {
            Self::Get { common } => {
                let answer = common.connection.client()?.get(PATH, &[]).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Set {
                rules,
                webhook,
                secret,
                fallback_agent,
                no_fallback,
                timeout_ms,
                enabled,
                data,
                common,
            } => {
                let workflow = workflow(rules, webhook, secret)?;
                let body = data
                    .fields()?
                    .with_some("workflow_definition", workflow)
                    .with_cleared("fallback_agent_id", no_fallback, fallback_agent.map(|id| id.to_string()))
                    .with_some("timeout_ms", timeout_ms)
                    .with_some("enabled", enabled);
                let answer = common.connection.client()?.put(PATH, &body.some()?).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Delete { common } => {
                common.connection.client()?.delete(PATH).await?;
                common.screen(out).done("The inbound routing is deleted.")
            }
        }
    }
}

fn workflow(
    rules: Option<String>,
    webhook: Option<String>,
    secret: Option<String>,
) -> Result<Option<Value>, CliError> {
    let fields = match (rules, webhook) {
        (Some(rules), _) => Fields::default().with("type", "rules").with("rules", json("--rules", &rules)?),
        (None, Some(url)) => Fields::default()
            .with("type", "webhook")
            .with("url", url)
            .with_some("secret", secret.map(password).transpose()?),
        (None, None) => return Ok(None),
    };
    Ok(Some(fields.into_value()))
}
