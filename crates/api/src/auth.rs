//! From a credential and a route's scopes to the caller. [`Caller`] is the only way to an organization, and
//! [`guarded`] keeps a handler that does not ask for one out of the router.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::handler::Handler;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use model::{KeyId, OrganizationId, Scope, Timestamp};
use store::{Credential, CredentialKind};

use crate::ApiState;
use crate::error::ApiError;
use crate::idempotency::Gate;
use crate::rate_limit::Told;

/// Longest credential looked at, in bytes.
const MAX_CREDENTIAL: usize = 256;

/// Headers that name the organization of a personal access token.
static ORGANIZATION_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-anyreach-org"), HeaderName::from_static("x-tandem-org")];

/// The scopes of a route, as a type: any one of them suffices.
pub trait Route: Send + Sync + 'static {
    /// The scopes; never empty.
    const ANY_OF: &'static [Scope];
}

macro_rules! routes {
    ($($(#[$doc:meta])* $name:ident = [$($scope:ident),+]),+ $(,)?) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;
        impl Route for $name {
            const ANY_OF: &'static [Scope] = &[$(Scope::$scope),+];
        }
    )+ };
}

routes! {
    /// Reads trunks.
    TrunksRead = [TrunksRead, TrunksManage],
    /// Writes trunks.
    TrunksManage = [TrunksManage],
    /// Reads phone numbers.
    PhoneNumbersRead = [PhoneNumbersRead, PhoneNumbersManage],
    /// Writes phone numbers.
    PhoneNumbersManage = [PhoneNumbersManage],
    /// Reads agents.
    AgentsRead = [AgentsRead, AgentsManage],
    /// Writes agents.
    AgentsManage = [AgentsManage],
    /// Reads conversations.
    ConversationsRead = [ConversationsRead, ConversationsManage],
    /// Reads what is said and sent in conversations.
    ConversationsReadSensitive = [ConversationsReadSensitive],
    /// Begins and ends conversations.
    ConversationsManage = [ConversationsManage],
    /// Reads and writes the organization, its keys and its rules.
    OrganizationsManage = [OrganizationsManage],
    /// What any credential may do.
    Anything = [
        TrunksRead, TrunksManage, PhoneNumbersRead, PhoneNumbersManage, AgentsRead, AgentsManage, ConversationsRead,
        ConversationsReadSensitive, ConversationsManage, ManagedAccountsManage, CampaignsRead, CampaignsManage,
        OrganizationsManage
    ],
}

/// Who asks: a valid credential that may use the route, and the organization it acts in.
#[derive(Debug)]
pub struct Caller<R> {
    /// Everything the handler reads or writes belongs to it.
    pub organization: OrganizationId,
    /// The public half of the credential.
    pub(crate) credential: KeyId,
    scopes: Vec<Scope>,
    route: PhantomData<R>,
}

impl<R> Caller<R> {
    /// Whether the caller may also do what `needed` allows.
    #[must_use]
    pub fn may(&self, needed: Scope) -> bool {
        self.scopes.iter().any(|held| held.satisfies(needed))
    }

    /// The scopes the credential holds.
    #[must_use]
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }
}

impl<R: Route> FromRequestParts<ApiState> for Caller<R> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let (credential, organization) = identify(state, &parts.headers).await?;
        if let Some(limiter) = &state.limiter {
            let quota = limiter.admit(&credential);
            if let Some(told) = parts.extensions.get::<Told>() {
                told.set(quota);
            }
            if let Some(wait) = quota.wait {
                return Err(ApiError::RateLimited(wait));
            }
        }
        let id = credential.id();
        let Credential { scopes, .. } = credential;
        let caller = Self { organization, credential: id, scopes, route: PhantomData };
        if !R::ANY_OF.iter().any(|scope| caller.may(*scope)) {
            let needed: Vec<&str> = R::ANY_OF.iter().map(|scope| scope.as_str()).collect();
            return Err(ApiError::Forbidden(format!("This needs the scope {}.", needed.join(" or "))));
        }
        if let Some(gate) = parts.extensions.get::<Gate>() {
            gate.clone().pass(state).await?;
        }
        Ok(caller)
    }
}

/// The credential a request presents, and the organization it acts in.
pub(crate) async fn identify(
    state: &ApiState,
    headers: &HeaderMap,
) -> Result<(Credential, OrganizationId), ApiError> {
    let presented = bearer(headers)?;
    let found = state.store.authenticate(presented, Timestamp::now()).await?;
    let Some(credential) = found else {
        return Err(ApiError::Unauthorized("The token is unknown, malformed, expired or revoked."));
    };
    let organization = organization(&credential, headers)?;
    Ok((credential, organization))
}

/// The one bearer credential of the request.
fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(ApiError::Unauthorized(
            "Not authenticated: send Authorization: Bearer with an API key or token.",
        ));
    };
    if values.next().is_some() {
        return Err(ApiError::Unauthorized("The request carries more than one Authorization header."));
    }
    let malformed =
        ApiError::Unauthorized("The Authorization header must be Bearer and one API key or token.");
    let Some((scheme, token)) = value.to_str().ok().and_then(|v| v.trim().split_once(' ')) else {
        return Err(malformed);
    };
    let token = token.trim();
    let sound =
        !token.is_empty() && token.len() <= MAX_CREDENTIAL && token.bytes().all(|b| b.is_ascii_graphic());
    if scheme.eq_ignore_ascii_case("bearer") && sound { Ok(token) } else { Err(malformed) }
}

/// The organization the credential acts in.
fn organization(credential: &Credential, headers: &HeaderMap) -> Result<OrganizationId, ApiError> {
    let mut named: Option<&[u8]> = None;
    for value in ORGANIZATION_HEADERS.iter().flat_map(|name| headers.get_all(name)) {
        let value = value.as_bytes().trim_ascii();
        if value.is_empty() {
            continue;
        }
        if named.is_some_and(|other| !other.eq_ignore_ascii_case(value)) {
            return Err(ApiError::Forbidden("The request names more than one organization.".to_owned()));
        }
        named = Some(value);
    }
    let named =
        named.map(|value| std::str::from_utf8(value).ok().and_then(|v| v.parse::<OrganizationId>().ok()));
    match (&credential.kind, named) {
        (CredentialKind::Key { organization_id, .. }, None) => Ok(*organization_id),
        (CredentialKind::Key { organization_id, .. }, Some(named)) if named == Some(*organization_id) => {
            Ok(*organization_id)
        }
        (CredentialKind::Key { .. }, Some(_)) => Err(ApiError::Forbidden(
            "The API key belongs to another organization than the one named.".to_owned(),
        )),
        (CredentialKind::Token { .. }, None) => {
            Err(ApiError::Unauthorized("Token is missing organization claim."))
        }
        (CredentialKind::Token { organizations, .. }, Some(Some(named)))
            if organizations.contains(&named) =>
        {
            Ok(named)
        }
        (CredentialKind::Token { .. }, Some(_)) => {
            Err(ApiError::Forbidden("The token's user is not a member of the organization named.".to_owned()))
        }
    }
}

/// A handler's arguments, the caller first.
pub trait Guarded {
    /// The scopes of the route, any one of which suffices.
    const ANY_OF: &'static [Scope];
}

macro_rules! guarded_arguments {
    ($(($($argument:ident),*)),+ $(,)?) => { $(
        impl<M, R: Route $(, $argument)*> Guarded for (M, Caller<R>, $($argument,)*) {
            const ANY_OF: &'static [Scope] = R::ANY_OF;
        }
    )+ };
}

guarded_arguments! { (), (A), (A, B), (A, B, C), (A, B, C, D), (A, B, C, D, E) }

/// The scopes of a handler that names its caller first. Routes of the API are registered through this, so that one
/// without a caller does not compile:
///
/// ```compile_fail
/// async fn open() -> &'static str { "anyone" }
/// api::auth::guarded(open);
/// ```
/// ```
/// use api::auth::{Caller, TrunksRead, guarded};
/// async fn kept(caller: Caller<TrunksRead>) -> String { caller.organization.to_string() }
/// assert_eq!(guarded(kept).len(), 2);
/// ```
#[must_use]
pub fn guarded<H, T>(_: H) -> &'static [Scope]
where
    H: Handler<T, ApiState>,
    T: Guarded,
{
    T::ANY_OF
}
