//! Affinity terms and spread constraints of pods, parsed once. Follows k8s.io/kube-scheduler/framework/types.go.

use std::sync::Arc;

use compact_str::CompactString;

pub use crate::meta::placement::{
    Effect, Labels, NodeAffinity, NodeTerm, Taint, Toleration, any_holds, bear, equal_to,
    node_terms, texts,
};
pub use crate::meta::ports::HostPort;
use crate::meta::selector::{Op, Selector, Term};
use crate::schema::Value;

/// The label whose value is unique to each node.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// Reads a LabelSelector: `None` (which selects nothing) if absent or invalid.
pub fn label_selector(selector: &Value) -> Option<Selector> {
    if selector.is_null() {
        return None;
    }
    Selector::from_object(selector).ok()
}

/// Affinity and anti-affinity between pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodAffinity {
    /// Required affinity.
    pub required: Vec<AffinityTerm>,
    /// Required anti-affinity.
    pub anti_required: Vec<AffinityTerm>,
    /// Preferred terms by weight; negative weights for anti-affinity.
    pub preferred: Vec<(i64, AffinityTerm)>,
}

/// An affinity term: which pods, and in which topology.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AffinityTerm {
    /// Nodes with the same value of this label are in one topology domain.
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

    /// Whether it applies to a namespace with these labels.
    pub fn means_namespace(&self, namespace: &str, labels: &Labels) -> bool {
        self.namespaces.iter().any(|name| name == namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|selector| labels.are_selected(selector))
    }

    /// Its namespaces by name, if it names them and selects no others by label.
    pub fn only_namespaces(&self) -> Option<&[CompactString]> {
        self.namespace_selector
            .is_none()
            .then_some(&self.namespaces)
    }

    /// Whether it matches pods with these labels, in a namespace to which it applies.
    pub fn means_labels(&self, labels: &Labels) -> bool {
        self.selector
            .as_ref()
            .is_some_and(|selector| labels.are_selected(selector))
    }
}

impl PodAffinity {
    /// Reads a pod's affinity to other pods; `None` if it has none.
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

    /// The topology keys of its terms.
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

/// A topology spread constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// The maximum difference in pods between topology domains.
    pub max_skew: i64,
    /// Nodes with the same value of this label are in one topology domain.
    pub topology: CompactString,
    /// The pods to count; `None` counts none.
    pub selector: Option<Selector>,
    /// If there are fewer domains, the minimum is taken as zero.
    pub min_domains: i64,
    /// Only count nodes that match the pod's node affinity.
    pub honors_affinity: bool,
    /// Only count nodes whose taints the pod tolerates.
    pub honors_taints: bool,
    /// Whether it is `DoNotSchedule` rather than `ScheduleAnyway`.
    pub is_hard: bool,
}

impl Spread {
    /// Parses a constraint of a pod with these labels.
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

    /// Whether it counts pods with these labels.
    pub fn counts(&self, labels: &Labels) -> bool {
        self.selector
            .as_ref()
            .is_some_and(|selector| labels.are_selected(selector))
    }
}
