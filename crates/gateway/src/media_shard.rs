//! Media shards: one thread a core owns the RTP sockets of many calls, serves every ready socket in one round and
//! runs each leg's [`media::session::Session`]. A task wake-up per packet would cost more than the packet.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use crossbeam_channel::{Receiver, Sender, bounded};
use media::monitor::Monitor;
use media::offer_answer::Negotiated;
use media::quality::{QualityLog, Report};
use media::session::{Agent, Believed, Outbox, Session, Statistics};
use parking_lot::Mutex;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use tokio::sync::{mpsc, oneshot};

use crate::calls::CallInput;
use crate::counters::{Counter, Counters};
use crate::rtp_ports::{RtpPorts, RtpSocket};

/// Sockets served in one round.
const ROUND: usize = 256;
/// Rounds are at least so far apart: with many calls a wake-up serves several of them, and a packet waits no longer than
/// this for its neighbours. Waking up costs more than what there is to do.
const ROUND_PAUSE: Duration = Duration::from_millis(1);
/// Datagrams read of one socket in a round while it is flooded: 64,000 a second.
const BURST: usize = 64;
/// Largest datagram read; RTP over Ethernet stays below 1,500 bytes.
const MAX_DATAGRAM: usize = 2_048;
/// Commands that may wait for a shard.
const MAX_COMMANDS: usize = 65_536;
/// Epoll token of the wake-up event; legs count from 1.
const WAKE: u64 = 0;
/// Set in the token of a leg's RTCP socket.
const CONTROL: u64 = 1 << 63;
/// How soon the last of a call's audio is counted: a thread that has frames to send is up by then anyway.
const SETTLE: Duration = Duration::from_millis(20);
/// A call that ends sooner after its leg was opened has had no packet to count, or one.
const SHORTEST: Duration = Duration::from_millis(20);
/// How long that is waited for; a thread that has not come by then is held up, and the call ends without it.
const MAX_SETTLE: Duration = Duration::from_millis(500);
/// Longest sleep of a shard that has legs: what is not worth a wake-up waits no longer.
const NAP: Duration = Duration::from_millis(100);

enum Command {
    Open { leg: u64, socket: RtpSocket, session: Box<Session>, call: mpsc::Sender<CallInput> },
    Start(u64),
    Update(u64, Box<Negotiated>),
    Believe(u64, Box<Believed>),
    SetAgent(u64, Box<Agent>),
    ListenIn(u64, Arc<Monitor>),
    Digits(u64, String),
    Settle(u64, oneshot::Sender<()>),
    Close(u64),
    Stop,
}

/// The shards of a gateway.
pub(crate) struct MediaShards {
    shards: Vec<Arc<Shard>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    next_shard: AtomicUsize,
    next_leg: AtomicU64,
}

struct Shard {
    commands: Sender<Command>,
    poll: OwnedFd,
    wake: OwnedFd,
    begun: Instant,
    /// Until when the thread sleeps, in microseconds since `begun`; 0 while it is awake and looks for commands before it
    /// sleeps again.
    sleeps_until: AtomicU64,
}

impl Shard {
    /// Hands over a command that is wanted at `due`. Waking the thread costs more than most commands, so one that is up
    /// by then anyway is not woken.
    fn send(&self, command: Command, due: Option<Instant>) {
        // The queue is longer than a node's calls times the commands a call sends, so it is full only when the
        // thread is gone; then nothing is left to tell it.
        if self.commands.try_send(command).is_err() {
            return;
        }
        // Pairs with the fence in `Worker::sleep`: either the thread sees the command, or this sees that it sleeps.
        fence(Ordering::SeqCst);
        let due = due.map_or(u64::MAX, |due| self.micros(due));
        if self.sleeps_until.load(Ordering::Relaxed) > due {
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    fn send_now(&self, command: Command) {
        self.send(command, Some(self.begun));
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.begun).as_micros()).unwrap_or(u64::MAX)
    }
}

/// One call's place on a shard; dropping it closes the socket.
pub(crate) struct Leg {
    shard: Arc<Shard>,
    id: u64,
    opened: Instant,
    quality: Arc<QualityLog>,
    ports: Arc<RtpPorts>,
}

impl Leg {
    /// The call is answered: playout begins.
    pub(crate) fn start(&self) {
        self.shard.send_now(Command::Start(self.id));
    }

    /// Another dialog carries the call, or its caller has proven to be there: who besides the signalled address may send.
    /// Nobody is woken for it: a packet that this concerns wakes the thread itself, which takes commands first.
    pub(crate) fn believe(&self, believed: Believed) {
        let due = Instant::now() + NAP;
        self.shard.send(Command::Believe(self.id, Box::new(believed)), Some(due));
    }

    /// Somebody else speaks and hears from now on.
    pub(crate) fn set_agent(&self, agent: Agent) {
        self.shard.send_now(Command::SetAgent(self.id, Box::new(agent)));
    }

    /// The call is over: what came and went since the last whole second is counted.
    pub(crate) async fn settle(&self) {
        if self.opened.elapsed() < SHORTEST {
            return;
        }
        let (done, settled) = oneshot::channel();
        self.shard.send(Command::Settle(self.id, done), Some(Instant::now() + SETTLE));
        // Without it the last whole second stands.
        let _ = tokio::time::timeout(MAX_SETTLE, settled).await;
    }

    /// How the call sounds so far.
    pub(crate) fn quality(&self) -> Report {
        self.quality.report()
    }

    /// Where it is written down once a second.
    pub(crate) fn quality_log(&self) -> Arc<QualityLog> {
        Arc::clone(&self.quality)
    }

    /// Sends digits and pauses as telephone-events.
    pub(crate) fn send_digits(&self, digits: String) {
        self.shard.send_now(Command::Digits(self.id, digits));
    }

    /// A monitor that hears both sides from now on.
    pub(crate) fn listen_in(&self, monitor: Arc<Monitor>) {
        self.shard.send_now(Command::ListenIn(self.id, monitor));
    }

    /// A new offer and answer.
    pub(crate) fn update(&self, negotiated: Negotiated) {
        self.shard.send_now(Command::Update(self.id, Box::new(negotiated)));
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        // A leg that still has something to say is up for it within a frame.
        let due = self.ports.is_scarce().then(Instant::now);
        self.shard.send(Command::Close(self.id), due);
    }
}

impl MediaShards {
    pub(crate) fn start(count: usize, counters: &Arc<Counters>) -> io::Result<Self> {
        let mut shards = Vec::new();
        let mut threads = Vec::new();
        for index in 0..count.max(1) {
            let (sender, receiver) = bounded(MAX_COMMANDS);
            let shard = Arc::new(Shard {
                commands: sender,
                poll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
                wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
                begun: Instant::now(),
                sleeps_until: AtomicU64::new(0),
            });
            epoll::add(&shard.poll, &shard.wake, EventData::new_u64(WAKE), EventFlags::IN)?;
            let worker = Worker {
                shard: Arc::clone(&shard),
                commands: receiver,
                legs: AHashMap::new(),
                timers: BinaryHeap::new(),
                outbox: Outbox::default(),
                counters: Arc::clone(counters),
            };
            threads.push(
                std::thread::Builder::new().name(format!("media-{index}")).spawn(move || worker.run())?,
            );
            shards.push(shard);
        }
        Ok(Self {
            shards,
            threads: Mutex::new(threads),
            next_shard: AtomicUsize::new(0),
            next_leg: AtomicU64::new(WAKE + 1),
        })
    }

    /// Gives a leg to a shard. Its events arrive as [`CallInput::Media`].
    pub(crate) fn open(
        &self,
        socket: RtpSocket,
        session: Box<Session>,
        call: mpsc::Sender<CallInput>,
    ) -> Leg {
        let id = self.next_leg.fetch_add(1, Ordering::Relaxed);
        let index = self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        let shard = Arc::clone(&self.shards[index]);
        let quality = session.quality();
        // Watched from here on, so that a first packet wakes the thread and finds the command in its queue.
        if let Err(error) = epoll::add(&shard.poll, socket.socket(), EventData::new_u64(id), EventFlags::IN) {
            tracing::error!(%error, "an RTP socket cannot be watched; its call hears nothing");
        }
        let opened = Instant::now();
        let nap = opened + NAP;
        let due = session.poll_timeout().map_or(nap, |due| due.min(nap));
        let ports = Arc::clone(socket.pool());
        shard.send(Command::Open { leg: id, socket, session, call }, Some(due));
        Leg { shard, id, opened, quality, ports }
    }

    /// Ends the threads and waits for them.
    pub(crate) fn stop(&self) {
        for shard in &self.shards {
            shard.send_now(Command::Stop);
        }
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}

struct LegState {
    socket: RtpSocket,
    session: Box<Session>,
    call: mpsc::Sender<CallInput>,
    /// When its RTP socket was last read.
    read_at: Instant,
    /// Whether the RTCP port was asked for.
    control_tried: bool,
    /// The earliest entry of the timer heap for this leg.
    armed: Option<Instant>,
    /// What the node's counters know of already.
    counted: Statistics,
}

impl LegState {
    /// What was dropped since the last time goes into the node's counters.
    fn count_dropped(&mut self, counters: &Counters) {
        let (now, before) = (self.session.statistics(), self.counted);
        for (counter, now, before) in [
            (Counter::RtpDroppedSource, now.dropped_source, before.dropped_source),
            (Counter::RtpDroppedSsrc, now.dropped_ssrc, before.dropped_ssrc),
            (Counter::RtpDroppedMalformed, now.dropped_malformed, before.dropped_malformed),
            (Counter::RtpDroppedPayloadType, now.dropped_payload_type, before.dropped_payload_type),
            (Counter::RtpDroppedUnauthenticated, now.dropped_unauthenticated, before.dropped_unauthenticated),
            (Counter::RtpDroppedReplayed, now.dropped_replayed, before.dropped_replayed),
            (Counter::RtpSuppressed, now.suppressed, before.suppressed),
        ] {
            if now != before {
                counters.add(counter, now - before);
            }
        }
        self.counted = now;
    }
}

struct Worker {
    shard: Arc<Shard>,
    commands: Receiver<Command>,
    legs: AHashMap<u64, LegState>,
    /// Entries are left behind when a deadline moves; the leg's own deadline decides when one fires.
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    outbox: Outbox,
    counters: Arc<Counters>,
}

impl Worker {
    fn run(mut self) {
        let mut events = Vec::with_capacity(ROUND);
        let mut packet = [0u8; MAX_DATAGRAM];
        let mut last_round: Option<Instant> = None;
        loop {
            events.clear();
            if let Some(left) = last_round.and_then(|last| ROUND_PAUSE.checked_sub(last.elapsed())) {
                std::thread::sleep(left);
            }
            let timeout = self.sleep();
            let waited =
                epoll::wait(&self.shard.poll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref());
            self.shard.sleeps_until.store(0, Ordering::Relaxed);
            match waited {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "media shard cannot wait for its sockets and ends");
                    return;
                }
            }
            let now = Instant::now();
            last_round = Some(now);
            // Commands first: a packet that came after an answer was sent is taken by what that answer says. The wake-up
            // is read before them, so that one that comes meanwhile wakes again.
            if events.iter().any(|event| event.data.u64() == WAKE) {
                let mut count = [0u8; 8];
                let _ = rustix::io::read(&self.shard.wake, &mut count);
            }
            while let Ok(command) = self.commands.try_recv() {
                if matches!(command, Command::Stop) {
                    return;
                }
                self.command(command, now);
            }
            for event in &events {
                match event.data.u64() {
                    WAKE => {}
                    leg if leg & CONTROL != 0 => self.receive_control(leg & !CONTROL, &mut packet, now),
                    leg => self.receive(leg, &mut packet, now),
                }
            }
            self.fire(now);
        }
    }

    /// How long to sleep; told to those who may want to wake us.
    fn sleep(&mut self) -> Option<Timespec> {
        let now = Instant::now();
        let nap = (!self.legs.is_empty()).then(|| now + NAP);
        let next = loop {
            let Some(&Reverse((at, id))) = self.timers.peek() else { break None };
            // What a leg that is gone has left behind is not worth a wake-up.
            if self.legs.contains_key(&id) {
                break Some(at);
            }
            self.timers.pop();
        };
        let until = nap.into_iter().chain(next).min();
        self.shard.sleeps_until.store(until.map_or(u64::MAX, |at| self.shard.micros(at)), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !self.commands.is_empty() {
            return Some(timespec(Duration::ZERO));
        }
        until.map(|at| timespec(at.saturating_duration_since(now)))
    }

    fn receive(&mut self, id: u64, packet: &mut [u8], now: Instant) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        // One datagram a round: at 50 packets a second a second one is rarely there, and asking for it is a system call.
        // Where packets come in each round a flood may be under way: the peer's own wait behind it, so more are read, yet
        // not so many that other legs starve. Epoll is level-triggered: what is left shows again in the next round.
        let flooded = now.duration_since(leg.read_at) < ROUND_PAUSE * 2;
        leg.read_at = now;
        let mut read = 0;
        while read < if flooded { BURST } else { 1 } {
            // Nothing there, or an ICMP error of an earlier send, which concerns no packet.
            let Ok((length, from)) = leg.socket.socket().recv_from(packet) else { break };
            self.counters.count(Counter::RtpReceived);
            // In range: recv_from returns at most the buffer's length.
            leg.session.handle_rtp(&packet[..length], from, now, &mut self.outbox);
            read += 1;
        }
        if read > 0 {
            leg.count_dropped(&self.counters);
            self.after(id);
        }
    }

    /// Counts what has come, with what nobody has read yet.
    fn settle(&mut self, id: u64, now: Instant) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let mut packet = [0u8; MAX_DATAGRAM];
        for _ in 0..BURST {
            let Ok((length, from)) = leg.socket.socket().recv_from(&mut packet) else { break };
            self.counters.count(Counter::RtpReceived);
            // In range: recv_from returns at most the buffer's length.
            leg.session.handle_rtp(&packet[..length], from, now, &mut self.outbox);
        }
        // The call is over: nobody is answered any more.
        self.outbox.clear();
        leg.session.settle(now);
        leg.count_dropped(&self.counters);
    }

    fn receive_control(&mut self, id: u64, packet: &mut [u8], now: Instant) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(socket) = leg.socket.control() else { return };
        if let Ok((length, from)) = socket.recv_from(packet) {
            // In range: recv_from returns at most the buffer's length.
            leg.session.handle_rtcp(&packet[..length], from, now);
        }
    }

    fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Open { leg, socket, session, call } => {
                self.legs.insert(
                    leg,
                    LegState {
                        socket,
                        session,
                        call,
                        read_at: now,
                        control_tried: false,
                        armed: None,
                        counted: Statistics::default(),
                    },
                );
                self.after(leg);
            }
            Command::Start(leg) => {
                if let Some(state) = self.legs.get_mut(&leg) {
                    state.session.start(now);
                    self.after(leg);
                }
            }
            Command::Update(leg, negotiated) => {
                if let Some(state) = self.legs.get_mut(&leg) {
                    state.session.update(*negotiated, now);
                    self.after(leg);
                }
            }
            Command::Believe(leg, believed) => {
                if let Some(state) = self.legs.get_mut(&leg) {
                    state.session.believe(*believed);
                }
            }
            Command::SetAgent(leg, agent) => {
                if let Some(state) = self.legs.get_mut(&leg) {
                    state.session.set_agent(*agent, now);
                    self.after(leg);
                }
            }
            Command::Digits(leg, digits) => {
                if let Some(state) = self.legs.get_mut(&leg) {
                    state.session.send_digits(&digits, now);
                    self.after(leg);
                }
            }
            Command::ListenIn(leg, monitor) => {
                if let Some(state) = self.legs.get_mut(&leg) {
                    state.session.listen_in(monitor, now);
                    self.after(leg);
                }
            }
            Command::Settle(leg, done) => {
                self.settle(leg, now);
                // Nobody waits any more when it came too late.
                let _ = done.send(());
            }
            Command::Close(leg) => {
                // Closing the descriptor takes it out of the epoll set.
                if let Some(LegState { mut socket, session, .. }) = self.legs.remove(&leg)
                    && let Some(peer) = session.peer()
                {
                    socket.set_last_peer(peer);
                }
            }
            Command::Stop => {}
        }
    }

    fn fire(&mut self, now: Instant) {
        while let Some(&Reverse((at, id))) = self.timers.peek() {
            if at > now {
                break;
            }
            self.timers.pop();
            let Some(leg) = self.legs.get_mut(&id) else { continue };
            if leg.armed == Some(at) {
                leg.armed = None;
            }
            if leg.session.poll_timeout().is_some_and(|due| due <= now) {
                leg.session.handle_timeout(now, &mut self.outbox);
                leg.count_dropped(&self.counters);
            }
            self.after(id);
        }
    }

    /// Sends what the leg wants to send, tells its call what happened, and arms its next deadline.
    fn after(&mut self, id: u64) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let mut sent = 0;
        for (control, to, bytes) in self.outbox.datagrams() {
            // A full socket buffer or an unreachable peer loses the packet, as the network would.
            if control {
                if let Some(socket) = control_socket(&self.shard.poll, id, leg) {
                    let _ = socket.send_to(bytes, to);
                }
            } else {
                sent += u64::from(leg.socket.socket().send_to(bytes, to).is_ok());
            }
        }
        self.outbox.clear();
        if sent > 0 {
            self.counters.add(Counter::RtpSent, sent);
        }
        while let Some(event) = leg.session.poll_event() {
            let _ = leg.call.try_send(CallInput::Media(event));
        }
        if let Some(due) = leg.session.poll_timeout()
            && leg.armed.is_none_or(|armed| due < armed)
        {
            leg.armed = Some(due);
            self.timers.push(Reverse((due, id)));
        }
    }
}

/// The leg's RTCP socket. Opened with the first report and not before: a call that is over by then needs none.
fn control_socket<'a>(poll: &OwnedFd, id: u64, leg: &'a mut LegState) -> Option<&'a UdpSocket> {
    if leg.socket.control().is_none() && !std::mem::replace(&mut leg.control_tried, true) {
        let socket = leg.socket.open_control()?;
        epoll::add(poll, socket, EventData::new_u64(id | CONTROL), EventFlags::IN).ok()?;
    }
    leg.socket.control()
}

fn timespec(duration: Duration) -> Timespec {
    // Rounded up to the microsecond, so that a deadline is past when the wait ends.
    let nanos = i64::from(duration.subsec_nanos().saturating_add(1_000).min(999_999_999));
    Timespec { tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), tv_nsec: nanos }
}
