//! Routes to the pods of other nodes: what the cluster tells of its nodes, into the network of this host, and what is not
//! reached, into the node's condition `NetworkUnavailable`. Its reasons are those of upstream's route controller
//! (k8s.io/cloud-provider/controllers/route).

mod peers;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::peers::{Cluster, cluster};
use super::failing::Attempts;
use super::ranges::Ranged;
use crate::client::events::{Recorder, Tone};
use crate::client::informer::Informer;
use crate::meta::addresses::Network;
use crate::net::routes::{Lack, NodeRouter};

/// How often it is looked whether the routes are there yet, as flannel does: a kernel takes them away with a link, and says
/// nothing.
const LOOK: Duration = Duration::from_secs(10);
/// The longest message of a condition, in bytes: where many nodes are not reached, the first ones are told.
const LONGEST: usize = 1024;

/// The node whose routes are kept.
#[derive(Clone)]
pub struct Here {
    /// Its name.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// The range of its pods.
    pub range: Network,
    /// The range of all pods, if somebody said: nodes that tell others are not believed.
    pub cluster: Option<Network>,
    /// Whether routes are made; else only the ranges of pods are learned.
    pub makes_routes: bool,
}

/// How the pods of other nodes are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of them are.
    Whole,
    /// Not all are, and it is for this node to say so; with the reasons.
    Lacking(String),
}

/// Keeps the routes of a node as the cluster's nodes are, until `ends`. They stay then: pods go on. What is not reached is
/// told by events of the node, and by `reach`.
pub async fn keep(
    nodes: Informer<Ranged>,
    here: Here,
    router: Arc<dyn NodeRouter>,
    reach: watch::Sender<Option<Reach>>,
    recorder: Recorder,
    ends: CancellationToken,
) {
    tokio::select! {
        () = follow(nodes, here, &*router, reach, recorder) => {}
        () = ends.cancelled() => {}
    }
}

async fn follow(
    nodes: Informer<Ranged>,
    here: Here,
    router: &dyn NodeRouter,
    reach: watch::Sender<Option<Reach>>,
    recorder: Recorder,
) {
    let changed = Arc::new(Notify::new());
    let told = changed.clone();
    nodes.subscribe(move |_| told.notify_one());
    // Half of what there is would take the other half's routes away.
    nodes.synced().await;
    let mut attempts = Attempts::new("pods of other nodes are not reached");
    let mut known: Vec<String> = Vec::new();
    loop {
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
        // Nodes that came later have to fit to those that were here, and say themselves where they do not.
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
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// What is told where these are the reasons for which pods are not reached.
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
    use super::*;

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
