//! The scheduler's watches and event handlers. Follows k8s.io/kubernetes/pkg/scheduler/eventhandlers.go.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use k8s_openapi::api::{apps, core::v1, node::v1 as runtime, policy};
use tokio::time::Instant;

use super::binding::ended;
use super::devices;
use super::hints::{Event, How, Stored};
use super::node::Node;
use super::pod::Pod;
use super::preempt::Budget;
use super::snapshot::Quick;
use super::state::{Scheduler, State};
use super::storage::Storage;
use super::terms::{Labels, equal_to, label_selector};
use super::volumes::{
    Capacity, Claim, Class, Driver, RawAttachment, RawCapacity, RawClaim, RawClass, RawDriver,
    RawNode, RawVolume, Volume,
};
use crate::client::Context;
use crate::client::informer::{Cached, Change, Informers};
use crate::meta::selector::Selector;
use crate::schema::Value;

crate::slim!(
    /// A namespace's labels.
    Namespace of v1::Namespace {}
);

crate::slim!(
    /// A Service's selector.
    Service of v1::Service {
        /// Its spec.
        spec: Value,
    }
);

crate::slim!(
    /// A ReplicationController's selector.
    ReplicationController of v1::ReplicationController {
        /// Its spec.
        spec: Value,
    }
);

crate::slim!(
    /// A ReplicaSet's selector.
    ReplicaSet of apps::v1::ReplicaSet {
        /// Its spec.
        spec: Value,
    }
);

crate::slim!(
    /// A StatefulSet's selector.
    StatefulSet of apps::v1::StatefulSet {
        /// Its spec.
        spec: Value,
    }
);

crate::slim!(
    /// A RuntimeClass.
    RuntimeClass of runtime::RuntimeClass {
        /// The name of its handler.
        handler: String,
    }
);

crate::slim!(
    /// A PodDisruptionBudget.
    DisruptionBudget of policy::v1::PodDisruptionBudget {
        /// Its spec.
        spec: Value,
        /// Its status.
        status: Value,
    }
);

/// Starts the watches; resolves when all informer caches are filled.
pub async fn begin(scheduler: &Arc<Scheduler>, context: &Context) {
    let ends = &context.ends;
    let own = Informers::new(context.client.clone(), ends.clone()).for_run(ends.clone());
    follow::<Namespace>(&own, scheduler, |state, change| {
        let labels = change
            .new
            .and_then(|namespace| namespace.metadata.labels.clone())
            .map(|labels| labels.into_iter().collect::<Labels>());
        keep(&mut state.snapshot.namespaces, &change.key.name, labels);
    });
    follow::<Service>(&own, scheduler, |state, change| {
        let selector = change
            .new
            .and_then(|service| service.spec.get("selector"))
            .map(equal_to);
        state.snapshot.workloads.set_service(change.key, selector);
    });
    owners::<ReplicationController>(&own, scheduler, |owner| {
        Some(equal_to(owner.spec.at("selector")))
    });
    owners::<ReplicaSet>(&own, scheduler, |owner| {
        label_selector(owner.spec.at("selector"))
    });
    owners::<StatefulSet>(&own, scheduler, |owner| {
        label_selector(owner.spec.at("selector"))
    });
    // Upstream's role of the scheduler does not include permission to read them.
    follow::<RuntimeClass>(&context.informers, scheduler, |state, change| {
        let handler = change.new.map(|class| class.handler.as_str().into());
        keep(&mut state.snapshot.handlers, &change.key.name, handler);
        let event = Event::Handlers(How::of(&change));
        state.happened(&event, Instant::now(), |_| true);
    });
    follow::<DisruptionBudget>(&own, scheduler, |state, change| {
        let budget = change.new.map(|new| Budget {
            selector: label_selector(new.spec.at("selector")),
            allowed: new.status.int("disruptionsAllowed"),
            disrupted: new
                .status
                .entries("disruptedPods")
                .map(|(name, _)| name.clone())
                .collect(),
        });
        keep(&mut state.snapshot.budgets, change.key, budget);
    });
    follow::<devices::RawClaim>(&own, scheduler, |state, change| {
        device_claim(state, &change);
    });
    follow::<devices::RawClass>(&own, scheduler, |state, change| {
        let (name, classes) = (&change.key.name, &mut state.snapshot.devices.classes);
        match change.new {
            Some(_) => classes.insert(name.clone()),
            None => classes.remove(name),
        };
        let event = Event::DeviceClass(How::of(&change));
        state.happened(&event, Instant::now(), |_| true);
    });
    follow_storage(&own, scheduler);
    follow::<Node>(&own, scheduler, |state, change| node(state, &change));
    own.synced().await;
    context.synced().await;
    // Pods are placed on known nodes, so they come last.
    follow::<Pod>(&own, scheduler, |state, change| pod(state, &change));
    own.synced().await;
}

/// Passes every change of a kind to the state.
fn follow<P: Cached>(
    informers: &Informers,
    scheduler: &Arc<Scheduler>,
    take: impl Fn(&mut State, Change<'_, P>) + Send + Sync + 'static,
) {
    let scheduler = Arc::downgrade(scheduler);
    informers.of::<P>().subscribe(move |change| {
        if let Some(scheduler) = scheduler.upgrade() {
            scheduler.change(|state| take(state, change));
        }
    });
}

/// Passes volumes, claims and related objects to the state.
fn follow_storage(own: &Informers, scheduler: &Arc<Scheduler>) {
    stored::<RawClaim>(
        own,
        scheduler,
        Stored::Claim,
        always::<RawClaim>,
        |storage, change| {
            storage.set_claim(change.key, change.new.map(|new| Claim::from(&**new)));
        },
    );
    stored::<RawVolume>(
        own,
        scheduler,
        Stored::Volume,
        always::<RawVolume>,
        |storage, change| {
            storage.set_volume(&change.key.name, change.new.map(|new| Volume::from(&**new)));
        },
    );
    let moved = |old: &RawClass, new: &RawClass| old.allowed_topologies != new.allowed_topologies;
    stored::<RawClass>(own, scheduler, Stored::Class, moved, |storage, change| {
        let new = change.new.map(|new| Class::from(&**new));
        keep(&mut storage.classes, &change.key.name, new);
    });
    stored::<RawDriver>(
        own,
        scheduler,
        Stored::Driver,
        always::<RawDriver>,
        |storage, change| {
            let new = change.new.map(|new| Driver::from(&**new));
            keep(&mut storage.drivers, &change.key.name, new);
        },
    );
    let changed = |old: &RawNode, new: &RawNode| old.spec != new.spec;
    stored::<RawNode>(own, scheduler, Stored::Node, changed, |storage, change| {
        let new = change.new.map(|new| {
            let drivers = new.spec.list("drivers").iter();
            let limit = |driver: &Value| driver.at("allocatable").at("count").as_int();
            drivers
                .map(|driver| (driver.str("name").into(), limit(driver)))
                .collect()
        });
        keep(&mut storage.nodes, &change.key.name, new);
    });
    let grew = |old: &RawCapacity, new: &RawCapacity| {
        Capacity::from(new).largest > Capacity::from(old).largest
    };
    stored::<RawCapacity>(own, scheduler, Stored::Capacity, grew, |storage, change| {
        let new = change.new.map(|new| Capacity::from(&**new));
        keep(&mut storage.capacities, change.key, new);
    });
    stored::<RawAttachment>(
        own,
        scheduler,
        Stored::Attachment,
        always::<RawAttachment>,
        |storage, change| {
            let new = change.new.map(|new| {
                let volume = new.spec.at("source").str("persistentVolumeName");
                (new.spec.str("nodeName").into(), volume.into())
            });
            storage.set_attachment(&change.key.name, new);
        },
    );
}

fn always<P>(_: &P, _: &P) -> bool {
    true
}

/// Passes every change of a kind of storage object to the state; `may_help` returns whether a change from one object to
/// another could help a pod.
fn stored<P: Cached>(
    informers: &Informers,
    scheduler: &Arc<Scheduler>,
    what: Stored,
    may_help: impl Fn(&P, &P) -> bool + Send + Sync + 'static,
    take: impl Fn(&mut Storage, Change<'_, P>) + Send + Sync + 'static,
) {
    let told = Arc::downgrade(scheduler);
    follow::<P>(informers, scheduler, move |state, change| {
        let (how, key) = (How::of(&change), change.key);
        let helps = match (change.old, change.new) {
            (Some(old), Some(new)) => may_help(old, new),
            _ => true,
        };
        take(&mut state.snapshot.storage, change);
        if helps {
            let event = Event::Storage { what, how, key };
            state.happened(&event, Instant::now(), |_| true);
        }
        if let Some(scheduler) = told.upgrade() {
            scheduler.stored.send_replace(());
        }
    });
}

/// Handles a change of a ResourceClaim.
pub fn device_claim(state: &mut State, change: &Change<'_, devices::RawClaim>) {
    let key = change.key;
    let claim = change.new.map(|new| devices::Claim::from(&**new));
    let before = state.snapshot.devices.claims.get(key);
    let had_devices = before.is_some_and(|claim| claim.is_allocated());
    let has_devices = claim.as_ref().is_some_and(|claim| claim.is_allocated());
    let event = Event::DeviceClaim {
        key,
        how: How::of(change),
        is_otherwise: match (change.old, change.new) {
            (Some(old), Some(new)) => old.status != new.status,
            (_, new) => new.is_some(),
        },
        frees: had_devices && !has_devices,
    };
    keep(&mut state.snapshot.devices.claims, key, claim);
    let now = Instant::now();
    state.queue.open(key, &event.label(), &state.snapshot, now);
    state.happened(&event, now, |_| true);
}

/// Sets or removes the value of a key.
fn keep<K: Clone + Eq + Hash, V>(map: &mut HashMap<K, V, Quick>, key: &K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key.clone(), value),
        None => map.remove(key),
    };
}

/// Watches the selectors of a kind of controller.
fn owners<P: Cached>(
    informers: &Informers,
    scheduler: &Arc<Scheduler>,
    selects: impl Fn(&P) -> Option<Selector> + Send + Sync + 'static,
) {
    let kind = format!("{}/{}", P::api_version(&()), P::kind(&()));
    follow::<P>(informers, scheduler, move |state, change| {
        let selector = change.new.and_then(|owner| selects(owner));
        state
            .snapshot
            .workloads
            .set_owner(&kind, change.key, selector);
    });
}

fn node(state: &mut State, change: &Change<'_, Node>) {
    let now = Instant::now();
    match (change.old, change.new) {
        (None, Some(new)) => {
            state.snapshot.set_node(new.clone());
            state.happened(&Event::NodeCame(new), now, |_| true);
        }
        (Some(old), Some(new)) => {
            state.snapshot.set_node(new.clone());
            state.happened(&Event::NodeChanged { old, new }, now, |_| true);
        }
        (Some(old), None) => {
            state.snapshot.remove_node(&old.name);
            state.happened(&Event::NodeGone(old), now, |_| true);
        }
        (None, None) => {}
    }
}

/// Handles a change of a pod: it is placed, unscheduled, or deleted.
pub fn pod(state: &mut State, change: &Change<'_, Pod>) {
    match (change.old, change.new) {
        (Some(old), Some(new)) if old.uid() != new.uid() => {
            gone(state, old);
            came(state, None, new);
        }
        (old, Some(new)) => came(state, old, new),
        (Some(old), None) => gone(state, old),
        (None, None) => {}
    }
}

fn came(state: &mut State, old: Option<&Arc<Pod>>, new: &Arc<Pod>) {
    let now = Instant::now();
    if new.is_placed() {
        state.preparing.call_off(new, ended);
        state.queue.remove(&new.key);
        state.snapshot.set_pod(new.clone());
        let event = match old.filter(|old| old.is_placed()) {
            Some(old) => Event::PodChanged { old, new },
            None => Event::PodCame(new),
        };
        return state.happened(&event, now, |_| true);
    }
    if !new.is_ours {
        return;
    }
    if state.snapshot.is_assumed(&new.key) {
        if new.is_deleting {
            state.forget(new, now);
            state.queue.remove(&new.key);
        }
        // It may have to be scheduled again.
        state.queue.refresh(new);
        return;
    }
    let before = old
        .map(|old| &old.nominated)
        .filter(|node| !node.is_empty());
    match before {
        // A nomination decided since that version was written still counts.
        None if new.nominated.is_empty() => {
            if let Some(node) = state.snapshot.withdraw(&new.key) {
                state.snapshot.nominate(new, &node);
            }
        }
        _ => state.snapshot.nominate(new, &new.nominated),
    }
    state.queue.set(new.clone(), &state.snapshot, now);
    if let (Some(before), Some(old)) = (before, old)
        && *before != new.nominated
    {
        let priority = new.priority;
        state.happened(&Event::PodGone(old), now, |other| {
            other.priority <= priority
        });
    }
}

fn gone(state: &mut State, old: &Arc<Pod>) {
    let now = Instant::now();
    state.queue.remove(&old.key);
    if old.is_placed() {
        state.snapshot.remove_pod(&old.key);
        return state.happened(&Event::PodGone(old), now, |_| true);
    }
    state.forget(old, now);
    if state.snapshot.withdraw(&old.key).is_some() {
        let priority = old.priority;
        state.happened(&Event::PodGone(old), now, |other| {
            other.priority <= priority
        });
    }
}
