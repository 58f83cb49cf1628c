//! The address range of a node's pods: its own in the cluster, published as `spec.podCIDR` of its node. Two nodes with
//! the same addresses would send traffic to the wrong pods.

use std::time::Duration;

use k8s_openapi::api::core::v1;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};

use crate::meta::addresses::{Network, parse_cidr};
use crate::net::routes::overlaps;

/// How long to wait for the list of nodes: an API server that does not respond must not delay pods.
const PATIENCE: Duration = Duration::from_secs(5);

/// The range fields of a node's spec. The API server keeps both consistent.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ranges {
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

/// The address fields of a node's status.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct Addresses {
    addresses: Vec<v1::NodeAddress>,
}

crate::slim!(
    /// A node, with only its ranges and addresses.
    Ranged of v1::Node {
        /// Its spec.
        spec: Ranges,
        /// Its status.
        status: Addresses
    }
);

impl Ranged {
    /// The addresses at which other nodes reach it.
    pub(super) fn internal(&self) -> impl Iterator<Item = &str> {
        let all = self.status.addresses.iter();
        let all = all.filter(|address| address.type_ == "InternalIP");
        all.map(|address| address.address.as_str())
    }

    /// Its distinct IPv4 ranges.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Network> {
        let Ranges {
            pod_cidr,
            pod_cidrs,
        } = &self.spec;
        let first = pod_cidrs.is_empty().then_some(pod_cidr);
        let all = pod_cidrs.iter().chain(first);
        let all = all.filter_map(|text| Some(parse_cidr(text)?.1));
        all.filter(|range| range.address.is_ipv4())
    }
}

/// Whether a node should publish the range `cidr`, given the nodes of the cluster: not if it published another one
/// before, which cannot be changed. Yes if the nodes are unknown, as when the API server does not respond.
///
/// # Errors
/// Another node has addresses of the range; with the remedy.
pub async fn check(client: kube::Client, node: &str, cidr: &str) -> Result<bool, String> {
    let nodes: Api<Ranged> = Api::all(client);
    let whole = ListParams::default();
    match tokio::time::timeout(PATIENCE, nodes.list(&whole)).await {
        Ok(Ok(all)) => judge(&all.items, node, cidr),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the pod ranges of other nodes are unknown");
            Ok(true)
        }
        Err(_) => Ok(true),
    }
}

/// Whether a node should publish a range, given the other nodes. A range that it has already was checked before.
fn judge(nodes: &[Ranged], node: &str, cidr: &str) -> Result<bool, String> {
    let Some((_, range)) = parse_cidr(cidr) else {
        return Ok(false);
    };
    let own = nodes.iter().find(|other| other.name_any() == node);
    let had: Vec<Network> = own.map_or_else(Vec::new, |own| own.ranges().collect());
    if had.contains(&range) {
        return Ok(true);
    }
    for other in nodes.iter().filter(|other| other.name_any() != node) {
        if let Some(theirs) = other.ranges().find(|theirs| overlaps(theirs, &range)) {
            return Err(format!(
                "pods of node {} have addresses of {theirs}: give this node another range, start the agent with --pod-cidr",
                other.name_any()
            ));
        }
    }
    if let Some(had) = had.first() {
        tracing::warn!(
            "pods have addresses of {range}, but this node has published {had} (spec.podCIDR of node {node}), which cannot be changed: start the agent with --pod-cidr {had} if there are other nodes"
        );
    }
    Ok(had.is_empty())
}

/// A range of 256 addresses that no node has, of those that begin with the agent's default one.
pub fn free(nodes: &[Ranged]) -> Option<String> {
    let taken: Vec<Network> = nodes.iter().flat_map(Ranged::ranges).collect();
    (0..=255)
        .map(|third| format!("10.244.{third}.0/24"))
        .find(|text| {
            let range = parse_cidr(text).map(|(_, range)| range);
            range.is_some_and(|range| !taken.iter().any(|other| overlaps(other, &range)))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_free_range_is_one_that_no_node_has() {
        let node = |cidr: &str| -> Ranged {
            serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {"podCIDR": cidr}}))
                .expect("a node")
        };
        for (taken, expected) in [
            (&[][..], Some("10.244.0.0/24")),
            (&["10.244.0.0/24"], Some("10.244.1.0/24")),
            (&["10.244.0.0/23", "10.244.3.0/24"], Some("10.244.2.0/24")),
            (&["10.244.0.0/16"], None),
        ] {
            let nodes: Vec<Ranged> = taken.iter().map(|cidr| node(cidr)).collect();
            assert_eq!(free(&nodes).as_deref(), expected, "{taken:?}");
        }
    }

    #[test]
    fn no_two_nodes_have_an_address() {
        let node = |name: &str, spec: serde_json::Value| -> Ranged {
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))
                .expect("a node")
        };
        let a = || {
            node(
                "a",
                json!({"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00::/64"]}),
            )
        };
        let taken = |range: &str| Err(format!("pods of node a have addresses of {range}"));
        for (what, nodes, cidr, expected) in [
            ("the first one", vec![], "10.244.0.0/24", Ok(true)),
            (
                "beside one without a range",
                vec![node("a", json!({}))],
                "10.244.0.0/24",
                Ok(true),
            ),
            (
                "again",
                vec![a(), node("b", json!({"podCIDR": "10.244.0.0/24"}))],
                "10.244.0.0/24",
                Ok(true),
            ),
            ("beside another", vec![a()], "10.244.1.0/24", Ok(true)),
            (
                "the same",
                vec![a()],
                "10.244.0.0/24",
                taken("10.244.0.0/24"),
            ),
            (
                "a part",
                vec![a()],
                "10.244.0.128/25",
                taken("10.244.0.0/24"),
            ),
            ("more", vec![a()], "10.244.0.0/16", taken("10.244.0.0/24")),
            (
                "another than it had",
                vec![node("b", json!({"podCIDR": "10.244.9.0/24"}))],
                "10.244.0.0/24",
                Ok(false),
            ),
            (
                "another than it had, which is taken",
                vec![a(), node("b", json!({"podCIDR": "10.244.9.0/24"}))],
                "10.244.0.0/24",
                taken("10.244.0.0/24"),
            ),
        ] {
            let judged = judge(&nodes, "b", cidr);
            let judged = judged.map_err(|told| told.split(": ").next().map(str::to_owned));
            assert_eq!(judged, expected.map_err(Some), "{what}");
        }
    }
}
