//! The second leg of a transfer: a call to the target in a task of its own, which either stays bridged to the first
//! leg or is handed over to the call once it is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::link::Port;
use media::offer_answer::{LocalMedia, Negotiated, OfferAnswer};
use media::session::{Agent, MediaEvent, SessionConfig};
use model::{Conversation, MediaEncryption, OutboundConfig, TrunkId};
use signaling::{Ended, Event, Hop, Invite, Reason, Refusal, Session, StatusCode};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::attempt::{TRY, leaves_target, refuses_encryption};
use super::digits::Presses;
use super::linger::refuse_replace;
use super::offer::{believed, local_media};
use super::peer::believes;
use super::{Call, Registered, flush, linger, take, until};
use crate::admission::CallPermit;
use crate::calls::{CallInput, Key, MAILBOX, Mailbox};
use crate::counters::Counter;
use crate::edge::{Edge, random};
use crate::media_shard::Leg;
use crate::outbound::{self, Failure};
use crate::rtp_ports::RtpSocket;
use crate::sip_status;
use crate::targets::Targets;
use crate::transfer_target::Destination;

/// How long a dialog that is no longer ours to keep may wait for its peer's BYE.
const GRACE: Duration = Duration::from_secs(2);
/// Digits that may wait to be sent to a target.
const DIGITS: usize = 32;

/// What happened on the second leg.
pub(crate) enum SecondEvent {
    /// A provisional response.
    Progress(StatusCode),
    /// It is answered, and its audio is where it was plugged in.
    Answered,
    /// The target pressed a digit.
    Digit { digit: char, duration_ms: u32 },
    /// It is answered and the call's from now on.
    Taken(Box<Taken>),
    /// It could not be placed: nothing was sent.
    NotPlaced(Failure),
    /// It has ended.
    Ended(Box<Ended>),
}

/// An answered leg on its way into the call.
pub(crate) struct Taken {
    pub(super) session: Box<Session>,
    pub(super) hop: Hop,
    /// The trunk it is on.
    pub(super) trunk: Option<TrunkId>,
    pub(super) offer_answer: OfferAnswer,
    pub(super) negotiated: Negotiated,
    pub(super) keys: Vec<Key>,
}

/// What becomes of the audio.
#[derive(Clone)]
pub(super) enum Audio {
    /// An RTP port of its own, plugged in here to begin with.
    Own(Arc<dyn Port>),
    /// The call's RTP port, which the agent speaks and hears by.
    TakeOver(u16),
}

/// A second leg to place.
pub(super) struct Plan {
    pub(super) destination: Destination,
    pub(super) carrier: OutboundConfig,
    /// Of the first leg, whose number is the caller ID.
    pub(super) conversation: Conversation,
    pub(super) audio: Audio,
    pub(super) call: Mailbox,
    /// The call's number for this leg.
    pub(super) number: u32,
    /// What the call's messages are kept under.
    pub(super) trace: Key,
    /// The place of the second leg, given back with its end.
    pub(super) _permit: CallPermit,
}

/// A second leg; dropping it hangs up.
pub(super) struct SecondLeg {
    _stop: DropGuard,
    port: Option<watch::Sender<Arc<dyn Port>>>,
    digits: mpsc::Sender<String>,
}

impl SecondLeg {
    /// Plugs its audio in elsewhere.
    pub(super) fn plug(&self, port: Arc<dyn Port>) {
        if let Some(plugged) = &self.port {
            plugged.send_replace(port);
        }
    }

    /// The caller has pressed a digit, which the target is to hear. More than the leg can send is dropped.
    pub(super) fn press(&self, digit: char) {
        let _ = self.digits.try_send(digit.to_string());
    }
}

/// What the call wants of its second leg.
struct Orders {
    stop: CancellationToken,
    port: Option<watch::Receiver<Arc<dyn Port>>>,
    digits: mpsc::Receiver<String>,
}

impl Orders {
    /// Where the audio is plugged in.
    fn agent(&mut self) -> Option<Agent> {
        self.port.as_mut().map(plugged)
    }
}

fn plugged(port: &mut watch::Receiver<Arc<dyn Port>>) -> Agent {
    Agent::Linked(Arc::clone(&port.borrow_and_update()))
}

/// Waits for another place to plug the audio in.
async fn plugged_elsewhere(port: &mut Option<watch::Receiver<Arc<dyn Port>>>) -> Agent {
    if let Some(port) = port
        && port.changed().await.is_ok()
    {
        return plugged(port);
    }
    std::future::pending().await
}

/// Places a second leg. What happens comes as [`CallInput::Second`].
pub(super) fn place(edge: &Arc<Edge>, plan: Plan) -> SecondLeg {
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let (plug, port) = match &plan.audio {
        Audio::Own(port) => {
            let (plug, port) = watch::channel(Arc::clone(port));
            (Some(plug), Some(port))
        }
        Audio::TakeOver(_) => (None, None),
    };
    let (digits, to_send) = mpsc::channel(DIGITS);
    tokio::spawn(run(Arc::clone(edge), plan, Orders { stop, port, digits: to_send }));
    SecondLeg { _stop: guard, port: plug, digits }
}

/// The call that the leg is the second of, and its number there.
#[derive(Clone)]
struct First(Mailbox, u32);

impl First {
    async fn tell(&self, event: SecondEvent) {
        // A call that is gone has dropped its handle as well, which ends the leg.
        let _ = self.0.send(CallInput::Second(self.1, event)).await;
    }
}

async fn run(edge: Arc<Edge>, plan: Plan, mut orders: Orders) {
    let mut targets = Targets::of(&plan.carrier);
    loop {
        let mut skipped = Vec::new();
        let reached = tokio::select! {
            reached = targets.next(&edge, &mut skipped) => reached,
            () = orders.stop.cancelled() => return,
        };
        let (mailbox, mut inputs) = mpsc::channel(MAILBOX);
        let mut registered = Registered { edge: Arc::clone(&edge), keys: Vec::new() };
        let second = reached.and_then(|hop| SecondCall::begin(&edge, &plan, hop, mailbox, &mut registered));
        let second = match second {
            Ok(second) => second,
            Err(failure) => {
                let first = First(plan.call.clone(), plan.number);
                return first.tell(SecondEvent::NotPlaced(failure)).await;
            }
        };
        match Box::pin(second.carry(&mut inputs, &mut registered, &mut orders, targets.has_more())).await {
            Carried::Over(session) => return linger(session, inputs, registered, None).await,
            Carried::HandedOver => return,
            Carried::NextTarget(session) => leave(&edge, session, std::mem::take(&mut registered.keys)),
        }
    }
}

/// How a second leg came out.
enum Carried {
    /// It is over, and its last transactions are to be looked after.
    Over(Box<Session>),
    /// It is the call's.
    HandedOver,
    /// The target did nothing at all: the next one is tried (RFC 3263 4.3).
    NextTarget(Box<Session>),
}

struct SecondCall {
    edge: Arc<Edge>,
    mailbox: Mailbox,
    call: First,
    trace: Key,
    session: Box<Session>,
    hop: Hop,
    offer_answer: OfferAnswer,
    /// Our offer is out and its answer has not come.
    offered: bool,
    /// The INVITE to repeat with plain RTP when SRTP is refused.
    again: Option<Invite>,
    audio: Audio,
    trunk: Option<TrunkId>,
    socket: Option<RtpSocket>,
    leg: Option<Leg>,
    presses: Presses,
}

impl SecondCall {
    fn begin(
        edge: &Arc<Edge>,
        plan: &Plan,
        hop: Hop,
        mailbox: Mailbox,
        registered: &mut Registered,
    ) -> Result<Self, Failure> {
        let Plan { destination, carrier, audio, call, number, trace, .. } = plan;
        let (near, policy) = (hop.remote.ip(), carrier.media_encryption);
        let (socket, local) = match audio {
            Audio::Own(_) => {
                let Some(socket) = edge.rtp_ports.open(hop.remote.ip()) else {
                    edge.counters.count(Counter::NoRtpPort);
                    return Err(Failure::no_rtp_port());
                };
                let local = local_media(edge, hop, near, Some(&socket), policy);
                (Some(socket), local)
            }
            Audio::TakeOver(port) => {
                (None, LocalMedia { port: *port, ..local_media(edge, hop, near, None, policy) })
            }
        };
        let mut offer_answer = OfferAnswer::new(local);
        let offer = Bytes::from(offer_answer.offer());
        let conversation = Conversation { user_id: destination.user.clone(), ..plan.conversation.clone() };
        let mut invite = outbound::invite(edge, carrier, &conversation, hop, offer);
        if let Some(replaces) = &destination.replaces {
            invite.headers.push(("Replaces".to_owned(), replaces.to_string()));
            invite.headers.push(("Require".to_owned(), "replaces".to_owned()));
        }
        let again = (policy == MediaEncryption::Allow).then(|| invite.clone());
        let session = Box::new(Session::connect(invite, hop, edge.identity(hop), Instant::now()));
        let key = edge.calls.local_key(session.call_id(), session.local_tag());
        edge.calls.add_dialog(key, mailbox.clone());
        edge.traces.join(key, *trace);
        registered.keys.push(key);
        Ok(Self {
            edge: Arc::clone(edge),
            mailbox,
            call: First(call.clone(), *number),
            trace: *trace,
            session,
            hop,
            offer_answer,
            offered: true,
            again,
            audio: audio.clone(),
            trunk: destination.trunk.as_ref().map(|(trunk, _)| trunk.id),
            socket,
            leg: None,
            presses: Presses::default(),
        })
    }

    /// Runs until the leg has ended or is handed over. With another target at hand, one that says nothing is left.
    async fn carry(
        mut self,
        inputs: &mut mpsc::Receiver<CallInput>,
        registered: &mut Registered,
        orders: &mut Orders,
        has_more: bool,
    ) -> Carried {
        let mut stopped = false;
        let mut try_until = has_more.then(|| Instant::now() + TRY);
        loop {
            flush(&self.edge, &mut self.session);
            while let Some(event) = self.session.poll_event() {
                match event {
                    Event::Ended(ended) if !stopped && self.offer_in_clear(&ended, registered) => {}
                    Event::Ended(ended)
                        if has_more && !stopped && self.leg.is_none() && leaves_target(&ended) =>
                    {
                        flush(&self.edge, &mut self.session);
                        return Carried::NextTarget(self.session);
                    }
                    Event::Ended(ended) => {
                        flush(&self.edge, &mut self.session);
                        // Before the call hears of it: where its audio was plugged in there is place for others.
                        self.leg = None;
                        self.call.tell(SecondEvent::Ended(Box::new(ended))).await;
                        return Carried::Over(self.session);
                    }
                    Event::Answered { sdp, .. } if !stopped => {
                        let answered = self.answered(sdp.as_deref(), orders);
                        flush(&self.edge, &mut self.session);
                        match (answered, &self.audio) {
                            (Some(_), Audio::Own(_)) => self.call.tell(SecondEvent::Answered).await,
                            (Some(negotiated), Audio::TakeOver(_)) => {
                                self.hand_over(negotiated, registered).await;
                                return Carried::HandedOver;
                            }
                            (None, _) => {
                                let cause = Reason { protocol: "SIP".to_owned(), cause: 488, text: None };
                                self.session.hang_up(Some(cause), Instant::now());
                            }
                        }
                    }
                    event => self.on_event(event).await,
                }
                flush(&self.edge, &mut self.session);
            }
            let now = Instant::now();
            let Orders { stop, port, digits } = &mut *orders;
            tokio::select! {
                biased;
                () = stop.cancelled(), if !stopped => {
                    stopped = true;
                    self.leg = None;
                    self.session.hang_up(None, now);
                }
                input = inputs.recv() => match input {
                    Some(CallInput::Sip(message)) if !believes(&self.session, self.hop, &message) => {
                        self.edge.counters.count(Counter::DroppedSource);
                    }
                    Some(CallInput::Sip(message)) => take(&self.edge, &mut self.session, *message, now),
                    Some(CallInput::Media(MediaEvent::Timeout { .. })) => {
                        self.session.hang_up(None, now);
                    }
                    Some(CallInput::Media(event)) => self.on_media(event).await,
                    Some(CallInput::Unsent(hop)) => self.session.handle_transport_error(hop, now),
                    Some(CallInput::Replace(invite)) => refuse_replace(&self.edge, &invite.0, invite.1),
                    Some(_) | None => {}
                },
                agent = plugged_elsewhere(port) => if let Some(leg) = &self.leg {
                    leg.set_agent(agent);
                },
                Some(digits) = digits.recv() => if let Some(leg) = &self.leg {
                    leg.send_digits(digits);
                },
                () = until(try_until) => {
                    try_until = None;
                    self.session.abandon(Instant::now());
                }
                () = until(self.session.poll_timeout()) => self.session.handle_timeout(Instant::now()),
            }
        }
    }

    /// Asks once more, with plain RTP, where the trunk allows it and the target refused SRTP.
    fn offer_in_clear(&mut self, ended: &Ended, registered: &mut Registered) -> bool {
        let Some(mut invite) = self.again.take().filter(|_| refuses_encryption(ended)) else { return false };
        invite.offer = Bytes::from(self.offer_answer.offer_in_clear());
        let identity = self.edge.identity(self.hop);
        let session = Box::new(Session::connect(invite, self.hop, identity, Instant::now()));
        let key = self.edge.calls.local_key(session.call_id(), session.local_tag());
        self.edge.calls.add_dialog(key, self.mailbox.clone());
        self.edge.traces.join(key, self.trace);
        flush(&self.edge, &mut self.session);
        let earlier = std::mem::replace(&mut self.session, session);
        let keys = std::mem::replace(&mut registered.keys, vec![key]);
        leave(&self.edge, earlier, keys);
        true
    }

    async fn on_media(&mut self, event: MediaEvent) {
        if let MediaEvent::Digit { digit, duration_ms, source } = event
            && self.presses.is_new(digit, source, Instant::now())
        {
            self.call.tell(SecondEvent::Digit { digit, duration_ms }).await;
        }
    }

    async fn on_event(&mut self, event: Event) {
        match event {
            Event::Info { content_type, body } => {
                if let Some(digit) = Call::info_digit(&content_type, &body) {
                    self.on_media(digit).await;
                }
            }
            Event::Progress { status, sdp } => {
                if let Some(sdp) = sdp {
                    // What a reliable response answers is not said again in the 2xx.
                    let _ = self.offer_answer.accept(&sdp);
                }
                self.call.tell(SecondEvent::Progress(status)).await;
            }
            Event::Offer { sdp: Some(offer) } => self.on_offer(&offer),
            Event::Offer { sdp: None } => {
                self.offered = true;
                let offer = Bytes::from(self.offer_answer.offer());
                self.session.answer_offer(offer, Instant::now());
            }
            Event::Confirmed { sdp: Some(sdp) } if self.offered => {
                self.offered = false;
                self.update(&sdp);
            }
            Event::Modified { status, sdp: Some(sdp) } if status.is_success() => self.update(&sdp),
            // A leg that was transferred to is not transferred on.
            Event::Refer { .. } => {
                self.session.refuse_refer(&Refusal::new(StatusCode(603)), Instant::now());
            }
            _ => {}
        }
    }

    fn update(&mut self, answer: &[u8]) {
        if let (Ok(negotiated), Some(leg)) = (self.offer_answer.accept(answer), &self.leg) {
            leg.update(negotiated);
        }
    }

    fn on_offer(&mut self, offer: &[u8]) {
        let now = Instant::now();
        match self.offer_answer.answer(offer) {
            Ok((answer, negotiated)) => {
                if self.session.answer_offer(Bytes::from(answer), now)
                    && let Some(leg) = &self.leg
                {
                    leg.update(negotiated);
                }
            }
            Err(error) => {
                let (host, _) = self.edge.reachable_at(self.hop);
                let (refusal, _, _) = sip_status::offer_refusal(&error, &host);
                self.session.refuse_offer(refusal, now);
            }
        }
    }

    /// The target has answered; what was agreed on, when it can be used.
    fn answered(&mut self, sdp: Option<&[u8]>, orders: &mut Orders) -> Option<Negotiated> {
        self.offered = false;
        let negotiated = match sdp {
            Some(sdp) => self.offer_answer.accept(sdp).ok(),
            None => self.offer_answer.negotiated().cloned(),
        }?;
        if let (Some(agent), Some(socket)) = (orders.agent(), self.socket.take()) {
            let media = &self.edge.settings.media;
            let config = SessionConfig {
                negotiated: negotiated.clone(),
                agent,
                seed: random(),
                believed: believed(&self.edge, self.trunk, self.hop, Some(&socket)),
                initial_timeout: media.initial_timeout,
                timeout: media.timeout,
                tap: false,
                // A trunk's enable_noise_cancellation is for who calls in.
                noise_cancellation: None,
                dtmf_tones: false,
                beep: None,
            };
            let now = Instant::now();
            let mut session = Box::new(media::session::Session::new(config, now));
            session.start(now);
            self.leg = Some(self.edge.shards.open(socket, session, self.mailbox.clone()));
        }
        Some(negotiated)
    }

    async fn hand_over(self, negotiated: Negotiated, registered: &mut Registered) {
        let keys = std::mem::take(&mut registered.keys);
        let Self { edge, call, session, hop, trunk, offer_answer, .. } = self;
        let taken = Taken { session, hop, trunk, offer_answer, negotiated, keys };
        if let Err(unsent) = call.0.send(CallInput::Second(call.1, SecondEvent::Taken(Box::new(taken)))).await
            && let CallInput::Second(_, event) = unsent.0
        {
            discard(&edge, event);
        }
    }
}

/// What a call that is over does with news of its second leg: an answered one is hung up.
pub(super) fn discard(edge: &Arc<Edge>, event: SecondEvent) {
    if let SecondEvent::Taken(taken) = event {
        let Taken { session, keys, .. } = *taken;
        let_go(edge, session, keys, Duration::ZERO);
    }
}

/// Gives a dialog that the call has left to a task of its own: its peer may hang up, and after a while we do.
pub(super) fn leave(edge: &Arc<Edge>, session: Box<Session>, keys: Vec<Key>) {
    let_go(edge, session, keys, GRACE);
}

fn let_go(edge: &Arc<Edge>, mut session: Box<Session>, keys: Vec<Key>, grace: Duration) {
    let (mailbox, mut inputs) = mpsc::channel(MAILBOX);
    for &key in &keys {
        edge.calls.add_dialog(key, mailbox.clone());
    }
    let edge = Arc::clone(edge);
    tokio::spawn(async move {
        let registered = Registered { edge: Arc::clone(&edge), keys };
        let patience = Instant::now() + grace;
        while !session.is_over() {
            flush(&edge, &mut session);
            while session.poll_event().is_some() {}
            let now = Instant::now();
            if now >= patience {
                session.hang_up(None, now);
                break;
            }
            let due = session.poll_timeout().map_or(patience, |due| due.min(patience));
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(CallInput::Sip(message)) => take(&edge, &mut session, *message, Instant::now()),
                    Some(CallInput::Replace(invite)) => refuse_replace(&edge, &invite.0, invite.1),
                    Some(_) | None => {}
                },
                () = until(Some(due)) => session.handle_timeout(Instant::now()),
                () = edge.stop.cancelled() => return,
            }
        }
        linger(session, inputs, registered, None).await;
    });
}
