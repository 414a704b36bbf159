//! Digits of a call: sent for the API, received in SIP INFO, and each press once however many ways it comes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use cluster::CallError;
use media::dtmf::Source;
use media::session::MediaEvent;
use model::{Conversation, Direction, Runtime};

use super::Call;
use super::transfer::{Stage, Transfer};
use crate::agent_link::ToAgent;

/// Longest duration believed, in milliseconds, and the one of an INFO that tells none.
const MAX_DURATION_MS: u32 = 5_000;
const INFO_DURATION_MS: u32 = 250;
/// One press comes by all its ways within so long.
const SAME_PRESS: Duration = Duration::from_secs(1);
/// Presses that are remembered.
const MAX_PRESSES: usize = 16;

/// The last presses. A gateway may tell of one as an event and leave its tone in the audio, or send an INFO as well.
#[derive(Default)]
pub(super) struct Presses(VecDeque<Press>);

struct Press {
    digit: char,
    at: Instant,
    /// The ways it has come so far.
    by: Vec<Source>,
}

impl Presses {
    /// Whether this is a press that has not come another way.
    pub(super) fn is_new(&mut self, digit: char, source: Source, now: Instant) -> bool {
        self.0.retain(|press| now.duration_since(press.at) < SAME_PRESS);
        let same = self.0.iter_mut().find(|press| press.digit == digit && !press.by.contains(&source));
        if let Some(press) = same {
            press.by.push(source);
            return false;
        }
        if self.0.len() == MAX_PRESSES {
            self.0.pop_front();
        }
        self.0.push_back(Press { digit, at: now, by: vec![source] });
        true
    }
}

impl Call {
    /// Sends digits to the other side.
    pub(super) fn send_digits(&self, digits: String) -> Result<Conversation, CallError> {
        if self.conversation.answered_at.is_none() {
            return Err(CallError::NotAnswered);
        }
        let events = self.offer_answer.negotiated().is_some_and(|n| n.telephone_event.is_some());
        // What an echo sends is not ours to put tones into.
        let tones = self.dtmf_tones && !matches!(self.config.runtime, Runtime::Echo {});
        let Some(leg) = self.leg.as_ref().filter(|_| events || tones) else {
            return Err(CallError::NoDigits);
        };
        leg.send_digits(digits);
        Ok(self.conversation.clone())
    }

    /// How long a voicemail box may take to beep; `None` when nobody wants to know.
    pub(super) fn beep_patience(&self) -> Option<Duration> {
        let asked = self.config.voicemail_detection.as_ref()?;
        let outbound = self.conversation.direction == Direction::Outbound;
        outbound.then(|| Duration::from_secs(asked.timeout_s.into()))
    }

    /// The caller pressed a digit: for whoever hears the caller. A tone crosses a bridge as it is.
    pub(super) fn on_digit(&mut self, digit: char, duration_ms: u32, source: Source) {
        match self.transfer.as_deref() {
            Some(transfer) if transfer.is_bridged() => {
                if source != Source::Tone {
                    transfer.press(digit);
                }
            }
            Some(Transfer { stage: Stage::Briefing, .. }) => {}
            _ => self.tell_agent(ToAgent::Digit { digit, duration_ms }),
        }
    }

    /// The digit of an INFO, as if it had come by RTP; `None` for any other INFO.
    pub(super) fn info_digit(content_type: &str, body: &[u8]) -> Option<MediaEvent> {
        let (digit, duration_ms) = parse(content_type, body)?;
        Some(MediaEvent::Digit { digit, duration_ms, source: Source::Info })
    }
}

/// `application/dtmf-relay` (`Signal=5`, `Duration=160`) and `application/dtmf` (the digit alone).
fn parse(content_type: &str, body: &[u8]) -> Option<(char, u32)> {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    let text = std::str::from_utf8(body.get(..body.len().min(256))?).ok()?;
    if kind.eq_ignore_ascii_case("application/dtmf") {
        return Some((digit(text.trim())?, INFO_DURATION_MS));
    }
    if !kind.eq_ignore_ascii_case("application/dtmf-relay") {
        return None;
    }
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let duration = value("Duration").and_then(|d| d.parse().ok()).unwrap_or(INFO_DURATION_MS);
    Some((digit(value("Signal")?)?, duration.min(MAX_DURATION_MS)))
}

fn digit(text: &str) -> Option<char> {
    let mut chars = text.chars();
    let digit = chars.next()?.to_ascii_uppercase();
    if chars.next().is_none() {
        return "0123456789*#ABCD".contains(digit).then_some(digit);
    }
    // Some send the event's number (RFC 4733 3.2).
    match text {
        "10" => Some('*'),
        "11" => Some('#'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_press_that_comes_two_ways_counts_once() {
        let (mut presses, start) = (Presses::default(), Instant::now());
        let mut heard = String::new();
        for (digit, source, ms) in [
            ('1', Source::Event, 0),
            ('2', Source::Event, 200),
            ('1', Source::Tone, 250),
            ('2', Source::Tone, 400),
            ('2', Source::Event, 500),
            ('2', Source::Info, 510),
            ('2', Source::Info, 520),
            ('2', Source::Tone, 600),
            // Long after: another press.
            ('2', Source::Tone, 1_700),
            ('2', Source::Tone, 2_000),
        ] {
            if presses.is_new(digit, source, start + Duration::from_millis(ms)) {
                heard.push(digit);
            }
        }
        assert_eq!(heard, "12222");
    }

    #[test]
    fn both_kinds_of_info_and_nothing_else() {
        let relay = "application/dtmf-relay";
        assert_eq!(parse(relay, b"Signal=5\r\nDuration=160\r\n"), Some(('5', 160)));
        assert_eq!(parse(relay, b"Signal= *\nDuration=x"), Some(('*', 250)));
        assert_eq!(parse(relay, b"Signal=11\r\n"), Some(('#', 250)));
        assert_eq!(parse("application/DTMF ;x", b" d\r\n"), Some(('D', 250)));
        assert_eq!(parse("application/dtmf", b"12"), None);
        assert_eq!(parse("text/plain", b"1"), None);
        assert_eq!(parse(relay, &[0xff]), None);
    }
}
