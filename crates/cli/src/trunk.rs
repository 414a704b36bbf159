//! `tandem trunk`.

use std::io::Write;

use model::{MediaEncryption, Transport, TrunkId};
use serde_json::Value;

use crate::input::{Fields, password};
use crate::show::{Column, pages};
use crate::{CliError, Common};

const COLUMNS: &[Column] = &[
    ("ID", "/id"),
    ("NAME", "/name"),
    ("MANAGED", "/managed_account_id"),
    ("CARRIER", "/outbound_config/address"),
    ("ALLOWED", "/inbound_config/allowed_addresses"),
];
const DECISIONS: &[Column] = &[
    ("AT", "/at"),
    ("STATUS", "/status"),
    ("REASON", "/reason"),
    ("SOURCE", "/source"),
    ("FROM", "/from"),
    ("TO", "/to"),
    ("ADVICE", "/advice"),
];

/// Commands on trunks.
#[derive(Debug, clap::Subcommand)]
pub enum Trunk {
    /// Lists trunks, newest first.
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
    /// Shows one trunk.
    Get {
        id: TrunkId,
        #[command(flatten)]
        common: Common,
    },
    /// Makes a customer-owned trunk.
    Create {
        #[arg(long)]
        name: String,
        #[command(flatten)]
        config: Box<Config>,
        #[command(flatten)]
        common: Common,
    },
    /// Changes a trunk. Flags of one side (inbound, outbound) replace that whole side; the other is kept.
    Update {
        id: TrunkId,
        #[arg(long)]
        name: Option<String>,
        /// Drops the inbound config: the defaults apply.
        #[arg(long, conflicts_with_all = ["allow", "noise_cancellation", "inbound_encryption"])]
        no_inbound: bool,
        /// Drops the outbound config: no calls out.
        #[arg(long, conflicts_with_all = ["address", "username", "password", "transport", "outbound_encryption"])]
        no_outbound: bool,
        #[command(flatten)]
        config: Box<Config>,
        #[command(flatten)]
        common: Common,
    },
    /// Deletes a trunk.
    Delete {
        id: TrunkId,
        #[command(flatten)]
        common: Common,
    },
    /// Refused and failed calls, newest first, with what to change.
    Decisions {
        id: TrunkId,
        /// Most rows.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        common: Common,
    },
    /// What the last calls say of the trunk.
    Health {
        id: TrunkId,
        #[command(flatten)]
        common: Common,
    },
}

/// Both sides of a trunk.
#[derive(Debug, clap::Args)]
pub struct Config {
    /// Source address or CIDR prefix that may send calls; may be given several times.
    #[arg(long, value_name = "CIDR")]
    allow: Vec<String>,
    /// Apply noise cancellation to the caller's audio.
    #[arg(long)]
    noise_cancellation: bool,
    /// Media encryption of inbound calls.
    #[arg(long, value_name = "POLICY")]
    inbound_encryption: Option<MediaEncryption>,
    /// Carrier's host, with an optional port.
    #[arg(long, value_name = "HOST[:PORT]", requires = "username", requires = "password")]
    address: Option<String>,
    /// Digest user name.
    #[arg(long, requires = "address")]
    username: Option<String>,
    /// Digest password; `-` reads it from standard input, out of sight of other users.
    #[arg(long, requires = "address")]
    password: Option<String>,
    /// Transport towards the carrier: SIP_TRANSPORT_UDP, SIP_TRANSPORT_TCP or SIP_TRANSPORT_TLS.
    #[arg(long, requires = "address")]
    transport: Option<Transport>,
    /// Media encryption of outbound calls.
    #[arg(long, value_name = "POLICY", requires = "address")]
    outbound_encryption: Option<MediaEncryption>,
}

impl Config {
    fn inbound(&self) -> Option<Value> {
        let fields = Fields::default()
            .with_some("allowed_addresses", Some(self.allow.clone()).filter(|list| !list.is_empty()))
            .with_some("enable_noise_cancellation", Some(true).filter(|_| self.noise_cancellation))
            .with_some("media_encryption", self.inbound_encryption.map(MediaEncryption::as_str));
        (!fields.is_empty()).then(|| fields.into_value())
    }

    fn outbound(&mut self) -> Result<Option<Value>, CliError> {
        let Some(address) = self.address.take() else { return Ok(None) };
        let fields = Fields::default()
            .with("address", address)
            .with_some("auth_username", self.username.take())
            .with_some("auth_password", self.password.take().map(password).transpose()?)
            .with_some("transport", self.transport.map(Transport::as_str))
            .with_some("media_encryption", self.outbound_encryption.map(MediaEncryption::as_str));
        Ok(Some(fields.into_value()))
    }
}

impl Trunk {
    pub(crate) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        match self {
            Self::List { name, limit, common } => {
                let query: Vec<_> = name.into_iter().map(|name| ("name", name)).collect();
                let rows = pages(&common.connection.client()?, "/core/trunks", &query, limit).await?;
                common.screen(out).many(&rows, COLUMNS)
            }
            Self::Get { id, common } => {
                let answer = common.connection.client()?.get(&format!("/core/trunks/{id}"), &[]).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Create { name, mut config, common } => {
                let client = common.connection.client()?;
                let body = Fields::default()
                    .with("name", name)
                    .with_some("inbound_config", config.inbound())
                    .with_some("outbound_config", config.outbound()?);
                let answer = client.post("/core/trunks", Some(&body.into_value())).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Update { id, name, no_inbound, no_outbound, mut config, common } => {
                let client = common.connection.client()?;
                let cleared =
                    |clear: bool, given: Option<Value>| if clear { Some(Value::Null) } else { given };
                let body = Fields::default()
                    .with_some("name", name)
                    .with_some("inbound_config", cleared(no_inbound, config.inbound()))
                    .with_some("outbound_config", cleared(no_outbound, config.outbound()?));
                let answer = client.put(&format!("/core/trunks/{id}"), &body.some()?).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Delete { id, common } => {
                common.connection.client()?.delete(&format!("/core/trunks/{id}")).await?;
                common.screen(out).done(&format!("Trunk {id} is deleted."))
            }
            Self::Decisions { id, limit, common } => {
                let client = common.connection.client()?;
                let rows = pages(&client, &format!("/core/trunks/{id}/decisions"), &[], limit).await?;
                common.screen(out).many(&rows, DECISIONS)
            }
            Self::Health { id, common } => {
                let answer =
                    common.connection.client()?.get(&format!("/core/trunks/{id}/health"), &[]).await?;
                common.screen(out).one(&answer.body)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config() -> Config {
        Config {
            allow: Vec::new(),
            noise_cancellation: false,
            inbound_encryption: None,
            address: None,
            username: None,
            password: None,
            transport: None,
            outbound_encryption: None,
        }
    }

    #[test]
    fn a_side_without_flags_is_left_out() {
        assert_eq!(config().inbound(), None);
        assert_eq!(config().outbound().unwrap(), None);
        let inbound = Config { allow: vec!["10.0.0.0/8".to_owned()], ..config() }.inbound();
        assert_eq!(inbound, Some(json!({"allowed_addresses": ["10.0.0.0/8"]})));
    }
}
