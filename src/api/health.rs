//! `/healthz`, `/livez`, `/readyz`: each check by name.

use http::{HeaderMap, Response};

use super::query::Query;
use super::reply::{self, Body};

const LIVE: &[&str] = &["ping", "log", "etcd"];
const READY: &[&str] = &[
    "ping",
    "log",
    "etcd",
    "etcd-readiness",
    "informer-sync",
    "shutdown",
];

/// The answer to a health path; `None` for any other path.
pub fn answer(path: &str, query: &Query, request: &HeaderMap) -> Option<Response<Body>> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let endpoint = parts.next()?;
    let checks = match endpoint {
        "healthz" | "livez" => LIVE,
        "readyz" => READY,
        _ => return None,
    };
    let text = match parts.next() {
        None => {
            let excluded: Vec<&str> = query.all("exclude").collect();
            let listed: String = checks
                .iter()
                .map(|check| {
                    if excluded.contains(check) {
                        format!("[+]{check} excluded: ok\n")
                    } else {
                        format!("[+]{check} ok\n")
                    }
                })
                .collect();
            if query.get("verbose").is_some() {
                format!("{listed}{endpoint} check passed\n")
            } else {
                "ok".to_owned()
            }
        }
        Some(check) if checks.contains(&check) => "ok".to_owned(),
        Some(_) => return None,
    };
    let mut response =
        reply::response(200, "text/plain; charset=utf-8", text.into_bytes(), request);
    response.headers_mut().insert(
        "x-content-type-options",
        http::HeaderValue::from_static("nosniff"),
    );
    Some(response)
}
