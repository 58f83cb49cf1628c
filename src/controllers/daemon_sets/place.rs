//! Which nodes get pods of a daemon set, and how each pod is bound to its node. Follows
//! k8s.io/kubernetes/pkg/controller/daemon/util.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1;
use kube::ResourceExt as _;
use serde::Deserialize as _;
use serde_json::json;

use crate::client::kinds::{self, Node};
use crate::controllers::history::POD_HASH;
use crate::meta::placement::{Effect, NodeAffinity, Toleration};
use crate::schema::Value;

/// The annotation of a set, and label of its pods, that numbered templates before revisions did.
const GENERATION: &str = "deprecated.daemonset.template.generation";
const POD_GENERATION: &str = "pod-template-generation";

/// Taints that pods of daemon sets tolerate, and whether only with host networking.
const BORNE: &[(&str, &str, bool)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute", false),
    ("node.kubernetes.io/unreachable", "NoExecute", false),
    ("node.kubernetes.io/disk-pressure", "NoSchedule", false),
    ("node.kubernetes.io/memory-pressure", "NoSchedule", false),
    ("node.kubernetes.io/pid-pressure", "NoSchedule", false),
    ("node.kubernetes.io/unschedulable", "NoSchedule", false),
    ("node.kubernetes.io/network-unavailable", "NoSchedule", true),
];

/// The relation of a node to a daemon set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It should run a pod.
    Wanted,
    /// No pod is created there; an existing one stays.
    Kept,
    /// It must not run a pod.
    Barred,
}

/// What the template of a daemon set requires of nodes, parsed once.
pub(super) struct Places {
    node: Option<String>,
    affinity: NodeAffinity,
    tolerations: Vec<Toleration>,
}

impl Places {
    pub(super) fn of(set: &DaemonSet) -> Places {
        let none = v1::PodSpec::default();
        // Every set is checked at every change of a node, so the containers of a template are not copied.
        let spec = set.spec.template.spec.as_ref().unwrap_or(&none);
        let text = json!({"affinity": spec.affinity, "nodeSelector": spec.node_selector});
        let asked = Value::deserialize(text).unwrap_or_default();
        Places {
            affinity: NodeAffinity::read(&asked),
            tolerations: tolerations(spec).iter().map(kinds::toleration).collect(),
            node: spec.node_name.clone().filter(|name| !name.is_empty()),
        }
    }

    /// The relation of a node to the set.
    pub(super) fn look(&self, node: &Node) -> Place {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if self.node.as_deref().is_some_and(|only| only != name)
            || !self.affinity.allows(name, node.labels())
        {
            return Place::Barred;
        }
        let taints = node.spec.taints.iter().flatten().filter_map(kinds::taint);
        let mut place = Place::Wanted;
        for taint in taints.filter(|taint| !self.tolerations.iter().any(|one| one.bears(taint))) {
            match taint.effect {
                Effect::NoExecute => return Place::Barred,
                Effect::NoSchedule => place = Place::Kept,
                Effect::PreferNoSchedule => {}
            }
        }
        place
    }
}

/// The tolerations of a template, and those that every pod of a daemon set has.
fn tolerations(spec: &v1::PodSpec) -> Vec<v1::Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    for (key, effect, needs_host_network) in BORNE {
        if *needs_host_network && spec.host_network != Some(true) {
            continue;
        }
        let borne = v1::Toleration {
            key: Some((*key).to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some((*effect).to_owned()),
            ..v1::Toleration::default()
        };
        let is_same = |own: &&mut v1::Toleration| {
            own.key == borne.key
                && own.operator == borne.operator
                && own.effect == borne.effect
                && own.value.as_deref().unwrap_or_default().is_empty()
        };
        match all.iter_mut().find(is_same) {
            // Without a time limit, whatever the template says.
            Some(own) => own.toleration_seconds = None,
            None => all.push(borne),
        }
    }
    all
}

/// The template with the additions that all pods of this revision get.
pub(super) fn template(set: &DaemonSet, hash: &str) -> v1::PodTemplateSpec {
    let mut template = set.spec.template.clone();
    let spec = template.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    let meta = template.metadata.get_or_insert_default();
    let labels = meta.labels.get_or_insert_default();
    if let Some(generation) = generation(set) {
        labels.insert(POD_GENERATION.to_owned(), generation.to_string());
    }
    labels.insert(POD_HASH.to_owned(), hash.to_owned());
    template
}

fn generation(set: &DaemonSet) -> Option<i64> {
    set.annotations().get(GENERATION)?.parse().ok()
}

/// Whether a pod has the revision with this hash, or the template generation used before revisions.
pub(super) fn is_updated(set: &DaemonSet, labels: &BTreeMap<String, String>, hash: &str) -> bool {
    let by_generation = generation(set)
        .is_some_and(|generation| labels.get(POD_GENERATION) == Some(&generation.to_string()));
    by_generation || labels.get(POD_HASH).is_some_and(|own| own == hash)
}

/// Restricts a pod to one node by node affinity.
pub(super) fn bind_to(spec: &mut v1::PodSpec, node: &str) {
    let field = v1::NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity = spec.affinity.get_or_insert_default();
    let nodes = affinity.node_affinity.get_or_insert_default();
    nodes.required_during_scheduling_ignored_during_execution = Some(v1::NodeSelector {
        node_selector_terms: vec![v1::NodeSelectorTerm {
            match_fields: Some(vec![field]),
            match_expressions: None,
        }],
    });
}
