//! Digits of a call: sent for the API, and received in SIP INFO.

use cluster::CallError;
use media::session::MediaEvent;
use model::Conversation;

use super::Call;

/// Longest duration believed, in milliseconds, and the one of an INFO that tells none.
const MAX_DURATION_MS: u32 = 5_000;
const INFO_DURATION_MS: u32 = 250;

impl Call {
    /// Sends digits to the other side.
    pub(super) fn send_digits(&self, digits: String) -> Result<Conversation, CallError> {
        if self.conversation.answered_at.is_none() {
            return Err(CallError::NotAnswered);
        }
        let agreed = self.offer_answer.negotiated().and_then(|n| n.telephone_event);
        let (Some(leg), Some(_)) = (&self.leg, agreed) else { return Err(CallError::NoDigits) };
        leg.send_digits(digits);
        Ok(self.conversation.clone())
    }

    /// The digit of an INFO, as if it had come by RTP; `None` for any other INFO.
    pub(super) fn info_digit(content_type: &str, body: &[u8]) -> Option<MediaEvent> {
        let (digit, duration_ms) = parse(content_type, body)?;
        Some(MediaEvent::Digit { digit, duration_ms })
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
