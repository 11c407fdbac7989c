//! This API, to read and for programs: `/docs` and `/openapi.json`.
//!
//! Derived from the table of routes and from the engine's own description of
//! what may be asked of a model; the page is plain HTML.

mod html;
mod schemas;

use axum::http::header;
use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use mistralrs_server_core::openapi_doc::get_openapi_doc;
use serde_json::{json, Map, Value};

use super::routes::{Route, ROUTES};

/// Path of the style sheet.
const DOCS_STYLE: &str = "/assets/docs.css";

/// What the page may load: its style sheet, from this server.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// `/docs`, its style sheet and `/openapi.json`.
pub(super) fn routes() -> Router {
    let document = document();
    let page = html::page(&document);
    Router::new()
        .route(
            "/docs",
            get(move || {
                let headers = [(header::CONTENT_SECURITY_POLICY, POLICY)];
                std::future::ready((headers, Html(page)))
            }),
        )
        .route(
            DOCS_STYLE,
            get(|| async { ([(header::CONTENT_TYPE, "text/css")], html::STYLE) }),
        )
        .route(
            "/openapi.json",
            get(move || std::future::ready(Json(document))),
        )
}

/// The OpenAPI 3.1 document of all routes.
fn document() -> Value {
    // The engine's document names routes that are not served.
    let theirs = serde_json::to_value(get_openapi_doc(None)).unwrap_or_default();
    let mut paths = Map::new();
    for route in ROUTES {
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        methods[route.method] = operation(route, &theirs["paths"][route.path][route.method]);
    }
    let schemas = schemas::used(&paths, &theirs["components"]["schemas"]);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "mistralrs-prune",
            "description": "A pruned model behind the routes that OpenAI's clients use.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
        },
    })
}

/// One route, with the body that we or the engine say it takes.
fn operation(route: &Route, theirs: &Value) -> Value {
    let failure = json!({ "description": "Refused or failed", "content": {
        "application/json": { "schema": { "$ref": "#/components/schemas/Error" } }
    } });
    let mut responses = json!({ "default": failure });
    responses[route.status.to_string()] = json!({ "description": route.summary });
    let mut operation = json!({
        "summary": route.summary,
        "parameters": parameters(route),
        "responses": responses,
        "security": if route.open { json!([]) } else { json!([{ "key": [] }]) },
    });
    if let Some(name) = route.body {
        let schema = json!({ "$ref": format!("{}{name}", schemas::PREFIX) });
        let content = json!({ "application/json": { "schema": schema } });
        operation["requestBody"] = json!({ "required": true, "content": content });
    } else if theirs["requestBody"].is_object() {
        operation["requestBody"] = theirs["requestBody"].clone();
    }
    operation
}

/// What the path of a route has in braces, and what its query may name.
fn parameters(route: &Route) -> Vec<Value> {
    let parameter = |name: &str, place: &str| {
        let schema = json!({ "type": "string" });
        json!({ "name": name, "in": place, "required": place == "path", "schema": schema })
    };
    let parts = route.path.split('/');
    let in_path = parts.filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| parameter(name, "path"));
    let in_query = route.query.iter().map(|&name| parameter(name, "query"));
    in_path.chain(in_query).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        let mut references = 0;
        for after in text.split("\"#/components/schemas/").skip(1) {
            let name = after.split('"').next().unwrap();
            assert!(
                document["components"]["schemas"][name].is_object(),
                "{name}"
            );
            references += 1;
        }
        assert!(references > 10);
        assert!(!text.contains("re_isq"), "{text}");
    }

    #[test]
    fn every_route_is_described() {
        let document = document();
        let page = html::page(&document);
        for route in ROUTES {
            assert!(document["paths"][route.path][route.method].is_object());
            assert!(page.contains(route.path), "{}", route.path);
        }
        for field in ["max_tokens", "top_logprobs", "seed", "replace", "weight"] {
            assert!(page.contains(field), "no {field}");
        }
        assert!(!page.contains("<script"));
        let of = |path: &str, method: &str| document["paths"][path][method].clone();
        let removed = of("/v1/variants/{id}", "delete");
        assert!(removed["responses"]["204"].is_object());
        assert_eq!(removed["parameters"][0]["in"], "path");
        assert!(of("/v1/variants", "post")["responses"]["201"].is_object());
        assert_eq!(of("/v1/pruning", "get")["parameters"][0]["in"], "query");
    }
}
