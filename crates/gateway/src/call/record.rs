//! The recording of a call and what its conversation says of it, whatever way the call came.

use std::sync::Arc;

use cluster::CallError;
use media::monitor::Monitor;
use model::{Conversation, RecordStep, RecordingDetails, RecordingFormat, Timestamp};

use crate::edge::Edge;

/// What a step comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Begin(RecordingFormat),
    Pause(bool),
}

/// What a step comes to as the call stands, whose agent's config names a format. A call has one file.
pub(crate) fn wanted(
    call: &Conversation,
    configured: RecordingFormat,
    step: RecordStep,
) -> Result<Wanted, CallError> {
    match (step, &call.recording) {
        (RecordStep::Start(format), None) => Ok(Wanted::Begin(format.unwrap_or(configured))),
        (RecordStep::Start(Some(format)), Some(details)) if format != details.format => {
            Err(CallError::OtherFormat)
        }
        (RecordStep::Start(_) | RecordStep::Resume, _) => Ok(Wanted::Pause(false)),
        (RecordStep::Pause, _) => Ok(Wanted::Pause(true)),
    }
}

/// Begins one; not when too many wait to be begun, which a note says as well.
pub(crate) fn begin(
    edge: &Edge,
    call: &mut Conversation,
    format: RecordingFormat,
    wideband: bool,
) -> Result<Arc<Monitor>, CallError> {
    let begun = edge.recordings.begin(call.organization_id, call.id, format, wideband);
    let Some(monitor) = begun else {
        /// As often as it is tried, a call keeps one note of it.
        const NOTE: &str = "not_recorded: too many recordings wait to be begun";
        if call.notes.iter().all(|note| note != NOTE) {
            call.notes.push(NOTE.to_owned());
        }
        return Err(CallError::RecorderBusy);
    };
    call.recording = Some(RecordingDetails {
        format,
        sample_rate: monitor.rate().hz(),
        channels: 2,
        started_at: Timestamp::now(),
        duration_ms: None,
        pauses: Vec::new(),
        more_pauses: 0,
    });
    Ok(monitor)
}

/// Leaves what is said from now on out of it, or records it again. `false` when it was so already.
pub(crate) fn pause(
    monitor: Option<&Arc<Monitor>>,
    call: &mut Conversation,
    paused: bool,
) -> Result<bool, CallError> {
    let monitor = monitor.filter(|monitor| !monitor.is_broken());
    let (Some(monitor), Some(details)) = (monitor, &mut call.recording) else {
        return Err(CallError::NotRecorded);
    };
    if monitor.is_paused() == paused {
        return Ok(false);
    }
    monitor.pause(paused);
    let now = Timestamp::now();
    if paused {
        details.paused(monitor.recorded_ms(), now);
    } else {
        details.resumed(now);
    }
    Ok(true)
}

/// The call is over.
pub(crate) fn settle(monitor: Option<Arc<Monitor>>, call: &mut Conversation) {
    let Some(monitor) = monitor else { return };
    monitor.close();
    if let Some(details) = &mut call.recording {
        details.duration_ms = Some(monitor.recorded_ms());
    }
    if monitor.is_broken() {
        call.notes.push("recording_broken: the file could not be written".to_owned());
    }
}
