//! Answers the edge, which asks before it places a call of its own, and counts what is placed.

use cluster::CallsOut;
use store::Store;

/// Runs until nobody is left to ask. One question after the other: each is a write, and the store has one writer.
pub(crate) async fn run(store: Store, mut questions: CallsOut) {
    while let Some(asked) = questions.recv().await {
        if asked.reply.is_closed() {
            continue;
        }
        let answer = store.admit_call_out(asked.organization, &asked.to).await;
        // Who asked may have hung up meanwhile: the call is counted all the same, as one that nobody answers is.
        let _ = asked.reply.send(answer.map_err(|error| error.to_string()));
    }
}
