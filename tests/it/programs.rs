//! Typical kube-rs programs, over HTTPS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Event, ObjectReference, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Finalizer, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Client, CustomResource, CustomResourceExt as _, Resource as _, ResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::server::Server;

/// Nothing here takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: it did not happen"))
}

fn map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some([("k".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_one_snapshot_and_a_watch_goes_on_from_it() {
    let server = Server::in_memory(&[]);
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    for number in 0..25 {
        maps.create(&PostParams::default(), &map(&format!("m{number:02}"), "a"))
            .await
            .expect("made");
    }
    let (mut names, mut revisions) = (Vec::new(), Vec::new());
    let mut page = ListParams::default()
        .fields("metadata.name!=kube-root-ca.crt")
        .limit(10);
    loop {
        let list = maps.list(&page).await.expect("a page");
        names.extend(list.items.iter().map(ConfigMap::name_any));
        revisions.extend(list.metadata.resource_version.clone());
        // Changes between pages do not appear in later pages.
        let late = map(&format!("late{}", revisions.len()), "a");
        maps.create(&PostParams::default(), &late)
            .await
            .expect("made");
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    let wanted: Vec<String> = (0..25).map(|number| format!("m{number:02}")).collect();
    assert_eq!(names, wanted);
    assert!(
        revisions.iter().all(|revision| *revision == revisions[0]),
        "{revisions:?}"
    );

    // A watch from the snapshot on shows exactly the later changes.
    let watch = WatchParams::default()
        .fields("metadata.name!=kube-root-ca.crt")
        .timeout(30);
    let events = maps
        .watch(&watch, &revisions[0])
        .await
        .expect("a watch")
        .boxed();
    let told: Vec<String> = soon(
        "three events",
        events
            .try_filter_map(async |event| match event {
                WatchEvent::Added(map) => Ok(Some(map.name_any())),
                WatchEvent::Bookmark(_) => Ok(None),
                other => panic!("{other:?}"),
            })
            .take(3)
            .try_collect(),
    )
    .await
    .expect("events");
    assert_eq!(told, ["late1", "late2", "late3"]);

    // Initial events end with a bookmark from which another watch continues.
    let initial = WatchParams::default().initial_events().timeout(30);
    let mut events = maps.watch(&initial, "").await.expect("a watch").boxed();
    let mut seen = 0;
    let bookmark = loop {
        match soon("the bookmark", events.next())
            .await
            .expect("more")
            .expect("an event")
        {
            WatchEvent::Added(_) => seen += 1,
            WatchEvent::Bookmark(bookmark) => break bookmark.metadata.resource_version,
            other => panic!("{other:?}"),
        }
    };
    let held = maps
        .list(&ListParams::default())
        .await
        .expect("a list")
        .items
        .len();
    assert_eq!(seen, held);
    maps.delete("late1", &DeleteParams::default())
        .await
        .expect("deleted");
    let mut events = maps
        .watch(&watch, &bookmark)
        .await
        .expect("a watch")
        .boxed();
    match soon("a deletion", events.next()).await {
        Some(Ok(WatchEvent::Deleted(map))) => assert_eq!(map.name_any(), "late1"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_applied_by_their_managers_and_statuses_apart() {
    let server = Server::in_memory(&[]);
    let client = server.client().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let apply = |manager: &str, key: &str, value: &str, force: bool| {
        let mut params = PatchParams::apply(manager);
        params.force = force;
        let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"},
            "data": {key: value}});
        let maps = maps.clone();
        async move { maps.patch("shared", &params, &Patch::Apply(&wanted)).await }
    };
    apply("one", "a", "1", false).await.expect("made");
    apply("two", "b", "2", false)
        .await
        .expect("another's field");
    let refused = apply("two", "a", "2", false)
        .await
        .expect_err("one's field");
    assert!(is_conflict(&refused), "{refused}");
    let taken = apply("two", "a", "2", true).await.expect("by force");
    // A field that is no longer applied is removed: only `two` owned `b`.
    assert_eq!(
        taken.data,
        Some(BTreeMap::from([("a".to_owned(), "2".to_owned())]))
    );
    let managers: Vec<_> = taken
        .managed_fields()
        .iter()
        .filter_map(|m| m.manager.clone())
        .collect();
    assert_eq!(managers, ["two"]);

    let pods: Api<Pod> = Api::default_namespaced(client);
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}))
    .expect("a pod");
    let made = pods
        .create(&PostParams::default(), &pod)
        .await
        .expect("made");
    let patch = json!({"status": {"phase": "Running"}, "spec": {"nodeName": "nowhere"}});
    let patched = pods
        .patch_status("p", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .expect("patched");
    assert_eq!(
        patched.status.and_then(|status| status.phase).as_deref(),
        Some("Running")
    );
    assert_eq!(patched.spec.and_then(|spec| spec.node_name), None);
    // A stale copy is rejected.
    let refused = pods
        .replace_status("p", &PostParams::default(), &made)
        .await
        .expect_err("stale");
    assert!(is_conflict(&refused), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_has_one_holder_at_a_time() {
    const TERMS: usize = 3;
    const CANDIDATES: usize = 4;
    let server = Server::in_memory(&[]);
    let holders = Arc::new(AtomicUsize::new(0));
    let candidates = (0..CANDIDATES).map(|number| {
        let holders = holders.clone();
        let client = server.client();
        async move {
            let leases: Api<Lease> = Api::default_namespaced(client.await);
            let me = format!("candidate-{number}");
            let mut served = 0;
            while served < TERMS {
                let Some(mut lease) = acquire(&leases, &me).await else {
                    continue;
                };
                assert_eq!(
                    holders.fetch_add(1, Ordering::SeqCst),
                    0,
                    "two leaders at once"
                );
                tokio::task::yield_now().await;
                holders.fetch_sub(1, Ordering::SeqCst);
                lease.spec.as_mut().expect("a spec").holder_identity = None;
                leases
                    .replace("leader", &PostParams::default(), &lease)
                    .await
                    .expect("the holder may let go");
                served += 1;
            }
        }
    });
    soon("every term", futures::future::join_all(candidates)).await;
    let leases: Api<Lease> = Api::default_namespaced(server.client().await);
    let spec = leases
        .get("leader")
        .await
        .expect("the lease")
        .spec
        .expect("a spec");
    let transitions = spec
        .lease_transitions
        .map(|n| usize::try_from(n).expect("a count"));
    assert_eq!(transitions, Some(TERMS * CANDIDATES));
}

/// Acquires the lease if nobody holds it.
async fn acquire(leases: &Api<Lease>, me: &str) -> Option<Lease> {
    let post = PostParams::default();
    let result = match leases.get_opt("leader").await.expect("an answer") {
        None => {
            let mut lease = Lease::default();
            lease.metadata.name = Some("leader".to_owned());
            lease.spec = Some(LeaseSpec {
                holder_identity: Some(me.to_owned()),
                lease_transitions: Some(1),
                ..LeaseSpec::default()
            });
            leases.create(&post, &lease).await
        }
        Some(mut lease) => {
            let spec = lease.spec.as_mut()?;
            if spec.holder_identity.is_some() {
                return None;
            }
            spec.holder_identity = Some(me.to_owned());
            spec.lease_transitions = spec.lease_transitions.map(|n| n + 1);
            leases.replace("leader", &post, &lease).await
        }
    };
    match result {
        Ok(lease) => Some(lease),
        Err(error) if is_conflict(&error) || already_there(&error) => None,
        Err(error) => panic!("{error}"),
    }
}

fn already_there(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

/// A garden, whose beds are config maps.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, JsonSchema)]
#[kube(
    group = "example.com",
    version = "v1",
    kind = "Garden",
    namespaced,
    status = "GardenStatus",
    shortname = "gdn"
)]
struct GardenSpec {
    beds: u32,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema)]
struct GardenStatus {
    planted: u32,
}

struct Gardener {
    client: Client,
    recorder: Recorder,
    cleaned: AtomicUsize,
}

/// Creates the beds, updates the status, records an event, and counts its cleanups.
async fn tend(
    garden: Arc<Garden>,
    gardener: Arc<Gardener>,
) -> Result<Action, kube::runtime::finalizer::Error<kube::Error>> {
    let namespace = garden.namespace().expect("a namespace");
    let gardens: Api<Garden> = Api::namespaced(gardener.client.clone(), &namespace);
    let maps: Api<ConfigMap> = Api::namespaced(gardener.client.clone(), &namespace);
    finalizer(&gardens, "example.com/gardener", garden, |event| async {
        let garden = match event {
            Finalizer::Cleanup(_) => {
                gardener.cleaned.fetch_add(1, Ordering::SeqCst);
                return Ok(Action::await_change());
            }
            Finalizer::Apply(garden) => garden,
        };
        let name = garden.name_any();
        let params = PatchParams::apply("gardener").force();
        for bed in 0..garden.spec.beds {
            let mut wanted = map(&format!("{name}-{bed}"), "planted");
            wanted.metadata.owner_references =
                garden.controller_owner_ref(&()).map(|owner| vec![owner]);
            maps.patch(&wanted.name_any(), &params, &Patch::Apply(&wanted))
                .await?;
        }
        if garden.status.as_ref().map(|status| status.planted) != Some(garden.spec.beds) {
            let status = json!({"apiVersion": "example.com/v1", "kind": "Garden",
                "status": GardenStatus { planted: garden.spec.beds }});
            gardens
                .patch_status(&name, &params, &Patch::Apply(&status))
                .await?;
            let note = kube::runtime::events::Event {
                type_: EventType::Normal,
                reason: "Planted".to_owned(),
                note: None,
                action: "Plant".to_owned(),
                secondary: None,
            };
            gardener
                .recorder
                .publish(&note, &garden.object_ref(&()))
                .await?;
        }
        Ok(Action::await_change())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_of_a_derived_resource_tends_what_it_owns() {
    let server = Server::in_memory(&[]);
    let client = server.client().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions
        .create(&PostParams::default(), &Garden::crd())
        .await
        .expect("a definition");
    let established = conditions::is_crd_established();
    soon(
        "the definition",
        await_condition(definitions, "gardens.example.com", established),
    )
    .await
    .expect("a watch");

    let gardens: Api<Garden> = Api::default_namespaced(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let reporter = Reporter {
        controller: "gardener".to_owned(),
        instance: None,
    };
    let gardener = Arc::new(Gardener {
        client: client.clone(),
        recorder: Recorder::new(client.clone(), reporter),
        cleaned: AtomicUsize::new(0),
    });
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(
        Controller::new(gardens.clone(), watcher::Config::default())
            .owns(maps.clone(), watcher::Config::default().streaming_lists())
            .graceful_shutdown_on(async { drop(ended.await) })
            .run(
                tend,
                |_, _, _| Action::requeue(Duration::from_millis(50)),
                gardener.clone(),
            )
            .for_each(async |_| {}),
    );
    // A reflector beside it sees the same.
    let (reader, writer) = reflector::store();
    let reflected = tokio::spawn(
        reflector(
            writer,
            watcher(gardens.clone(), watcher::Config::default().page_size(1)),
        )
        .applied_objects()
        .for_each(async |_| {}),
    );

    let garden = gardens
        .create(
            &PostParams::default(),
            &Garden::new("g", GardenSpec { beds: 2 }),
        )
        .await
        .expect("a garden");
    let planted = |beds: u32| {
        move |garden: Option<&Garden>| {
            garden
                .and_then(|garden| garden.status.as_ref())
                .is_some_and(|status| status.planted == beds)
        }
    };
    soon(
        "two beds",
        await_condition(gardens.clone(), "g", planted(2)),
    )
    .await
    .expect("a watch");
    let bed = maps.get("g-1").await.expect("the second bed");
    assert_eq!(bed.owner_references()[0].uid, garden.uid().expect("a uid"));

    // A deleted bed is created again; more beds are created on request.
    let uid = bed.uid().expect("a uid");
    maps.delete("g-1", &DeleteParams::default())
        .await
        .expect("deleted");
    let again = |map: Option<&ConfigMap>| map.is_some_and(|map| map.uid().as_ref() != Some(&uid));
    soon("a new bed", await_condition(maps.clone(), "g-1", again))
        .await
        .expect("a watch");
    gardens
        .patch(
            "g",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"beds": 3}})),
        )
        .await
        .expect("patched");
    soon(
        "three beds",
        await_condition(gardens.clone(), "g", planted(3)),
    )
    .await
    .expect("a watch");
    soon("the store", reader.wait_until_ready())
        .await
        .expect("a reflector");
    assert_eq!(reader.len(), 1);

    // Events are aggregated into a series.
    let events: Api<Event> = Api::default_namespaced(client.clone());
    let named = ListParams::default().fields("involvedObject.kind=Garden,reason=Planted");
    let events = events.list(&named).await.expect("events").items;
    let about: Vec<&ObjectReference> = events.iter().map(|event| &event.involved_object).collect();
    assert_eq!(about[0].name.as_deref(), Some("g"));

    // After a deletion the finalizer runs once, and owned objects are deleted, too.
    gardens
        .delete("g", &DeleteParams::default())
        .await
        .expect("deleted");
    let gone = conditions::is_deleted(garden.metadata.uid.as_deref().expect("a uid"));
    soon("its end", await_condition(gardens.clone(), "g", gone))
        .await
        .expect("a watch");
    assert_eq!(gardener.cleaned.load(Ordering::SeqCst), 1);
    for name in ["g-0", "g-1", "g-2"] {
        let none = |map: Option<&ConfigMap>| map.is_none();
        soon("the end of beds", await_condition(maps.clone(), name, none))
            .await
            .expect("a watch");
    }
    drop(end);
    soon("the controller's end", running)
        .await
        .expect("no panic");
    reflected.abort();
}
