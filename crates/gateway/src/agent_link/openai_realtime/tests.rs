use super::super::dialect::testing::{io, play, texts};
use super::*;

fn client(config: &Value) -> (RealtimeClient, Io) {
    let config: OpenaiRealtime = serde_json::from_value(config.clone()).unwrap();
    let rate = RealtimeClient::rate(config.audio().unwrap());
    let (mut client, mut io) = (RealtimeClient::new(&config, CallFacts::example()), io(rate));
    client.opened(false, &mut io);
    (client, io)
}

fn tell(client: &mut RealtimeClient, io: &mut Io, event: Value) {
    client.received(Incoming::Text(&event.to_string()), io);
}

fn delta(client: &mut RealtimeClient, io: &mut Io, response: &str, item: &str, ms: usize) {
    let audio = STANDARD.encode(vec![0x80; ms * 8]);
    tell(
        client,
        io,
        json!({"type": "response.output_audio.delta", "response_id": response, "item_id": item,
        "output_index": 0, "content_index": 0, "delta": audio}),
    );
}

#[test]
fn the_session_update_word_for_word() {
    let (_, mut io) = client(&json!({"instructions": "Be kind.", "voice": "marin",
        "session": {"audio": {"input": {"turn_detection": {"silence_duration_ms": 200}}}, "tools": []}}));
    assert_eq!(
        texts(&mut io),
        [
            r#"{"type":"session.update","session":{"type":"realtime","output_modalities":["audio"],"audio":{"input":{"format":{"type":"audio/pcmu"},"transcription":{"model":"gpt-4o-mini-transcribe"},"turn_detection":{"type":"server_vad","threshold":0.5,"prefix_padding_ms":300,"silence_duration_ms":200,"create_response":true,"interrupt_response":true}},"output":{"format":{"type":"audio/pcmu"},"voice":"marin"}},"instructions":"Be kind.","tools":[]}}"#
        ]
    );
    let (_, mut io) = client(&json!({"dialect": "beta", "voice": "alloy",
        "session": {"input_audio_format": "pcm16", "output_audio_format": "pcm16", "turn_detection": {"type": "semantic_vad"}}}));
    assert_eq!(
        texts(&mut io),
        [
            r#"{"type":"session.update","session":{"modalities":["audio","text"],"input_audio_format":"pcm16","output_audio_format":"pcm16","input_audio_transcription":{"model":"whisper-1"},"turn_detection":{"type":"semantic_vad"},"voice":"alloy"}}"#
        ]
    );
}

#[test]
fn ready_then_greeting_then_audio() {
    let (mut client, mut io) = client(&json!({}));
    texts(&mut io);
    tell(&mut client, &mut io, json!({"type": "session.created"}));
    assert!(io.acts.is_empty());
    tell(&mut client, &mut io, json!({"type": "session.updated"}));
    assert!(matches!(io.acts.pop(), Some(Act::Ready(Ok(())))));
    client.heard(&[0; 160], &mut io);
    assert!(io.out.is_empty());
    client.started(&mut io);
    client.heard(&[0; 160], &mut io);
    let sent = texts(&mut io);
    assert_eq!(sent[0], r#"{"type":"response.create"}"#);
    assert_eq!(
        sent[1],
        format!(r#"{{"type":"input_audio_buffer.append","audio":"{}"}}"#, STANDARD.encode([0xff; 160]))
    );
    client.digit('1', 80, &mut io);
    assert_eq!(
        texts(&mut io),
        [
            r#"{"type":"conversation.item.create","item":{"type":"message","role":"user","content":[{"type":"input_text","text":"The caller pressed 1 on the keypad."}]}}"#
        ]
    );
}

#[test]
fn an_interruption_tells_what_was_heard() {
    let (mut client, mut io) = client(&json!({}));
    tell(&mut client, &mut io, json!({"type": "session.updated"}));
    client.started(&mut io);
    texts(&mut io);
    tell(&mut client, &mut io, json!({"type": "response.created", "response": {"id": "r1"}}));
    delta(&mut client, &mut io, "r1", "i1", 400);
    delta(&mut client, &mut io, "r1", "i1", 600);
    delta(&mut client, &mut io, "r1", "i2", 1_000);
    assert_eq!(play(&io, 10).last(), Some(&32_124));
    tell(
        &mut client,
        &mut io,
        json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": 1, "item_id": "u1"}),
    );
    assert_eq!(
        texts(&mut io),
        [
            r#"{"type":"conversation.item.truncate","item_id":"i1","content_index":0,"audio_end_ms":200}"#,
            r#"{"type":"conversation.item.truncate","item_id":"i2","content_index":0,"audio_end_ms":0}"#,
        ]
    );
    // What still comes of that response is not heard; the next one is.
    delta(&mut client, &mut io, "r1", "i2", 200);
    assert_eq!(play(&io, 2), [0, 0]);
    tell(&mut client, &mut io, json!({"type": "response.done", "response": {"id": "r1"}}));
    delta(&mut client, &mut io, "r2", "i3", 100);
    assert_eq!(play(&io, 6)[..5], [32_124; 5]);
    // Everything was heard, so nothing is truncated.
    tell(&mut client, &mut io, json!({"type": "input_audio_buffer.speech_started", "item_id": "u2"}));
    assert!(texts(&mut io).is_empty());
    io.acts.clear();
    tell(
        &mut client,
        &mut io,
        json!({"type": "response.output_audio_transcript.done", "item_id": "i1", "transcript": "Good morning"}),
    );
    tell(
        &mut client,
        &mut io,
        json!({"type": "conversation.item.input_audio_transcription.completed", "item_id": "u1", "transcript": " Wait \n"}),
    );
    let said: Vec<_> = io
        .acts
        .drain(..)
        .map(|act| match act {
            Act::Event(AgentEvent::Said(turn)) => (turn.speaker, turn.text, turn.interrupted),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        said,
        [(Speaker::Agent, "Good morning".to_owned(), true), (Speaker::User, "Wait".to_owned(), false),]
    );
}

#[test]
fn a_server_that_names_no_responses_speaks_on_after_an_interruption() {
    let (mut client, mut io) = client(&json!({"dialect": "beta"}));
    tell(&mut client, &mut io, json!({"type": "session.updated"}));
    client.started(&mut io);
    tell(&mut client, &mut io, json!({"type": "response.created", "response": {}}));
    delta(&mut client, &mut io, "", "i1", 400);
    assert_eq!(play(&io, 2).last(), Some(&32_124));
    tell(&mut client, &mut io, json!({"type": "input_audio_buffer.speech_started", "item_id": "u1"}));
    assert_eq!(play(&io, 2), [0, 0]);
    tell(&mut client, &mut io, json!({"type": "response.done", "response": {}}));
    delta(&mut client, &mut io, "", "i2", 400);
    assert_eq!(play(&io, 3)[1..], [32_124; 2]);
}

#[test]
fn functions_are_called_once_and_answered() {
    let (mut client, mut io) = client(&json!({"dialect": "beta"}));
    tell(&mut client, &mut io, json!({"type": "session.updated"}));
    client.started(&mut io);
    texts(&mut io);
    io.acts.clear();
    tell(&mut client, &mut io, json!({"type": "response.created", "response": {"id": "r1"}}));
    tell(
        &mut client,
        &mut io,
        json!({"type": "response.output_item.added", "item": {"type": "function_call", "id": "f1", "name": "weather", "call_id": "c1"}}),
    );
    tell(
        &mut client,
        &mut io,
        json!({"type": "response.function_call_arguments.done", "item_id": "f1", "call_id": "c1", "arguments": "{\"city\":\"Rome\"}"}),
    );
    tell(
        &mut client,
        &mut io,
        json!({"type": "response.output_item.done", "item": {"type": "function_call", "id": "f1", "name": "weather", "call_id": "c1", "arguments": "{}"}}),
    );
    assert_eq!(io.acts.len(), 1);
    let Some(Act::Tool(call)) = io.acts.pop() else { panic!("no tool") };
    assert_eq!(
        (call.id.as_str(), call.name.as_str(), call.arguments.as_str()),
        ("c1", "weather", "{\"city\":\"Rome\"}")
    );
    client.tool("c1".to_owned(), Ok("{\"sun\":true}".to_owned()), &mut io);
    // A new response begins when the one that called is done.
    assert_eq!(
        texts(&mut io),
        [
            r#"{"type":"conversation.item.create","item":{"type":"function_call_output","call_id":"c1","output":"{\"sun\":true}"}}"#
        ]
    );
    tell(&mut client, &mut io, json!({"type": "response.done", "response": {"id": "r1"}}));
    assert_eq!(texts(&mut io), [r#"{"type":"response.create"}"#]);
    tell(
        &mut client,
        &mut io,
        json!({"type": "response.function_call_arguments.done", "call_id": "c2", "name": "tandem_hang_up", "arguments": ""}),
    );
    assert!(matches!(io.acts.pop(), Some(Act::Event(AgentEvent::HangUp))));
}

#[test]
fn a_refused_session_is_told_and_nonsense_is_counted() {
    let (mut client, mut io) = client(&json!({}));
    for bad in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"type":"response.audio.delta"}"#,
        r#"{"type":"response.audio.delta","delta":"*"}"#,
    ] {
        client.received(Incoming::Text(bad), &mut io);
        assert!(matches!(io.acts.pop(), Some(Act::Fault(_))), "{bad}");
    }
    tell(&mut client, &mut io, json!({"type": "error", "error": {"message": "no such model"}}));
    let Some(Act::Ready(Err(refused))) = io.acts.pop() else { panic!("not refused") };
    assert!(refused.to_string().contains("no such model"));
}

#[test]
fn a_warm_transfer_is_told_in_words_and_each_call_of_a_function_is_answered_once() {
    let (mut client, mut io) = client(&json!({}));
    tell(&mut client, &mut io, json!({"type": "session.updated"}));
    client.started(&mut io);
    texts(&mut io);
    io.acts.clear();
    let call = |client: &mut RealtimeClient, io: &mut Io, id: &str, name: &str, arguments: Value| {
        let event = json!({"type": "response.function_call_arguments.done", "call_id": id, "name": name,
            "arguments": arguments.to_string()});
        tell(client, io, event);
        format!("{:?}", io.acts.pop())
    };
    let to = "+14155550199";
    let asked = call(
        &mut client,
        &mut io,
        "c1",
        "tandem_transfer",
        json!({"to": to, "mode": "warm", "timeout_s": 20}),
    );
    assert!(
        asked.contains(r#"Transfer { to: "+14155550199", mode: Some("warm"), timeout_s: Some(20) }"#),
        "{asked}"
    );
    client.together(Some("c1".to_owned()), to, Together::Briefing, &mut io);
    let told = texts(&mut io);
    assert!(
        told[0].contains("function_call_output") && told[0].contains("tandem_complete_transfer"),
        "{told:?}"
    );
    assert_eq!(told[1], r#"{"type":"response.create"}"#);
    for (name, step) in [
        ("tandem_complete_transfer", "TransferStep(Complete)"),
        ("tandem_cancel_transfer", "TransferStep(Cancel)"),
        ("tandem_conference", "TransferStep(Conference)"),
        ("tandem_start_recording", "Record(Start(None))"),
        ("tandem_pause_recording", "Record(Pause)"),
        ("tandem_resume_recording", "Record(Resume)"),
    ] {
        let asked = call(&mut client, &mut io, name, name, json!({}));
        assert!(asked.contains(step), "{asked}");
    }
    let played = call(&mut client, &mut io, "c2", "tandem_play", json!({"tones": [{"hz": 440, "ms": 100}]}));
    assert!(played.contains("Play(Some(\"c2\")"), "{played}");
    call(&mut client, &mut io, "c3", "tandem_play", json!({"song": "x"}));
    assert!(texts(&mut io)[0].contains("unknown field"));
    // What came of it is said by nobody: the call of the function has its answer.
    let result = Err("the target hung up".to_owned());
    client.outcome(Outcome { id: Some("c1".to_owned()), action: "transfer", result }, &mut io);
    let told = texts(&mut io);
    assert!(
        told[0].contains(r#""role":"system""#)
            && told[0].contains("the target hung up. You speak with the caller."),
        "{told:?}"
    );
    // One that the API asked for.
    client.together(None, to, Together::Conference, &mut io);
    assert!(texts(&mut io)[0].contains("hear each other now"));
}
