//! `tandem call`.

use std::io::Write;

use model::{AgentId, ConversationId, ConversationStatus, Direction, E164, Timestamp, TrunkId};
use serde_json::Value;

use crate::call_trace::ladder;
use crate::input::{Data, Fields, json, number};
use crate::show::{Column, line, pages};
use crate::{CliError, Common};

const COLUMNS: &[Column] = &[
    ("ID", "/id"),
    ("CREATED", "/created_at"),
    ("DIRECTION", "/direction"),
    ("STATUS", "/status"),
    ("REMOTE", "/user_id"),
    ("NUMBER", "/agent_number"),
    ("AGENT", "/agent/name"),
    ("SECONDS", "/duration"),
    ("SIP", "/sip_status"),
    ("REASON", "/reason"),
];

/// What is shown of each second of a call.
const SECONDS: &[Column] = &[
    ("SECOND", "/second"),
    ("LOSS IN %", "/received/loss_percent"),
    ("JITTER IN ms", "/received/jitter_ms"),
    ("MOS IN", "/received/mos"),
    ("LOSS OUT %", "/sent/loss_percent"),
    ("JITTER OUT ms", "/sent/jitter_ms"),
    ("MOS OUT", "/sent/mos"),
    ("RTT ms", "/rtt_ms"),
];

/// Commands on calls.
#[derive(Debug, clap::Subcommand)]
pub enum Call {
    /// Lists calls, newest first.
    List {
        #[arg(long)]
        direction: Option<Direction>,
        #[arg(long)]
        status: Option<ConversationStatus>,
        #[arg(long, value_name = "ID")]
        agent: Option<AgentId>,
        #[arg(long, value_name = "ID")]
        trunk: Option<TrunkId>,
        /// Part of the remote party.
        #[arg(long, value_name = "DIGITS")]
        remote: Option<String>,
        /// Our number.
        #[arg(long, value_parser = number)]
        number: Option<E164>,
        /// Begun at or after this RFC 3339 time.
        #[arg(long, value_name = "TIME")]
        since: Option<Timestamp>,
        /// Begun at or before this RFC 3339 time.
        #[arg(long, value_name = "TIME")]
        until: Option<Timestamp>,
        /// Most rows.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Shows one call.
    Get {
        id: ConversationId,
        #[command(flatten)]
        common: Common,
    },
    /// Has an agent call a number.
    Place {
        /// The agent; its latest published version speaks.
        #[arg(long, value_name = "ID", required_unless_present_any = ["data", "agent_config"])]
        agent: Option<AgentId>,
        /// Another version of the agent.
        #[arg(long, value_name = "NUMBER", requires = "agent")]
        agent_version: Option<u32>,
        /// A config for this call alone, instead of an agent: JSON, @FILE, or - for standard input.
        #[arg(long, value_name = "JSON", conflicts_with = "agent")]
        agent_config: Option<String>,
        /// Whom to call.
        #[arg(long, value_parser = number, required_unless_present = "data")]
        to: Option<E164>,
        /// Caller ID: a number of the organization.
        #[arg(long, value_parser = number)]
        from: Option<E164>,
        /// Handed to the agent: a JSON object, @FILE, or - for standard input.
        #[arg(long, value_name = "JSON")]
        context: Option<String>,
        /// Kept with the call: a JSON object, @FILE, or - for standard input.
        #[arg(long, value_name = "JSON")]
        metadata: Option<String>,
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        common: Common,
    },
    /// Shows calls as they change, until Ctrl-C.
    Watch {
        /// Ends once this call is over.
        id: Option<ConversationId>,
        #[command(flatten)]
        common: Common,
    },
    /// Hands a live call to somebody else.
    Transfer {
        id: ConversationId,
        /// A number, or a SIP URI at one of the organization's trunks.
        #[arg(long, required_unless_present = "to_conversation")]
        to: Option<String>,
        /// Another call in progress, whose other side gets this one's.
        #[arg(long, conflicts_with = "to")]
        to_conversation: Option<ConversationId>,
        /// Have the carrier call (refer), call ourselves and join both (bridge), or the one after the other (auto); have
        /// the bot brief the target first (warm), or all three speak with each other (conference).
        #[arg(long, value_parser = ["auto", "refer", "bridge", "warm", "conference"])]
        mode: Option<String>,
        /// How long the target may take to answer.
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u32>,
        #[command(flatten)]
        common: Common,
    },
    /// Hands the caller over to whom the bot is briefing.
    CompleteTransfer {
        id: ConversationId,
        #[command(flatten)]
        common: Common,
    },
    /// Hangs up on whom the bot is briefing, and gives the caller back to the bot.
    CancelTransfer {
        id: ConversationId,
        #[command(flatten)]
        common: Common,
    },
    /// Has the caller, the bot and whom it is briefing speak with each other.
    Conference {
        id: ConversationId,
        #[command(flatten)]
        common: Common,
    },
    /// Plays a file or tones to the caller of a bot.
    Play {
        id: ConversationId,
        /// WAV file, relative to the node's audio directory.
        #[arg(long, value_name = "PATH", required_unless_present = "tone")]
        file: Option<String>,
        /// A tone or, at 0 Hz, a pause; several are played one after the other.
        #[arg(long, value_name = "HZ:MILLISECONDS", value_parser = tone, conflicts_with = "file")]
        tone: Vec<Value>,
        #[command(flatten)]
        common: Common,
    },
    /// Records a live call, pauses its recording, or takes it up again.
    Record {
        id: ConversationId,
        /// start, or on: begin a recording, or go on with a paused one. pause, or off. resume.
        step: Recording,
        /// The format of a recording that is begun; else the agent's config says.
        #[arg(long, value_parser = ["wav", "ogg"])]
        format: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Sends digits to the other side of a live call.
    Dtmf {
        id: ConversationId,
        /// 0-9, A-D, * and #; w waits half a second, a comma two.
        #[arg(long)]
        digits: String,
        #[command(flatten)]
        common: Common,
    },
    /// Shows a call's SIP messages, live or ended, and why it went as it did.
    Trace {
        id: ConversationId,
        /// Every message in full.
        #[arg(long)]
        raw: bool,
        /// Writes a capture file for Wireshark instead; - is standard output.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["raw", "json"])]
        pcap: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Shows how a call sounds: loss, jitter, round trip and MOS, second by second.
    Quality {
        id: ConversationId,
        #[command(flatten)]
        common: Common,
    },
    /// Writes a call's recording to a file.
    Recording {
        id: ConversationId,
        /// The file, made anew; - is standard output.
        #[arg(long, short, value_name = "FILE")]
        output: String,
        #[command(flatten)]
        common: Common,
    },
    /// Hangs up.
    End {
        id: ConversationId,
        #[command(flatten)]
        common: Common,
    },
}

/// What becomes of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Recording {
    #[value(alias = "on")]
    Start,
    #[value(alias = "off")]
    Pause,
    Resume,
}

/// A tone as the API takes it.
fn tone(text: &str) -> Result<Value, String> {
    let (hz, ms) = text.split_once(':').ok_or("must be like 440:500, in hertz and milliseconds")?;
    let hz: f64 = hz.parse().map_err(|_| format!("{hz} is no frequency in hertz"))?;
    let ms: u32 = ms.parse().map_err(|_| format!("{ms} is no whole number of milliseconds"))?;
    Ok(serde_json::json!({"hz": hz, "ms": ms}))
}

/// Asks for something of a live call, and shows it as it stands then.
async fn ask(
    id: ConversationId,
    what: &str,
    body: Option<Fields>,
    common: &Common,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let client = common.connection.client()?;
    let body = body.map(Fields::into_value);
    let answer = client.post(&format!("/core/conversations/{id}/{what}"), body.as_ref()).await?;
    common.screen(out).one(&answer.body)
}

/// Writes what a path answers to a file, or to standard output for `-`. A file appears whole or not at all.
async fn save(path: &str, file: &str, common: &Common, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let client = common.connection.client()?;
    if file == "-" {
        client.download(path, "*/*", |piece| Ok::<_, CliError>(out.write_all(piece)?)).await?;
        return Ok(out.flush()?);
    }
    let partial = format!("{file}.part");
    let mut written = std::fs::File::create(&partial)?;
    let done = client.download(path, "*/*", |piece| Ok::<_, CliError>(written.write_all(piece)?)).await;
    let done = done.and_then(|length| Ok(std::fs::rename(&partial, file).map(|()| length)?));
    match done {
        Ok(length) if common.json => {
            common.screen(out).one(&serde_json::json!({"file": file, "bytes": length}))
        }
        Ok(length) => common.screen(out).done(&format!("{length} bytes are in {file}.")),
        Err(error) => {
            // What is there is of no use; that it cannot be removed changes nothing of the error.
            let _ = std::fs::remove_file(&partial);
            Err(error)
        }
    }
}

/// A line a change; with `--json` the conversation on one line.
async fn watch(
    only: Option<ConversationId>,
    common: &Common,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    const SHOWN: [&str; 7] =
        ["/updated_at", "/id", "/direction", "/status", "/user_id", "/agent_number", "/reason"];
    let client = common.connection.client()?;
    // Opened first: what changes from here on is seen, and what changed before is read.
    let mut events = client.events("/core/events").await?;
    if let Some(id) = only {
        let call = client.get(&format!("/core/conversations/{id}"), &[]).await?.body;
        if show_change(&call, &SHOWN, common.json, out)? {
            return Ok(());
        }
    }
    while let Some(event) = events.next().await? {
        if event.name != "conversation.updated" {
            continue;
        }
        let wanted = only.is_none_or(|id| event.data["id"] == id.to_string());
        if wanted && show_change(&event.data, &SHOWN, common.json, out)? && only.is_some() {
            return Ok(());
        }
    }
    Err(CliError::Ended)
}

/// Shows one change; whether the call is over.
fn show_change(
    call: &Value,
    places: &[&str],
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<bool, CliError> {
    if json {
        writeln!(out, "{call}")?
    } else {
        writeln!(out, "{}", line(call, places))?
    }
    out.flush()?;
    let status = call["status"].as_str().and_then(|status| status.parse::<ConversationStatus>().ok());
    Ok(status.is_some_and(ConversationStatus::is_final))
}

impl Call {
    pub(crate) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        match self {
            Self::List { direction, status, agent, trunk, remote, number, since, until, limit, common } => {
                let client = common.connection.client()?;
                let mut query = Vec::new();
                query.extend(direction.map(|d| ("direction", d.as_str().to_owned())));
                query.extend(status.map(|s| ("status", s.as_str().to_owned())));
                query.extend(agent.map(|id| ("agent_id", id.to_string())));
                query.extend(trunk.map(|id| ("trunk_id", id.to_string())));
                query.extend(remote.map(|part| ("user_id", part)));
                query.extend(number.map(|number| ("agent_number", number.to_string())));
                query.extend(since.map(|time| ("created_after", time.to_string())));
                query.extend(until.map(|time| ("created_before", time.to_string())));
                let rows = pages(&client, "/core/conversations", &query, limit).await?;
                common.screen(out).many(&rows, COLUMNS)
            }
            Self::Get { id, common } => {
                let client = common.connection.client()?;
                let answer = client.get(&format!("/core/conversations/{id}"), &[]).await?;
                common.screen(out).one(&answer.body)
            }
            Self::Place { agent, agent_version, agent_config, to, from, context, metadata, data, common } => {
                let config = agent_config.map(|config| json("--agent-config", &config)).transpose()?;
                let body = Fields::default()
                    .with("channel", "telephone")
                    .over(data.fields()?)
                    .with_some("user_id", to.map(|number| number.to_string()))
                    .with_some("agent_id", agent.map(|id| id.to_string()))
                    .with_some("version", agent_version)
                    .with_some("agent_config", config)
                    .with_some("custom_metadata", metadata.map(|m| json("--metadata", &m)).transpose()?)
                    .with_some("agent_number", from.map(|n| n.to_string()))
                    .with_some("initial_context", context.map(|c| json("--context", &c)).transpose()?);
                let client = common.connection.client()?;
                let answer = client.post("/core/conversations", Some(&body.into_value())).await?;
                let conversation = answer.body.get("conversation").unwrap_or(&answer.body);
                common.screen(out).one(conversation)
            }
            Self::Watch { id, common } => watch(id, &common, out).await,
            Self::Transfer { id, to, to_conversation, mode, timeout, common } => {
                let body = Fields::default()
                    .with_some("to", to)
                    .with_some("to_conversation", to_conversation.map(|id| id.to_string()))
                    .with_some("mode", mode)
                    .with_some("timeout_s", timeout);
                ask(id, "transfer", Some(body), &common, out).await
            }
            Self::CompleteTransfer { id, common } => ask(id, "transfer/complete", None, &common, out).await,
            Self::CancelTransfer { id, common } => ask(id, "transfer/cancel", None, &common, out).await,
            Self::Conference { id, common } => ask(id, "transfer/conference", None, &common, out).await,
            Self::Play { id, file, tone, common } => {
                let tones = (!tone.is_empty()).then_some(Value::Array(tone));
                let body = Fields::default().with_some("file", file).with_some("tones", tones);
                ask(id, "play", Some(body), &common, out).await
            }
            Self::Record { id, step, format, common } => match step {
                Recording::Start => {
                    let body = Fields::default().with_some("format", format);
                    ask(id, "recording/start", Some(body), &common, out).await
                }
                Recording::Pause | Recording::Resume if format.is_some() => {
                    Err(CliError::Usage("--format is of a recording that is begun.".to_owned()))
                }
                Recording::Pause => ask(id, "recording/pause", None, &common, out).await,
                Recording::Resume => ask(id, "recording/resume", None, &common, out).await,
            },
            Self::Dtmf { id, digits, common } => {
                ask(id, "dtmf", Some(Fields::default().with("digits", digits)), &common, out).await
            }
            Self::Trace { id, raw: _, pcap: Some(file), common } => {
                let path = format!("/core/conversations/{id}/trace?format=pcap");
                save(&path, &file, &common, out).await
            }
            Self::Trace { id, raw, pcap: None, common } => {
                let client = common.connection.client()?;
                let answer = client.get(&format!("/core/conversations/{id}/trace"), &[]).await?;
                if common.json {
                    common.screen(out).one(&answer.body)
                } else {
                    ladder(&answer.body, raw, out)
                }
            }
            Self::Quality { id, common } => {
                let client = common.connection.client()?;
                let mut answer = client.get(&format!("/core/conversations/{id}/quality"), &[]).await?.body;
                if common.json {
                    return common.screen(out).one(&answer);
                }
                let seconds = answer.as_object_mut().and_then(|fields| fields.remove("seconds"));
                common.screen(out).one(&answer)?;
                let rows = seconds.as_ref().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                common.screen(out).many(rows, SECONDS)
            }
            Self::Recording { id, output, common } => {
                save(&format!("/core/conversations/{id}/recording"), &output, &common, out).await
            }
            Self::End { id, common } => ask(id, "end", None, &common, out).await,
        }
    }
}
