//! `tandem`: one binary that runs a node, administers its store and shows what it does.

mod admin;
mod calls_out;
mod demo;
mod directory_feed;
mod doctor;
mod health;
mod lock;
mod logging;
mod node;
mod records;
mod retention;
mod serve;
mod settings;
mod threads;
mod webhooks;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::settings::{BadSetting, Flags, Settings};

/// Memory of a peak of calls goes back to the system once they have ended.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit status of settings that cannot be used, as of a wrong command line.
const USAGE: u8 = 2;

/// What comes first, in the order a person does it.
const GUIDE: &str = "\
To begin:
  tandem demo                            three real calls on this machine, no set-up
  tandem serve                           a node; on an empty store it prints an API key once
  export TANDEM_API_KEY=ak_…             what the commands below ask the API with (TANDEM_URL: another node)
  tandem trunk create --name Carrier --allow 203.0.113.0/24 --address sip.carrier.example --username me --password -
  tandem number create +14155550100 --trunk TRUNK
  tandem agent create --name Echo --agent-config '{\"runtime\": {\"type\": \"echo\"}}'
  tandem agent publish AGENT --number +14155550100
  tandem agent deploy AGENT              prints the SIP URI to dial
  tandem call place --agent AGENT --to +14155550199
  tandem call list; tandem trunk decisions TRUNK; tandem trunk simulate TRUNK --source 203.0.113.7 --to +14155550100
  source <(tandem completions bash)

Exit status: 0 done, 1 refused or failed, 2 a wrong command line or setting, 4 a credential that does not suffice.";

#[derive(Parser)]
#[command(name = "tandem", version, about = "Your voice agents on the phone, over your own carrier.", after_help = GUIDE)]
struct Cli {
    /// Settings file; ./tandem.toml when there is one.
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Short for --set data_dir=PATH.
    #[arg(long, global = true, value_name = "PATH")]
    data_dir: Option<String>,
    /// A setting, for example --set sip.udp=0.0.0.0:5070; over environment and file. May be given several times.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a node until SIGTERM.
    #[command(after_help = settings::help())]
    Serve,
    /// Places three real calls on loopback, with audio both ways, and shows what happened.
    Demo(demo::Options),
    /// Organizations and their rules (on the store, whether or not a node runs).
    #[command(subcommand)]
    Org(admin::Org),
    /// API keys (on the store).
    #[command(subcommand)]
    Key(admin::Key),
    /// Personal access tokens (on the store).
    #[command(subcommand)]
    Token(admin::Token),
    /// The operator's own trunks (on the store).
    #[command(subcommand)]
    ManagedTrunk(admin::ManagedTrunk),
    /// Checks what a node needs, and says what to change.
    Doctor {
        /// JSON instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Prints what a shell needs to complete these commands.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// The REST API from the shell.
    #[command(flatten)]
    Api(cli::Command),
}

fn main() -> ExitCode {
    let Cli { config, data_dir, mut set, command } = Cli::parse();
    set.extend(data_dir.map(|path| format!("data_dir={path}")));
    // Only a node has a story of its own to tell; what other commands have to say is their answer.
    logging::start(if matches!(command, Command::Serve) { "info" } else { "warn" });
    let runtime = match threads::runtime("tandem") {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::new(format!("the runtime does not start: {error}"))),
    };
    let flags = Flags { config, set };
    match runtime.block_on(run(command, flags)) {
        Ok(code) => code,
        Err(failure) => fail(&failure),
    }
}

async fn run(command: Command, flags: Flags) -> Result<ExitCode, Failure> {
    let settings = || -> Result<Settings, Failure> { Ok(settings::load(&flags)?) };
    match command {
        Command::Serve => serve::run(settings()?, &flags).await,
        Command::Demo(options) => demo::run(options).await,
        Command::Doctor { json } => doctor::run(settings()?, json).await,
        Command::Org(command) => admin::run(&settings()?, admin::Command::Org(command)).await,
        Command::Key(command) => admin::run(&settings()?, admin::Command::Key(command)).await,
        Command::Token(command) => admin::run(&settings()?, admin::Command::Token(command)).await,
        Command::ManagedTrunk(command) => {
            admin::run(&settings()?, admin::Command::ManagedTrunk(Box::new(command))).await
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tandem", &mut script);
            answer(String::from_utf8_lossy(&script).trim_end())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Api(command) => {
            command.run(&mut std::io::stdout()).await?;
            Ok(ExitCode::SUCCESS)
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

impl From<BadSetting> for Failure {
    fn from(bad: BadSetting) -> Self {
        Self::usage(bad.0)
    }
}

impl From<cli::CliError> for Failure {
    fn from(error: cli::CliError) -> Self {
        Self { status: error.status(), message: error.to_string() }
    }
}

/// Writes a line of the answer to standard output.
fn answer(line: impl std::fmt::Display) -> Result<(), Failure> {
    let written = writeln!(std::io::stdout(), "{line}");
    written.map_err(|error| Failure::new(format!("the answer cannot be written: {error}")))
}

#[allow(clippy::print_stderr, reason = "what a person reads when a command fails")]
fn fail(failure: &Failure) -> ExitCode {
    eprintln!("tandem: {}", failure.message);
    ExitCode::from(failure.status)
}
