//! What the scheduler watches, and what it makes of it. Follows k8s.io/kubernetes/pkg/scheduler/eventhandlers.go.

use std::sync::Arc;

use k8s_openapi::api::{apps, core::v1, node::v1 as runtime};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::hints::Event;
use super::node::Node;
use super::pod::Pod;
use super::state::{Scheduler, State};
use super::terms::{Labels, equal_to, label_selector};
use crate::controllers::Context;
use crate::controllers::informer::{Cached, Change, Informer, Informers};
use crate::meta::selector::Selector;
use crate::schema::Value;

crate::slim!(
    /// A namespace's labels.
    Namespace of v1::Namespace {}
);

crate::slim!(
    /// What a service selects.
    Service of v1::Service {
        /// What it is to be.
        spec: Value,
    }
);

crate::slim!(
    /// What a replication controller owns.
    ReplicationController of v1::ReplicationController {
        /// What it is to be.
        spec: Value,
    }
);

crate::slim!(
    /// What a replica set owns.
    ReplicaSet of apps::v1::ReplicaSet {
        /// What it is to be.
        spec: Value,
    }
);

crate::slim!(
    /// What a stateful set owns.
    StatefulSet of apps::v1::StatefulSet {
        /// What it is to be.
        spec: Value,
    }
);

crate::slim!(
    /// What a runtime class means.
    RuntimeClass of runtime::RuntimeClass {
        /// The name of what runs its pods.
        handler: String,
    }
);

/// Begins to watch; resolves when everything that is there is known.
pub async fn begin(scheduler: &Arc<Scheduler>, context: &Context, ends: CancellationToken) {
    let own = Informers::new(context.client.clone(), ends);
    let namespaces = follow::<Namespace>(&own, scheduler, |state, change| {
        let labels = change
            .new
            .and_then(|namespace| namespace.metadata.labels.clone());
        let name = change.key.name.clone();
        match labels {
            Some(labels) => {
                let labels: Labels = labels.into_iter().collect();
                state.snapshot.namespaces.insert(name, labels);
            }
            None => {
                state.snapshot.namespaces.remove(&name);
            }
        }
    });
    let services = follow::<Service>(&own, scheduler, |state, change| {
        let selector = change
            .new
            .and_then(|service| service.spec.get("selector"))
            .map(equal_to);
        state.snapshot.workloads.set_service(change.key, selector);
    });
    let controllers = owners::<ReplicationController>(&own, scheduler, |owner| {
        Some(equal_to(owner.spec.at("selector")))
    });
    let replica_sets = owners::<ReplicaSet>(&own, scheduler, |owner| {
        label_selector(owner.spec.at("selector"))
    });
    let stateful_sets = owners::<StatefulSet>(&own, scheduler, |owner| {
        label_selector(owner.spec.at("selector"))
    });
    // Upstream's role of the scheduler does not let it read them.
    let classes = follow::<RuntimeClass>(&context.informers, scheduler, |state, change| {
        let name = change.key.name.clone();
        match change.new {
            Some(class) => state
                .snapshot
                .handlers
                .insert(name, class.handler.as_str().into()),
            None => state.snapshot.handlers.remove(&name),
        };
        state.happened(&Event::Handlers, Instant::now(), |_| true);
    });
    let nodes = follow::<Node>(&own, scheduler, |state, change| node(state, &change));
    tokio::join!(
        namespaces.synced(),
        services.synced(),
        controllers.synced(),
        replica_sets.synced(),
        stateful_sets.synced(),
        classes.synced(),
        nodes.synced(),
    );
    let pods = follow::<Pod>(&own, scheduler, |state, change| pod(state, &change));
    pods.synced().await;
}

/// Takes in every change of a kind.
fn follow<P: Cached>(
    informers: &Informers,
    scheduler: &Arc<Scheduler>,
    take: impl Fn(&mut State, Change<'_, P>) + Send + Sync + 'static,
) -> Informer<P> {
    let informer = informers.of::<P>();
    let scheduler = Arc::downgrade(scheduler);
    informer.subscribe(move |change| {
        if let Some(scheduler) = scheduler.upgrade() {
            scheduler.change(|state| take(state, change));
        }
    });
    informer
}

/// Takes in what owners of pods select.
fn owners<P: Cached>(
    informers: &Informers,
    scheduler: &Arc<Scheduler>,
    selects: impl Fn(&P) -> Option<Selector> + Send + Sync + 'static,
) -> Informer<P> {
    let kind = format!("{}/{}", P::api_version(&()), P::kind(&()));
    follow::<P>(informers, scheduler, move |state, change| {
        let selector = change.new.and_then(|owner| selects(owner));
        state
            .snapshot
            .workloads
            .set_owner(&kind, change.key, selector);
    })
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

fn pod(state: &mut State, change: &Change<'_, Pod>) {
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
        return;
    }
    let before = old
        .map(|old| &old.nominated)
        .filter(|node| !node.is_empty());
    match before {
        // What was decided since it was written counts.
        None if new.nominated.is_empty() => {
            if let Some(slot) = state.snapshot.nomination(&new.key) {
                let node = state.snapshot.site(slot).name().to_owned();
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
    if state.snapshot.nomination(&old.key).is_some() {
        state.snapshot.withdraw(&old.key);
        let priority = old.priority;
        state.happened(&Event::PodGone(old), now, |other| {
            other.priority <= priority
        });
    }
}
