//! The task that carries one call's audio and messages between its link and its agent.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use media::link::Link;
use media::quality::QualityLog;
use model::Sound;
use tokio::sync::{Notify, mpsc, oneshot};

use super::connection::{Connection, Frame, Gone, Target, connect};
use super::dialect::{Act, Dialect, Incoming, Io, ToolCall};
use super::tools::Tools;
use super::{AgentEvent, NotReady, Outcome, PLAYOUT, ToAgent};
use crate::calls::{CallInput, Mailbox};
use crate::edge::Edge;

/// A connection that has said nothing for so long is asked for a sign of life…
const PING_AFTER: Duration = Duration::from_secs(5);
/// …and taken for dead after this.
const DEAD_AFTER: Duration = Duration::from_secs(15);
/// How long the agent may leave what we wrote unread.
const UNREAD: Duration = Duration::from_secs(5);
/// How long a goodbye may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a lost connection may take to come back, and the pause between tries. A bot that is gone for good ends
/// its call within two seconds.
const RECONNECT: Duration = Duration::from_millis(1_500);
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How often a call's connection is made anew.
const MAX_RECONNECTS: u32 = 20;
/// How often an agent may break its protocol.
const MAX_FAULTS: u32 = 100;
/// Messages and bytes an agent may send at once, and a second from then on; more waits in its own socket.
const BURST: (f64, f64) = (6_000.0, 16.0 * 1024.0 * 1024.0);
const SUSTAINED: (f64, f64) = (1_000.0, 2.0 * 1024.0 * 1024.0);
/// Function calls of a model that run at once.
const MAX_TOOLS: usize = 8;
/// The name of playing something, in outcomes.
const PLAY: &str = "play";
/// Messages taken in one turn before the caller's audio gets its own.
const TURN: usize = 32;

/// What the task is made of.
pub(super) struct Worker {
    pub(super) edge: Arc<Edge>,
    pub(super) target: Target,
    pub(super) connection: Connection,
    pub(super) dialect: Box<dyn Dialect>,
    pub(super) link: Arc<Link>,
    pub(super) wake: Arc<Notify>,
    pub(super) commands: mpsc::Receiver<ToAgent>,
    pub(super) call: Mailbox,
    pub(super) tools: Option<Tools>,
    pub(super) ready: Option<oneshot::Sender<Result<(), NotReady>>>,
}

/// What the sockets have to say.
enum Progress {
    Message(Frame),
    Written,
    Gone(Gone),
}

/// Why the task ends.
enum End {
    /// The call is over, or gave the agent up.
    Call(String),
    /// The agent is.
    Agent(Gone),
}

/// A function call on its way, and the ones that run.
type Tool = BoxFuture<'static, (String, Result<String, String>)>;
type Running = FuturesUnordered<Tool>;

struct State {
    io: Io,
    /// The agent's names for what is being played, in order.
    playing: VecDeque<Option<String>>,
    /// How the line sounds.
    quality: Option<Arc<QualityLog>>,
    /// Something waits to be written, and since when.
    unwritten: Option<Instant>,
    started: bool,
    last_heard: Instant,
    faults: u32,
    allowance: (f64, f64),
    refilled: Instant,
    throttled: bool,
}

impl Worker {
    /// Runs until the call or the agent is over.
    pub(super) async fn run(mut self) {
        let now = Instant::now();
        let mut state = State {
            io: Io::new(Arc::clone(&self.link)),
            playing: VecDeque::new(),
            quality: None,
            unwritten: None,
            started: false,
            last_heard: now,
            faults: 0,
            allowance: BURST,
            refilled: now,
            throttled: false,
        };
        let mut reconnects = 0;
        let end = loop {
            match self.serve(&mut state).await {
                End::Agent(gone)
                    if self.dialect.reconnects()
                        && gone.lost
                        && self.ready.is_none()
                        && reconnects < MAX_RECONNECTS =>
                {
                    reconnects += 1;
                    match self.reconnect(&mut state).await {
                        Ok(()) => {}
                        Err(End::Agent(_)) => break End::Agent(gone),
                        Err(end) => break end,
                    }
                }
                end => break end,
            }
        };
        match end {
            End::Call(reason) => {
                self.dialect.stopped(&reason, &mut state.io);
                let _ = tokio::time::timeout(LAST_WORDS, self.last_words(&mut state)).await;
            }
            End::Agent(gone) => {
                self.connection.close((!gone.clean).then_some(gone.why.as_str()));
                match self.ready.take() {
                    Some(ready) => {
                        let _ = ready.send(Err(NotReady::failed(gone.why)));
                    }
                    None => {
                        let closed = AgentEvent::Closed { clean: gone.clean, why: gone.why };
                        let _ = self.call.send(CallInput::Agent(closed)).await;
                    }
                }
                let goodbye = poll_fn(|context| self.connection.poll_flush(context));
                let _ = tokio::time::timeout(LAST_WORDS, goodbye).await;
            }
        }
    }

    async fn serve(&mut self, state: &mut State) -> End {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut running = Running::new();
        state.last_heard = Instant::now();
        self.dialect.opened(state.started, &mut state.io);
        if state.started {
            self.dialect.started(&mut state.io);
        }
        loop {
            if let Err(end) = self.settle(state, running.len()).await {
                return end;
            }
            while let Some(call) = self.next_tool(state, running.len()) {
                running.push(call);
            }
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(ToAgent::Stop(reason)) => return End::Call(reason),
                    None => return End::Call("ended".to_owned()),
                    Some(command) => self.command(command, state).await,
                },
                progress = poll_fn(|context| progress(&mut self.connection, state, context)) => {
                    match progress {
                        Progress::Written => {
                            state.unwritten = None;
                            self.audio(state);
                        }
                        Progress::Gone(gone) => return End::Agent(gone),
                        Progress::Message(frame) => {
                            self.message(&frame, state);
                            if let Err(gone) = self.more_messages(state).await {
                                return End::Agent(gone);
                            }
                        }
                    }
                }
                () = self.wake.notified() => self.audio(state),
                Some((id, output)) = running.next(), if !running.is_empty() => {
                    self.dialect.tool(id, output, &mut state.io);
                }
                _ = second.tick() => {
                    if let Err(gone) = self.second(state) {
                        return End::Agent(gone);
                    }
                }
            }
        }
    }

    async fn command(&mut self, command: ToAgent, state: &mut State) {
        match command {
            ToAgent::Started => {
                state.started = true;
                self.dialect.started(&mut state.io);
            }
            ToAgent::Digit { digit, duration_ms } => self.dialect.digit(digit, duration_ms, &mut state.io),
            ToAgent::VoicemailBeep(beep) => self.dialect.voicemail_beep(beep, &mut state.io),
            ToAgent::Held(held) => self.dialect.held(held, &mut state.io),
            ToAgent::Outcome(outcome) => self.dialect.outcome(outcome, &mut state.io),
            ToAgent::Together { id, to, with } => self.dialect.together(id, &to, with, &mut state.io),
            ToAgent::Play(sound) => self.play(None, sound, state).await,
            ToAgent::Audio(quality) => state.quality = Some(quality),
            // Taken care of where it is received.
            ToAgent::Stop(_) => {}
        }
    }

    /// Says something that is not the agent's own behind what it has said; its outcome is told when it was heard.
    async fn play(&mut self, id: Option<String>, sound: Sound, state: &mut State) {
        match self.sounds(sound).await {
            Ok(samples) => {
                self.link.say(&samples);
                match self.link.mark_ours() {
                    Ok(()) => state.playing.push_back(id),
                    Err(error) => self.played(id, Err(error.to_string()), state),
                }
            }
            Err(why) => self.played(id, Err(why), state),
        }
    }

    fn played(&mut self, id: Option<String>, result: Result<Option<String>, String>, state: &mut State) {
        self.dialect.outcome(Outcome { id, action: PLAY, result }, &mut state.io);
    }

    /// The samples of a sound at the link's rate, when there is place for them.
    async fn sounds(&mut self, sound: Sound) -> Result<Vec<i16>, String> {
        sound.check().map_err(|invalid| format!("{} {}", invalid.path.join("."), invalid.message))?;
        let audio_dir = &self.edge.settings.media.audio_dir;
        let mut player =
            self.edge.audio_files.open(&sound, false, audio_dir).await.map_err(|error| error.to_string())?;
        let rate = self.link.rate();
        let most = u64::from(PLAYOUT.queued_ms) * u64::from(rate) / 1_000;
        let space = usize::try_from(most.saturating_sub(self.link.progress().queued)).unwrap_or(0);
        let played = tokio::task::spawn_blocking(move || player.render(rate, space)).await;
        played.ok().flatten().ok_or_else(|| "more than two minutes of audio would wait".to_owned())
    }

    /// The marks that are over, the agent's and those behind what was played.
    fn marks(&mut self, state: &mut State) {
        while let Some(mark) = self.link.next_mark() {
            if !mark.ours {
                self.dialect.mark(mark, &mut state.io);
            } else if let Some(id) = state.playing.pop_front() {
                let result = if mark.cleared {
                    Err("it was cleared before it was heard".to_owned())
                } else {
                    Ok(None)
                };
                self.played(id, result, state);
            }
        }
    }

    /// Hands the caller's frames and the marks on. While the agent does not read, frames wait in the link, which
    /// drops the oldest.
    fn audio(&mut self, state: &mut State) {
        self.marks(state);
        if state.unwritten.is_some() {
            return;
        }
        let mut frame = Vec::with_capacity(self.link.frame());
        while self.link.listen(&mut frame) {
            self.dialect.heard(&frame, &mut state.io);
            frame.clear();
        }
    }

    fn message(&mut self, frame: &Frame, state: &mut State) {
        state.last_heard = Instant::now();
        state.allowance.0 -= 1.0;
        let (incoming, length) = match frame {
            Frame::Text(text) => (Incoming::Text(text.as_str()), text.len()),
            Frame::Binary(bytes) => (Incoming::Binary(bytes), bytes.len()),
            Frame::Alive => {
                // The answer to a ping waits to be written.
                state.unwritten.get_or_insert_with(Instant::now);
                return;
            }
        };
        state.allowance.1 -= length as f64;
        self.dialect.received(incoming, &mut state.io);
        // A clear returns its marks before anything else is said.
        self.marks(state);
    }

    /// What has arrived with the message before, up to a turn's worth.
    async fn more_messages(&mut self, state: &mut State) -> Result<(), Gone> {
        for _ in 1..TURN {
            state.refill(Instant::now());
            // What is to be played has its place before what comes after it.
            let plays = state.io.acts.iter().any(|act| matches!(act, Act::Play(..)));
            if state.throttled || plays || state.io.acts.len() > TURN {
                return Ok(());
            }
            let next = poll_fn(|context| match self.connection.poll_next(context) {
                Poll::Ready(next) => Poll::Ready(Some(next)),
                Poll::Pending => Poll::Ready(None),
            });
            match next.await {
                Some(Ok(frame)) => self.message(&frame, state),
                Some(Err(gone)) => return Err(gone),
                None => return Ok(()),
            }
        }
        // An agent that never stops must not keep the thread from others.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Does what the dialect wants, and begins to write its messages.
    async fn settle(&mut self, state: &mut State, running: usize) -> Result<(), End> {
        let mut kept = Vec::new();
        for act in std::mem::take(&mut state.io.acts) {
            match act {
                Act::Ready(outcome) => {
                    if let Some(ready) = self.ready.take() {
                        let refused = outcome.is_err();
                        let _ = ready.send(outcome);
                        if refused {
                            return Err(End::Call("refused".to_owned()));
                        }
                    }
                }
                Act::Event(event) => {
                    // The agent waits for its own call, and nothing else does.
                    if self.call.send(CallInput::Agent(event)).await.is_err() {
                        return Err(End::Call("ended".to_owned()));
                    }
                }
                Act::Play(id, sound) => self.play(id, sound, state).await,
                Act::Tool(call) if self.tools.is_some() && running + kept.len() < MAX_TOOLS => {
                    kept.push(Act::Tool(call));
                }
                Act::Tool(call) => {
                    let why = if self.tools.is_some() {
                        "too many functions run at once"
                    } else {
                        "no tools_url is configured"
                    };
                    self.dialect.tool(call.id, Err(why.to_owned()), &mut state.io);
                }
                Act::Fault(what) => {
                    state.faults += 1;
                    if state.faults > MAX_FAULTS {
                        return Err(End::Agent(Gone::broken(format!(
                            "the agent broke its protocol {MAX_FAULTS} times, the last with {what}"
                        ))));
                    }
                    tracing::debug!(%what, "an agent broke its protocol");
                }
                Act::Close(why) => return Err(End::Agent(Gone::broken(why))),
            }
        }
        state.io.acts.extend(kept);
        for message in std::mem::take(&mut state.io.out) {
            self.connection.send(message).map_err(End::Agent)?;
            state.unwritten.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    fn next_tool(&self, state: &mut State, running: usize) -> Option<Tool> {
        let tools = self.tools.as_ref().filter(|_| running < MAX_TOOLS)?;
        let at = state.io.acts.iter().position(|act| matches!(act, Act::Tool(_)))?;
        let Act::Tool(ToolCall { id, name, arguments }) = state.io.acts.remove(at) else { return None };
        let call = tools.call(Arc::clone(&self.edge), id.clone(), name, arguments);
        Some(Box::pin(async move { (id, call.await) }))
    }

    fn second(&mut self, state: &mut State) -> Result<(), Gone> {
        let now = Instant::now();
        state.refill(now);
        if state.unwritten.is_some_and(|since| now.duration_since(since) > UNREAD) {
            return Err(Gone::broken("the agent does not read what is sent to it"));
        }
        let silent = now.duration_since(state.last_heard);
        if self.connection.answers_pings() && !state.throttled {
            if silent > DEAD_AFTER {
                return Err(Gone::broken("the agent gives no sign of life"));
            }
            if silent >= PING_AFTER {
                self.connection.ping()?;
                state.unwritten.get_or_insert(now);
            }
        }
        let heard = state.quality.as_ref().and_then(|quality| quality.latest());
        self.dialect.second(self.link.statistics(), heard, &mut state.io);
        Ok(())
    }

    /// Makes the connection anew. The call may end meanwhile.
    async fn reconnect(&mut self, state: &mut State) -> Result<(), End> {
        let until = Instant::now() + RECONNECT;
        state.io.out.clear();
        state.unwritten = None;
        while Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            let attempt = connect(&self.target, &self.edge.settings.private_targets);
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(ToAgent::Stop(reason)) => return Err(End::Call(reason)),
                    None => return Err(End::Call("ended".to_owned())),
                    // Said to an agent that is not there.
                    Some(ToAgent::Started) => state.started = true,
                    Some(ToAgent::Audio(quality)) => state.quality = Some(quality),
                    Some(_) => {}
                },
                attempt = tokio::time::timeout(left, attempt) => match attempt {
                    Ok(Ok(connection)) => {
                        self.connection = connection;
                        return Ok(());
                    }
                    Ok(Err(_)) => tokio::time::sleep(RECONNECT_PAUSE).await,
                    Err(_) => break,
                },
            }
        }
        Err(End::Agent(Gone::broken("the agent did not come back")))
    }

    /// Writes the last messages and the goodbye, and waits for the agent's.
    async fn last_words(&mut self, state: &mut State) {
        for message in std::mem::take(&mut state.io.out) {
            if self.connection.send(message).is_err() {
                return;
            }
        }
        self.connection.close(None);
        if poll_fn(|context| self.connection.poll_flush(context)).await.is_err() {
            return;
        }
        while self.connection.answers_pings()
            && poll_fn(|context| self.connection.poll_next(context)).await.is_ok()
        {}
    }
}

impl State {
    /// Gives the agent back what it may send.
    fn refill(&mut self, now: Instant) {
        let seconds = now.duration_since(self.refilled).as_secs_f64();
        self.refilled = now;
        self.allowance.0 = (self.allowance.0 + seconds * SUSTAINED.0).min(BURST.0);
        self.allowance.1 = (self.allowance.1 + seconds * SUSTAINED.1).min(BURST.1);
        self.throttled = self.allowance.0 < 1.0 || self.allowance.1 < 0.0;
    }
}

/// Writes what waits, and takes the next message unless the agent has sent its fill: then the next second gives it
/// some back.
fn progress(connection: &mut Connection, state: &mut State, context: &mut Context<'_>) -> Poll<Progress> {
    if state.unwritten.is_some() {
        match connection.poll_flush(context) {
            Poll::Ready(Ok(())) => return Poll::Ready(Progress::Written),
            Poll::Ready(Err(gone)) => return Poll::Ready(Progress::Gone(gone)),
            Poll::Pending => {}
        }
    }
    state.refill(Instant::now());
    if state.throttled {
        return Poll::Pending;
    }
    connection.poll_next(context).map(|next| match next {
        Ok(frame) => Progress::Message(frame),
        Err(gone) => Progress::Gone(gone),
    })
}
