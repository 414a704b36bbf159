//! A call's signalling on the screen: a ladder, and why the call went as it did.

use std::io::Write;

use serde_json::Value;

use crate::CliError;
use crate::show::text;

/// Writes the ladder of a trace as the API answers it; with `whole`, each message in full.
pub(crate) fn ladder(trace: &Value, whole: bool, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let list = |value: &'_ Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let messages = list(trace, "messages");
    for message in &messages {
        let arrow = if message["direction"] == "sent" { "--->" } else { "<---" };
        let field = |name: &str| text(&message[name]);
        writeln!(
            out,
            "{}  {} {arrow} {}  {}  {}",
            field("at"),
            field("local_address"),
            field("remote_address"),
            field("transport"),
            field("start_line"),
        )?;
        if whole {
            for line in message["raw"].as_str().unwrap_or_default().lines() {
                writeln!(out, "    {}", text(&Value::from(line)))?;
            }
        }
    }
    if messages.is_empty() {
        writeln!(out, "No messages are kept of this call.")?;
    }
    if let Some(missing) = trace["messages_left_out"].as_u64().filter(|&n| n > 0) {
        writeln!(out, "{missing} messages between the first and the last ones were not kept.")?;
    }
    for decision in list(trace, "decisions") {
        writeln!(out)?;
        for step in list(&decision, "steps") {
            let field = |name: &str| text(&step[name]);
            writeln!(out, "{:<5} {}: {}", field("result"), field("rule"), field("detail"))?;
        }
        let field = |name: &str| text(&decision[name]);
        writeln!(out, "{} {}. {}", field("status"), field("reason"), field("advice"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(trace: &Value, whole: bool) -> String {
        let mut out = Vec::new();
        ladder(trace, whole, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_ladder_has_a_line_a_message_and_says_why() {
        let trace = json!({
            "messages": [
                {"at": "T1", "direction": "received", "transport": "UDP", "local_address": "a:1", "remote_address": "b:2",
                 "start_line": "INVITE sip:x@a SIP/2.0", "raw": "INVITE sip:x@a SIP/2.0\r\nX-Evil: \u{1b}[2J\r\n"},
                {"at": "T2", "direction": "sent", "transport": "UDP", "local_address": "a:1", "remote_address": "b:2",
                 "start_line": "SIP/2.0 403 Forbidden", "raw": "SIP/2.0 403 Forbidden\r\n"}],
            "messages_left_out": 3,
            "decisions": [{"steps": [{"rule": "trunk", "result": "fail", "detail": "b is not allowed"}],
                           "status": 403, "reason": "source_not_allowed", "advice": "Add b."}]});
        let text = shown(&trace, false);
        assert!(text.contains("T1  a:1 <--- b:2  UDP  INVITE sip:x@a SIP/2.0\n"), "{text}");
        assert!(text.contains("a:1 ---> b:2  UDP  SIP/2.0 403") && text.contains("3 messages"), "{text}");
        assert!(text.contains("fail  trunk: b is not allowed\n403 source_not_allowed. Add b."), "{text}");
        let whole = shown(&trace, true);
        assert!(whole.contains("    X-Evil: ") && !whole.contains('\u{1b}'), "{whole}");
        assert!(shown(&json!({}), false).starts_with("No messages"));
    }
}
