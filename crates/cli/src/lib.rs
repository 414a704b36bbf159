//! The REST API from the shell: `tandem trunk|number|agent|call|routing|webhook`. Tables for people, `--json` for programs; nothing
//! but the API's client is used, so that what works here works for any client.

mod agent;
mod call;
mod call_trace;
mod connection;
mod error;
mod input;
mod number;
mod routing;
mod show;
mod trunk;
mod webhook;

use std::io::Write;

pub use connection::Connection;
pub use error::CliError;

use crate::show::Screen;

/// A command over the API.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Trunks: lines to carriers; also test, simulate, health and refused calls.
    #[command(subcommand)]
    Trunk(trunk::Trunk),
    /// Phone numbers.
    #[command(subcommand)]
    Number(number::Number),
    /// Agents, their versions and where they answer.
    #[command(subcommand)]
    Agent(agent::Agent),
    /// Calls: place, watch, look at, listen to, transfer and end them.
    #[command(subcommand)]
    Call(call::Call),
    /// Who answers the organization's numbers: rules or a webhook.
    #[command(subcommand)]
    Routing(routing::Routing),
    /// Where the organization hears of its calls.
    #[command(subcommand)]
    Webhook(webhook::Webhook),
}

impl Command {
    /// Carries the command out; the answer goes to `out`.
    pub async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        match self {
            Self::Trunk(command) => command.run(out).await,
            Self::Number(command) => command.run(out).await,
            Self::Agent(command) => command.run(out).await,
            Self::Call(command) => command.run(out).await,
            Self::Routing(command) => command.run(out).await,
            Self::Webhook(command) => command.run(out).await,
        }
    }
}

/// What every command takes.
#[derive(Debug, clap::Args)]
pub struct Common {
    #[command(flatten)]
    connection: Connection,
    /// JSON as the API answers it, instead of a table.
    #[arg(long)]
    json: bool,
}

impl Common {
    fn screen<'a>(&self, out: &'a mut (dyn Write + Send)) -> Screen<'a> {
        Screen::new(out, self.json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(subcommand)]
        _command: Command,
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Line as clap::CommandFactory>::command().debug_assert();
    }
}
