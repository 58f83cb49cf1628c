//! Workers with a simulated host whose steps fail, and an API server that does not respond.

use std::collections::BTreeMap;

use futures::future::join_all;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::client::events;
use crate::net::Ipam;
use crate::node::simulated::{SIMULATE, SimulatedSupplies};
use crate::zone::simulated::Simulated;

/// Enough for a slow test host.
const LIMIT: Duration = Duration::from_secs(120);

/// A node with one pod.
struct Node {
    runtime: Simulated,
    handle: Handle,
    ended: mpsc::Receiver<Ended>,
    /// The requests to the API about the pod.
    asked: watch::Receiver<Vec<(Method, Value)>>,
    _workers: JoinSet<()>,
    _ends: tokio_util::sync::DropGuard,
}

fn pod(spec: &Value) -> Arc<Pod> {
    let metadata = json!({"name": "p", "namespace": "default", "uid": "u1", "generation": 1,
        "annotations": spec["simulate"].as_str().map(|told| json!({SIMULATE: told}))});
    let pod = json!({"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}});
    Arc::new(serde_json::from_value(pod).expect("a pod"))
}

impl Node {
    /// Its API accepts everything, or does not respond; `simulate` sets what its containers do.
    fn new(spec: &Value, answers: bool) -> Node {
        let (hears, asked) = watch::channel(Vec::new());
        let hears = Arc::new(hears);
        let service = tower::service_fn(move |request: Request<Body>| {
            let hears = hears.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                if head.uri.path().contains("/pods/") {
                    let value = serde_json::from_slice(&body).unwrap_or(Value::Null);
                    hears.send_modify(|all| all.push((head.method.clone(), value)));
                }
                if !answers {
                    std::future::pending::<()>().await;
                }
                // Each request makes a new version.
                let version = hears.borrow().len().to_string();
                let object = json!({"metadata": {"resourceVersion": version}});
                let mut answer = Response::new(Body::from(object.to_string().into_bytes()));
                *answer.status_mut() = StatusCode::OK;
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let client = kube::Client::new(service, "default");
        let ends = CancellationToken::new();
        let runtime = Simulated::default();
        let capacity = ["cpu", "memory", "pods"].map(|name| (name.to_owned(), "100".to_owned()));
        let shared = Arc::new(Shared {
            client: client.clone(),
            runtime: Arc::new(runtime.clone()),
            supplies: Arc::new(SimulatedSupplies::new(
                Ipam::in_memory("10.0.0.0/24").expect("a pool"),
            )),
            recorder: events::start(ends.clone()).recorder(client, "kubelet"),
            addresses: Addresses::fixed(["192.0.2.1".into()]),
            observed: Arc::default(),
            allocations: Allocations::new(&BTreeMap::from(capacity)),
        });
        let (over, ended) = mpsc::channel(1);
        let mut workers = JoinSet::new();
        let handle = start(shared, pod(spec), over, None, &mut workers);
        let (mut changes, changed) = (runtime.changes(), handle.changed.clone());
        tokio::spawn(async move {
            while changes.recv().await.is_ok() {
                changed.notify_one();
            }
        });
        Node {
            runtime,
            handle,
            ended,
            asked,
            _workers: workers,
            _ends: ends.drop_guard(),
        }
    }

    /// Waits until the zone satisfies `is`.
    async fn until(&self, is: impl Fn(&Zone) -> bool) {
        let mut changes = self.runtime.changes();
        let seen = async {
            loop {
                let zone = self.runtime.get(&zone_name("u1")).await.expect("an answer");
                if zone.is_some_and(|zone| is(&zone)) {
                    return;
                }
                let _ = changes.recv().await;
            }
        };
        tokio::time::timeout(LIMIT, seen)
            .await
            .expect("it comes to that");
    }

    /// Waits until the newest process of each of these containers runs.
    async fn until_running(&self, wanted: &[&str]) {
        let runs = |zone: &Zone, name: &str| {
            let mut all = zone.processes.iter();
            all.any(|process| process.ended.is_none() && process.id.to_string() == name)
        };
        self.until(|zone| wanted.iter().all(|name| runs(zone, name)))
            .await;
    }

    fn delete(&self, grace: i64) {
        self.handle.wanted.send_modify(|wanted| {
            let pod = Arc::make_mut(&mut wanted.pod);
            pod.metadata.deletion_timestamp =
                Some(super::super::machine::status_time(Timestamp::now()));
            pod.metadata.deletion_grace_period_seconds = Some(grace);
        });
    }

    /// Waits for the `count`th status that is reported with a condition; returns it.
    async fn told(&mut self, count: usize, condition: &Value) -> Value {
        let is = |(_, patch): &&(Method, Value)| {
            let conditions = patch["status"]["conditions"].as_array();
            conditions.is_some_and(|all| {
                all.iter()
                    .any(|one| crate::node::shown::shows(one, condition))
            })
        };
        let told = self
            .asked
            .wait_for(|all| all.iter().filter(is).count() >= count);
        let told = tokio::time::timeout(LIMIT, told).await;
        let told = told.expect("it is told").expect("an API");
        let told = told.iter().filter(is).nth(count - 1).cloned();
        told.expect("it is there").1["status"].clone()
    }

    /// The API has this status in a version.
    fn show(&self, version: usize, status: &Value) {
        self.handle.wanted.send_modify(|wanted| {
            let pod = Arc::make_mut(&mut wanted.pod);
            pod.metadata.resource_version = Some(version.to_string());
            pod.status = serde_json::from_value(status.clone()).expect("a status");
        });
    }

    async fn until_removed(&mut self) {
        let ended = tokio::time::timeout(LIMIT, self.ended.recv()).await;
        assert_eq!(ended.expect("it ends"), Some(Ended::Removed("u1".into())));
    }
}

fn two() -> Value {
    json!({"restartPolicy": "Always",
        "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]})
}

#[tokio::test]
async fn a_step_that_fails_is_taken_again() {
    type Break = fn(&Simulated, &'static str);
    let faults: [Break; 2] = [
        |host, step| host.fail(step, "it does not want to"),
        |host, step| host.fail_after(step, "it did, and says it did not"),
    ];
    let all = ["create", "boot", "start", "signal", "halt", "delete"];
    let cases = all
        .into_iter()
        .flat_map(|step| faults.map(|fault| (step, fault)));
    join_all(cases.map(|(step, fault)| async move {
        let mut node = Node::new(&two(), true);
        fault(&node.runtime, step);
        node.until_running(&["a/0", "b/0"]).await;
        node.delete(1);
        node.until_removed().await;
        let zone = node.runtime.get(&zone_name("u1")).await;
        assert!(matches!(zone, Ok(None)), "{step}");
    }))
    .await;
}

#[tokio::test]
async fn what_could_not_be_killed_is_killed_again() {
    let mut spec = two();
    spec["simulate"] = json!("stubborn");
    let mut node = Node::new(&spec, true);
    node.until_running(&["a/0", "b/0"]).await;
    node.delete(1);
    let asked = async {
        let mut changes = node.runtime.changes();
        while node.runtime.calls("signal") < 2 {
            let _ = changes.recv().await;
        }
    };
    tokio::time::timeout(LIMIT, asked)
        .await
        .expect("both are asked");
    node.runtime.fail("signal", "the link is cut");
    node.until_removed().await;
}

#[tokio::test]
async fn an_api_that_does_not_answer_holds_no_container_up() {
    let node = Node::new(&two(), false);
    node.until_running(&["a/0", "b/0"]).await;
    let id = |generation| ProcessId {
        name: "a".into(),
        generation,
    };
    node.runtime.exit(&zone_name("u1"), &id(0), 1);
    node.until_running(&["a/1", "b/0"]).await;
    node.delete(1);
    let mut status = node.handle.status.clone();
    let over =
        status.wait_for(|status| status.as_deref().is_some_and(crate::node::machine::is_over));
    let over = tokio::time::timeout(LIMIT, over).await.expect("it ends");
    drop(over.expect("a worker"));
    let asked = node.asked.borrow();
    let removed = asked.iter().any(|(method, _)| *method == Method::DELETE);
    assert!(!removed, "its end was not told");
}

#[tokio::test]
async fn a_pod_is_removed_after_its_end_is_told() {
    let mut node = Node::new(&two(), true);
    node.until_running(&["a/0", "b/0"]).await;
    node.delete(1);
    node.until_removed().await;
    let asked = node.asked.borrow();
    let (last, before) = asked.split_last().expect("requests");
    assert_eq!(last.0, Method::DELETE);
    let phases: Vec<_> = before
        .iter()
        .filter_map(|(_, patch)| patch["status"]["phase"].as_str())
        .collect();
    assert_eq!(phases.last(), Some(&"Failed"), "{phases:?}");
}

#[tokio::test]
async fn a_status_that_others_wrote_over_is_told_again() {
    let mut node = Node::new(&two(), true);
    node.until_running(&["a/0", "b/0"]).await;
    let ready = json!({"type": "Ready", "status": "True"});
    let mut status = node.told(1, &ready).await;
    for list in ["podIPs", "hostIPs"] {
        let list = status[list].as_array_mut().expect("a list");
        list.retain(|one| one["$patch"].is_null());
    }
    // Shown as it was told, except that somebody believes that the node is down.
    let version = node.asked.borrow().len();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        if condition["type"] == "Ready" {
            condition["status"] = json!("False");
        }
    }
    node.show(version + 1, &status);
    node.told(2, &ready).await;
}

#[tokio::test]
async fn how_a_pod_ended_stays_known_until_it_is_told() {
    let mut spec = two();
    spec["restartPolicy"] = json!("Never");
    // Without this, what is not restarted ends by itself.
    spec["simulate"] = json!("");
    let node = Node::new(&spec, false);
    node.until_running(&["a/0", "b/0"]).await;
    for name in ["a", "b"] {
        let id = ProcessId {
            name: name.into(),
            generation: 0,
        };
        node.runtime.exit(&zone_name("u1"), &id, 0);
    }
    let mut status = node.handle.status.clone();
    let over =
        status.wait_for(|status| status.as_deref().is_some_and(crate::node::machine::is_over));
    drop(tokio::time::timeout(LIMIT, over).await.expect("it ends"));
    // By now the worker has carried out what it decided.
    assert_eq!(node.runtime.calls("halt"), 0, "the end was not told");
}

#[test]
fn a_clock_that_is_set_is_noticed() {
    let (told, at) = (Timestamp::UNIX_EPOCH, Instant::now());
    let begun = Clock { told, at };
    for (passed, shown, by) in [
        (60, 60_000, None),
        (60, 60_900, None),
        (60, 59_100, None),
        (60, 3_660_000, Some(3600)),
        (60, -3_540_000, Some(-3600)),
        (0, 2000, Some(2)),
    ] {
        let later = Clock {
            told: told + SignedDuration::from_millis(shown),
            at: at + Duration::from_secs(passed),
        };
        let expected = by.map(SignedDuration::from_secs);
        assert_eq!(begun.jumped(&later), expected, "{passed} {shown}");
    }
}
