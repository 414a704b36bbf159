//! Logs: to standard error, one event a line.

use std::io::{IsTerminal as _, Write};

use tracing_subscriber::EnvFilter;

/// Starts logging at `default`, or by RUST_LOG.
pub(crate) fn start(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| default.into());
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Lines { to: std::io::stderr(), colours })
        .with_ansi(colours)
        .with_target(false)
        .init();
}

/// Writes each event as one line: what came from the network can neither begin a line of its own nor steer a terminal.
struct Lines<W> {
    to: W,
    /// Escape sequences are ours; those inside values have been made harmless by the formatter.
    colours: bool,
}

impl<W: Write> Write for Lines<W> {
    /// One call is one event.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let body = text.strip_suffix('\n').unwrap_or(&text);
        let harmless = |c: char| !c.is_control() || (self.colours && c == '\u{1b}');
        if body.chars().all(harmless) {
            self.to.write_all(event)?;
        } else {
            let mut line = String::with_capacity(body.len() + 16);
            for c in body.chars() {
                if harmless(c) { line.push(c) } else { line.extend(c.escape_default()) }
            }
            line.push('\n');
            self.to.write_all(line.as_bytes())?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_its_values_hold() {
        let mut lines = Lines { to: Vec::new(), colours: false };
        let event = "INFO call user_agent=x\r\nERROR forged \u{1b}[2J\u{9b}1m\n".as_bytes();
        assert_eq!(lines.write(event).unwrap(), event.len());
        lines.write_all(b"INFO plain\n").unwrap();
        let text = String::from_utf8(lines.to).unwrap();
        assert_eq!(text, "INFO call user_agent=x\\r\\nERROR forged \\u{1b}[2J\\u{9b}1m\nINFO plain\n");
    }
}
