//! The operator's commands. They work on the store directly, whether or not a node runs.

mod credentials;

use std::io::Read as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use model::directory::DirectoryChange;
use model::{InboundConfig, OrganizationId, OutboundConfig, Secret, Trunk, TrunkId};
use serde_json::Value;
use store::{NewNumber, NewTrunk, Page, Precondition, Store, TrunkFilter, TrunkUpdate};

use crate::node::open_store;
use crate::settings::Settings;
use crate::{Failure, answer};

/// Most bytes read of standard input.
const MAX_STDIN: u64 = 4_096;

pub(crate) use credentials::{Key, Org, Token};

pub(crate) enum Command {
    Org(Org),
    Key(Key),
    Token(Token),
    ManagedTrunk(Box<ManagedTrunk>),
}

#[derive(Subcommand)]
pub(crate) enum ManagedTrunk {
    /// Makes a managed trunk.
    Create {
        #[arg(long)]
        org: OrganizationId,
        #[arg(long)]
        name: String,
        /// The operator's account: `managed_account_id`.
        #[arg(long)]
        account: String,
        #[command(flatten)]
        config: Box<Config>,
        #[arg(long)]
        json: bool,
    },
    /// Lists an organization's managed trunks.
    List {
        #[arg(long)]
        org: OrganizationId,
        #[arg(long)]
        json: bool,
    },
    /// Changes a managed trunk; what is not given is kept.
    Update {
        id: TrunkId,
        #[arg(long)]
        org: OrganizationId,
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        config: Box<Config>,
        #[arg(long)]
        json: bool,
    },
    /// Deletes a managed trunk.
    Delete {
        id: TrunkId,
        #[arg(long)]
        org: OrganizationId,
    },
    /// Its phone numbers.
    #[command(subcommand)]
    Number(Number),
}

#[derive(Subcommand)]
pub(crate) enum Number {
    /// Adds a number.
    Add {
        number: String,
        #[arg(long)]
        org: OrganizationId,
        #[arg(long)]
        trunk: TrunkId,
        #[arg(long)]
        outbound_shareable: bool,
    },
    /// Removes a number.
    Remove {
        number: String,
        #[arg(long)]
        org: OrganizationId,
    },
}

#[derive(Args)]
pub(crate) struct Config {
    #[arg(long)]
    inbound_enable_noise_cancellation: Option<bool>,
    #[arg(long)]
    inbound_media_encryption: Option<String>,
    /// Address or CIDR prefix; may be given several times.
    #[arg(long)]
    inbound_allowed_address: Vec<String>,
    /// Address or CIDR prefix that may send RTP besides the signalled one; may be given several times.
    #[arg(long)]
    inbound_media_address: Vec<String>,
    #[arg(long)]
    outbound_address: Option<String>,
    #[arg(long)]
    outbound_auth_username: Option<String>,
    /// `-` reads standard input.
    #[arg(long)]
    outbound_auth_password: Option<String>,
    #[arg(long)]
    outbound_transport: Option<String>,
    #[arg(long)]
    outbound_media_encryption: Option<String>,
    /// Keep a registration with the carrier alive.
    #[arg(long)]
    outbound_register: Option<bool>,
    /// A further address of the carrier, tried after the first; may be given several times.
    #[arg(long)]
    outbound_fallback_address: Vec<String>,
    /// Calls at once, both directions together.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_concurrent_calls: Option<u32>,
    /// New calls a second, both directions together.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_calls_per_second: Option<u32>,
}

impl Config {
    /// The inbound config with what the flags say of it; `None` when they say nothing.
    fn inbound(&self, now: Option<InboundConfig>) -> Result<Option<InboundConfig>, Failure> {
        let encryption = parse("--inbound-media-encryption", self.inbound_media_encryption.as_deref())?;
        let allowed = &self.inbound_allowed_address;
        let media = &self.inbound_media_address;
        let silent = encryption.is_none() && allowed.is_empty() && media.is_empty();
        if self.inbound_enable_noise_cancellation.is_none() && silent {
            return Ok(None);
        }
        let mut config = now.unwrap_or_default();
        if let Some(enable) = self.inbound_enable_noise_cancellation {
            config.enable_noise_cancellation = enable;
        }
        if let Some(encryption) = encryption {
            config.media_encryption = encryption;
        }
        if !allowed.is_empty() {
            let ranges = model::address::parse_address_ranges("--inbound-allowed-address", allowed);
            config.allowed_addresses = ranges.map_err(|e| Failure::usage(e.to_string()))?;
        }
        if !media.is_empty() {
            let ranges = model::address::parse_address_ranges("--inbound-media-address", media);
            config.media_addresses = ranges.map_err(|e| Failure::usage(e.to_string()))?;
        }
        Ok(Some(config))
    }

    /// The outbound config with what the flags say of it; `None` when they say nothing.
    fn outbound(&self, now: Option<OutboundConfig>) -> Result<Option<OutboundConfig>, Failure> {
        let address = parse("--outbound-address", self.outbound_address.as_deref())?;
        let transport = parse("--outbound-transport", self.outbound_transport.as_deref())?;
        let encryption = parse("--outbound-media-encryption", self.outbound_media_encryption.as_deref())?;
        let fallbacks = self.outbound_fallback_address.iter().map(|address| {
            let read = parse("--outbound-fallback-address", Some(address))?;
            read.ok_or_else(|| Failure::usage("--outbound-fallback-address must not be empty"))
        });
        let fallbacks: Vec<_> = fallbacks.collect::<Result<_, Failure>>()?;
        if fallbacks.len() > model::trunk::MAX_FALLBACK_ADDRESSES {
            let most = model::trunk::MAX_FALLBACK_ADDRESSES;
            return Err(Failure::usage(format!("--outbound-fallback-address: at most {most} are allowed")));
        }
        let username = self.outbound_auth_username.clone();
        let password = self.password()?.map(Secret::new);
        if address.is_none()
            && transport.is_none()
            && encryption.is_none()
            && username.is_none()
            && password.is_none()
            && self.outbound_register.is_none()
            && fallbacks.is_empty()
        {
            return Ok(None);
        }
        let missing =
            |flag: &str| Failure::usage(format!("{flag} is required: the trunk has no outbound config yet"));
        let config = match now {
            Some(now) => OutboundConfig {
                address: address.unwrap_or(now.address),
                auth_username: username.unwrap_or(now.auth_username),
                auth_password: password.unwrap_or(now.auth_password),
                transport: transport.unwrap_or(now.transport),
                media_encryption: encryption.unwrap_or(now.media_encryption),
                register: self.outbound_register.unwrap_or(now.register),
                fallback_addresses: if fallbacks.is_empty() { now.fallback_addresses } else { fallbacks },
                headers: now.headers,
                dtmf_tones: now.dtmf_tones,
            },
            None => OutboundConfig {
                address: address.ok_or_else(|| missing("--outbound-address"))?,
                auth_username: username.ok_or_else(|| missing("--outbound-auth-username"))?,
                auth_password: password.ok_or_else(|| missing("--outbound-auth-password"))?,
                transport: transport.unwrap_or_default(),
                media_encryption: encryption.unwrap_or_default(),
                register: self.outbound_register.unwrap_or(false),
                fallback_addresses: fallbacks,
                headers: Vec::new(),
                dtmf_tones: false,
            },
        };
        for (flag, value) in [
            ("--outbound-auth-username", config.auth_username.as_str()),
            ("--outbound-auth-password", config.auth_password.expose()),
        ] {
            model::trunk::check_credential(flag, value).map_err(|e| Failure::usage(e.to_string()))?;
        }
        Ok(Some(config))
    }

    /// Whether an outbound config changes and its password stays.
    fn keeps_the_password(&self) -> bool {
        self.outbound_auth_password.is_none()
            && (self.outbound_address.is_some()
                || self.outbound_auth_username.is_some()
                || self.outbound_transport.is_some()
                || self.outbound_media_encryption.is_some()
                || self.outbound_register.is_some()
                || !self.outbound_fallback_address.is_empty())
    }

    fn password(&self) -> Result<Option<String>, Failure> {
        match self.outbound_auth_password.as_deref() {
            Some("-") => {
                let mut password = String::new();
                let read = std::io::stdin().take(MAX_STDIN).read_to_string(&mut password);
                read.map_err(|e| Failure::usage(format!("standard input: {e}")))?;
                Ok(Some(password.trim_end_matches(['\r', '\n']).to_owned()))
            }
            given => Ok(given.map(str::to_owned)),
        }
    }
}

fn parse<T: std::str::FromStr<Err = String>>(flag: &str, text: Option<&str>) -> Result<Option<T>, Failure> {
    text.map(|text| text.parse().map_err(|rule: String| Failure::usage(format!("{flag} {text}: {rule}"))))
        .transpose()
}

pub(super) fn checked_name(name: &str) -> Result<String, Failure> {
    model::trunk::parse_name(name).map_err(|e| Failure::usage(format!("--{e}")))
}

fn account_id(text: &str) -> Result<String, Failure> {
    let text = text.trim();
    let sound = (1..=255).contains(&text.len()) && !text.chars().any(char::is_control);
    if sound {
        Ok(text.to_owned())
    } else {
        Err(Failure::usage("--account: must be 1 to 255 bytes without control characters"))
    }
}

pub(crate) async fn run(settings: &Settings, command: Command) -> Result<ExitCode, Failure> {
    let store = open_store(settings).await?;
    match command {
        Command::Org(command) => credentials::org(&store, command).await?,
        Command::Key(command) => credentials::key(&store, command).await?,
        Command::Token(command) => credentials::token(&store, command).await?,
        Command::ManagedTrunk(command) => managed_trunk(&store, *command).await?,
    }
    store.close().await;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn no_org(error: store::StoreError, org: OrganizationId) -> Failure {
    match error {
        store::StoreError::NotFound => Failure::new(format!("--org {org}: there is no such organization")),
        other => other.into(),
    }
}

async fn managed_trunk(store: &Store, command: ManagedTrunk) -> Result<(), Failure> {
    match command {
        ManagedTrunk::Create { org, name, account, config, json } => {
            store.organization(org).await.map_err(|e| no_org(e, org))?;
            let new = NewTrunk {
                name: checked_name(&name)?,
                managed_account_id: Some(account_id(&account)?),
                inbound_config: config.inbound(None)?,
                outbound_config: config.outbound(None)?,
                max_concurrent_calls: config.max_concurrent_calls,
                max_calls_per_second: config.max_calls_per_second,
            };
            let (trunk, _) = store.create_trunk(org, new).await?;
            if json { answer(api::trunk_json(trunk))? } else { answer(trunk.id)? }
        }
        ManagedTrunk::List { org, json } => {
            store.organization(org).await.map_err(|e| no_org(e, org))?;
            let mut managed = Vec::new();
            let mut before = None;
            loop {
                let page = store.trunks(org, TrunkFilter::default(), Page { limit: 100, before }).await?;
                before = page.last().map(|t| (t.created_at, Some(t.id.0)));
                let last = page.len() < 100;
                managed.extend(page.into_iter().filter(Trunk::is_managed));
                if last {
                    break;
                }
            }
            if json {
                answer(Value::Array(managed.into_iter().map(api::trunk_json).collect()))?;
            } else {
                for trunk in managed {
                    answer(format!(
                        "{}  {}  {}",
                        trunk.id,
                        trunk.managed_account_id.unwrap_or_default(),
                        trunk.name
                    ))?;
                }
            }
        }
        ManagedTrunk::Update { id, org, name, config, json } => {
            let mut now = require_managed(store, org, id).await?;
            if config.keeps_the_password()
                && let Some(outbound) = &mut now.outbound_config
            {
                outbound.auth_password = open_password(store, id).await?;
            }
            let change = TrunkUpdate {
                name: name.as_deref().map(checked_name).transpose()?,
                inbound_config: config.inbound(now.inbound_config)?.map(Some),
                outbound_config: config.outbound(now.outbound_config)?.map(Some),
                max_concurrent_calls: config.max_concurrent_calls.map(Some),
                max_calls_per_second: config.max_calls_per_second.map(Some),
            };
            let (trunk, _) = store.update_trunk(org, id, change, true, &Precondition::None).await?;
            if json { answer(api::trunk_json(trunk))? } else { answer(trunk.id)? }
        }
        ManagedTrunk::Delete { id, org } => {
            require_managed(store, org, id).await?;
            store.delete_trunk(org, id, true, &Precondition::None).await?;
        }
        ManagedTrunk::Number(Number::Add { number, org, trunk, outbound_shareable }) => {
            require_managed(store, org, trunk).await?;
            let phone_number =
                parse("number", Some(&number))?.ok_or_else(|| Failure::usage("a number is required"))?;
            let new = NewNumber { phone_number, trunk_id: trunk, outbound_shareable, allow_managed: true };
            let (made, _) = store.create_number(org, new).await?;
            answer(made.phone_number)?;
        }
        ManagedTrunk::Number(Number::Remove { number, org }) => {
            let key =
                parse("number", Some(&number))?.ok_or_else(|| Failure::usage("a number is required"))?;
            let known = store.number(org, &key).await?;
            require_managed(store, org, known.trunk_id).await?;
            store.delete_number(org, &key, true, &Precondition::None).await?;
        }
    }
    Ok(())
}

/// The carrier's password as the data plane gets it; everywhere else it stays sealed.
async fn open_password(store: &Store, id: TrunkId) -> Result<Secret, Failure> {
    let (_, directory) = store.directory().await?;
    let open = directory.into_iter().find_map(|change| match change {
        DirectoryChange::Trunk(key, Some(trunk)) if key == id => trunk.outbound_config.clone(),
        _ => None,
    });
    let problem =
        "--outbound-auth-password is required: the one on record does not open under secrets.key_file";
    open.map(|config| config.auth_password).ok_or_else(|| Failure::new(problem))
}

async fn require_managed(store: &Store, org: OrganizationId, id: TrunkId) -> Result<Trunk, Failure> {
    match store.trunk(org, id).await {
        Ok(trunk) if trunk.is_managed() => Ok(trunk),
        Ok(_) => Err(Failure::new(format!("trunk {id} is the customer's own; it is changed over the API"))),
        Err(store::StoreError::NotFound) => {
            Err(Failure::new(format!("organization {org} has no trunk {id}")))
        }
        Err(other) => Err(other.into()),
    }
}
