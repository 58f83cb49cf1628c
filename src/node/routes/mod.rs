//! Routes to the pods of other nodes: computed from the nodes of the cluster and set on this host. What cannot be
//! reached becomes the node's condition `NetworkUnavailable`, with the reasons of upstream's route controller
//! (k8s.io/cloud-provider/controllers/route).

mod peers;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::peers::{Cluster, cluster};
use super::addresses::Addresses;
use super::failing::Attempts;
use super::ranges::Ranged;
use crate::client::events::{Recorder, Tone};
use crate::client::informer::Informer;
use crate::meta::addresses::Network;
use crate::net::routes::{Lack, NodeRouter};
use crate::zone::ZoneRuntime;

/// How often the routes are checked, as in flannel: a kernel removes them together with a link, without notification.
const LOOK: Duration = Duration::from_secs(10);
/// The longest message of a condition, in bytes: if many nodes cannot be reached, only the first ones are named.
const LONGEST: usize = 1024;

/// The node whose routes are maintained.
#[derive(Clone)]
pub struct Here {
    /// Its name.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// The range of its pods.
    pub range: Network,
    /// The range of all pods, if given: other ranges of nodes are ignored.
    pub cluster: Option<Network>,
    /// Whether routes are added; otherwise only the ranges of pods are collected.
    pub makes_routes: bool,
}

/// The host's side of it.
#[derive(Clone)]
pub struct Side {
    /// Adds and removes routes.
    pub router: Arc<dyn NodeRouter>,
    /// Whose pods use them.
    pub runtime: Arc<dyn ZoneRuntime>,
}

/// Whether the pods of other nodes can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of them.
    Whole,
    /// Not all, and this node has to report it, with the reasons.
    Lacking(String),
}

/// Keeps the routes up to date with the cluster's nodes and the `addresses` of `here`, until `ends` is cancelled. They stay
/// then as long as pods keep running; an agent that ends without any takes its routes along. Unreachable nodes are reported
/// by events of the node, and through `reach`.
pub async fn keep(
    nodes: Informer<Ranged>,
    here: Here,
    addresses: Addresses,
    host: Side,
    reach: watch::Sender<Option<Reach>>,
    recorder: Recorder,
    ends: CancellationToken,
) {
    tokio::select! {
        () = follow(nodes, here, addresses, &*host.router, reach, recorder) => {}
        () = ends.cancelled() => leave(&*host.router, &*host.runtime).await,
    }
}

/// Removes the routes, unless a pod may use them.
async fn leave(router: &dyn NodeRouter, runtime: &dyn ZoneRuntime) {
    if !runtime.list().await.is_ok_and(|zones| zones.is_empty()) {
        return;
    }
    if let Err(error) = router.leave().await {
        tracing::warn!(error, "the routes to the pods of other nodes stay");
    }
}

async fn follow(
    nodes: Informer<Ranged>,
    mut here: Here,
    mut addresses: Addresses,
    router: &dyn NodeRouter,
    reach: watch::Sender<Option<Reach>>,
    recorder: Recorder,
) {
    let changed = Arc::new(Notify::new());
    let told = changed.clone();
    nodes.subscribe(move |_| told.notify_one());
    // Acting on an incomplete list would remove needed routes.
    nodes.synced().await;
    let mut attempts = Attempts::new("pods of other nodes are not reached");
    let mut known: Vec<String> = Vec::new();
    loop {
        here.addresses = addresses.ipv4();
        let all: Vec<Arc<Ranged>> = nodes.all().into_iter().map(|(_, node)| node).collect();
        let Cluster {
            peers,
            pods,
            mut lacks,
            later,
            uid,
        } = cluster(&all, &here);
        let routed = router.reach(peers.into(), pods.into()).await;
        attempts.note(&routed);
        let failure = routed.as_ref().err().cloned();
        lacks.extend(routed.unwrap_or_default());
        let messages: Vec<String> = lacks.iter().map(Lack::to_string).chain(failure).collect();
        for message in messages.iter().filter(|message| !known.contains(message)) {
            let about = ObjectReference {
                kind: Some("Node".into()),
                name: Some(here.node.clone()),
                uid: uid.clone(),
                ..ObjectReference::default()
            };
            tracing::warn!("{message}");
            recorder.tell_of(about, Tone::Warning, "FailedToCreateRoute", message.clone());
        }
        // Nodes that came later must fit to earlier ones, and report it themselves if they do not.
        let is_later = |lack: &Lack| later.contains(&lack.node);
        let own: Vec<String> = lacks
            .iter()
            .filter(|lack| !is_later(lack))
            .map(Lack::to_string)
            .collect();
        known = messages;
        let now = here.makes_routes.then(|| reach_of(&own));
        reach.send_if_modified(|told| {
            let differs = *told != now;
            *told = now;
            differs
        });
        tokio::select! {
            () = changed.notified() => {}
            () = addresses.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// The state for these reasons why pods cannot be reached.
fn reach_of(reasons: &[String]) -> Reach {
    if reasons.is_empty() {
        return Reach::Whole;
    }
    let mut told = String::new();
    for (number, reason) in reasons.iter().enumerate() {
        let left = reasons.len() - number;
        if number > 0 && told.len() + reason.len() > LONGEST {
            told += &format!("; and {left} more");
            break;
        }
        if number > 0 {
            told += "; ";
        }
        told += reason;
    }
    Reach::Lacking(told)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt as _;
    use futures::future::BoxFuture;

    use super::*;
    use crate::net::routes::Peer;
    use crate::zone::simulated::Simulated;
    use crate::zone::{ZoneName, ZoneNetwork, ZoneSpec};

    /// Counts how often all routes are removed.
    #[derive(Default)]
    struct Leaving(AtomicUsize);

    impl NodeRouter for Leaving {
        fn reach(
            &self,
            _: Arc<[Peer]>,
            _: Arc<[Network]>,
        ) -> BoxFuture<'_, Result<Vec<Lack>, String>> {
            std::future::ready(Ok(Vec::new())).boxed()
        }

        fn leave(&self) -> BoxFuture<'_, Result<(), String>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok(())).boxed()
        }
    }

    #[tokio::test]
    async fn routes_stay_as_long_as_pods_run() {
        let (router, runtime) = (Leaving::default(), Simulated::default());
        let zone = ZoneName::new("rd-u").expect("legal");
        let spec = ZoneSpec::new(zone.clone(), ZoneNetwork::Host);
        runtime.create(&spec).await.expect("created");
        leave(&router, &runtime).await;
        assert_eq!(router.0.load(Ordering::Relaxed), 0);
        runtime.delete(&zone).await.expect("removed");
        leave(&router, &runtime).await;
        assert_eq!(router.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn of_many_reasons_the_first_are_told() {
        let reasons = |count: usize| vec!["x".repeat(400); count];
        assert_eq!(reach_of(&[]), Reach::Whole);
        for (count, parts, end) in [
            (1, 1, "x"),
            (2, 2, "x"),
            (3, 3, "; and 1 more"),
            (9, 3, "; and 7 more"),
        ] {
            let Reach::Lacking(told) = reach_of(&reasons(count)) else {
                panic!("{count}");
            };
            assert_eq!(told.split("; ").count(), parts, "{count}");
            assert!(told.ends_with(end), "{count}: {told}");
        }
    }
}
