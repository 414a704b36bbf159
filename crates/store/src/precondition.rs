//! `If-Match`: a write that is to happen only to the state its client has seen (RFC 9110 13.1.1).

use model::Timestamp;

use crate::StoreError;

/// What a write asks of the row it changes. A row's state is told by its `updated_at`, which only grows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// The row is in one of these states.
    OneOf(Vec<Timestamp>),
}

impl Precondition {
    pub(crate) fn check(&self, updated_at: Timestamp) -> Result<(), StoreError> {
        match self {
            Self::None => Ok(()),
            Self::OneOf(states) if states.contains(&updated_at) => Ok(()),
            Self::OneOf(_) => Err(StoreError::Changed),
        }
    }
}

/// The `updated_at` of a change: now, and always later than the one before.
pub(crate) fn later_than(before: Timestamp) -> i64 {
    Timestamp::now().0.max(before.0.saturating_add(1))
}
