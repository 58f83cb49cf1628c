//! Tests the requests between a decision and its result.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::super::binding::{Written, are_bound};
use super::super::hints::Event;
use super::super::pod::Pod;
use super::super::requests::Requests;
use super::super::snapshot::Snapshot;
use super::super::state::{Scheduler, State, Step, Work};
use super::super::storage::Plan;
use super::super::volumes::{Claim, Class, RawClaim, RawClass, RawVolume, Volume};
use super::super::{devices, watch};
use super::{Instant, Key, asking, node};
use crate::client::events;
use crate::client::informer::Change;

/// A request to the API: method, path and body.
type Asked = (Method, String, Value);

/// A scheduler, and its API requests except events. The API rejects bindings if it `refuses` them, and delays its
/// responses to patches of pods' status until `let_go`.
struct Bench {
    scheduler: Arc<Scheduler>,
    asked: mpsc::UnboundedReceiver<Asked>,
    let_go: Arc<Semaphore>,
}

impl Bench {
    fn new(refuses: bool, let_go: usize) -> Bench {
        let (told, asked) = mpsc::unbounded_channel();
        let let_go = Arc::new(Semaphore::new(let_go));
        let held = let_go.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (told, held) = (told.clone(), held.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let path = head.uri.path().to_owned();
                let is_status = path.contains("/pods/") && path.ends_with("/status");
                if !path.contains("/events") {
                    // The test may have ended.
                    let _ = told.send((head.method, path.clone(), body));
                }
                if is_status {
                    held.acquire().await.expect("it stays open").forget();
                }
                let (code, answer) = match refuses && path.ends_with("/binding") {
                    true => (
                        StatusCode::FORBIDDEN,
                        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                            "message": "no", "reason": "Forbidden", "code": 403}),
                    ),
                    false => (
                        StatusCode::OK,
                        json!({"metadata": {"name": "x", "resourceVersion": "2"}}),
                    ),
                };
                let mut answer = Response::new(Body::from(answer.to_string().into_bytes()));
                *answer.status_mut() = code;
                Ok::<_, Infallible>(answer)
            }
        });
        let client = kube::Client::new(service, "default");
        let ends = CancellationToken::new();
        let requests = Requests::new(client, &events::start(ends.clone()));
        let scheduler = Arc::new(Scheduler::new(requests, ends));
        Bench {
            scheduler,
            asked,
            let_go,
        }
    }

    fn state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.scheduler.change(change)
    }

    /// Adds an unscheduled pod.
    fn set(&self, pod: Arc<Pod>) {
        self.state(|state| state.queue.set(pod, &state.snapshot, Instant::now()));
    }

    /// Decides about the next pod.
    fn decided(&self) -> Work {
        match self.scheduler.step() {
            Step::Work(work) => work,
            _ => panic!("a pod is to be decided about"),
        }
    }

    /// Carries out some work.
    fn carry_out(&self, work: Work) -> tokio::task::JoinHandle<()> {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned();
        let permit = permit.expect("it is free");
        tokio::spawn(self.scheduler.clone().carry_out(work, permit))
    }

    /// The next request: its method and path, and its body.
    async fn next(&mut self) -> (String, Value) {
        let (method, path, body) = self.asked.recv().await.expect("it asks");
        let of = path.rsplit('/').take(3).collect::<Vec<_>>();
        let of = of.into_iter().rev().collect::<Vec<_>>().join("/");
        (format!("{method} {of}"), body)
    }

    /// Whether no request comes, however long one waits.
    async fn is_silent(&mut self) -> bool {
        tokio::time::sleep(Duration::from_secs(60)).await;
        self.asked.try_recv().is_err()
    }
}

fn class(provisioner: &str) -> Class {
    let raw = json!({"metadata": {}, "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer"});
    Class::from(&serde_json::from_value::<RawClass>(raw).unwrap())
}

fn claim(version: &str, volume: &str, annotations: Value) -> Claim {
    let raw = json!({
        "metadata": {"name": "c", "namespace": "n", "uid": "c", "resourceVersion": version,
            "annotations": annotations},
        "spec": {"storageClassName": "made", "volumeName": volume,
            "resources": {"requests": {"storage": "1Gi"}}},
    });
    Claim::from(&serde_json::from_value::<RawClaim>(raw).unwrap())
}

/// A pod with a claim that waits for its first consumer.
fn claiming(name: &str) -> Arc<Pod> {
    let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}});
    asking(name, "3", json!({"volumes": [volume]}))
}

fn with_claim(snapshot: &mut Snapshot) {
    snapshot.set_node(node("a", json!({}), json!({})));
    snapshot.storage.classes.insert("made".into(), class("d"));
    let waits = claim("1", "", json!({}));
    snapshot.storage.set_claim(&Key::new("n", "c"), Some(waits));
}

#[tokio::test(start_paused = true)]
async fn what_is_told_of_a_pod_is_told_before_it_is_bound() {
    let mut bench = Bench::new(false, 0);
    bench.set(asking("p", "1", json!({})));
    let reported = bench.carry_out(bench.decided());
    assert_eq!(bench.next().await.0, "PATCH pods/p/status");
    bench.state(|state| {
        let node = node("a", json!({}), json!({}));
        state.snapshot.set_node(node.clone());
        state.happened(&Event::NodeCame(&node), Instant::now(), |_| true);
    });
    let bound = bench.carry_out(bench.decided());
    assert!(bench.is_silent().await, "the API has not answered");
    bench.let_go.add_permits(1);
    assert_eq!(bench.next().await.0, "POST pods/p/binding");
    reported.await.unwrap();
    bound.await.unwrap();
    assert!(bench.state(|state| state.queue.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn claims_to_devices_are_given_back_where_a_pod_is_not_bound() {
    for refuses in [false, true] {
        let mut bench = Bench::new(refuses, 9);
        bench.state(|state| {
            state.snapshot.set_node(node("a", json!({}), json!({})));
            let raw: devices::RawClaim = serde_json::from_value(json!({
                "metadata": {"uid": "uid-c", "resourceVersion": "1"}, "status": {"allocation": {}},
            }))
            .unwrap();
            let new = &Arc::new(raw);
            let key = &Key::new("n", "c");
            watch::device_claim(
                state,
                &Change {
                    key,
                    old: None,
                    new: Some(new),
                },
            );
        });
        let claims = json!([{"name": "d", "resourceClaimName": "c"}]);
        bench.set(asking("p", "1", json!({"resourceClaims": claims})));
        bench.carry_out(bench.decided()).await.unwrap();
        let nominated = json!({"metadata": {"uid": "uid-p"}, "status": {"nominatedNodeName": "a"}});
        assert_eq!(
            bench.next().await,
            ("PATCH pods/p/status".into(), nominated)
        );
        // No resource version is sent, so reservations by others do not conflict.
        let of_claim =
            |user: Value| json!({"metadata": {"uid": "uid-c"}, "status": {"reservedFor": [user]}});
        let user = json!({"resource": "pods", "name": "p", "uid": "uid-p"});
        let path = "PATCH resourceclaims/c/status".to_owned();
        assert_eq!(bench.next().await, (path.clone(), of_claim(user)));
        assert_eq!(bench.next().await.0, "POST pods/p/binding");
        if refuses {
            let user = json!({"$patch": "delete", "uid": "uid-p"});
            assert_eq!(bench.next().await, (path, of_claim(user)));
            let (what, body) = bench.next().await;
            assert_eq!(what, "PATCH pods/p/status");
            assert_eq!(body["status"].get("nominatedNodeName"), Some(&Value::Null));
            assert_eq!(
                body["status"]["conditions"][0]["message"],
                "running Bind plugin \"DefaultBinder\": no"
            );
        }
        assert!(bench.asked.try_recv().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_waits_for_its_volumes_makes_way_and_is_tried_again() {
    let mut bench = Bench::new(false, 9);
    bench.state(|state| with_claim(&mut state.snapshot));
    bench.set(claiming("low"));
    let waits = bench.carry_out(bench.decided());
    assert_eq!(bench.next().await.0, "PATCH pods/low/status");
    assert_eq!(bench.next().await.0, "PATCH n/persistentvolumeclaims/c");
    bench.set(asking("high", "3", json!({"priority": 10})));
    bench.carry_out(bench.decided()).await.unwrap();
    waits.await.unwrap();
    let Work::Bind { pod, .. } = bench.decided() else {
        panic!("there is room now");
    };
    assert_eq!(pod.key.name, "high");
    let mut told = Vec::new();
    while let Ok((method, path, body)) = bench.asked.try_recv() {
        assert_eq!(method, Method::PATCH, "{path}");
        told.push(body["status"]["conditions"][0]["message"].to_string());
    }
    let why = "running PreBind plugin \\\"VolumeBinding\\\": preempted by DefaultPreemption";
    assert!(told.contains(&format!("\"{why}\"")), "{told:?}");
    // It backs off, and its claim is free.
    assert_eq!(
        bench.state(|state| state.queue.tally().waiting[1]),
        ("backoff", 1)
    );
    let key = Key::new("n", "c");
    let selected = bench.state(|state| {
        let storage = &state.snapshot.storage;
        storage.selected(&key, &storage.claims[&key]).cloned()
    });
    assert_eq!(selected, None);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_tried_again_even_if_the_task_that_makes_room_for_it_dies() {
    let mut bench = Bench::new(false, 0);
    bench.state(|state| {
        let there = json!({"nodeName": "n", "priority": 0});
        state.snapshot.set_node(node("n", json!({}), json!({})));
        state.snapshot.set_pod(asking("low", "3", there));
    });
    bench.set(asking("high", "3", json!({"priority": 10})));
    let makes_room = bench.carry_out(bench.decided());
    bench.next().await;
    makes_room.abort();
    assert!(makes_room.await.is_err(), "it was about to");
    assert_eq!(
        bench.state(|state| state.queue.tally().waiting[0]),
        ("active", 1)
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_waited_for_when_the_pod_is_gone_whatever_has_its_name() {
    let mut bench = Bench::new(false, 9);
    bench.state(|state| with_claim(&mut state.snapshot));
    let first = claiming("p");
    bench.set(first.clone());
    let waits = bench.carry_out(bench.decided());
    assert_eq!(bench.next().await.0, "PATCH pods/p/status");
    assert_eq!(bench.next().await.0, "PATCH n/persistentvolumeclaims/c");
    let again = Arc::new(Pod {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            uid: Some("again".to_owned()),
            ..first.metadata.clone()
        },
        ..(*first).clone()
    });
    bench.state(|state| {
        let (key, old, new) = (&first.key, Some(&first), Some(&again));
        watch::pod(state, &Change { key, old, new });
    });
    let Work::Bind { pod, plan, .. } = bench.decided() else {
        panic!("its place is free");
    };
    assert_eq!(pod.uid(), "again");
    let begun = Instant::now();
    waits.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(bench.asked.try_recv().is_err(), "nobody is told");
    // Promises for the other pod remain.
    let key = Key::new("n", "c");
    assert_eq!(plan.provision, std::slice::from_ref(&key));
    let selected = bench.state(|state| {
        let storage = &state.snapshot.storage;
        storage.selected(&key, &storage.claims[&key]).cloned()
    });
    assert_eq!(selected.as_deref(), Some("a"));
}

#[test]
fn volumes_are_bound_where_the_pod_can_have_them() {
    let selected = |node: &str| json!({"volume.kubernetes.io/selected-node": node});
    let bound = |node: &str| json!({"volume.kubernetes.io/selected-node": node, "pv.kubernetes.io/bind-completed": "yes"});
    let volume = |version: &str, node: &str, uid: &str| -> Option<Volume> {
        let is_on = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
        let raw: RawVolume = serde_json::from_value(json!({
            "metadata": {"name": "v", "resourceVersion": version},
            "spec": {"claimRef": {"namespace": "n", "name": "c", "uid": uid},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [is_on]}]}}},
        }))
        .unwrap();
        Some(Volume::from(&raw))
    };
    let none = || None::<Volume>;
    let key = Key::new("n", "c");
    let plans = [
        Plan {
            bind: vec![("v".into(), key.clone())],
            provision: vec![],
        },
        Plan {
            bind: vec![],
            provision: vec![key.clone()],
        },
    ];
    let refused = |why: &str| Err(why.to_owned());
    let affinity = "pv \"v\" node affinity doesn't match node \"a\": no matching NodeSelectorTerms";
    let node_is_gone = "failed to get node \"a\": node \"a\" not found";
    for (is_made, is_there, claim, volume, wanted) in [
        (
            false,
            true,
            Some(claim("9", "v", bound("a"))),
            volume("5", "a", "c"),
            Ok(true),
        ),
        (
            false,
            true,
            Some(claim("9", "", json!({}))),
            volume("5", "a", "c"),
            Ok(false),
        ),
        (
            false,
            true,
            Some(claim("9", "v", bound("a"))),
            volume("4", "b", ""),
            Ok(false),
        ),
        (
            false,
            true,
            Some(claim("9", "v", bound("a"))),
            volume("5", "b", "c"),
            refused(affinity),
        ),
        (
            false,
            true,
            Some(claim("9", "", json!({}))),
            volume("5", "a", ""),
            refused("ClaimRef got reset for pv \"v\""),
        ),
        (
            false,
            true,
            None,
            volume("5", "a", "c"),
            refused("failed to check binding: persistentvolumeclaims \"n/c\" not found"),
        ),
        (
            false,
            true,
            Some(claim("9", "v", bound("a"))),
            none(),
            refused("failed to check binding: persistentvolumes \"v\" not found"),
        ),
        (
            false,
            false,
            Some(claim("9", "v", bound("a"))),
            volume("5", "a", "c"),
            refused(node_is_gone),
        ),
        (
            true,
            true,
            Some(claim("7", "v", bound("a"))),
            volume("1", "a", "c"),
            Ok(true),
        ),
        (
            true,
            true,
            Some(claim("7", "", selected("a"))),
            none(),
            Ok(false),
        ),
        (
            true,
            true,
            Some(claim("6", "", json!({}))),
            none(),
            Ok(false),
        ),
        (
            true,
            true,
            Some(claim("7", "v", bound("a"))),
            none(),
            Ok(false),
        ),
        (
            true,
            true,
            Some(claim("7", "v", bound("a"))),
            volume("1", "b", "c"),
            refused(affinity),
        ),
        // The API already has the annotation, so nothing is written.
        (
            true,
            true,
            Some(claim("8", "", json!({}))),
            none(),
            refused("selectedNode annotation reset for PVC \"c\""),
        ),
        (
            true,
            true,
            Some(claim("8", "", json!({"a": "b"}))),
            none(),
            refused("provisioning failed for PVC \"c\""),
        ),
        (
            true,
            true,
            Some(claim("8", "", selected("b"))),
            none(),
            refused("provisioning failed for PVC \"c\""),
        ),
        (
            true,
            true,
            None,
            none(),
            refused("failed to check provisioning pvc: persistentvolumeclaims \"n/c\" not found"),
        ),
        (
            true,
            false,
            Some(claim("7", "v", bound("a"))),
            volume("1", "a", "c"),
            refused(node_is_gone),
        ),
    ] {
        let mut snapshot = Snapshot::default();
        if is_there {
            snapshot.set_node(node("a", json!({}), json!({})));
        }
        let what = format!("{is_made} {claim:?} {volume:?}");
        snapshot.storage.set_claim(&key, claim);
        snapshot.storage.set_volume(&"v".into(), volume);
        let written = Written {
            volumes: [("v".into(), 5)].into(),
            claims: [(key.clone(), 7)].into(),
        };
        let plan = &plans[usize::from(is_made)];
        let pod = claiming("p").placed_on("a");
        assert_eq!(are_bound(&snapshot, &pod, plan, &written), wanted, "{what}");
    }
}

#[test]
fn a_promise_lasts_until_the_api_shows_something_else_and_is_taken_back_by_who_has_it() {
    let key = Key::new("n", "c");
    let is_on = json!({"volume.kubernetes.io/selected-node": "a"});
    let mut snapshot = Snapshot::default();
    with_claim(&mut snapshot);
    let storage = &mut snapshot.storage;
    let plan = Plan {
        bind: vec![],
        provision: vec![key.clone()],
    };
    let (first, second) = (
        claiming("first").placed_on("a"),
        claiming("second").placed_on("a"),
    );
    let selected = |storage: &super::super::storage::Storage| {
        storage
            .selected(&key, &storage.claims[&key])
            .map(ToString::to_string)
    };
    // The node was selected before, and is selected again: nothing is written.
    storage.set_claim(&key, Some(claim("2", "", is_on.clone())));
    storage.promise(&plan, &first);
    storage.set_claim(&key, Some(claim("2", "", is_on)));
    assert_eq!(selected(storage).as_deref(), Some("a"));
    storage.set_claim(&key, Some(claim("3", "", json!({}))));
    assert_eq!(selected(storage), None, "the provisioner gave it back");
    storage.promise(&plan, &first);
    storage.promise(&plan, &second);
    storage.release(&plan, &first);
    assert_eq!(selected(storage).as_deref(), Some("a"));
    storage.release(&plan, &second);
    assert_eq!(selected(storage), None);
}
