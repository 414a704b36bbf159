//! The other end of a leg's audio.

use std::sync::Arc;

use crate::link::Port;
use crate::player::Player;
use crate::resample::Rate;

/// Who is at the other end of the audio.
#[derive(Debug)]
pub enum Agent {
    /// Returns every payload bit for bit; with noise cancellation, what is left of it.
    Echo,
    /// Says something.
    Play(Player),
    /// Speaks and hears by a port; silence is sent while it says nothing.
    Linked(Arc<dyn Port>),
    /// Only listens.
    Silent,
}

impl Agent {
    /// Whether frames are sent by our own clock.
    pub(super) fn speaks(&self) -> bool {
        matches!(self, Self::Play(_) | Self::Linked(_))
    }

    /// The rate of what it says and hears; `None` when that is the codec's.
    pub(crate) fn rate(&self) -> Option<Rate> {
        match self {
            Self::Play(_) => Some(Rate::Hz8000),
            Self::Linked(link) => Rate::from_hz(link.rate()),
            Self::Echo | Self::Silent => None,
        }
    }

    /// The next frame, at its rate. `false` when the agent has said everything.
    pub(crate) fn fill(&mut self, frame: &mut [i16]) -> bool {
        match self {
            Self::Play(player) => player.fill(frame),
            Self::Linked(link) => {
                link.take(frame);
                true
            }
            Self::Echo | Self::Silent => false,
        }
    }
}
