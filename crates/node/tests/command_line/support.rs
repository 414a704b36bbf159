//! A binary, a directory of its own, and a clean environment.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use api::client::Client;
use model::Secret;

/// How long anything may take before a test fails: a machine that has no time at all starts a node in half a minute.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Place(pub(crate) tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The binary in this directory; nothing of the tester's environment reaches it.
    pub(crate) fn tandem(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
        command.args(arguments).current_dir(self.0.path()).env_clear().stdin(Stdio::null());
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.tandem(arguments).output().unwrap()
    }

    /// The last line of a command's answer; its status must be 0.
    #[track_caller]
    pub(crate) fn answer(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().last().unwrap_or_default().to_owned()
    }

    /// The one line on standard error of a command that ends with `status`.
    #[track_caller]
    pub(crate) fn refusal(&self, command: &mut Command, status: i32) -> String {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        assert_eq!(output.status.code(), Some(status), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(output.stdout.is_empty());
        text
    }

    /// A node on loopback with every port picked by the system.
    pub(crate) fn serve(&self, more: &[&str]) -> Serving {
        let mut arguments = vec![
            "serve",
            "--set",
            "http.listen=127.0.0.1:0",
            "--set",
            "sip.udp=127.0.0.1:0",
            "--set",
            "sip.tcp=127.0.0.1:0",
        ];
        arguments.extend(more);
        let mut child =
            self.tandem(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = lines_of(child.stderr.take().unwrap());
        let answer = lines_of(child.stdout.take().unwrap());
        let mut serving =
            Serving { child, lines, answer, http: String::new(), udp: String::new(), log: String::new() };
        serving.http = serving.logged("listening kind=http addr=");
        serving.udp = serving.logged("listening kind=sip/udp addr=");
        serving.logged("listening kind=sip/tcp addr=");
        serving
    }
}

fn lines_of(from: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

pub(crate) struct Serving {
    child: Child,
    lines: mpsc::Receiver<String>,
    answer: mpsc::Receiver<String>,
    pub(crate) http: String,
    pub(crate) udp: String,
    /// What was logged so far.
    pub(crate) log: String,
}

impl Serving {
    /// What follows `mark` in the next line of the log that holds it.
    #[track_caller]
    pub(crate) fn logged(&mut self, mark: &str) -> String {
        let until = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.log.push_str(&line);
            self.log.push('\n');
            if let Some((_, rest)) = line.split_once(mark) {
                return rest.to_owned();
            }
        }
        panic!("no line with {mark:?} in\n{}", self.log);
    }

    /// The next line on standard output.
    #[track_caller]
    pub(crate) fn answered(&self) -> String {
        self.answer.recv_timeout(PATIENCE).expect("a line on standard output")
    }

    /// Whether standard output has nothing more to say; only after the end.
    pub(crate) fn says_no_more(&self) -> bool {
        self.answer.recv_timeout(PATIENCE).is_err()
    }

    pub(crate) fn client(&self, key: &str) -> Client {
        Client::new(&format!("http://{}", self.http), Secret::new(key.to_owned())).unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let process = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &process]).status().unwrap().success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            // Ends when its standard error does.
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it does not end");
            if let Ok(line) = self.lines.recv_timeout(left) {
                self.log.push_str(&line);
                self.log.push('\n');
            }
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
