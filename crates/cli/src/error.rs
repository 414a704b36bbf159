//! Why a command failed, in one line.

use api::client::ClientError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line or the environment lacks something or cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The API said no, or did not answer.
    #[error(transparent)]
    Api(#[from] ClientError),
    /// The node has ended a stream that was to go on.
    #[error("the node has ended the stream of events")]
    Ended,
    /// The answer could not be written.
    #[error("the answer cannot be written: {0}")]
    Output(#[from] std::io::Error),
}

impl CliError {
    /// Exit status: 2 for what the caller can put right on the command line, 4 for a credential that does not suffice,
    /// 1 for the rest.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Api(ClientError::Address(_)) => 2,
            Self::Api(ClientError::Refused { status: 401 | 403, .. }) => 4,
            Self::Api(_) | Self::Ended | Self::Output(_) => 1,
        }
    }
}
