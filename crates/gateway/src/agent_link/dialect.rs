//! What the dialects have in common: a dialect turns what happens on a call into messages for its agent, and the
//! agent's messages into audio and wishes. It does no IO, so that its messages can be told word for word in tests.

use std::sync::Arc;

use media::beep::Beep;
use media::link::{Link, LinkStatistics};
use media::playout::Mark;
use media::quality::Second;
use model::Sound;

use super::{AgentEvent, NotReady, Outcome, Together};

/// Something for the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
}

/// Something from the agent.
#[derive(Debug)]
pub(super) enum Incoming<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

/// A function the model calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ToolCall {
    /// The model's name for this call of it.
    pub(super) id: String,
    /// The function.
    pub(super) name: String,
    /// JSON, as the model wrote it.
    pub(super) arguments: String,
}

/// What a dialect wants done.
#[derive(Debug)]
pub(super) enum Act {
    /// The agent takes the call, or does not.
    Ready(Result<(), NotReady>),
    /// For the call.
    Event(AgentEvent),
    /// For the tools' webhook.
    Tool(ToolCall),
    /// Play something behind what has been said; the agent's name for that.
    Play(Option<String>, Sound),
    /// The agent broke the protocol; it may do so only so often.
    Fault(String),
    /// The agent wants no more of the connection, in its own words.
    Close(String),
}

/// Where a dialect puts what it makes.
pub(super) struct Io {
    /// The call's audio.
    pub(super) link: Arc<Link>,
    /// Messages for the agent, in order.
    pub(super) out: Vec<Outgoing>,
    /// What is to be done, in order.
    pub(super) acts: Vec<Act>,
}

impl Io {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, out: Vec::new(), acts: Vec::new() }
    }

    pub(super) fn text(&mut self, text: String) {
        self.out.push(Outgoing::Text(text));
    }

    pub(super) fn json(&mut self, value: &serde_json::Value) {
        self.text(value.to_string());
    }

    pub(super) fn fault(&mut self, what: impl Into<String>) {
        self.acts.push(Act::Fault(what.into()));
    }

    pub(super) fn event(&mut self, event: AgentEvent) {
        self.acts.push(Act::Event(event));
    }

    /// Sets a mark; one too many is a fault.
    pub(super) fn mark(&mut self, name: String) {
        if name.len() > MAX_MARK {
            self.fault(format!("a mark's name is longer than {MAX_MARK} bytes"));
        } else if self.link.mark(name).is_err() {
            self.fault("too many marks wait");
        }
    }
}

/// Longest name of a mark, in bytes.
pub(super) const MAX_MARK: usize = 256;

/// One protocol towards agents. What a dialect has no words for, it passes over.
pub(super) trait Dialect: Send {
    /// The connection is there. `again` when it replaces one that was lost.
    fn opened(&mut self, again: bool, io: &mut Io);
    /// The call is answered.
    fn started(&mut self, io: &mut Io);
    /// 20 ms of the caller.
    fn heard(&mut self, samples: &[i16], io: &mut Io);
    /// A mark is over.
    fn mark(&mut self, mark: Mark, io: &mut Io);
    /// The caller pressed a digit.
    fn digit(&mut self, digit: char, duration_ms: u32, io: &mut Io);
    /// The agent said something.
    fn received(&mut self, message: Incoming<'_>, io: &mut Io);
    /// A voicemail box beeped.
    fn voicemail_beep(&mut self, _beep: Beep, _io: &mut Io) {}
    /// The caller put the call on hold, or took it back.
    fn held(&mut self, _held: bool, _io: &mut Io) {}
    /// What became of something the agent asked for.
    fn outcome(&mut self, _outcome: Outcome, _io: &mut Io) {}
    /// The target of a transfer, which the agent calls `id`, is on the line and hears the agent.
    fn together(&mut self, _id: Option<String>, _to: &str, _with: Together, _io: &mut Io) {}
    /// The tools' webhook answered.
    fn tool(&mut self, _id: String, _output: Result<String, String>, _io: &mut Io) {}
    /// A second has passed. `heard` is how it sounded on the line.
    fn second(&mut self, _statistics: LinkStatistics, _heard: Option<Second>, _io: &mut Io) {}
    /// The call is over; these are the last words.
    fn stopped(&mut self, reason: &str, io: &mut Io);
    /// Whether a lost connection is made anew.
    fn reconnects(&self) -> bool {
        false
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use media::link::Port as _;
    use media::playout::{Limits, Overrun};

    pub(crate) fn io(rate: u32) -> Io {
        let limits = Limits { queued_ms: 10_000, overrun: Overrun::RefuseNew, marks: 8 };
        Io::new(Arc::new(Link::new(rate, limits, || ())))
    }

    /// The messages so far, as text.
    pub(crate) fn texts(io: &mut Io) -> Vec<String> {
        io.out
            .drain(..)
            .map(|message| match message {
                Outgoing::Text(text) => text,
                Outgoing::Binary(bytes) => format!("{bytes:02x?}"),
            })
            .collect()
    }

    /// Lets playout run for so many frames of 20 ms; returns the first sample of each.
    pub(crate) fn play(io: &Io, frames: usize) -> Vec<i16> {
        let mut frame = vec![0; io.link.frame()];
        (0..frames)
            .map(|_| {
                io.link.take(&mut frame);
                frame[0]
            })
            .collect()
    }
}
