//! What pods ask of ports and of the pods around them, read once. Follows k8s.io/kube-scheduler/framework/types.go.

use std::sync::Arc;

use compact_str::CompactString;

pub use crate::meta::placement::{
    Effect, Labels, NodeAffinity, NodeTerm, Taint, Toleration, any_holds, bear, equal_to,
    node_terms, texts,
};
pub use crate::meta::ports::HostPort;
use crate::meta::selector::{Op, Selector, Term};
use crate::schema::Value;

/// The label whose value is a node's own.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// Reads a LabelSelector: none (which selects nothing) where there is none, or it cannot be read.
pub fn label_selector(selector: &Value) -> Option<Selector> {
    if selector.is_null() {
        return None;
    }
    Selector::from_object(selector).ok()
}

/// What a pod wants of the pods around it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodAffinity {
    /// Pods that must be near.
    pub required: Vec<AffinityTerm>,
    /// Pods that must not be near.
    pub anti_required: Vec<AffinityTerm>,
    /// Pods that should be near, by weight; negative weights for those that should not.
    pub preferred: Vec<(i64, AffinityTerm)>,
}

/// Pods, and how near is near.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AffinityTerm {
    /// Nodes are near each other when they share the value of this label.
    pub topology: CompactString,
    namespaces: Vec<CompactString>,
    namespace_selector: Option<Selector>,
    selector: Option<Selector>,
}

impl AffinityTerm {
    fn read(term: &Value, namespace: &str) -> AffinityTerm {
        let mut namespaces = texts(term.list("namespaces"));
        if namespaces.is_empty() && term.get("namespaceSelector").is_none() {
            namespaces.push(namespace.into());
        }
        AffinityTerm {
            topology: term.str("topologyKey").into(),
            namespaces,
            namespace_selector: label_selector(term.at("namespaceSelector")),
            selector: label_selector(term.at("labelSelector")),
        }
    }

    /// Whether it means pods of a namespace that has these labels.
    pub fn means_namespace(&self, namespace: &str, labels: &Labels) -> bool {
        self.namespaces.iter().any(|name| name == namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|selector| labels.are_selected(selector))
    }

    /// The namespaces that it means by name, where it means no others.
    pub fn only_namespaces(&self) -> Option<&[CompactString]> {
        self.namespace_selector
            .is_none()
            .then_some(&self.namespaces)
    }

    /// Whether it means pods with these labels, in a namespace that it means.
    pub fn means_labels(&self, labels: &Labels) -> bool {
        self.selector
            .as_ref()
            .is_some_and(|selector| labels.are_selected(selector))
    }
}

impl PodAffinity {
    /// Reads what a pod's spec says of other pods; none where it says nothing.
    pub fn read(spec: &Value, namespace: &str) -> Option<Arc<PodAffinity>> {
        let (near, far) = (
            spec.at("affinity").at("podAffinity"),
            spec.at("affinity").at("podAntiAffinity"),
        );
        let required = |side: &Value| -> Vec<AffinityTerm> {
            side.list("requiredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .map(|term| AffinityTerm::read(term, namespace))
                .collect()
        };
        let preferred = |side: &Value, sign: i64| -> Vec<(i64, AffinityTerm)> {
            side.list("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .map(|item| {
                    let term = AffinityTerm::read(item.at("podAffinityTerm"), namespace);
                    (sign * item.int("weight"), term)
                })
                .collect()
        };
        let mut affinity = PodAffinity {
            required: required(near),
            anti_required: required(far),
            preferred: preferred(near, 1),
        };
        affinity.preferred.extend(preferred(far, -1));
        (affinity != PodAffinity::default()).then(|| Arc::new(affinity))
    }

    /// The labels that its terms name.
    pub fn topologies(&self) -> impl Iterator<Item = &str> {
        let preferred = self.preferred.iter().map(|(_, term)| term);
        let terms = self
            .required
            .iter()
            .chain(&self.anti_required)
            .chain(preferred);
        terms.map(|term| term.topology.as_str())
    }
}

/// How evenly pods are to be spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// How many more pods than elsewhere may be in one place.
    pub max_skew: i64,
    /// Nodes are one place when they share the value of this label.
    pub topology: CompactString,
    /// Which pods are counted; none counts none.
    pub selector: Option<Selector>,
    /// As long as there are fewer places, one without pods is assumed.
    pub min_domains: i64,
    /// Only nodes that the pod may be on count.
    pub honors_affinity: bool,
    /// Only nodes whose taints the pod bears count.
    pub honors_taints: bool,
    /// Whether a pod that would break it must wait, rather than go elsewhere first.
    pub is_hard: bool,
}

impl Spread {
    /// Reads a constraint of a pod with these labels.
    pub fn read(constraint: &Value, labels: &Labels) -> Spread {
        let mut selector = label_selector(constraint.at("labelSelector"));
        if let Some(selector) = &mut selector {
            for key in texts(constraint.list("matchLabelKeys")) {
                if let Some(value) = labels.get(&key) {
                    let values = vec![value.into()];
                    selector.0.push(Term {
                        key,
                        op: Op::In,
                        values,
                    });
                }
            }
        }
        Spread {
            max_skew: constraint.int("maxSkew"),
            topology: constraint.str("topologyKey").into(),
            selector,
            min_domains: constraint.at("minDomains").as_int().unwrap_or(1),
            honors_affinity: constraint.str("nodeAffinityPolicy") != "Ignore",
            honors_taints: constraint.str("nodeTaintsPolicy") == "Honor",
            is_hard: constraint.str("whenUnsatisfiable") == "DoNotSchedule",
        }
    }

    /// Whether a pod with these labels is counted.
    pub fn counts(&self, labels: &Labels) -> bool {
        self.selector
            .as_ref()
            .is_some_and(|selector| labels.are_selected(selector))
    }
}
