use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use kube::discovery::ApiResource;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::auth::User;
use crate::client::{Context, Transport};
use crate::controllers::garbage::graph::Uid;

/// An API with objects of a few kinds, by their path.
struct Api {
    objects: Mutex<BTreeMap<String, Value>>,
    /// Objects that change after each time that they are read.
    busy: BTreeSet<&'static str>,
    /// Objects that cannot be changed.
    refused: BTreeSet<&'static str>,
    /// Gets the events that are recorded.
    events: mpsc::UnboundedSender<Value>,
}

type Answer = Result<Value, (StatusCode, &'static str)>;
const ABSENT: (StatusCode, &str) = (StatusCode::NOT_FOUND, "NotFound");

impl Api {
    fn answer(&self, method: &Method, path: &str, query: &str, body: &[u8]) -> Answer {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if path.ends_with("/events") {
            // The test may be over.
            let _ = self.events.send(body.clone());
            return Ok(body);
        }
        let mut objects = self.objects.lock();
        if let Some(name) = query.split("metadata.name%3D").nth(1) {
            let found = objects.iter();
            let found = found.filter(|(path, _)| path.ends_with(&format!("/{name}")));
            let items: Vec<&Value> = found.map(|(_, object)| object).collect();
            return Ok(json!({"metadata": {"resourceVersion": "1"}, "items": items}));
        }
        let found = objects.get_mut(path).ok_or(ABSENT)?;
        let name = path.rsplit('/').next().unwrap_or_default();
        if *method == Method::GET {
            let read = found.clone();
            if self.busy.contains(name) {
                touch(found);
            }
            return Ok(read);
        }
        if self.refused.contains(name) {
            return Err((StatusCode::FORBIDDEN, "Forbidden"));
        }
        let version = &body["preconditions"]["resourceVersion"];
        if !version.is_null() && *version != found["metadata"]["resourceVersion"] {
            return Err((StatusCode::CONFLICT, "Conflict"));
        }
        if *method == Method::DELETE {
            return objects.remove(path).ok_or(ABSENT);
        }
        found["metadata"]["ownerReferences"] = body["metadata"]["ownerReferences"].clone();
        touch(found);
        Ok(found.clone())
    }
}

fn touch(object: &mut Value) {
    let version = object["metadata"]["resourceVersion"].as_str();
    let version: u32 = version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0);
    object["metadata"]["resourceVersion"] = json!((version + 1).to_string());
}

/// A config map (or a node, if `namespace` is empty) whose uid is its name, owned by the config maps `owners`.
fn object(namespace: &str, name: &str, owners: &[&str]) -> (String, Value) {
    let path = match namespace {
        "" => format!("/api/v1/nodes/{name}"),
        _ => format!("/api/v1/namespaces/{namespace}/configmaps/{name}"),
    };
    let owners = owners.iter();
    let owners: Vec<Value> = owners
        .map(|owner| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": owner}))
        .collect();
    let mut meta =
        json!({"name": name, "uid": name, "resourceVersion": "1", "ownerReferences": owners});
    if !namespace.is_empty() {
        meta["namespace"] = json!(namespace);
    }
    (path, json!({"metadata": meta}))
}

struct World {
    api: Arc<Api>,
    shared: Shared,
    events: mpsc::UnboundedReceiver<Value>,
    /// Ends the tasks of events with the test.
    _ends: tokio_util::sync::DropGuard,
}

impl World {
    /// A world in which the graph has seen all objects.
    fn of(objects: &[(String, Value)], busy: &[&'static str], refused: &[&'static str]) -> World {
        let (told, events) = mpsc::unbounded_channel();
        let api = Arc::new(Api {
            objects: Mutex::new(objects.iter().cloned().collect()),
            busy: busy.iter().copied().collect(),
            refused: refused.iter().copied().collect(),
            events: told,
        });
        let answers = api.clone();
        let transport = Transport::new(move |request, _| {
            let api = answers.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
                let (code, answer) = match api.answer(&head.method, path, query, &body) {
                    Ok(answer) => (StatusCode::OK, answer),
                    Err((code, reason)) => (
                        code,
                        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code.as_u16()}),
                    ),
                };
                let body = http_body_util::Full::from(answer.to_string()).boxed_unsync();
                let mut response = http::Response::new(body);
                *response.status_mut() = code;
                response
            }
        });
        let client = transport.client(User::new("test", &[]), "test");
        let (context, ends) = Context::by_hand(client);
        let shared = Shared::new(context);
        let kind = |kind: &str, plural: &str, namespaced| Served {
            resource: ApiResource {
                group: String::new(),
                version: "v1".to_owned(),
                api_version: "v1".to_owned(),
                kind: kind.to_owned(),
                plural: plural.to_owned(),
            },
            namespaced,
            verbs: ["delete", "list", "watch"].map(str::to_owned).into(),
            subresources: Vec::new(),
        };
        let kinds = [
            kind("ConfigMap", "configmaps", true),
            kind("Node", "nodes", false),
        ];
        shared.kinds.set(&kinds);
        for (path, object) in objects {
            let bare: Bare = serde_json::from_value(object.clone()).expect("an object");
            let kind = if path.contains("/nodes/") {
                "Node"
            } else {
                "ConfigMap"
            };
            let work = shared.graph.lock().saw(Seen::of(&bare, "v1", kind));
            shared.add(work);
        }
        World {
            api,
            shared,
            events,
            _ends: ends,
        }
    }

    /// Looks at everything that waits, and at what that leads to.
    async fn settle(&self) {
        use futures::FutureExt as _;
        while let Some(uid) = self.shared.delete.next().now_or_never() {
            let uid: Uid = uid;
            let next = delete(&self.shared, &uid).await.expect("an answer");
            self.shared.delete.done(&uid);
            assert_eq!(next, Next::Done, "{uid}");
        }
    }

    fn names(&self) -> Vec<String> {
        let objects = self.api.objects.lock();
        let names = objects.keys().filter_map(|path| path.rsplit('/').next());
        names.map(str::to_owned).collect()
    }

    fn owners(&self, name: &str) -> usize {
        let objects = self.api.objects.lock();
        let mut found = objects
            .values()
            .filter(|of| of["metadata"]["name"] == *name);
        let owners = found
            .next()
            .map(|of| of["metadata"]["ownerReferences"].clone());
        owners
            .and_then(|owners| Some(owners.as_array()?.len()))
            .unwrap_or(0)
    }
}

#[tokio::test]
async fn an_object_that_changes_all_the_time_is_deleted_nevertheless() {
    let objects = [object("n", "busy", &["gone"])];
    let world = World::of(&objects, &["busy"], &[]);
    world.settle().await;
    assert_eq!(world.names(), [""; 0]);
}

#[tokio::test]
async fn dependents_are_orphaned_even_if_one_cannot_be() {
    let mut owner = object("n", "a", &[]);
    owner.1["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    owner.1["metadata"]["finalizers"] = json!([ORPHAN]);
    let objects = [
        owner,
        object("n", "x", &["a"]),
        object("n", "y", &["a"]),
        object("n", "z", &["a"]),
    ];
    let world = World::of(&objects, &[], &["x"]);
    let failed = orphan(&world.shared, "a")
        .await
        .expect_err("x cannot be changed");
    assert_eq!(failed.to_string(), "cannot change ConfigMap n/x: Forbidden");
    assert_eq!(["x", "y", "z"].map(|name| world.owners(name)), [1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_owner_in_another_namespace_owns_nothing_and_somebody_is_told() {
    let mut world = World::of(&[object("m", "a", &[]), object("n", "x", &["a"])], &[], &[]);
    world.settle().await;
    assert_eq!(world.names(), ["a"]);
    let event = tokio::time::timeout(std::time::Duration::from_secs(60), world.events.recv());
    let event = event.await.ok().flatten().expect("an event");
    assert_eq!(
        [
            &event["reason"],
            &event["message"],
            &event["involvedObject"]["name"]
        ],
        [
            "OwnerRefInvalidNamespace",
            "ownerRef [v1/ConfigMap, namespace: n, name: a, uid: a] does not exist in namespace \"n\"",
            "x"
        ]
    );
}

#[tokio::test]
async fn a_reference_out_of_all_namespaces_into_one_says_nothing() {
    let objects = [
        object("n", "a", &[]),
        object("", "node", &["a"]),
        object("n", "x", &["a"]),
    ];
    let world = World::of(&objects, &[], &[]);
    world.settle().await;
    assert_eq!(world.names(), ["a", "x", "node"], "none is deleted");
}
