//! Asterisk's AudioSocket: kind, length, payload. It has neither clear nor marks, and the agent keeps the pace.

use media::playout::Mark;
use media::resample::Rate;

use super::dialect::{Act, Dialect, Incoming, Io, Outgoing};
use super::{AgentEvent, CallFacts};
use crate::audiosocket::{CALL_ID, DIGIT, ERROR, HANG_UP, frame, kind_of};

/// What an interim build of Asterisk sent 16 kHz as; it is 12 kHz.
const INTERIM: u8 = 0x11;

/// See the module's text.
pub(super) struct AudioSocketDialect {
    call: CallFacts,
    kind: u8,
    also: Option<u8>,
    started: bool,
    samples: Vec<i16>,
}

impl AudioSocketDialect {
    pub(super) fn new(sample_rate: u32, call: CallFacts) -> Self {
        let kind = kind_of(Rate::from_hz(sample_rate).unwrap_or(Rate::Hz8000));
        let also = (sample_rate == 16_000).then_some(INTERIM);
        Self { call, kind, also, started: false, samples: Vec::new() }
    }
}

impl Dialect for AudioSocketDialect {
    fn opened(&mut self, _again: bool, io: &mut Io) {
        io.acts.push(Act::Ready(Ok(())));
    }

    /// The call's id makes the agent speak, so it waits for the answer.
    fn started(&mut self, io: &mut Io) {
        self.started = true;
        let id = self.call.conversation_id.0;
        io.out.push(Outgoing::Binary(frame(CALL_ID, id.as_bytes())));
    }

    fn heard(&mut self, samples: &[i16], io: &mut Io) {
        if self.started {
            let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
            io.out.push(Outgoing::Binary(frame(self.kind, &bytes)));
        }
    }

    fn mark(&mut self, _mark: Mark, _io: &mut Io) {}

    fn digit(&mut self, digit: char, _duration_ms: u32, io: &mut Io) {
        if let (true, Ok(byte)) = (self.started, u8::try_from(digit)) {
            io.out.push(Outgoing::Binary(frame(DIGIT, &[byte])));
        }
    }

    fn received(&mut self, message: Incoming<'_>, io: &mut Io) {
        let Incoming::Binary([kind, _, _, payload @ ..]) = message else {
            io.fault("a frame without a head");
            return;
        };
        match *kind {
            HANG_UP => io.event(AgentEvent::HangUp),
            ERROR => {
                let code = payload.first().map_or_else(String::new, |code| format!(" {code}"));
                io.acts.push(Act::Close(format!("the agent reports the error{code}")));
            }
            kind if kind == self.kind || Some(kind) == self.also => {
                self.samples.clear();
                let (pairs, odd) = payload.as_chunks::<2>();
                self.samples.extend(pairs.iter().map(|pair| i16::from_le_bytes(*pair)));
                if !odd.is_empty() {
                    io.fault("half a sample");
                }
                io.link.say(&self.samples);
            }
            0x10..=0x18 => io.fault(format!(
                "audio of kind {kind:#04x}, while the agent's sample_rate says {:#04x}",
                self.kind
            )),
            // Silence (0x02) of the Go library, and the future's.
            _ => {}
        }
    }

    fn stopped(&mut self, _reason: &str, io: &mut Io) {
        io.out.push(Outgoing::Binary(frame(HANG_UP, &[])));
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialect::testing::{io, play};
    use super::*;

    fn out(io: &mut Io) -> Vec<Vec<u8>> {
        io.out
            .drain(..)
            .map(|m| match m {
                Outgoing::Binary(bytes) => bytes,
                Outgoing::Text(_) => panic!("text"),
            })
            .collect()
    }

    #[test]
    fn byte_for_byte() {
        let mut io = io(8_000);
        let mut dialect = AudioSocketDialect::new(8_000, CallFacts::example());
        dialect.opened(false, &mut io);
        dialect.heard(&[1; 160], &mut io);
        assert!(io.out.is_empty());
        dialect.started(&mut io);
        dialect.heard(&[0x0102; 160], &mut io);
        dialect.digit('5', 100, &mut io);
        dialect.stopped("caller", &mut io);
        let sent = out(&mut io);
        assert_eq!(sent[0], [&[1, 0, 16][..], &[0; 15], &[2]].concat());
        assert_eq!((sent[1].len(), &sent[1][..5]), (323, &[0x10, 1, 64, 2, 1][..]));
        assert_eq!(sent[2..], [vec![3, 0, 1, b'5'], vec![0, 0, 0]]);
    }

    #[test]
    fn what_an_agent_sends() {
        let mut io = io(16_000);
        let mut dialect = AudioSocketDialect::new(16_000, CallFacts::example());
        for kind in [0x12, 0x11] {
            dialect.received(Incoming::Binary(&[&[kind, 2, 128][..], &[7, 0].repeat(320)].concat()), &mut io);
        }
        assert_eq!(play(&io, 2), [7, 7]);
        assert!(io.acts.is_empty());
        for bad in [&[0x10, 0, 2, 1, 1][..], &[0x12, 0, 1, 1], &[0x10], &[]] {
            dialect.received(Incoming::Binary(bad), &mut io);
            assert!(matches!(io.acts.pop(), Some(Act::Fault(_))), "{bad:?}");
        }
        dialect.received(Incoming::Binary(&[0, 0, 0]), &mut io);
        assert!(matches!(io.acts.pop(), Some(Act::Event(AgentEvent::HangUp))));
        dialect.received(Incoming::Binary(&[0xff, 0, 1, 2]), &mut io);
        assert!(matches!(io.acts.pop(), Some(Act::Close(_))));
    }
}
