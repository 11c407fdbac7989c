//! What there is to ask: the table of all routes.
//!
//! Documentation, metrics and access derive from it; but for the files of the
//! page, a route that is not here is not served.

/// One route.
#[derive(Debug)]
pub(super) struct Route {
    /// `get`, `post` or `delete`, as OpenAPI spells it.
    pub(super) method: &'static str,
    /// Path, with parameters in braces.
    pub(super) path: &'static str,
    /// What it answers.
    pub(super) summary: &'static str,
    /// Whether it needs no key.
    pub(super) open: bool,
    /// Status of its answer.
    pub(super) status: u16,
    /// What may be named behind the path.
    pub(super) query: &'static [&'static str],
    /// Schema of its body, where the engine does not describe one.
    pub(super) body: Option<&'static str>,
}

const fn open(method: &'static str, path: &'static str, summary: &'static str) -> Route {
    Route {
        open: true,
        ..keyed(method, path, summary)
    }
}

const fn keyed(method: &'static str, path: &'static str, summary: &'static str) -> Route {
    Route {
        method,
        path,
        summary,
        open: false,
        status: 200,
        query: &[],
        body: None,
    }
}

/// All routes.
pub(super) const ROUTES: &[Route] = &[
    keyed("post", "/v1/chat/completions", "Answer a conversation"),
    keyed("post", "/v1/completions", "Continue a text"),
    keyed("get", "/v1/models", "Names that `model` may have"),
    keyed("get", "/v1/models/{model}", "One of them"),
    Route {
        query: &["model"],
        ..keyed("get", "/v1/pruning", "What was pruned, and what it cost")
    },
    keyed("get", "/v1/variants", "Models that are loaded"),
    Route {
        status: 201,
        body: Some("VariantRequest"),
        ..keyed(
            "post",
            "/v1/variants",
            "Load another, from a plan or a budget",
        )
    },
    Route {
        status: 204,
        ..keyed(
            "delete",
            "/v1/variants/{id}",
            "Unload one, after its last answer",
        )
    },
    Route {
        body: Some("RecalibrationRequest"),
        ..keyed(
            "post",
            "/v1/recalibrate",
            "Plan again with what clients asked",
        )
    },
    keyed("get", "/v1/status", "What the server does at the moment"),
    keyed(
        "get",
        "/metrics",
        "The same and its history, for Prometheus",
    ),
    open("get", "/", "A page to chat, and to see what was pruned"),
    open("get", "/health", "Whether the server is up"),
    open("get", "/docs", "This API, to read"),
    open("get", "/openapi.json", "This API, for programs"),
];

/// Files of the page and the style sheet of `/docs`, which need no key either.
const ASSETS: &str = "/assets/";

/// Whether everyone may see it: what tells nothing of the model or its users.
pub(super) fn is_open(path: &str) -> bool {
    path.starts_with(ASSETS) || ROUTES.iter().any(|it| it.open && it.path == path)
}

/// Whether it makes the model compute.
pub(super) fn runs_model(path: &str) -> bool {
    matches!(path, "/v1/chat/completions" | "/v1/completions")
}

/// The route's name in metrics: paths that clients make up are one.
pub(super) fn label(path: &str) -> &'static str {
    if path.starts_with(ASSETS) {
        return ASSETS;
    }
    let fits = |route: &&Route| {
        let (mut pattern, mut parts) = (route.path.split('/'), path.split('/'));
        loop {
            match (pattern.next(), parts.next()) {
                (None, None) => return true,
                (Some(one), Some(other)) if one == other => {}
                (Some(one), Some(other)) if one.starts_with('{') && !other.is_empty() => {}
                _ => return false,
            }
        }
    };
    ROUTES.iter().find(fits).map_or("other", |route| route.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_paths_have_one_name() {
        assert_eq!(label("/v1/models"), "/v1/models");
        assert_eq!(label("/assets/a.js"), "/assets/");
        for other in ["/v1/models/", "/v1", "//", "/v1/models/x/y", "/etc/passwd"] {
            assert_eq!(label(other), "other", "{other}");
        }
    }

    #[test]
    fn little_is_open() {
        for path in ["/", "/health", "/assets/page.js"] {
            assert!(is_open(path), "{path}");
        }
        for path in ["/v1/models", "/metrics", "/v1/status", "/health/", "//"] {
            assert!(!is_open(path), "{path}");
        }
    }
}
