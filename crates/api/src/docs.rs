//! The description of the API, `/openapi.json`, and the page that renders it, `/docs`. Nothing is fetched from
//! elsewhere: the page's files are in the binary.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, License, OpenApi, OpenApiBuilder};

use crate::routes::BEARER;

/// Where the description is served.
pub(crate) const OPENAPI_PATH: &str = "/openapi.json";

/// What the description says before any operation is in it.
pub(crate) fn base() -> OpenApi {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "An organization's API key (`ak_…`), or a user's personal access token (`pat_…`) together with the header \
             `X-Anyreach-Org: <organization id>`.",
        ))
        .build();
    let mut license = License::new("Apache-2.0");
    license.identifier = Some("Apache-2.0".to_owned());
    let info = InfoBuilder::new()
        .title("Tandem")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Trunks, phone numbers, agents and calls. Lists are newest first; `limit` and `cursor` page through them, \
             and `X-Next-Cursor` and `Link` name the next page. Every error carries `detail`, one sentence; a 422 also \
             carries `errors`, one entry for each field at fault.",
        ))
        .license(Some(license))
        .build();
    let tag = |name: &str, text: &str| TagBuilder::new().name(name).description(Some(text)).build();
    OpenApiBuilder::new()
        .info(info)
        .components(Some(
            ComponentsBuilder::new().security_scheme(BEARER, SecurityScheme::Http(scheme)).build(),
        ))
        .tags(Some([
            tag("Trunks", "Lines to carriers and PBXs."),
            tag("Phone numbers", "Numbers and the agent versions behind them."),
            tag("Agents", "Who answers and calls, in versions."),
            tag("Conversations", "Calls."),
            tag("Inbound routing", "Who answers the organization's numbers, by rules or by a webhook."),
            tag("Organization", "The organization itself."),
            tag("Webhooks", "Where the organization hears of its calls."),
            tag("Administration", "The organization's API keys, and what a credential may do."),
            tag("Operation", "The node's own state; no credential needed."),
        ]))
        .build()
}

/// The two pages.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(openapi: &OpenApi) -> Router<S> {
    // A description made from derived types always serializes; were it not so, every test of this crate would fail.
    let description: Arc<str> = openapi.to_json().unwrap_or_default().into();
    let json = move || async move { ([(header::CONTENT_TYPE, "application/json")], description.to_string()) };
    Router::new()
        .route(OPENAPI_PATH, get(json))
        .route("/docs", get(|| async { page("") }))
        .route("/docs/", get(|| async { page("") }))
        .route("/docs/{*file}", get(|Path(file): Path<String>| async move { page(&file) }))
}

fn page(file: &str) -> Response {
    let config = Arc::new(utoipa_swagger_ui::Config::from(OPENAPI_PATH).try_it_out_enabled(true));
    match utoipa_swagger_ui::serve(file, config) {
        Ok(Some(found)) if file.is_empty() => {
            // The page's own references are relative to `/docs/`; it is served at `/docs` too.
            let html = String::from_utf8_lossy(&found.bytes)
                .replace("\"./", "\"/docs/")
                .replace("\"index.css", "\"/docs/index.css");
            ([(header::CONTENT_TYPE, found.content_type)], html).into_response()
        }
        Ok(Some(found)) => {
            ([(header::CONTENT_TYPE, found.content_type)], found.bytes.into_owned()).into_response()
        }
        Ok(None) => crate::error::ApiError::NotFound("Page").into_response(),
        Err(error) => {
            tracing::error!(%error, "the documentation page failed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
