//! The runtimes of a node, one for signalling and one for everything else (ADR 7).

use std::num::NonZero;

use tokio::runtime::{Builder, Runtime};

/// A runtime of half as many threads as there are cores: the media have threads of their own, and so has the store. More
/// of them would wake each other to look for work that one of them has done by then.
pub(crate) fn runtime(name: &str) -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Builder::new_multi_thread().worker_threads((cores / 2).max(1)).thread_name(name).enable_all().build()
}
