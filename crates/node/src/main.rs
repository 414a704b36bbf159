//! `tandem`: one binary that runs a node, administers its store and shows what it does.

mod admin;
mod demo;
mod directory_feed;
mod health;
mod node;
mod records;
mod serve;
mod settings;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Memory of a peak of calls goes back to the system once they have ended.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit status of settings that cannot be used, as of a wrong command line.
const USAGE: u8 = 2;

#[derive(Parser)]
#[command(name = "tandem", version, about = "Your voice agents on the phone, over your own carrier.")]
struct Cli {
    /// Settings file; ./tandem.toml when there is one.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// A setting, for example --set sip.udp=0.0.0.0:5070; over environment and file. May be given several times.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a node until SIGTERM.
    Serve,
    /// Places three real calls on loopback, with audio both ways, and shows what happened.
    Demo {
        /// Ends after the calls; status 1 when one of them failed.
        #[arg(long)]
        once: bool,
    },
    /// Organizations.
    #[command(subcommand)]
    Org(admin::Org),
    /// API keys.
    #[command(subcommand)]
    Key(admin::Key),
    /// Personal access tokens.
    #[command(subcommand)]
    Token(admin::Token),
    /// The operator's own trunks.
    #[command(subcommand)]
    ManagedTrunk(admin::ManagedTrunk),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The demonstration tells its own story.
    logging(if matches!(cli.command, Command::Demo { .. }) { "warn" } else { "info" });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the runtime does not start: {error}"), 1),
    };
    let settings = || settings::load(cli.config.as_deref(), &cli.set);
    let done = match cli.command {
        Command::Demo { once } => runtime.block_on(demo::run(once)),
        Command::Serve => match settings() {
            Ok(settings) => runtime.block_on(serve::run(settings)),
            Err(bad) => return fail(&bad.0, USAGE),
        },
        Command::Org(_) | Command::Key(_) | Command::Token(_) | Command::ManagedTrunk(_) => {
            match settings() {
                Ok(settings) => runtime.block_on(admin::run(&settings, cli.command.into())),
                Err(bad) => return fail(&bad.0, USAGE),
            }
        }
    };
    match done {
        Ok(code) => code,
        Err(failure) => fail(&failure.message, failure.status),
    }
}

impl From<Command> for admin::Command {
    fn from(command: Command) -> Self {
        match command {
            Command::Org(org) => Self::Org(org),
            Command::Key(key) => Self::Key(key),
            Command::Token(token) => Self::Token(token),
            Command::ManagedTrunk(trunk) => Self::ManagedTrunk(trunk),
            Command::Serve | Command::Demo { .. } => Self::None,
        }
    }
}

/// Why a command ended, in one line.
#[derive(Debug)]
struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: 1 }
    }

    fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: USAGE }
    }
}

impl From<store::StoreError> for Failure {
    fn from(error: store::StoreError) -> Self {
        Self::new(format!("the store: {error}"))
    }
}

#[allow(clippy::print_stderr, reason = "what a person reads when a command fails")]
fn fail(message: &str, status: u8) -> ExitCode {
    eprintln!("tandem: {message}");
    ExitCode::from(status)
}

/// Logs go to standard error, filtered by RUST_LOG.
fn logging(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| default.into());
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .with_target(false)
        .init();
}
