use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{middleware, Json, Router};
use serde_json::json;

use super::*;

/// Asks a server whose routes fail as the engine's do.
async fn ask(path: &str) -> (u16, String, String) {
    let unknown = "Requested model 'x' is not available. Available models: demo.";
    let failed = |message: &str, more: Value| {
        let mut body = json!({ "message": message });
        body["partial_response"] = more;
        let answer = (StatusCode::INTERNAL_SERVER_ERROR, Json(body));
        std::future::ready(answer.into_response())
    };
    let shaped = json!({ "error": { "message": "m", "code": "invalid_api_key" } });
    let router = Router::new()
        .route(
            "/v1/syntax",
            get(|| async { (StatusCode::BAD_REQUEST, "bad JSON") }),
        )
        .route("/v1/unknown", get(move || failed(unknown, Value::Null)))
        .route(
            "/v1/failed",
            get(move || failed("no memory", json!("half"))),
        )
        .route(
            "/v1/shaped",
            get(|| async { (StatusCode::UNAUTHORIZED, Json(shaped)) }),
        )
        .route(
            "/v1/fine",
            get(|| async { "Requested model 'x' is not available" }),
        )
        .layer(middleware::from_fn(reword));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}{path}", listener.local_addr().unwrap());
    let server = tokio::spawn(async { axum::serve(listener, router).await });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(url).send().await.unwrap();
    let status = answer.status().as_u16();
    let kind = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let text = answer.text().await.unwrap();
    server.abort();
    (status, kind, text)
}

#[tokio::test]
async fn failures_are_said_in_one_shape() {
    let expected = |message: &str, kind: &str| json!({ "error": { "message": message, "type": kind, "param": null, "code": null } });
    let mut half = expected("no memory", "server_error");
    half["partial_response"] = json!("half");
    for (path, status, body) in [
        (
            "/v1/syntax",
            400,
            expected("bad JSON", "invalid_request_error"),
        ),
        (
            "/v1/absent",
            404,
            expected("Not Found", "invalid_request_error"),
        ),
        ("/v1/failed", 500, half),
        (
            "/absent",
            404,
            expected("Not Found", "invalid_request_error"),
        ),
    ] {
        let (found, kind, text) = ask(path).await;
        assert_eq!(found, status, "{path}");
        assert_eq!(kind, "application/json", "{path}");
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            body,
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_unknown_model_is_not_found() {
    let (status, _, text) = ask("/v1/unknown").await;
    assert_eq!(status, 404);
    let error = &serde_json::from_str::<Value>(&text).unwrap()["error"];
    assert_eq!(error["code"], "model_not_found");
    assert_eq!(error["param"], "model");
    assert!(
        error["message"].as_str().unwrap().contains("demo"),
        "{error}"
    );
}

#[tokio::test]
async fn other_answers_are_left_alone() {
    let shaped = r#"{"error":{"message":"m","code":"invalid_api_key"}}"#;
    for (path, status, text) in [
        ("/v1/shaped", 401, shaped),
        ("/v1/fine", 200, "Requested model 'x' is not available"),
    ] {
        let (found, _, said) = ask(path).await;
        assert_eq!((found, &said[..]), (status, text), "{path}");
    }
}
