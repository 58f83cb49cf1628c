//! `/healthz`, `/livez`, `/readyz`, with upstream's check names. Follows k8s.io/apiserver/pkg/server/healthz. Counts of
//! their results are at `/metrics/slis`, as in k8s.io/component-base/metrics/prometheus/slis.

use std::collections::BTreeMap;

use http::{HeaderMap, Response};

use super::flow::stored;
use super::query::Query;
use super::reply::{self, Body};
use super::server::Server;
use super::{available, definitions, own_records, own_service, registered};
use crate::meta::prometheus::Families;
use crate::supervise::Health;

/// The names of the three endpoints.
pub const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];

/// What a check checks.
#[derive(Clone, Copy)]
enum Check {
    /// Nothing: what upstream does in a task that may fail is done before this server listens, or has nothing to do here.
    /// Each row says which.
    Done,
    /// The state of the store.
    Store,
    /// Whether the task with this name runs.
    Runs(&'static str),
    /// Whether the server is not shutting down.
    Serves,
}

impl Check {
    /// Why it fails, in upstream's words.
    fn judge(self, server: &Server) -> Result<(), String> {
        match self {
            Check::Done => Ok(()),
            Check::Store => {
                let health = server.cluster.store.health();
                health.map_err(|error| error.to_string())
            }
            Check::Runs(task) => finished(&server.tasks, task),
            Check::Serves if server.ends.is_cancelled() => {
                Err("process is shutting down".to_owned())
            }
            Check::Serves => Ok(()),
        }
    }
}

/// Whether the task that stands for upstream's post-start hook runs. Upstream exits if a hook fails; here the task is
/// restarted, and the hook counts as unfinished while it waits for that.
fn finished(tasks: &Health, task: &str) -> Result<(), String> {
    match tasks.runs(task) {
        true => Ok(()),
        false => Err("not finished".to_owned()),
    }
}

type Checks = &'static [(&'static str, Check)];

const LIVE: Checks = &[
    // If the server can respond, it works.
    ("ping", Check::Done),
    // Log lines are written at once and never buffered.
    ("log", Check::Done),
    // The server calls itself without a connection, so there is no certificate that could expire.
    ("loopback-serving-certificate", Check::Done),
    ("etcd", Check::Store),
];
const READY: Checks = &[
    ("ping", Check::Done),
    ("log", Check::Done),
    ("etcd", Check::Store),
    ("etcd-readiness", Check::Store),
    // Requests read the store directly: there is no cache that could be incomplete.
    ("informer-sync", Check::Done),
];
const BEGUN: Checks = &[
    // Plugins are created before the server listens, and an invalid configuration prevents the start.
    (
        "poststarthook/start-apiserver-admission-initializer",
        Check::Done,
    ),
    // No caches, as for `informer-sync`.
    (
        "poststarthook/generic-apiserver-start-informers",
        Check::Done,
    ),
    (
        "poststarthook/priority-and-fairness-config-consumer",
        Check::Runs(stored::TASK),
    ),
    // Requests enforce the limits themselves.
    ("poststarthook/priority-and-fairness-filter", Check::Done),
    // The store counts the objects of each resource.
    (
        "poststarthook/storage-object-count-tracker-hook",
        Check::Done,
    ),
    // No caches.
    ("poststarthook/start-apiextensions-informers", Check::Done),
    (
        "poststarthook/start-apiextensions-controllers",
        Check::Runs(definitions::TASK),
    ),
    // There are no caches: stored definitions are served from the first request on.
    ("poststarthook/crd-informer-synced", Check::Done),
    // Created before the server listens.
    (
        "poststarthook/start-system-namespaces-controller",
        Check::Done,
    ),
    // Requests are not forwarded to other servers.
    (
        "poststarthook/peer-endpoint-reconciler-controller",
        Check::Done,
    ),
    (
        "poststarthook/start-cluster-authentication-info-controller",
        Check::Runs(own_records::TASK),
    ),
    (
        "poststarthook/start-kube-apiserver-identity-lease-controller",
        Check::Runs(own_records::TASK),
    ),
    (
        "poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
        Check::Runs(own_records::TASK),
    ),
    ("poststarthook/storage-readiness", Check::Store),
    (
        "poststarthook/start-legacy-token-tracking-controller",
        Check::Runs(own_records::TASK),
    ),
    (
        "poststarthook/start-service-ip-repair-controllers",
        Check::Runs(own_service::TASK),
    ),
    // The initial objects are created before the server listens: roles and bindings, classes, schemas and levels.
    ("poststarthook/rbac/bootstrap-roles", Check::Done),
    (
        "poststarthook/scheduling/bootstrap-system-priority-classes",
        Check::Done,
    ),
    (
        "poststarthook/priority-and-fairness-config-producer",
        Check::Done,
    ),
    (
        "poststarthook/bootstrap-controller",
        Check::Runs(own_service::TASK),
    ),
    (
        "poststarthook/start-kubernetes-service-cidr-controller",
        Check::Runs(own_service::TASK),
    ),
    // Requests are not forwarded to the servers of API services, so no certificate is needed for that.
    (
        "poststarthook/aggregator-reload-proxy-client-cert",
        Check::Done,
    ),
    // No caches.
    ("poststarthook/start-kube-aggregator-informers", Check::Done),
    // The server's own APIs are available while it responds.
    (
        "poststarthook/apiservice-status-local-available-controller",
        Check::Done,
    ),
    (
        "poststarthook/apiservice-status-remote-available-controller",
        Check::Runs(available::TASK),
    ),
    // Groups and versions are read off the registry when somebody asks: no task discovers them.
    (
        "poststarthook/apiservice-registration-controller",
        Check::Done,
    ),
    ("poststarthook/apiservice-discovery-controller", Check::Done),
    // API services of what is built in are made before it listens, with what else a cluster begins with.
    (
        "poststarthook/kube-apiserver-autoregistration",
        Check::Runs(registered::TASK),
    ),
    ("autoregister-completion", Check::Done),
    // Documents are generated on demand.
    ("poststarthook/apiservice-openapi-controller", Check::Done),
    ("poststarthook/apiservice-openapiv3-controller", Check::Done),
];
const ENDS: Checks = &[("shutdown", Check::Serves)];

fn checks(endpoint: &str) -> impl Iterator<Item = (&'static str, Check)> + Clone + use<> {
    let (first, last): (Checks, Checks) = match endpoint {
        "readyz" => (READY, ENDS),
        _ => (LIVE, &[]),
    };
    first.iter().chain(BEGUN).chain(last).copied()
}

/// How often each check of an endpoint passed or failed.
pub type Counts = BTreeMap<(&'static str, &'static str, bool), u64>;

fn check(
    server: &Server,
    endpoint: &'static str,
    name: &'static str,
    check: Check,
) -> Result<(), String> {
    let result = check.judge(server);
    let mut counts = server.metrics.checks.lock();
    *counts.entry((name, endpoint, result.is_ok())).or_default() += 1;
    result
}

/// The current result and the counts of each check, in Prometheus' text format.
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

/// The paths of all checks.
pub fn paths() -> impl Iterator<Item = String> {
    ENDPOINTS.into_iter().flat_map(|endpoint| {
        let checks = checks(endpoint).map(move |(name, _)| format!("/{endpoint}/{name}"));
        std::iter::once(format!("/{endpoint}")).chain(checks)
    })
}

/// The response to a health path; `None` for any other path.
pub fn answer(
    server: &Server,
    path: &str,
    query: &Query,
    request: &HeaderMap,
) -> Option<Response<Body>> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let first = parts.next()?;
    let endpoint = ENDPOINTS.into_iter().find(|name| *name == first)?;
    let name = parts.next();
    let is_single = name.is_some();
    let (code, text) = match name {
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
    // Upstream says only "ok" of a single check, and leaves the type to Go's library.
    if !(is_single && code == 200) {
        response.headers_mut().insert(
            "x-content-type-options",
            http::HeaderValue::from_static("nosniff"),
        );
    }
    Some(response)
}

/// All checks that are not excluded: `ok`, or a line for each if one fails or they were requested.
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

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::supervise::Supervisor;

    #[tokio::test(start_paused = true)]
    async fn a_hook_has_not_finished_while_its_task_does_not_run() {
        let supervisor = Supervisor::default();
        let tasks = supervisor.health();
        let unfinished = Err("not finished".to_owned());
        assert_eq!(finished(&tasks, "test"), unfinished);
        let stopped = CancellationToken::new();
        let stop = stopped.clone();
        supervisor.keep("test", move |_| {
            let stop = stop.clone();
            async move { stop.cancelled().await }
        });
        assert_eq!(finished(&tasks, "test"), Ok(()));
        tokio::task::yield_now().await;
        stopped.cancel();
        tokio::task::yield_now().await;
        assert_eq!(finished(&tasks, "test"), unfinished);
    }
}
