//! Which API is asked, and with which credential.

use api::client::Client;
use model::{OrganizationId, Secret};

use crate::CliError;

/// The variable the credential is in; a flag would show it to everybody on the machine.
const KEY: &str = "TANDEM_API_KEY";

/// Where the API is.
#[derive(Debug, clap::Args)]
pub struct Connection {
    /// Address of the API. The credential is read from TANDEM_API_KEY.
    #[arg(long, env = "TANDEM_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The organization, which a personal access token (`pat_`) must name.
    #[arg(long, value_name = "ID")]
    org: Option<OrganizationId>,
}

impl Connection {
    /// A client for it.
    pub(crate) fn client(&self) -> Result<Client, CliError> {
        let key = std::env::var(KEY).ok().map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| {
            CliError::Usage(format!("{KEY} is not set: it must hold an ak_ key or a pat_ token"))
        })?;
        if !key.chars().all(|c| c.is_ascii_graphic()) {
            return Err(CliError::Usage(format!(
                "{KEY}: must be an ak_ key or a pat_ token; it holds other characters"
            )));
        }
        let client = Client::new(&self.url, Secret::new(key))?;
        Ok(match self.org {
            Some(organization) => client.in_organization(organization),
            None => client,
        })
    }
}
