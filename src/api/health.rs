//! `/healthz`, `/livez`, `/readyz`: each check by name. Follows k8s.io/apiserver/pkg/server/healthz. How often they
//! passed is told at `/metrics/slis`, as k8s.io/component-base/metrics/prometheus/slis does.

use std::collections::BTreeMap;

use http::{HeaderMap, Response};

use super::query::Query;
use super::reply::{self, Body};
use super::server::Server;
use crate::meta::prometheus::Families;

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

type Checks = &'static [(&'static str, Check)];

const LIVE: Checks = &[
    ("ping", ANSWERS),
    ("log", ANSWERS),
    ("loopback-serving-certificate", ANSWERS),
    ("etcd", STORE),
];
const READY: Checks = &[
    ("ping", ANSWERS),
    ("log", ANSWERS),
    ("etcd", STORE),
    ("etcd-readiness", STORE),
    ("informer-sync", ANSWERS),
];
/// What upstream does once it listens is done here before: who can ask finds it done.
const BEGUN: Checks = &[
    (
        "poststarthook/start-apiserver-admission-initializer",
        ANSWERS,
    ),
    ("poststarthook/generic-apiserver-start-informers", ANSWERS),
    (
        "poststarthook/priority-and-fairness-config-consumer",
        ANSWERS,
    ),
    ("poststarthook/priority-and-fairness-filter", ANSWERS),
    ("poststarthook/storage-object-count-tracker-hook", ANSWERS),
    ("poststarthook/start-apiextensions-informers", ANSWERS),
    ("poststarthook/start-apiextensions-controllers", ANSWERS),
    ("poststarthook/crd-informer-synced", ANSWERS),
    ("poststarthook/start-system-namespaces-controller", ANSWERS),
    ("poststarthook/peer-endpoint-reconciler-controller", ANSWERS),
    (
        "poststarthook/start-cluster-authentication-info-controller",
        ANSWERS,
    ),
    (
        "poststarthook/start-kube-apiserver-identity-lease-controller",
        ANSWERS,
    ),
    (
        "poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
        ANSWERS,
    ),
    ("poststarthook/storage-readiness", STORE),
    (
        "poststarthook/start-legacy-token-tracking-controller",
        ANSWERS,
    ),
    ("poststarthook/start-service-ip-repair-controllers", ANSWERS),
    ("poststarthook/rbac/bootstrap-roles", ANSWERS),
    (
        "poststarthook/scheduling/bootstrap-system-priority-classes",
        ANSWERS,
    ),
    (
        "poststarthook/priority-and-fairness-config-producer",
        ANSWERS,
    ),
    ("poststarthook/bootstrap-controller", ANSWERS),
    (
        "poststarthook/start-kubernetes-service-cidr-controller",
        ANSWERS,
    ),
    ("poststarthook/aggregator-reload-proxy-client-cert", ANSWERS),
    ("poststarthook/start-kube-aggregator-informers", ANSWERS),
    (
        "poststarthook/apiservice-status-local-available-controller",
        ANSWERS,
    ),
    (
        "poststarthook/apiservice-status-remote-available-controller",
        ANSWERS,
    ),
    ("poststarthook/apiservice-registration-controller", ANSWERS),
    ("poststarthook/apiservice-discovery-controller", ANSWERS),
    ("poststarthook/kube-apiserver-autoregistration", ANSWERS),
    ("autoregister-completion", ANSWERS),
    ("poststarthook/apiservice-openapi-controller", ANSWERS),
    ("poststarthook/apiservice-openapiv3-controller", ANSWERS),
];
const ENDS: Checks = &[("shutdown", SHUTDOWN)];

fn checks(endpoint: &str) -> impl Iterator<Item = (&'static str, Check)> + Clone + use<> {
    let (first, last): (Checks, Checks) = match endpoint {
        "readyz" => (READY, ENDS),
        _ => (LIVE, &[]),
    };
    first.iter().chain(BEGUN).chain(last).copied()
}

/// How often a check of an endpoint passed, or did not.
pub type Counts = BTreeMap<(&'static str, &'static str, bool), u64>;

fn check(
    server: &Server,
    endpoint: &'static str,
    name: &'static str,
    check: Check,
) -> Result<(), String> {
    let result = check(server);
    let mut counts = server.metrics.checks.lock();
    *counts.entry((name, endpoint, result.is_ok())).or_default() += 1;
    result
}

/// What each check says now, and how often it said so, in Prometheus' text format.
pub fn slis(server: &Server) -> String {
    let mut now = BTreeMap::new();
    for endpoint in ENDPOINTS {
        for (name, of) in checks(endpoint) {
            now.insert((name, endpoint), check(server, endpoint, name, of).is_ok());
        }
    }
    let mut out = Families::default();
    let help = "[STABLE] This metric records the result of a single healthcheck.";
    let mut family = out.begin("kubernetes_healthcheck", "gauge", help);
    for ((name, endpoint), passes) in now {
        let labels = format_args!("name={name:?},type={endpoint:?}");
        family.series(labels, u8::from(passes));
    }
    let help = "[STABLE] This metric records the results of all healthcheck.";
    let mut family = out.begin("kubernetes_healthchecks_total", "counter", help);
    for ((name, endpoint, passed), count) in &*server.metrics.checks.lock() {
        let status = if *passed { "success" } else { "error" };
        let labels = format_args!("name={name:?},status={status:?},type={endpoint:?}");
        family.series(labels, count);
    }
    out.into_text()
}

/// Every path of a check.
pub fn paths() -> impl Iterator<Item = String> {
    ENDPOINTS.into_iter().flat_map(|endpoint| {
        let checks = checks(endpoint).map(move |(name, _)| format!("/{endpoint}/{name}"));
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
    let first = parts.next()?;
    let endpoint = ENDPOINTS.into_iter().find(|name| *name == first)?;
    let (code, text) = match parts.next() {
        None => all(server, endpoint, query),
        Some(name) => {
            let (name, of) = checks(endpoint).find(|(known, _)| *known == name)?;
            match check(server, endpoint, name, of) {
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
fn all(server: &Server, endpoint: &'static str, query: &Query) -> (u16, String) {
    let excluded: Vec<&str> = query.all("exclude").collect();
    let (mut lines, mut fails) = (String::new(), false);
    for (name, of) in checks(endpoint) {
        lines.push_str(&if excluded.contains(&name) {
            format!("[+]{name} excluded: ok\n")
        } else if let Err(why) = check(server, endpoint, name, of) {
            fails = true;
            tracing::warn!(endpoint, check = name, why, "a health check fails");
            format!("[-]{name} failed: reason withheld\n")
        } else {
            format!("[+]{name} ok\n")
        });
    }
    let mut unknown: Vec<String> = excluded
        .iter()
        .filter(|excluded| !checks(endpoint).any(|(name, _)| name == **excluded))
        .map(|excluded| format!("{excluded:?}"))
        .collect();
    unknown.sort();
    unknown.dedup();
    if !unknown.is_empty() {
        let unknown = unknown.join(",");
        lines.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {unknown}\n"
        ));
    }
    match (fails, query.get("verbose").is_some()) {
        (true, _) => (500, format!("{lines}{endpoint} check failed\n")),
        (false, true) => (200, format!("{lines}{endpoint} check passed\n")),
        (false, false) => (200, "ok".to_owned()),
    }
}
