//! `tandem webhook`.

use std::io::Write;

use model::{DeliveryId, DeliveryState, WebhookEvent, WebhookId};

use crate::input::{Data, password};
use crate::show::{Column, pages};
use crate::{CliError, Common};

const COLUMNS: &[Column] = &[
    ("ID", "/id"),
    ("URL", "/url"),
    ("EVENTS", "/events"),
    ("ENABLED", "/enabled"),
    ("CREATED", "/created_at"),
];
const DELIVERIES: &[Column] = &[
    ("ID", "/id"),
    ("AT", "/created_at"),
    ("EVENT", "/event"),
    ("STATE", "/state"),
    ("ATTEMPTS", "/attempts"),
    ("NEXT", "/due_at"),
    ("HTTP", "/http_status"),
    ("ERROR", "/error"),
];

/// Commands on webhooks.
#[derive(Debug, clap::Subcommand)]
pub enum Webhook {
    /// Lists webhooks, newest first.
    List {
        /// Most rows.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Shows one webhook.
    Get {
        id: WebhookId,
        #[command(flatten)]
        common: Common,
    },
    /// Makes a webhook; prints its secret, once.
    Create {
        /// Where the POST goes.
        #[arg(long, value_name = "URL", required_unless_present = "data")]
        endpoint: Option<String>,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        common: Common,
    },
    /// Changes a webhook; what is not given is kept.
    Update {
        id: WebhookId,
        /// Where the POST goes.
        #[arg(long, value_name = "URL")]
        endpoint: Option<String>,
        /// All events.
        #[arg(long, conflicts_with = "event")]
        all_events: bool,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        common: Common,
    },
    /// Deletes a webhook.
    Delete {
        id: WebhookId,
        #[command(flatten)]
        common: Common,
    },
    /// Has the webhook told of an event that never happened.
    Test {
        id: WebhookId,
        #[command(flatten)]
        common: Common,
    },
    /// What was told, newest first; `--state dead` is what was given up.
    Deliveries {
        id: WebhookId,
        #[arg(long)]
        state: Option<DeliveryState>,
        /// Most rows.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Tries a delivery anew.
    Retry {
        id: WebhookId,
        delivery: DeliveryId,
        #[command(flatten)]
        common: Common,
    },
}

/// What a webhook is told, and how.
#[derive(Debug, clap::Args)]
pub struct Settings {
    /// An event it is told of, for example conversation.completed; may be given several times. None: all.
    #[arg(long)]
    event: Vec<WebhookEvent>,
    /// Whether it is told at all.
    #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
    enabled: Option<bool>,
    /// What each POST is signed with, `whsec_…`; `-` reads standard input.
    #[arg(long)]
    secret: Option<String>,
    #[command(flatten)]
    data: Data,
}

impl Settings {
    fn fields(self) -> Result<crate::input::Fields, CliError> {
        let events: Vec<&str> = self.event.iter().map(|event| event.as_str()).collect();
        Ok(self
            .data
            .fields()?
            .with_some("events", (!events.is_empty()).then_some(events))
            .with_some("enabled", self.enabled)
            .with_some("secret", self.secret.map(password).transpose()?))
    }
}

impl Webhook {
    pub(crate) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        match self {
            Self::List { limit, common } => {
                let rows = pages(&common.connection.client()?, "/core/webhooks", &[], limit).await?;
                common.screen(out).many(&rows, COLUMNS)
            }
            Self::Get { id, common } => {
                let answer = common.connection.client()?.get(&format!("/core/webhooks/{id}"), &[]).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Create { endpoint, settings, common } => {
                let body = settings.fields()?.with_some("url", endpoint).into_value();
                let answer = common.connection.client()?.post("/core/webhooks", Some(&body)).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Update { id, endpoint, all_events, settings, common } => {
                let body = settings.fields()?.with_some("url", endpoint);
                let body = body.with_cleared("events", all_events, None::<bool>).some()?;
                let answer =
                    common.connection.client()?.patch(&format!("/core/webhooks/{id}"), &body).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Delete { id, common } => {
                common.connection.client()?.delete(&format!("/core/webhooks/{id}")).await?;
                common.screen(out).done(&format!("Webhook {id} is deleted."))
            }
            Self::Test { id, common } => {
                let client = common.connection.client()?;
                let answer = client.post(&format!("/core/webhooks/{id}/test"), None).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Deliveries { id, state, limit, common } => {
                let client = common.connection.client()?;
                let query: Vec<_> =
                    state.map(|state| ("state", state.as_str().to_owned())).into_iter().collect();
                let rows = pages(&client, &format!("/core/webhooks/{id}/deliveries"), &query, limit).await?;
                common.screen(out).many(&rows, DELIVERIES)
            }
            Self::Retry { id, delivery, common } => {
                let client = common.connection.client()?;
                let path = format!("/core/webhooks/{id}/deliveries/{delivery}/retry");
                let answer = client.post(&path, None).await?;
                common.screen(out).one(&answer.body)
            }
        }
    }
}
