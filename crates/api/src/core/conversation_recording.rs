//! A call's recording: the file, and pausing it.

use std::io::SeekFrom;
use std::ops::RangeInclusive;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cluster::CallError;
use model::{RecordStep, RecordingFormat};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use utoipa::ToSchema;

use super::agent_config::RecordingFormatSchema;
use super::conversation_media::EDGE_LIMIT;
use super::conversations::{CONVERSATION, ConversationOut, ConversationPath};
use crate::ApiState;
use crate::auth::{Caller, ConversationsManage, ConversationsReadSensitive};
use crate::error::{ApiError, of};
use crate::extract::{At, OptionalBody};
use crate::routes::{Routes, operations};

/// Bytes of a recording read at once.
const CHUNK: usize = 64 << 10;
/// What a 404 speaks of.
const RECORDING: &str = "Recording";

/// Gives a call's recording: the caller on the left, the agent on the right. While the call lasts, what there is so
/// far. One byte range may be asked for (RFC 9110 14).
#[utoipa::path(get, path = "/core/conversations/{id}/recording", operation_id = "get_conversation_recording",
    tag = "Conversations",
    params(ConversationPath, ("Range" = Option<String>, Header, description = "For example `bytes=0-1023`.")),
    responses((status = 200, description = "The file.", content((Vec<u8> = "audio/wav"), (Vec<u8> = "audio/ogg"))),
        (status = 206, description = "The range of it.", content((Vec<u8> = "audio/wav"), (Vec<u8> = "audio/ogg"))),
        (status = 416, description = "The range begins behind its end.", body = crate::error::ErrorOut)))]
async fn recording(
    caller: Caller<ConversationsReadSensitive>,
    At(path): At<ConversationPath>,
    State(state): State<ApiState>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (organization, id) = (caller.organization, path.id.0);
    let call = state.store.conversation(organization, id).await.map_err(of(CONVERSATION))?;
    let details = call.recording.ok_or(ApiError::NotFound(RECORDING))?;
    let file = model::recording_path(&state.recordings, organization, id, details.format);
    let mut file = tokio::fs::File::open(&file).await.map_err(|_| ApiError::NotFound(RECORDING))?;
    let length = file.metadata().await.map_err(|_| ApiError::Internal)?.len();
    let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let (status, range) = match asked.map_or(Asked::All, |asked| parse_range(asked, length)) {
        Asked::All => (StatusCode::OK, None),
        Asked::Range(range) => (StatusCode::PARTIAL_CONTENT, Some(range)),
        Asked::Beyond => {
            let body = crate::error::ErrorOut {
                detail: format!("Range begins behind the recording's end; it has {length} bytes."),
                errors: Vec::new(),
            };
            let headers = [(header::CONTENT_RANGE, format!("bytes */{length}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, headers, Json(body)).into_response());
        }
    };
    let (first, count) = match &range {
        Some(range) => (*range.start(), range.end() - range.start() + 1),
        None => (0, length),
    };
    file.seek(SeekFrom::Start(first)).await.map_err(|_| ApiError::Internal)?;
    let chunks = futures_util::stream::try_unfold(file.take(count), |mut file| async move {
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok::<_, std::io::Error>((read > 0).then(|| (Bytes::from(chunk), file)))
    });
    let mut response = (status, HttpBody::from_stream(chunks)).into_response();
    let kind = match details.format {
        RecordingFormat::Wav => "audio/wav",
        RecordingFormat::Ogg => "audio/ogg",
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(count));
    if let Some(range) = range
        && let Ok(value) = HeaderValue::try_from(format!("bytes {}-{}/{length}", range.start(), range.end()))
    {
        headers.insert(header::CONTENT_RANGE, value);
    }
    Ok(response)
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    All,
    Range(RangeInclusive<u64>),
    Beyond,
}

/// One range of bytes; anything else that is asked is answered with all (RFC 9110 14.2).
fn parse_range(value: &str, length: u64) -> Asked {
    let Some((first, last)) = value.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-'))
    else {
        return Asked::All;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (first, last) = match (first.trim(), last.trim()) {
        ("", last) => match number(last) {
            Some(0) => return Asked::Beyond,
            Some(count) => (length.saturating_sub(count), length.saturating_sub(1)),
            None => return Asked::All,
        },
        (first, "") => match number(first) {
            Some(first) => (first, length.saturating_sub(1)),
            None => return Asked::All,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => (first, last.min(length.saturating_sub(1))),
            _ => return Asked::All,
        },
    };
    if first >= length { Asked::Beyond } else { Asked::Range(first..=last) }
}

/// Leaves what is said from now on out of a live call's recording, on both sides; the recording goes on without a gap.
/// `recording_details` lists the pauses. Pausing a paused recording changes nothing.
#[utoipa::path(post, path = "/core/conversations/{id}/recording/pause", operation_id = "pause_conversation_recording",
    tag = "Conversations", params(ConversationPath),
    responses((status = 200, description = "The call.", body = ConversationOut),
        (status = 409, description = "The call is not in progress, or not recorded.",
            body = crate::error::ErrorOut)))]
async fn pause(
    caller: Caller<ConversationsManage>,
    At(path): At<ConversationPath>,
    State(state): State<ApiState>,
) -> Result<Json<ConversationOut>, ApiError> {
    step(&state, &caller, path, RecordStep::Pause).await
}

/// Takes a paused recording up again. Resuming one that is not paused changes nothing.
#[utoipa::path(post, path = "/core/conversations/{id}/recording/resume", operation_id = "resume_conversation_recording",
    tag = "Conversations", params(ConversationPath),
    responses((status = 200, description = "The call.", body = ConversationOut),
        (status = 409, description = "The call is not in progress, or not recorded.",
            body = crate::error::ErrorOut)))]
async fn resume(
    caller: Caller<ConversationsManage>,
    At(path): At<ConversationPath>,
    State(state): State<ApiState>,
) -> Result<Json<ConversationOut>, ApiError> {
    step(&state, &caller, path, RecordStep::Resume).await
}

/// A recording to begin.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConversationRecordingStart)]
struct StartIn {
    /// The file's format; the one of the agent's config when it is not named.
    #[serde(default)]
    #[schema(inline, required = false, value_type = Option<RecordingFormatSchema>)]
    format: Option<RecordingFormat>,
}

/// Records a live call from now on, whatever the agent's config says of recordings: the caller on the left, the agent
/// on the right. A recording that is paused goes on; one that is under way is left as it is.
#[utoipa::path(post, path = "/core/conversations/{id}/recording/start", operation_id = "start_conversation_recording",
    tag = "Conversations", params(ConversationPath), request_body = StartIn,
    responses((status = 200, description = "The call.", body = ConversationOut),
        (status = 409, description = "The call is not in progress, or recorded in another format already.",
            body = crate::error::ErrorOut)))]
async fn start(
    caller: Caller<ConversationsManage>,
    At(path): At<ConversationPath>,
    State(state): State<ApiState>,
    OptionalBody(body): OptionalBody<StartIn>,
) -> Result<Json<ConversationOut>, ApiError> {
    let format = body.unwrap_or_default().format;
    step(&state, &caller, path, RecordStep::Start(format)).await
}

async fn step(
    state: &ApiState,
    caller: &Caller<ConversationsManage>,
    path: ConversationPath,
    step: RecordStep,
) -> Result<Json<ConversationOut>, ApiError> {
    let id = path.id.0;
    let call = state.store.conversation(caller.organization, id).await.map_err(of(CONVERSATION))?;
    if call.status.is_final() {
        return Err(ApiError::Conflict("The call is over.".to_owned()));
    }
    let what = match step {
        RecordStep::Start(_) => "recorded",
        RecordStep::Pause => "paused",
        RecordStep::Resume => "resumed",
    };
    let call = match tokio::time::timeout(EDGE_LIMIT, state.cluster.record(id, step)).await {
        Ok(Ok(call)) => call,
        Ok(Err(
            error @ (CallError::NotLive
            | CallError::NotAnswered
            | CallError::NotRecorded
            | CallError::OtherFormat),
        )) => return Err(ApiError::Conflict(format!("Nothing is {what}: {error}."))),
        Ok(Err(error)) => return Err(ApiError::Unavailable(format!("Nothing is {what}: {error}."))),
        Err(_) => return Err(ApiError::Unavailable("The call edge did not answer in time.".to_owned())),
    };
    Ok(Json(ConversationOut::of(state, caller, call).await?))
}

pub(super) fn routes() -> Routes {
    operations!(recording, start, pause, resume)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_at_the_end_and_nonsense_is_everything() {
        assert_eq!(parse_range("bytes=0-9", 100), Asked::Range(0..=9));
        assert_eq!(parse_range("bytes=90-", 100), Asked::Range(90..=99));
        assert_eq!(parse_range("bytes=-10", 100), Asked::Range(90..=99));
        assert_eq!(parse_range("bytes=-1000", 100), Asked::Range(0..=99));
        assert_eq!(parse_range("bytes=95-300", 100), Asked::Range(95..=99));
        for beyond in ["bytes=100-", "bytes=-0"] {
            assert_eq!(parse_range(beyond, 100), Asked::Beyond);
        }
        for all in ["bytes=5-2", "bytes=a-b", "items=0-1", "bytes=0-1,3-4", "bytes"] {
            assert_eq!(parse_range(all, 100), Asked::All);
        }
        assert_eq!(parse_range("bytes=0-", 0), Asked::Beyond);
    }
}
