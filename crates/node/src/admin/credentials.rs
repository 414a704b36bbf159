//! `tandem org|key|token`: organizations, and who may act in them.

use clap::{Args, Subcommand};
use model::{KeyId, Organization, OrganizationId, Scope, Timestamp};
use serde_json::{Value, json};
use store::{KeyInfo, OrganizationUpdate, Page, Precondition, Store, StoreError};

use super::{checked_name, no_org};
use crate::{Failure, answer};

/// Rows of the store read at once.
const PAGE: u32 = 100;

#[derive(Subcommand)]
pub(crate) enum Org {
    /// Makes an organization; prints its id.
    Create {
        name: String,
        #[arg(long)]
        json: bool,
    },
    /// Lists organizations, oldest first.
    List {
        #[arg(long)]
        json: bool,
    },
    /// Shows an organization and its rules.
    Get {
        id: OrganizationId,
        #[arg(long)]
        json: bool,
    },
    /// Changes an organization's rules; what is not given is kept.
    Update {
        #[arg(required_unless_present = "org")]
        id: Option<OrganizationId>,
        /// The same as ID.
        #[arg(long, value_name = "ID", conflicts_with = "id")]
        org: Option<OrganizationId>,
        #[command(flatten)]
        rules: Rules,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Rules {
    /// Address or CIDR prefix that may call its agents' SIP URIs; may be given several times. Empty: any.
    #[arg(long, value_name = "CIDR", alias = "sip-endpoint-allowed-addresses", value_delimiter = ',')]
    sip_endpoint_allowed_address: Option<Vec<String>>,
    /// Beginning of the numbers its agents may call, for example +1; may be given several times. Empty: any.
    #[arg(long, value_name = "PREFIX", alias = "allowed-destinations", value_delimiter = ',')]
    allowed_destination: Option<Vec<String>>,
    /// Calls out it may place in a day (UTC), or `none`.
    #[arg(long, value_name = "N", value_parser = daily)]
    daily_call_limit: Option<Daily>,
}

/// A daily limit, or none.
#[derive(Clone, Copy)]
struct Daily(Option<u32>);

fn daily(text: &str) -> Result<Daily, String> {
    if text == "none" {
        return Ok(Daily(None));
    }
    let limit = text.parse().ok().filter(|limit| *limit <= api::MAX_DAILY_CALLS);
    limit
        .map(|limit| Daily(Some(limit)))
        .ok_or_else(|| format!("must be none or a whole number from 0 to {}", api::MAX_DAILY_CALLS))
}

#[derive(Subcommand)]
pub(crate) enum Key {
    /// Makes an API key; prints it, once.
    Create {
        #[arg(long)]
        org: OrganizationId,
        #[arg(long, default_value = "key")]
        name: String,
        /// May be given several times; none means all scopes.
        #[arg(long = "scope")]
        scopes: Vec<Scope>,
        /// RFC 3339 time.
        #[arg(long)]
        expires: Option<Timestamp>,
        #[arg(long)]
        json: bool,
    },
    /// Lists an organization's API keys, newest first, without their secrets.
    List {
        #[arg(long)]
        org: OrganizationId,
        #[arg(long)]
        json: bool,
    },
    /// Revokes an API key, at once.
    Revoke {
        /// The part between `ak_` and the dot.
        id: KeyId,
    },
}

#[derive(Subcommand)]
pub(crate) enum Token {
    /// Makes a personal access token; prints it, once. The user belongs to the organizations named, and to no other.
    Create {
        #[arg(long)]
        user: String,
        #[arg(long, required = true)]
        org: Vec<OrganizationId>,
        #[arg(long)]
        json: bool,
    },
    /// Lists personal access tokens, newest first, without their secrets.
    List {
        #[arg(long)]
        json: bool,
    },
    /// Revokes a personal access token, at once.
    Revoke {
        /// The part between `pat_` and the dot.
        id: KeyId,
    },
}

pub(super) async fn org(store: &Store, command: Org) -> Result<(), Failure> {
    match command {
        Org::Create { name, json } => {
            let (made, _) = store.create_organization(&checked_name(&name)?).await?;
            if json { answer(api::organization_json(made)) } else { answer(made.id) }
        }
        Org::List { json } => {
            let all = store.organizations().await?;
            if json {
                return answer(Value::Array(all.into_iter().map(api::organization_json).collect()));
            }
            all.into_iter().try_for_each(|one| answer(format!("{}  {}", one.id, one.name)))
        }
        Org::Get { id, json } => {
            let found = store.organization(id).await.map_err(|e| no_org(e, id))?;
            show(found, json)
        }
        Org::Update { id, org, rules, json } => {
            let id = id.or(org).ok_or_else(|| Failure::usage("an organization's id is required"))?;
            let change = rules.change()?;
            let changed = store.update_organization(id, change, &Precondition::None).await;
            let (changed, _) = changed.map_err(|e| no_org(e, id))?;
            show(changed, json)
        }
    }
}

impl Rules {
    fn change(self) -> Result<OrganizationUpdate, Failure> {
        let trimmed = |list: Vec<String>| -> Vec<String> {
            list.iter().map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty()).collect()
        };
        let addresses = self.sip_endpoint_allowed_address.map(|list| {
            model::address::parse_address_ranges("--sip-endpoint-allowed-address", &trimmed(list))
        });
        let destinations = self.allowed_destination.map(|list| api::destinations(&trimmed(list)));
        let usage = |error: model::Invalid| Failure::usage(error.to_string());
        Ok(OrganizationUpdate {
            sip_endpoint_allowed_addresses: addresses.transpose().map_err(usage)?,
            allowed_destinations: destinations.transpose().map_err(usage)?,
            daily_call_limit: self.daily_call_limit.map(|limit| limit.0),
        })
    }
}

fn show(organization: Organization, json: bool) -> Result<(), Failure> {
    let id = organization.id;
    let shown = api::organization_json(organization);
    if json {
        return answer(shown);
    }
    for (name, value) in shown.as_object().into_iter().flatten().filter(|(name, _)| *name != "id") {
        answer(format!("{name}  {value}"))?;
    }
    answer(id)
}

pub(super) async fn key(store: &Store, command: Key) -> Result<(), Failure> {
    match command {
        Key::Create { org, name, scopes, expires, json } => {
            let scopes = if scopes.is_empty() { Scope::ALL.to_vec() } else { scopes };
            let made = store.create_key(org, &checked_name(&name)?, &scopes, expires).await;
            let made = made.map_err(|e| no_org(e, org))?;
            if !json {
                return answer(made.token.expose());
            }
            let scopes: Vec<&str> = scopes.iter().map(|s| s.as_str()).collect();
            answer(
                json!({"id": made.id, "organization_id": org, "name": name, "scopes": scopes, "expires_at": expires, "key": made.token.expose()}),
            )
        }
        Key::List { org, json } => {
            store.organization(org).await.map_err(|e| no_org(e, org))?;
            let mut keys: Vec<KeyInfo> = Vec::new();
            loop {
                let before = keys.last().map(|key| (key.created_at, Some(key.id.0)));
                let page = store.keys(org, Page { limit: PAGE, before }).await?;
                let last = page.len() < PAGE as usize;
                keys.extend(page);
                if last {
                    break;
                }
            }
            if json {
                return answer(Value::Array(keys.into_iter().map(api::key_json).collect()));
            }
            keys.iter().try_for_each(|key| answer(line(key, &key.name)))
        }
        Key::Revoke { id } => revoked(store.revoke_key(id).await, "key", id),
    }
}

pub(super) async fn token(store: &Store, command: Token) -> Result<(), Failure> {
    match command {
        Token::Create { user, org, json } => {
            let first = *org.first().ok_or_else(|| Failure::usage("--org is required"))?;
            let made = store.create_token(&user, &org, Scope::ALL, None).await;
            let made = made.map_err(|e| no_org(e, first))?;
            if !json {
                return answer(made.token.expose());
            }
            answer(json!({"id": made.id, "user": user, "organizations": org, "token": made.token.expose()}))
        }
        Token::List { json } => {
            let tokens = store.tokens().await?;
            if json {
                let shown = |(token, user): (KeyInfo, String)| {
                    let mut shown = api::key_json(token);
                    if let Some(fields) = shown.as_object_mut() {
                        fields.remove("name");
                        fields.insert("user".to_owned(), Value::from(user));
                    }
                    shown
                };
                return answer(Value::Array(tokens.into_iter().map(shown).collect()));
            }
            tokens.iter().try_for_each(|(token, user)| answer(line(token, user)))
        }
        Token::Revoke { id } => revoked(store.revoke_token(id).await, "token", id),
    }
}

/// A credential on one line: its id, its state, its last use, whose it is.
fn line(key: &KeyInfo, name: &str) -> String {
    let state = match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(at)) if at <= Timestamp::now() => format!("expired {at}"),
        (None, Some(at)) => format!("good until {at}"),
        (None, None) => "good".to_owned(),
    };
    let used = key.last_used_at.map_or_else(|| "never used".to_owned(), |at| format!("used {at}"));
    format!("{}  {state}  {used}  {name}", key.id)
}

fn revoked(done: Result<(), StoreError>, what: &str, id: KeyId) -> Result<(), Failure> {
    match done {
        Ok(()) => Ok(()),
        Err(StoreError::NotFound) => Err(Failure::new(format!("{id}: there is no such {what}"))),
        Err(other) => Err(other.into()),
    }
}
