//! What can go wrong, as the layers above tell it.

use crate::sqlite;

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
    /// Cannot be fulfilled; one sentence for people.
    #[error("{0}")]
    Refused(String),
    /// A secret cannot be sealed or opened. Holds nothing of it.
    #[error("a secret cannot be used: {0}")]
    Secret(&'static str),
    /// The database or its disk is away; one sentence for people.
    #[error("{0}")]
    Unavailable(String),
    /// A newer release has changed the database.
    #[error("the database was written by a newer release of Tandem; start that one")]
    NewerSchema,
    /// A row does not hold what it should; names the column.
    #[error("a stored {0} cannot be read")]
    Corrupt(&'static str),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::RowNotFound => Self::NotFound,
            sqlx::Error::PoolTimedOut => Self::Unavailable(format!(
                "The database is busy: no turn came within {} seconds.",
                sqlite::PATIENCE.as_secs()
            )),
            sqlx::Error::PoolClosed => Self::Unavailable("The database is closed.".to_owned()),
            other => Self::Unavailable(sqlite::explain(&other)),
        }
    }
}

/// Maps a broken uniqueness to a conflict, told by `sentence`.
pub(crate) fn taken(sentence: impl FnOnce() -> String) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |error| match error.as_database_error() {
        Some(database) if database.is_unique_violation() => StoreError::Conflict(sentence()),
        _ => error.into(),
    }
}

/// Maps a reference to something that is not there.
pub(crate) fn referred(error: sqlx::Error) -> StoreError {
    match error.as_database_error() {
        Some(database) if database.is_foreign_key_violation() => StoreError::NotFound,
        _ => error.into(),
    }
}
