//! Why a value from outside is refused.

/// A value that breaks a rule: the field's path below the resource, and one sentence that names the problem and
/// the rule. Never holds the value of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", path.join("."))]
pub struct Invalid {
    /// Path of the field, outermost first, for example `["inbound_config", "allowed_addresses", "2"]`.
    pub path: Vec<String>,
    /// What is wrong and what would be right, without a final full stop.
    pub message: String,
}

impl Invalid {
    /// An error on one field.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: vec![field.into()], message: message.into() }
    }

    /// The same error seen from the object that holds the field.
    #[must_use]
    pub fn within(mut self, field: impl Into<String>) -> Self {
        self.path.insert(0, field.into());
        self
    }
}

/// Refuses C0, DEL and C1 control characters: a line break must not reach a SIP header (RFC 3261 25.1).
pub fn no_control_characters(field: &str, value: &str) -> Result<(), Invalid> {
    match value.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, c)) => Err(Invalid::field(
            field,
            format!(
                "holds the control character U+{:04X} at byte {at}; control characters are not allowed",
                c as u32
            ),
        )),
        None => Ok(()),
    }
}
