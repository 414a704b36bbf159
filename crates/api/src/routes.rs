//! How operations enter the router and the description of the API: always together, always guarded.

use axum::http::StatusCode;
use model::Scope;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, RefOr, Required, ResponseBuilder, SecurityRequirement};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::ApiState;
use crate::error::ErrorOut;

/// Name of the security scheme.
pub(crate) const BEARER: &str = "bearer";

/// Registers guarded handlers: `operations!(list, create)`.
macro_rules! operations {
    ($($handler:ident),+ $(,)?) => {{
        let mut routes = $crate::routes::Routes::new();
        $(
            let scopes = $crate::auth::guarded($handler);
            routes = routes.add(scopes, utoipa_axum::routes!($handler));
        )+
        routes
    }};
}
pub(crate) use operations;

/// A part of the API: guarded operations and their description.
pub(crate) struct Routes(OpenApiRouter<ApiState>);

impl Routes {
    pub(crate) fn new() -> Self {
        Self(OpenApiRouter::default())
    }

    /// Adds one operation. What the guard and the extractors can answer is described here, once for all.
    pub(crate) fn add(self, scopes: &'static [Scope], operation: UtoipaMethodRouter<ApiState>) -> Self {
        let (mut schemas, mut paths, methods) = operation;
        schemas.push((ErrorOut::name().into_owned(), ErrorOut::schema()));
        ErrorOut::schemas(&mut schemas);
        for (path, item) in &mut paths.paths {
            if let Some(post) = &mut item.post {
                describe_idempotency(post);
            }
            for changing in [&mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten() {
                describe_precondition(changing);
            }
            let slots = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
            for operation in slots.into_iter().flatten() {
                describe(path, scopes, operation);
            }
        }
        Self(self.0.routes((schemas, paths, methods)))
    }

    /// Adds the schema of a path or query parameter, which the description of an operation only refers to.
    pub(crate) fn parameter<T: ToSchema>(mut self) -> Self {
        let components = self.0.get_openapi_mut().components.get_or_insert_default();
        components.schemas.insert(T::name().into_owned(), T::schema());
        self
    }

    pub(crate) fn merge(self, other: Self) -> Self {
        Self(self.0.merge(other.0))
    }

    pub(crate) fn into_inner(self) -> OpenApiRouter<ApiState> {
        self.0
    }
}

/// `Idempotency-Key`, and what it can answer.
fn describe_idempotency(operation: &mut Operation) {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(crate::idempotency::MAX_KEY))
        .pattern(Some("^[!-~]([ -~]*[!-~])?$"));
    header(
        operation,
        "Idempotency-Key",
        "A new key for each new request: the same request sent again with its key gets the first answer, for 24 hours.",
        schema,
    );
    let response = operation.responses.responses.entry(StatusCode::CONFLICT.as_u16().to_string());
    response.or_insert_with(|| {
        RefOr::T(error("The first request with the same Idempotency-Key is still in progress."))
    });
}

/// `If-Match`, and what it can answer.
fn describe_precondition(operation: &mut Operation) {
    header(
        operation,
        "If-Match",
        "The ETag of the state that is to change; without it, whatever state there is.",
        ObjectBuilder::new().schema_type(Type::String),
    );
    let status = StatusCode::PRECONDITION_FAILED.as_u16().to_string();
    let response = operation.responses.responses.entry(status);
    response.or_insert_with(|| RefOr::T(error("The resource is not in the state that If-Match names.")));
}

fn header(operation: &mut Operation, name: &str, text: &str, schema: ObjectBuilder) {
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(text))
        .schema(Some(schema));
    operation.parameters.get_or_insert_default().push(parameter.build().into());
}

fn describe(path: &str, scopes: &'static [Scope], operation: &mut Operation) {
    let requirement = |scope: &Scope| SecurityRequirement::new(BEARER, [scope.as_str()]);
    operation.security = Some(scopes.iter().map(requirement).collect());
    let mut add = |status: StatusCode, description: &str| {
        let response = operation.responses.responses.entry(status.as_u16().to_string());
        response.or_insert_with(|| RefOr::T(error(description)));
    };
    add(StatusCode::UNAUTHORIZED, "No credential, or one that is unknown, malformed, expired or revoked.");
    add(
        StatusCode::FORBIDDEN,
        "The credential lacks the scope, or does not belong to the organization named.",
    );
    add(StatusCode::TOO_MANY_REQUESTS, "The credential has used up its rate limit.");
    add(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong on our side.");
    add(
        StatusCode::SERVICE_UNAVAILABLE,
        "The store or the call edge is unavailable, or the change is saved and not in force yet; the detail says which.",
    );
    if path.contains('{') {
        add(StatusCode::NOT_FOUND, "Not there, or in another organization.");
    }
    if operation.request_body.is_some() {
        add(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time.");
        add(StatusCode::PAYLOAD_TOO_LARGE, "The body is larger than 1 MiB.");
        add(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is not JSON.");
    }
    let parameters = operation.parameters.as_ref().is_some_and(|p| !p.is_empty());
    if parameters || operation.request_body.is_some() {
        operation
            .responses
            .responses
            .entry(StatusCode::UNPROCESSABLE_ENTITY.as_u16().to_string())
            .or_insert_with(|| {
                RefOr::T(error("A path, query or body field breaks a rule; `errors` names it."))
            });
    }
}

/// A response with an error body.
pub(crate) fn error(description: &str) -> utoipa::openapi::Response {
    let schema = utoipa::openapi::Ref::from_schema_name(ErrorOut::name().into_owned());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(description).content("application/json", content).build()
}
