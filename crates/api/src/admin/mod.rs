//! The resources under `/admin`: the organization's keys, and what a credential may do.

mod keys;
mod scopes;

pub(crate) use keys::KeyOut;

use crate::routes::Routes;

/// Every guarded operation.
pub(crate) fn routes() -> Routes {
    Routes::new().merge(keys::routes()).merge(scopes::routes())
}
