//! `/healthz`, `/livez`, `/readyz`: each check by name. Follows k8s.io/apiserver/pkg/server/healthz.

use http::{HeaderMap, Response};

use super::query::Query;
use super::reply::{self, Body};
use super::server::Server;

/// The names of the three.
pub const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];

/// A check: why it fails, if it does.
type Check = fn(&Server) -> Result<(), String>;

/// Who answers at all passes: no log can hang, and what is served is read off the store at each request.
const ANSWERS: Check = |_| Ok(());
const STORE: Check = |server| {
    let health = server.cluster.store.health();
    health.map_err(|error| error.to_string())
};
const SHUTDOWN: Check = |server| match server.ends.is_cancelled() {
    true => Err("process is shutting down".to_owned()),
    false => Ok(()),
};

const LIVE: &[(&str, Check)] = &[("ping", ANSWERS), ("log", ANSWERS), ("etcd", STORE)];
const READY: &[(&str, Check)] = &[
    ("ping", ANSWERS),
    ("log", ANSWERS),
    ("etcd", STORE),
    ("etcd-readiness", STORE),
    ("informer-sync", ANSWERS),
    ("shutdown", SHUTDOWN),
];

fn checks(endpoint: &str) -> &'static [(&'static str, Check)] {
    match endpoint {
        "readyz" => READY,
        _ => LIVE,
    }
}

/// Every path of a check.
pub fn paths() -> impl Iterator<Item = String> {
    ENDPOINTS.into_iter().flat_map(|endpoint| {
        let checks = checks(endpoint).iter();
        let checks = checks.map(move |(name, _)| format!("/{endpoint}/{name}"));
        std::iter::once(format!("/{endpoint}")).chain(checks)
    })
}

/// The answer to a health path; `None` for any other path.
pub fn answer(
    server: &Server,
    path: &str,
    query: &Query,
    request: &HeaderMap,
) -> Option<Response<Body>> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let endpoint = parts.next().filter(|name| ENDPOINTS.contains(name))?;
    let checks = checks(endpoint);
    let (code, text) = match parts.next() {
        None => all(server, endpoint, checks, query),
        Some(name) => {
            let (_, check) = checks.iter().find(|(known, _)| *known == name)?;
            match check(server) {
                Ok(()) => (200, "ok".to_owned()),
                Err(why) => (500, format!("internal server error: {why}\n")),
            }
        }
    };
    let text = text.into_bytes();
    let mut response = reply::response(code, "text/plain; charset=utf-8", text, request);
    response.headers_mut().insert(
        "x-content-type-options",
        http::HeaderValue::from_static("nosniff"),
    );
    Some(response)
}

/// All checks but those that are excluded: `ok`, or a line for each where one fails or they are asked for.
fn all(server: &Server, endpoint: &str, checks: &[(&str, Check)], query: &Query) -> (u16, String) {
    let excluded: Vec<&str> = query.all("exclude").collect();
    let (mut lines, mut fails) = (String::new(), false);
    for (name, check) in checks {
        lines.push_str(&if excluded.contains(name) {
            format!("[+]{name} excluded: ok\n")
        } else if let Err(why) = check(server) {
            fails = true;
            tracing::warn!(endpoint, check = name, why, "a health check fails");
            format!("[-]{name} failed: reason withheld\n")
        } else {
            format!("[+]{name} ok\n")
        });
    }
    match (fails, query.get("verbose").is_some()) {
        (true, _) => (500, format!("{lines}{endpoint} check failed\n")),
        (false, true) => (200, format!("{lines}{endpoint} check passed\n")),
        (false, false) => (200, "ok".to_owned()),
    }
}
