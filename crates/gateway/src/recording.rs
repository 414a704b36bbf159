//! Recordings on disk: one thread writes what the media shards have put into monitors, so that no shard ever waits
//! for a file. The files are complete up to the last round whatever becomes of the process.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use media::monitor::Monitor;
use media::recording::Recording;
use media::resample::Rate;
use model::{ConversationId, OrganizationId, RecordingFormat};

/// Time between two rounds of writing: what a crash costs at most.
const ROUND: Duration = Duration::from_millis(200);
/// Recordings that may wait to be begun.
const MAX_WAITING: usize = 4_096;

struct Begin {
    path: PathBuf,
    format: RecordingFormat,
    monitor: Arc<Monitor>,
}

/// The writer's end of a gateway.
pub(crate) struct Recordings {
    begin: Sender<Begin>,
    dir: PathBuf,
}

impl Recordings {
    /// Starts the writer; it ends with the last sender, its files complete.
    pub(crate) fn start(dir: PathBuf) -> io::Result<Self> {
        let (begin, begun) = bounded(MAX_WAITING);
        std::thread::Builder::new().name("recorder".to_owned()).spawn(move || write(&begun))?;
        Ok(Self { begin, dir })
    }

    /// Records a call; the monitor is to be given to its session. `None` when too many wait to be begun.
    pub(crate) fn begin(
        &self,
        organization: OrganizationId,
        conversation: ConversationId,
        format: RecordingFormat,
        wideband: bool,
    ) -> Option<Arc<Monitor>> {
        let rate = if wideband || format == RecordingFormat::Ogg { Rate::Hz16000 } else { Rate::Hz8000 };
        let monitor = Arc::new(Monitor::new(rate));
        let path = model::recording_path(&self.dir, organization, conversation, format);
        let begin = Begin { path, format, monitor: Arc::clone(&monitor) };
        self.begin.try_send(begin).is_ok().then_some(monitor)
    }
}

struct Open {
    path: PathBuf,
    file: File,
    recording: Recording,
    monitor: Arc<Monitor>,
}

fn write(begun: &Receiver<Begin>) {
    let mut open: Vec<Open> = Vec::new();
    let (mut samples, mut bytes) = (Vec::new(), Vec::new());
    loop {
        let next = begun.recv_timeout(ROUND);
        let over = matches!(next, Err(RecvTimeoutError::Disconnected));
        for begin in next.into_iter().chain(begun.try_iter()) {
            match create(&begin) {
                Ok(opened) => open.push(opened),
                Err(error) => {
                    tracing::error!(path = %begin.path.display(), %error, "a recording cannot be begun");
                    begin.monitor.give_up();
                }
            }
        }
        open.retain_mut(|open| {
            // Asked before the last samples are taken: nothing comes after it.
            let last = over || open.monitor.is_closed() || Arc::strong_count(&open.monitor) == 1;
            samples.clear();
            bytes.clear();
            open.monitor.take(&mut samples);
            open.recording.audio(&samples, &mut bytes);
            if last {
                open.recording.end(&mut bytes);
            }
            if let Err(error) = append(open, &bytes) {
                tracing::error!(path = %open.path.display(), %error, "a recording cannot be written and ends");
                open.monitor.give_up();
                return false;
            }
            !last
        });
        if over {
            return;
        }
    }
}

fn create(begin: &Begin) -> io::Result<Open> {
    if let Some(dir) = begin.path.parent() {
        std::fs::create_dir_all(dir)?;
        private(dir, 0o700)?;
    }
    let mut file = File::create_new(&begin.path)?;
    private(&begin.path, 0o600)?;
    let serial = begin.path.as_os_str().len() as u32;
    let mut recording = match begin.format {
        RecordingFormat::Wav => Recording::wav(begin.monitor.rate()),
        RecordingFormat::Ogg => Recording::ogg(serial),
    };
    let mut bytes = Vec::new();
    recording.begin(&mut bytes);
    file.write_all(&bytes)?;
    Ok(Open { path: begin.path.clone(), file, recording, monitor: Arc::clone(&begin.monitor) })
}

/// What callers say is nobody else's business on this machine.
fn private(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

fn append(open: &mut Open, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    open.file.write_all(bytes)?;
    // Audio first, then the header that counts it: a crash in between hides the audio of one round.
    match open.recording.header() {
        Some(header) => open.file.write_all_at(&header, 0),
        None => Ok(()),
    }
}
