//! Live listening, as it passes from the edge to who asks for it.

use std::fmt;

/// The audio of a live call. Dropping it ends the listening.
pub struct Listening {
    /// Samples a second.
    pub sample_rate: u32,
    /// Both sides.
    pub audio: Box<dyn LiveAudio>,
}

/// Both sides of a call as they are heard. Never waits: what is not taken within some seconds is lost, the oldest
/// first, and the call goes on.
pub trait LiveAudio: Send + Sync {
    /// Appends what there is, interleaved: the caller, then the agent. Returns how many samples a side were lost since
    /// the last time.
    fn take(&mut self, into: &mut Vec<i16>) -> u64;
    /// Whether the call is over. Asked before the last samples are taken, nothing comes after them.
    fn is_over(&self) -> bool;
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").field("sample_rate", &self.sample_rate).finish_non_exhaustive()
    }
}
