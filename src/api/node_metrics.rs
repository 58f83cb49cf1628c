//! Resource usage of nodes and their containers, requested from the agents on demand. Follows
//! sigs.k8s.io/metrics-server/pkg/{scraper,storage}; unlike there, nothing is requested while nobody asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;

use super::own_client::{Ask, post, put};
use super::server::Server;
use crate::resources::registry::METRICS;
use crate::schema::Value;
use crate::value;

/// The maximum age of a measurement in a response.
const RESOLUTION: Duration = Duration::from_secs(15);
/// Measurements that are further apart say nothing about current usage.
const STALE: Duration = Duration::from_secs(90);
/// The time between two measurements if there is no earlier one.
const FIRST_WINDOW: Duration = Duration::from_secs(1);
/// How long an agent may take to respond.
const PATIENCE: Duration = Duration::from_secs(5);
/// Agents requested at once.
const AT_ONCE: usize = 64;
const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// A measurement of a node or container.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Point {
    /// Milliseconds since 1970; 0 if the agent did not report the time.
    at: i64,
    /// When it was started, likewise; 0 if unknown.
    started: i64,
    /// CPU seconds used since then.
    cpu: f64,
    /// The working set in bytes.
    memory: u64,
}

/// Namespace, pod, container.
type Place = (String, String, String);

/// All measurements of one agent.
#[derive(Debug, Clone, Default, PartialEq)]
struct Points {
    node: Point,
    containers: BTreeMap<Place, Point>,
}

/// The usage over a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// The end of the window, in milliseconds since 1970.
    pub at: i64,
    /// Its length in milliseconds.
    pub window: i64,
    /// In billionths of a CPU.
    pub cpu: u64,
    /// Bytes of memory.
    pub memory: u64,
}

/// The usage of everything.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nodes by name.
    pub nodes: BTreeMap<String, Used>,
    /// Containers of pods by namespace and name.
    pub pods: BTreeMap<(String, String), Vec<(String, Used)>>,
}

/// Measurements by node.
type Batch = BTreeMap<String, Points>;

#[derive(Default)]
struct Known {
    last: Batch,
    at: Option<std::time::Instant>,
    usage: Arc<Usage>,
}

/// Caches measurements.
#[derive(Default)]
pub struct NodeMetrics(tokio::sync::Mutex<Known>);

impl NodeMetrics {
    /// The usage of everything, at most [`RESOLUTION`] old.
    pub async fn usage(&self, server: &Server) -> Arc<Usage> {
        let mut known = self.0.lock().await;
        let age = known.at.map_or(Duration::MAX, |at| at.elapsed());
        if age < RESOLUTION {
            return known.usage.clone();
        }
        if age > STALE {
            known.last = measure(server).await;
            tokio::time::sleep(FIRST_WINDOW).await;
        }
        let now = measure(server).await;
        known.usage = Arc::new(compare(&known.last, &now));
        known.last = now;
        known.at = Some(std::time::Instant::now());
        known.usage.clone()
    }
}

/// Requests measurements from all agents. Those that do not respond are left out.
async fn measure(server: &Server) -> Batch {
    let Some(kubelets) = &server.kubelets else {
        return Batch::new();
    };
    let ask = |node: Arc<Value>| async move {
        let request = Request::builder()
            .method(Method::GET)
            .uri("/metrics/resource")
            .header(http::header::HOST, "node")
            .body(Full::<bytes::Bytes>::default())
            .ok()?;
        let answer = async {
            let answer = kubelets.send(kubelets.backend(&node).ok()?, request).await;
            let answer = answer.ok().filter(|answer| answer.status().is_success())?;
            let body = answer.into_body().collect().await.ok()?;
            Some(String::from_utf8_lossy(&body.to_bytes()).into_owned())
        };
        let text = tokio::time::timeout(PATIENCE, answer).await.ok()??;
        let name = node.at("metadata").str("name").to_owned();
        Some((name, points(&text, Timestamp::now().as_millisecond())))
    };
    let nodes = server.cluster.list("", "nodes", "");
    stream::iter(nodes.into_iter().filter(|node| !is_silent(node)))
        .map(ask)
        .buffer_unordered(AT_ONCE)
        .filter_map(|told| async move { told })
        .collect()
        .await
}

/// Whether a node has been silent for a while: requesting it would delay everybody else.
fn is_silent(node: &Value) -> bool {
    let conditions = node.at("status").list("conditions");
    let ready = conditions.iter().find(|own| own.str("type") == "Ready");
    ready.is_some_and(|ready| ready.str("status") == "Unknown")
}

/// Parses `metrics/resource`; samples without a time were measured `now`.
fn points(text: &str, now: i64) -> Points {
    let mut points = Points::default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    for (name, labels, value, at) in lines.filter_map(sample) {
        let point = match name {
            "node_cpu_usage_seconds_total" | "node_memory_working_set_bytes" => &mut points.node,
            "container_cpu_usage_seconds_total"
            | "container_memory_working_set_bytes"
            | "container_start_time_seconds" => {
                let label = |key: &str| {
                    let found = labels.iter().find(|(name, _)| *name == key);
                    found.map_or_else(String::new, |(_, value)| (*value).to_owned())
                };
                let place = (label("namespace"), label("pod"), label("container"));
                points.containers.entry(place).or_default()
            }
            _ => continue,
        };
        if name.ends_with("_cpu_usage_seconds_total") {
            (point.cpu, point.at) = (value, at.unwrap_or(now));
        } else if name.ends_with("_start_time_seconds") {
            point.started = (value * 1000.0) as i64;
        } else {
            point.memory = value as u64;
        }
    }
    points
}

type Sample<'a> = (&'a str, Vec<(&'a str, &'a str)>, f64, Option<i64>);

/// Parses a line of Prometheus' text format: name, labels, value, time. The values of these labels contain no escapes.
fn sample(line: &str) -> Option<Sample<'_>> {
    let (head, rest) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = rest.rsplit_once('}')?;
            ((name, labels), rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            ((name, ""), rest)
        }
    };
    let labels = head.1.split(',').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        Some((key, value.trim_matches('"')))
    });
    let mut numbers = rest.split_whitespace();
    let value = numbers.next()?.parse().ok()?;
    let at = numbers.next().and_then(|at| at.parse().ok());
    Some((head.0, labels.collect(), value, at))
}

/// The usage between two measurements. A new container counts from its start; a pod is included only if all its
/// containers are.
fn compare(before: &Batch, now: &Batch) -> Usage {
    let mut usage = Usage::default();
    for (node, points) in now {
        let earlier = before.get(node);
        if let Some(used) = earlier.and_then(|earlier| used(&earlier.node, &points.node)) {
            usage.nodes.insert(node.clone(), used);
        }
        let mut partial = Vec::new();
        for (place, point) in &points.containers {
            let born = Point {
                at: point.started,
                started: point.started,
                ..Point::default()
            };
            let earlier = earlier.and_then(|earlier| earlier.containers.get(place));
            // A container that was restarted since counts as new.
            let earlier = earlier.filter(|earlier| earlier.started >= point.started);
            let earlier = earlier.or((point.started > 0).then_some(&born));
            let (namespace, pod, container) = place.clone();
            match earlier.and_then(|earlier| used(earlier, point)) {
                Some(used) => {
                    let containers = usage.pods.entry((namespace, pod)).or_default();
                    containers.push((container, used));
                }
                None => partial.push((namespace, pod)),
            }
        }
        for pod in partial {
            usage.pods.remove(&pod);
        }
    }
    usage
}

fn used(before: &Point, now: &Point) -> Option<Used> {
    let window = now.at - before.at;
    let spent = now.cpu - before.cpu;
    (window > 0 && spent >= 0.0 && before.at > 0).then(|| Used {
        at: now.at,
        window,
        cpu: (spent * 1e12 / window as f64) as u64,
        memory: now.memory,
    })
}

/// Registers the group in the form that the aggregation layer of other clusters has.
pub async fn ensure(server: &Arc<Server>) {
    let name = format!("v1beta1.{METRICS}");
    let service = value!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": (&name), "labels": {"k8s-app": "metrics-server"}},
        "spec": {
            "group": METRICS,
            "groupPriorityMinimum": 100i64,
            "insecureSkipTLSVerify": true,
            "service": {"name": "metrics-server", "namespace": "kube-system", "port": 443i64},
            "version": "v1beta1",
            "versionPriority": 100i64
        }
    });
    let reader = value!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {
            "name": "system:aggregated-metrics-reader",
            "labels": {
                "k8s-app": "metrics-server",
                "rbac.authorization.k8s.io/aggregate-to-admin": "true",
                "rbac.authorization.k8s.io/aggregate-to-edit": "true",
                "rbac.authorization.k8s.io/aggregate-to-view": "true"
            }
        },
        "rules": [{"apiGroups": [METRICS], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}]
    });
    let stored = || {
        let (group, plural) = ("apiregistration.k8s.io", "apiservices");
        server.cluster.get(group, plural, "", &name)
    };
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let role = "system:aggregated-metrics-reader";
    if server
        .cluster
        .get("rbac.authorization.k8s.io", "clusterroles", "", role)
        .is_none()
    {
        write(server, post(roles, &reader)).await;
    }
    if stored().is_none() {
        write(server, post(SERVICES, &service)).await;
    }
    let Some(mut stored) = stored() else { return };
    if stored.at("status").list("conditions").is_empty() {
        let condition = value!({
            "type": "Available",
            "status": "True",
            "lastTransitionTime": (crate::meta::time::print(crate::meta::time::now())),
            "reason": "Passed",
            "message": "all checks passed"
        });
        Arc::make_mut(&mut stored).set("status", value!({"conditions": [condition]}));
        let path = format!("{SERVICES}/{name}/status");
        write(server, put(&path, &stored)).await;
    }
}

/// Writes an object of the registration; a conflict is another server's success.
async fn write(server: &Arc<Server>, ask: Ask<'_>) {
    let failed = "metrics.k8s.io cannot be registered";
    ask.write(server, &[StatusCode::CONFLICT], failed).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# HELP x y
node_cpu_usage_seconds_total 100 10000
node_memory_working_set_bytes 5 10000
container_cpu_usage_seconds_total{container=\"a\",namespace=\"n\",pod=\"p\"} 10 10000
container_memory_working_set_bytes{container=\"a\",namespace=\"n\",pod=\"p\"} 7 10000
container_start_time_seconds{container=\"a\",namespace=\"n\",pod=\"p\"} 1.5
other{x=\"y\"} 1
";
    const NOW: &str = "node_cpu_usage_seconds_total 105 20000
node_memory_working_set_bytes 6e+03 20000
container_cpu_usage_seconds_total{container=\"a\",namespace=\"n\",pod=\"p\"} 12.5 20000
container_memory_working_set_bytes{container=\"a\",namespace=\"n\",pod=\"p\"} 8 20000
container_start_time_seconds{container=\"a\",namespace=\"n\",pod=\"p\"} 1.5
container_cpu_usage_seconds_total{container=\"b\",namespace=\"n\",pod=\"new\"} 1 20000
container_start_time_seconds{container=\"b\",namespace=\"n\",pod=\"new\"} 18
container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"half\"} 1 20000
container_cpu_usage_seconds_total{container=\"d\",namespace=\"n\",pod=\"half\"} 1 20000
container_start_time_seconds{container=\"d\",namespace=\"n\",pod=\"half\"} 18
";

    #[test]
    fn only_nodes_that_are_heard_of_are_asked() {
        let node = |conditions: Value| value!({"status": {"conditions": conditions}});
        for (node, silent) in [
            (node(value!([])), false),
            (node(value!([{"type": "Ready", "status": "True"}])), false),
            (node(value!([{"type": "Ready", "status": "False"}])), false),
            (
                node(value!([{"type": "DiskPressure", "status": "Unknown"}])),
                false,
            ),
            (node(value!([{"type": "Ready", "status": "Unknown"}])), true),
        ] {
            assert_eq!(is_silent(&node), silent, "{node:?}");
        }
    }

    #[test]
    fn use_is_what_two_measurements_tell() {
        let batch = |text: &str| Batch::from([("one".to_owned(), points(text, 0))]);
        let usage = compare(&batch(BEFORE), &batch(NOW));
        let used = |window, cpu, memory| Used {
            at: 20_000,
            window,
            cpu,
            memory,
        };
        let place = |pod: &str| ("n".to_owned(), pod.to_owned());
        let nodes = BTreeMap::from([("one".to_owned(), used(10_000, 500_000_000, 6000))]);
        let pods = BTreeMap::from([
            (
                place("p"),
                vec![("a".to_owned(), used(10_000, 250_000_000, 8))],
            ),
            (
                place("new"),
                vec![("b".to_owned(), used(2_000, 500_000_000, 0))],
            ),
        ]);
        assert_eq!(usage, Usage { nodes, pods });
        // With one measurement only, the node's usage is unknown, and containers count from their start.
        let usage = compare(&Batch::new(), &batch(BEFORE));
        assert_eq!((usage.nodes.len(), usage.pods.len()), (0, 1));
        assert_eq!(usage.pods[&place("p")][0].1.window, 8_500);
        // A rebooted node starts over.
        let usage = compare(&batch(NOW), &batch(BEFORE));
        assert_eq!(usage.nodes.len(), 0);
    }
}
