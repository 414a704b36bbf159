//! How the registrations stand that trunks keep with their carriers.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use model::{Timestamp, TrunkId};

use crate::Cluster;

/// A trunk's registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Whether a binding stands.
    pub state: RegistrationState,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// When the binding ends unless it is refreshed.
    pub expires_at: Option<Timestamp>,
    /// What the registrar said last, or why it was not reached.
    pub detail: String,
}

/// How a registration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistrationState {
    /// The first REGISTER is under way.
    Trying,
    /// The carrier knows where to send calls.
    Registered,
    /// It does not; it is tried again.
    Failed,
}

#[derive(Default)]
pub(crate) struct Registrations(Mutex<HashMap<TrunkId, Registration>>);

impl Cluster {
    /// How a trunk's registration stands; `None` when it keeps none.
    #[must_use]
    pub fn registration(&self, trunk: TrunkId) -> Option<Registration> {
        // A poisoned table is a whole one: each change is a single insertion.
        let table = self.inner.registrations.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.get(&trunk).cloned()
    }

    /// Announces how a trunk's registration stands, or that it keeps none.
    pub fn set_registration(&self, trunk: TrunkId, registration: Option<Registration>) {
        let mut table = self.inner.registrations.0.lock().unwrap_or_else(PoisonError::into_inner);
        match registration {
            Some(registration) => table.insert(trunk, registration),
            None => table.remove(&trunk),
        };
    }
}
