//! What can go wrong, as the layers above tell it.

use model::Timestamp;

/// Why a request of the store was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not there, or another organization's.
    #[error("not found")]
    NotFound,
    /// The state forbids it; one sentence for people.
    #[error("{0}")]
    Conflict(String),
    /// The trunk is the operator's.
    #[error("the trunk is managed by the operator")]
    Managed,
    /// The row is not in the state the write asks for.
    #[error("the resource has changed since it was read")]
    Changed,
    /// Cannot be fulfilled; one sentence for people.
    #[error("{0}")]
    Refused(String),
    /// A rule of the organization forbids it; one sentence for people.
    #[error("{0}")]
    Forbidden(String),
    /// What the organization may do until `until` is used up; one sentence for people.
    #[error("{sentence}")]
    UsedUp {
        /// What is used up.
        sentence: String,
        /// When it may go on.
        until: Timestamp,
    },
    /// A secret cannot be sealed or opened. Holds nothing of it.
    #[error("a secret cannot be opened: {0}")]
    Secret(&'static str),
    /// The database or its disk is away.
    #[error("{0}")]
    Unavailable(String),
    /// A newer release has changed the database.
    #[error("the database was written by a newer release of Tandem; start that one")]
    NewerSchema,
    /// A row does not hold what it should.
    #[error("a stored {0} cannot be read")]
    Corrupt(&'static str),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::RowNotFound => Self::NotFound,
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// Whether an error is a broken uniqueness or reference.
pub(crate) fn is_unique_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}
