//! The two verbs of TwiML that end a bot's part of a call: `<Hangup>` and `<Dial>`. Read strictly: a document that says
//! more than can be done is refused, so that nothing of it is lost in silence.

use model::TransferTarget;

/// Longest document, in bytes: Twilio's own limit.
const MAX_DOCUMENT: usize = 4_000;
/// Longest name of an element or attribute, in bytes.
const MAX_NAME: usize = 64;

/// What a document wants done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Hang up.
    Hangup,
    /// Hand the caller to somebody.
    Dial {
        /// Whom.
        to: TransferTarget,
        /// How long they may take to answer, in seconds.
        timeout_s: Option<u32>,
    },
}

/// Reads a document. The error is a sentence without its full stop.
pub(crate) fn parse(document: &str) -> Result<Verb, String> {
    if document.len() > MAX_DOCUMENT {
        return Err(format!("Twiml has more than {MAX_DOCUMENT} bytes"));
    }
    let mut reader = Reader { rest: document.trim_start() };
    if let Some(after) = reader.rest.strip_prefix("<?xml") {
        let (_, after) = after.split_once("?>").ok_or("the XML declaration has no end")?;
        reader.rest = after;
    }
    reader.skip()?;
    let response = reader.open()?;
    if response.name != "Response" || response.closed {
        return Err("Twiml must be a Response with one verb in it".to_owned());
    }
    reader.skip()?;
    let verb = reader.open()?;
    let read = match verb.name {
        "Hangup" => {
            if !verb.closed {
                reader.skip()?;
                reader.close("Hangup")?;
            }
            Verb::Hangup
        }
        "Dial" if !verb.closed => reader.dial(&verb)?,
        "Dial" => return Err("Dial names nobody".to_owned()),
        other => return Err(format!("{other} is not done here: one Hangup or Dial is")),
    };
    reader.skip()?;
    reader.close("Response").map_err(|_| "only one verb is done, a Hangup or Dial".to_owned())?;
    reader.skip()?;
    if reader.rest.is_empty() { Ok(read) } else { Err("something follows the Response".to_owned()) }
}

struct Reader<'a> {
    rest: &'a str,
}

/// A start tag.
struct Tag<'a> {
    name: &'a str,
    attributes: Vec<(&'a str, String)>,
    /// It is its own end.
    closed: bool,
}

impl<'a> Reader<'a> {
    /// Goes over white space and comments.
    fn skip(&mut self) -> Result<(), String> {
        loop {
            self.rest = self.rest.trim_start();
            let Some(comment) = self.rest.strip_prefix("<!--") else { return Ok(()) };
            let (_, after) = comment.split_once("-->").ok_or("a comment has no end")?;
            self.rest = after;
        }
    }

    fn name(&mut self) -> Result<&'a str, String> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let (name, after) = self.rest.split_at(end);
        if name.is_empty() || name.len() > MAX_NAME {
            return Err("Twiml is no XML of elements with names".to_owned());
        }
        self.rest = after;
        Ok(name)
    }

    fn open(&mut self) -> Result<Tag<'a>, String> {
        let tag = self.rest.strip_prefix('<').ok_or("text stands where a verb belongs")?;
        self.rest = tag;
        let name = self.name()?;
        let mut attributes = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            if let Some(after) = self.rest.strip_prefix("/>") {
                self.rest = after;
                return Ok(Tag { name, attributes, closed: true });
            }
            if let Some(after) = self.rest.strip_prefix('>') {
                self.rest = after;
                return Ok(Tag { name, attributes, closed: false });
            }
            let attribute = self.name()?;
            let broken = || format!("the attribute {attribute} has no value in quotes");
            let after = self.rest.trim_start().strip_prefix('=').ok_or_else(broken)?.trim_start();
            let quote = after.chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or_else(broken)?;
            let value = after.strip_prefix(quote).and_then(|rest| rest.split_once(quote));
            let (value, after) = value.ok_or_else(broken)?;
            attributes.push((attribute, unescaped(value)?));
            self.rest = after;
        }
    }

    fn close(&mut self, name: &str) -> Result<(), String> {
        let missing = || format!("{name} has no end");
        let after = self.rest.strip_prefix("</").and_then(|rest| rest.strip_prefix(name));
        self.rest = after.ok_or_else(missing)?.trim_start().strip_prefix('>').ok_or_else(missing)?;
        Ok(())
    }

    /// What is in a Dial: a number, or one Number or Sip.
    fn dial(&mut self, dial: &Tag<'a>) -> Result<Verb, String> {
        let mut timeout_s = None;
        for (name, value) in &dial.attributes {
            // Whom the target sees, and whether the call is recorded, are the trunk's and the agent's business.
            if *name != "timeout" {
                return Err(format!("the attribute {name} of Dial is not done here: timeout is"));
            }
            let seconds = value.trim().parse().ok().filter(|s| model::TRANSFER_SECONDS.contains(s));
            let (least, most) = (model::TRANSFER_SECONDS.start(), model::TRANSFER_SECONDS.end());
            timeout_s = Some(seconds.ok_or_else(|| format!("timeout must be from {least} to {most}"))?);
        }
        self.skip()?;
        let to = if self.rest.starts_with("</") {
            return Err("Dial names nobody".to_owned());
        } else if self.rest.starts_with('<') {
            let noun = self.open()?;
            if noun.closed || !noun.attributes.is_empty() || !matches!(noun.name, "Number" | "Sip") {
                return Err("Dial must hold a number, or one Number or Sip without attributes".to_owned());
            }
            let to = self.text()?;
            self.close(noun.name)?;
            self.skip()?;
            to
        } else {
            self.text()?
        };
        self.close("Dial")?;
        let to = to.trim().parse().map_err(|rule| format!("whom Dial names {rule}"))?;
        Ok(Verb::Dial { to, timeout_s })
    }

    fn text(&mut self) -> Result<String, String> {
        let end = self.rest.find('<').ok_or("an element has no end")?;
        let (text, after) = self.rest.split_at(end);
        self.rest = after;
        unescaped(text)
    }
}

/// Text without XML's five references; others are refused.
fn unescaped(text: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split('&');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (name, after) = part.split_once(';').ok_or("an & begins no reference")?;
        plain.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            other => return Err(format!("the reference &{};", other.chars().take(16).collect::<String>())),
        });
        plain.push_str(after);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dial(to: &str, timeout_s: Option<u32>) -> Result<Verb, String> {
        Ok(Verb::Dial { to: to.parse().unwrap(), timeout_s })
    }

    #[test]
    fn hangup_and_dial_are_read() {
        for document in [
            "<Response><Hangup/></Response>",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response>\n  <!-- over -->\n  <Hangup></Hangup>\n</Response>\n",
        ] {
            assert_eq!(parse(document), Ok(Verb::Hangup), "{document}");
        }
        for (document, wanted) in [
            ("<Response><Dial>+14155550199</Dial></Response>", dial("+14155550199", None)),
            (
                "<Response><Dial timeout=\"20\"> <Number>+14155550199</Number> </Dial></Response>",
                dial("+14155550199", Some(20)),
            ),
            (
                "<Response><Dial timeout='20'><Sip>sip:desk@pbx.example.com</Sip></Dial></Response>",
                dial("sip:desk@pbx.example.com", Some(20)),
            ),
        ] {
            assert_eq!(parse(document), wanted, "{document}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_in_words() {
        for (document, word) in [
            ("", "text stands"),
            ("<Response/>", "one verb"),
            ("<Response></Response>", "XML"),
            ("<Response><Say>Goodbye</Say><Hangup/></Response>", "Say is not done"),
            ("<Response><Hangup/><Hangup/></Response>", "only one verb"),
            ("<Response><Dial>+14155550199</Dial><Say>x</Say></Response>", "only one verb"),
            ("<Response><Dial/></Response>", "nobody"),
            ("<Response><Dial></Dial></Response>", "nobody"),
            ("<Response><Dial>nobody</Dial></Response>", "whom Dial names"),
            ("<Response><Dial record=\"true\">+14155550199</Dial></Response>", "record"),
            ("<Response><Dial timeout=\"1\">+14155550199</Dial></Response>", "timeout must"),
            ("<Response><Dial timeout=20>+14155550199</Dial></Response>", "no value in quotes"),
            ("<Response><Dial>&evil;</Dial></Response>", "&evil;"),
            ("<Response><Dial><Number>+14155550199</Dial></Response>", "Number has no end"),
            ("<Response><Dial>+14155550199", "no end"),
            ("<Response><Hangup/></Response><x/>", "follows"),
            ("<!DOCTYPE x><Response><Hangup/></Response>", "XML"),
            ("<Response><Hangup/><!--", "a comment has no end"),
        ] {
            let error = parse(document).unwrap_err();
            assert!(error.contains(word), "{document}: {error}");
        }
        assert!(parse(&format!("<Response><!--{}--><Hangup/></Response>", "x".repeat(5_000))).is_err());
        // Cut anywhere, it is an error and nothing worse.
        let whole =
            "<?xml version='1.0'?><Response><Dial timeout='20'><Sip>sip:a@b.example</Sip></Dial></Response>";
        for end in 0..whole.len() {
            assert!(parse(&whole[..end]).is_err(), "{}", &whole[..end]);
        }
    }
}
