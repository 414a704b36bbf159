//! `tandem trunk`.

use std::io::Write;

use model::{MediaEncryption, Transport, TrunkId};
use serde_json::Value;

use crate::input::{Data, Fields, password};
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
        #[arg(long, required_unless_present = "data")]
        name: Option<String>,
        #[command(flatten)]
        config: Box<Config>,
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        common: Common,
    },
    /// Changes a trunk. Flags of one side (inbound, outbound) replace that whole side; the other is kept.
    Update {
        id: TrunkId,
        #[arg(long)]
        name: Option<String>,
        /// Drops the inbound config: the defaults apply.
        #[arg(long, conflicts_with_all = INBOUND)]
        no_inbound: bool,
        /// Drops the outbound config: no calls out.
        #[arg(long, conflicts_with_all = OUTBOUND)]
        no_outbound: bool,
        /// Lifts max_concurrent_calls and max_calls_per_second.
        #[arg(long, conflicts_with_all = ["max_concurrent_calls", "max_calls_per_second"])]
        no_limits: bool,
        #[command(flatten)]
        config: Box<Config>,
        #[command(flatten)]
        data: Data,
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
    /// What the last calls and the last test say of the trunk.
    Health {
        id: TrunkId,
        #[command(flatten)]
        common: Common,
    },
    /// Asks the carrier whether it is there (OPTIONS); never dials.
    Test {
        id: TrunkId,
        #[command(flatten)]
        common: Common,
    },
    /// Tells what a call would get, and which rule decides, without a call.
    Simulate {
        id: TrunkId,
        /// The address it comes from.
        #[arg(long, value_name = "ADDRESS[:PORT]")]
        source: String,
        /// The caller.
        #[arg(long, default_value = "anonymous")]
        from: String,
        /// The number dialled, or an agent's id.
        #[arg(long)]
        to: String,
        #[command(flatten)]
        common: Common,
    },
}

/// Flags of the inbound side.
const INBOUND: [&str; 6] = [
    "allow",
    "noise_cancellation",
    "inbound_encryption",
    "inbound_username",
    "inbound_password",
    "media_address",
];
/// Flags of the outbound side.
const OUTBOUND: [&str; 8] = [
    "address",
    "username",
    "password",
    "transport",
    "outbound_encryption",
    "register",
    "fallback_address",
    "header",
];

/// Both sides of a trunk, and its limits.
#[derive(Debug, Default, clap::Args)]
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
    /// The carrier's INVITEs are challenged for this user.
    #[arg(long, value_name = "USER", requires = "inbound_password")]
    inbound_username: Option<String>,
    /// Its password; `-` reads it from standard input.
    #[arg(long, value_name = "PASSWORD", requires = "inbound_username")]
    inbound_password: Option<String>,
    /// Address or CIDR prefix that may send RTP besides the signalled one; may be given several times.
    #[arg(long, value_name = "CIDR")]
    media_address: Vec<String>,
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
    /// Keep a registration with the carrier alive.
    #[arg(long, requires = "address")]
    register: bool,
    /// A further address of the carrier, tried after the first; may be given several times.
    #[arg(long, value_name = "HOST[:PORT]", requires = "address")]
    fallback_address: Vec<String>,
    /// A header added to each INVITE; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", requires = "address", value_parser = header)]
    header: Vec<(String, String)>,
    /// Calls at once, both directions together.
    #[arg(long, value_name = "N")]
    max_concurrent_calls: Option<u32>,
    /// New calls a second, both directions together.
    #[arg(long, value_name = "N")]
    max_calls_per_second: Option<u32>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "must be NAME=VALUE".to_owned())?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

impl Config {
    fn inbound(&mut self) -> Result<Option<Value>, CliError> {
        let fields = Fields::default()
            .with_some("allowed_addresses", some(std::mem::take(&mut self.allow)))
            .with_some("enable_noise_cancellation", Some(true).filter(|_| self.noise_cancellation))
            .with_some("media_encryption", self.inbound_encryption.map(MediaEncryption::as_str))
            .with_some("auth_username", self.inbound_username.take())
            .with_some("auth_password", self.inbound_password.take().map(password).transpose()?)
            .with_some("media_addresses", some(std::mem::take(&mut self.media_address)));
        Ok((!fields.is_empty()).then(|| fields.into_value()))
    }

    fn outbound(&mut self) -> Result<Option<Value>, CliError> {
        let Some(address) = self.address.take() else { return Ok(None) };
        let fields = Fields::default()
            .with("address", address)
            .with_some("auth_username", self.username.take())
            .with_some("auth_password", self.password.take().map(password).transpose()?)
            .with_some("transport", self.transport.map(Transport::as_str))
            .with_some("media_encryption", self.outbound_encryption.map(MediaEncryption::as_str))
            .with_some("register", Some(true).filter(|_| self.register))
            .with_some("fallback_addresses", some(std::mem::take(&mut self.fallback_address)))
            .with_some("headers", self.headers());
        Ok(Some(fields.into_value()))
    }
}

impl Config {
    fn headers(&mut self) -> Option<Value> {
        let headers = some(std::mem::take(&mut self.header))?;
        Some(
            headers
                .into_iter()
                .fold(Fields::default(), |all, (name, value)| all.with(&name, value))
                .into_value(),
        )
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
            Self::Create { name, mut config, data, common } => {
                let client = common.connection.client()?;
                let body = data
                    .fields()?
                    .with_some("name", name)
                    .with_some("inbound_config", config.inbound()?)
                    .with_some("outbound_config", config.outbound()?)
                    .with_some("max_concurrent_calls", config.max_concurrent_calls)
                    .with_some("max_calls_per_second", config.max_calls_per_second);
                let answer = client.post("/core/trunks", Some(&body.into_value())).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Update { id, name, no_inbound, no_outbound, no_limits, mut config, data, common } => {
                let client = common.connection.client()?;
                let body = data
                    .fields()?
                    .with_some("name", name)
                    .with_cleared("inbound_config", no_inbound, config.inbound()?)
                    .with_cleared("outbound_config", no_outbound, config.outbound()?)
                    .with_cleared("max_concurrent_calls", no_limits, config.max_concurrent_calls)
                    .with_cleared("max_calls_per_second", no_limits, config.max_calls_per_second);
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
            Self::Test { id, common } => {
                let client = common.connection.client()?;
                let answer = client.post(&format!("/core/trunks/{id}/test"), None).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Simulate { id, source, from, to, common } => {
                let body =
                    Fields::default().with("source", source).with("from", from).with("to", to).into_value();
                let client = common.connection.client()?;
                let answer = client.post(&format!("/core/trunks/{id}/simulate"), Some(&body)).await?;
                common.screen(out).one(&answer.body)
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

    #[test]
    fn a_side_without_flags_is_left_out() {
        let mut config = Config::default();
        assert_eq!(config.inbound().unwrap(), None);
        assert_eq!(config.outbound().unwrap(), None);
        let mut config = Config { allow: vec!["10.0.0.0/8".to_owned()], ..Config::default() };
        assert_eq!(config.inbound().unwrap(), Some(json!({"allowed_addresses": ["10.0.0.0/8"]})));
    }
}
