//! `tandem number`.

use std::io::Write;

use model::{E164, TrunkId};

use crate::input::{Data, Fields, in_path, number};
use crate::show::{Column, pages};
use crate::{CliError, Common};

const COLUMNS: &[Column] = &[
    ("NUMBER", "/phone_number"),
    ("TRUNK", "/trunk_id"),
    ("INBOUND VERSION", "/inbound_agent_version_id"),
    ("OUTBOUND VERSION", "/outbound_agent_version_id"),
    ("SHAREABLE", "/outbound_shareable"),
];

/// Commands on phone numbers.
#[derive(Debug, clap::Subcommand)]
pub enum Number {
    /// Lists numbers, newest first.
    List {
        /// Part of the number.
        #[arg(long, value_name = "DIGITS")]
        number: Option<String>,
        /// Only those on this trunk.
        #[arg(long, value_name = "ID")]
        trunk: Option<TrunkId>,
        /// Most rows.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Shows one number.
    Get {
        #[arg(value_parser = number)]
        number: E164,
        #[command(flatten)]
        common: Common,
    },
    /// Puts a number on a trunk.
    Create {
        #[arg(value_parser = number, required_unless_present = "data")]
        number: Option<E164>,
        #[arg(long, value_name = "ID", required_unless_present = "data")]
        trunk: Option<TrunkId>,
        /// Other agents of the organization may use it as caller ID.
        #[arg(long)]
        shareable: bool,
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        common: Common,
    },
    /// Changes whether other agents may use the number as caller ID.
    Update {
        #[arg(value_parser = number)]
        number: E164,
        #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
        shareable: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Removes a number.
    Delete {
        #[arg(value_parser = number)]
        number: E164,
        #[command(flatten)]
        common: Common,
    },
}

impl Number {
    pub(crate) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        match self {
            Self::List { number, trunk, limit, common } => {
                let client = common.connection.client()?;
                let mut query = Vec::new();
                query.extend(number.map(|part| ("phone_number", part)));
                query.extend(trunk.map(|id| ("trunk_id", id.to_string())));
                let rows = pages(&client, "/core/phone-numbers", &query, limit).await?;
                common.screen(out).many(&rows, COLUMNS)
            }
            Self::Get { number, common } => {
                let path = format!("/core/phone-numbers/{}", in_path(&number));
                let answer = common.connection.client()?.get(&path, &[]).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Create { number, trunk, shareable, data, common } => {
                let body = data
                    .fields()?
                    .with_some("phone_number", number.map(|number| number.to_string()))
                    .with_some("trunk_id", trunk.map(|id| id.to_string()))
                    .with_some("outbound_shareable", Some(true).filter(|_| shareable));
                let client = common.connection.client()?;
                let answer = client.post("/core/phone-numbers", Some(&body.into_value())).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Update { number, shareable, common } => {
                let body = Fields::default().with("outbound_shareable", shareable).into_value();
                let path = format!("/core/phone-numbers/{}", in_path(&number));
                let answer = common.connection.client()?.patch(&path, &body).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Delete { number, common } => {
                let path = format!("/core/phone-numbers/{}", in_path(&number));
                common.connection.client()?.delete(&path).await?;
                common.screen(out).done(&format!("Number {number} is removed."))
            }
        }
    }
}
