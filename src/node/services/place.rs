//! The zone of a node and whether it is about to be removed, from its node object.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1;
use kube::ResourceExt as _;
use kube::api::Api;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::follow::{Event, follow};

/// The label with the topology zone of a node.
const ZONE: &str = "topology.kubernetes.io/zone";
/// The taint of a node that the cluster autoscaler is about to remove.
const GOES: &str = "ToBeDeletedByClusterAutoscaler";

/// The taints in a node's spec.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct Tainted {
    taints: Vec<v1::Taint>,
}

crate::slim!(
    /// A node, with only its labels and taints.
    Placed of v1::Node {
        /// Its spec.
        spec: Tainted
    }
);

/// What the service proxy needs to know of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its topology zone, if it has one.
    pub zone: Option<String>,
    /// Whether load balancers may send traffic to it: it exists, and is not about to be removed.
    pub is_eligible: bool,
}

impl Place {
    fn of(node: &Placed) -> Place {
        let goes = node.spec.taints.iter().any(|taint| taint.key == GOES);
        Place {
            zone: node.labels().get(ZONE).cloned(),
            is_eligible: !goes && node.metadata.deletion_timestamp.is_none(),
        }
    }
}

/// Publishes the place of a node as it changes, until `ends` is cancelled.
pub async fn tell(
    client: kube::Client,
    node: String,
    place: watch::Sender<Place>,
    ends: CancellationToken,
) {
    let api: Api<Placed> = Api::all(client);
    let mut events = follow(api, &format!("metadata.name={node}"));
    let told = async {
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Listed(object) | Event::Applied(object)) => {
                    let now = Place::of(&object);
                    place.send_if_modified(|known| {
                        let differs = *known != now;
                        *known = now;
                        differs
                    });
                }
                // A deleted node registers again.
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, node, "the watch of the node broke"),
            }
        }
    };
    tokio::select! {
        () = told => {}
        () = ends.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_that_goes_gets_no_new_clients() {
        for (spec, deleted, expected) in [
            (json!({}), None, true),
            (
                json!({"taints": [{"key": "other", "effect": "NoSchedule"}]}),
                None,
                true,
            ),
            (
                json!({"taints": [{"key": GOES, "effect": "NoSchedule"}]}),
                None,
                false,
            ),
            (json!({}), Some("2026-01-01T00:00:00Z"), false),
        ] {
            let metadata =
                json!({"name": "n", "labels": {ZONE: "a"}, "deletionTimestamp": deleted});
            let node: Placed = serde_json::from_value(json!({"metadata": metadata, "spec": spec}))
                .expect("a node");
            let place = Place::of(&node);
            assert_eq!(
                (place.zone.as_deref(), place.is_eligible),
                (Some("a"), expected),
                "{spec}"
            );
        }
    }
}
