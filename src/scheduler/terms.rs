//! What pods ask of labels, taints and ports, read once. Follows k8s.io/component-helpers/scheduling/corev1 and
//! k8s.io/kube-scheduler/framework/types.go.

use std::sync::Arc;

use compact_str::CompactString;

use crate::meta::selector::{Op, Selector, Term};
use crate::schema::Value;

/// The label whose value is a node's own.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// Labels by name; a copy is shared.
#[derive(Clone, Debug, Default)]
pub struct Labels(Arc<[(CompactString, CompactString)]>);

impl PartialEq for Labels {
    fn eq(&self, other: &Labels) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for Labels {}

impl std::hash::Hash for Labels {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<K: Into<CompactString>, V: Into<CompactString>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Labels {
        let mut pairs: Vec<(CompactString, CompactString)> = pairs
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        pairs.sort();
        Labels(pairs.into())
    }
}

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let place = self
            .0
            .binary_search_by(|(known, _)| known.as_str().cmp(key));
        place.ok().map(|place| self.0[place].1.as_str())
    }

    /// Whether a selector selects them.
    pub fn are_selected(&self, selector: &Selector) -> bool {
        selector.matches_pairs(&self.0)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What keeps pods away from a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Its name.
    pub key: CompactString,
    /// Its value.
    pub value: CompactString,
    /// `NoSchedule`, `PreferNoSchedule`, `NoExecute`
    pub effect: Effect,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// New pods stay away.
    NoSchedule,
    /// New pods go elsewhere first.
    PreferNoSchedule,
    /// All pods go.
    NoExecute,
}

impl Effect {
    fn read(text: &str) -> Option<Effect> {
        match text {
            "NoSchedule" => Some(Effect::NoSchedule),
            "PreferNoSchedule" => Some(Effect::PreferNoSchedule),
            "NoExecute" => Some(Effect::NoExecute),
            _ => None,
        }
    }
}

impl Taint {
    /// Reads a taint of a node; none where its effect is not known.
    pub fn read(taint: &Value) -> Option<Taint> {
        Some(Taint {
            key: taint.str("key").into(),
            value: taint.str("value").into(),
            effect: Effect::read(taint.str("effect"))?,
        })
    }

    /// Whether new pods stay away because of it.
    pub fn repels(&self) -> bool {
        self.effect != Effect::PreferNoSchedule
    }
}

/// What taints a pod bears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toleration {
    key: CompactString,
    /// `Exists`; else values are compared, unless there is an operator that is not known.
    exists: bool,
    broken: bool,
    value: CompactString,
    /// None for all, and for one that is not known (which no taint has).
    effect: Option<Effect>,
    any_effect: bool,
}

impl Toleration {
    /// Reads a toleration of a pod.
    pub fn read(toleration: &Value) -> Toleration {
        let operator = toleration.str("operator");
        Toleration {
            key: toleration.str("key").into(),
            exists: operator == "Exists",
            broken: !matches!(operator, "" | "Equal" | "Exists"),
            value: toleration.str("value").into(),
            effect: Effect::read(toleration.str("effect")),
            any_effect: toleration.str("effect").is_empty(),
        }
    }

    fn bears(&self, taint: &Taint) -> bool {
        !self.broken
            && (self.any_effect || self.effect == Some(taint.effect))
            && (self.key.is_empty() || self.key == taint.key)
            && (self.exists || self.value == taint.value)
    }

    /// Whether it says something of taints that only make a node less liked.
    pub fn softens(&self) -> bool {
        self.any_effect || self.effect == Some(Effect::PreferNoSchedule)
    }
}

/// Whether one of these tolerations bears a taint.
pub fn bear(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| toleration.bears(taint))
}

/// What nodes a pod may be on, or would rather be on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAffinity {
    /// `nodeSelector`
    pub selector: Selector,
    /// Of these terms one must hold; none where nothing is required.
    pub required: Option<Vec<NodeTerm>>,
    /// Weights, and what they are given for.
    pub preferred: Vec<(i64, NodeTerm)>,
}

/// A term of a node selector: all of it must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTerm {
    labels: Selector,
    names: Selector,
    /// It cannot be read and holds of no node.
    broken: bool,
}

impl NodeTerm {
    /// Reads a term; none for one that says nothing, which holds of no node.
    pub fn read(term: &Value) -> Option<NodeTerm> {
        let (expressions, fields) = (term.list("matchExpressions"), term.list("matchFields"));
        if expressions.is_empty() && fields.is_empty() {
            return None;
        }
        let (labels, names) = (requirements(expressions), requirements(fields));
        let one_name = |terms: &Selector| {
            let is_one = |term: &Term| {
                matches!(term.op, Op::In | Op::NotIn)
                    && term.values.len() == 1
                    && term.key == "metadata.name"
            };
            terms.0.iter().all(is_one)
        };
        let broken = labels.is_none() || !names.as_ref().is_some_and(one_name);
        Some(NodeTerm {
            labels: labels.unwrap_or_default(),
            names: names.unwrap_or_default(),
            broken,
        })
    }

    /// Whether it holds of a node.
    pub fn holds(&self, name: &str, labels: &Labels) -> bool {
        !self.broken
            && labels.are_selected(&self.labels)
            && (self.names.is_empty() || self.names.matches(|_| Some(name)))
    }

    /// The only names that it can hold of; none where it does not say.
    fn only(&self) -> Option<Vec<&str>> {
        let wanted = self.names.0.iter().filter(|term| term.op == Op::In);
        wanted
            .map(|term| {
                term.values
                    .iter()
                    .map(CompactString::as_str)
                    .collect::<Vec<_>>()
            })
            .reduce(|all, next| all.into_iter().filter(|name| next.contains(name)).collect())
    }
}

/// Requirements of a node selector; none where one cannot be read.
fn requirements(list: &[Value]) -> Option<Selector> {
    let mut terms = Vec::with_capacity(list.len());
    for item in list {
        let op = match item.str("operator") {
            "In" => Op::In,
            "NotIn" => Op::NotIn,
            "Exists" => Op::Exists,
            "DoesNotExist" => Op::NotExists,
            "Gt" => Op::Greater,
            "Lt" => Op::Less,
            _ => return None,
        };
        let values: Vec<CompactString> = texts(item.list("values"));
        if matches!(op, Op::Greater | Op::Less)
            && !matches!(values.as_slice(), [bound] if bound.parse::<i64>().is_ok())
        {
            return None;
        }
        terms.push(Term {
            key: item.str("key").into(),
            op,
            values,
        });
    }
    Some(Selector(terms))
}

/// The texts of a list.
pub fn texts(list: &[Value]) -> Vec<CompactString> {
    list.iter()
        .filter_map(Value::as_str)
        .map(Into::into)
        .collect()
}

impl NodeAffinity {
    /// Reads what a pod's spec says of nodes.
    pub fn read(spec: &Value) -> NodeAffinity {
        let affinity = spec.at("affinity").at("nodeAffinity");
        let required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution");
        let preferred = affinity.list("preferredDuringSchedulingIgnoredDuringExecution");
        NodeAffinity {
            selector: equal_to(spec.at("nodeSelector")),
            required: required.map(node_terms),
            preferred: preferred
                .iter()
                .filter(|item| item.int("weight") != 0)
                .filter_map(|item| {
                    Some((item.int("weight"), NodeTerm::read(item.at("preference"))?))
                })
                .collect(),
        }
    }

    /// Whether nothing is required.
    pub fn is_open(&self) -> bool {
        self.selector.is_empty() && self.required.is_none()
    }

    /// Whether a pod may be on a node.
    pub fn allows(&self, name: &str, labels: &Labels) -> bool {
        labels.are_selected(&self.selector)
            && self
                .required
                .as_ref()
                .is_none_or(|terms| any_holds(terms, name, labels))
    }

    /// The only nodes that it can be on, by name; none where it does not say.
    pub fn only(&self) -> Option<Vec<&str>> {
        let terms = self.required.as_ref().filter(|terms| !terms.is_empty())?;
        let mut names = Vec::new();
        for term in terms {
            names.extend(term.only()?);
        }
        names.sort_unstable();
        names.dedup();
        Some(names)
    }
}

/// Reads the terms of a node selector.
pub fn node_terms(selector: &Value) -> Vec<NodeTerm> {
    let terms = selector.list("nodeSelectorTerms").iter();
    terms.filter_map(NodeTerm::read).collect()
}

/// Whether one of the terms holds of a node.
pub fn any_holds(terms: &[NodeTerm], name: &str, labels: &Labels) -> bool {
    terms.iter().any(|term| term.holds(name, labels))
}

/// The selector of what has all these labels.
pub fn equal_to(map: &Value) -> Selector {
    let pairs = map.entries_of();
    Selector(
        pairs
            .map(|(key, value)| Term {
                key: key.clone(),
                op: Op::Equals,
                values: vec![value.as_str().unwrap_or_default().into()],
            })
            .collect(),
    )
}

/// Reads a LabelSelector: none (which selects nothing) where there is none, or it cannot be read.
pub fn label_selector(selector: &Value) -> Option<Selector> {
    if selector.is_null() {
        return None;
    }
    Selector::from_object(selector).ok()
}

/// A port of a host that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    protocol: CompactString,
    /// `0.0.0.0` for all.
    address: CompactString,
    port: i64,
}

const ALL_ADDRESSES: &str = "0.0.0.0";

impl HostPort {
    /// Reads a container's port; none where it is not one of the host.
    pub fn read(port: &Value) -> Option<HostPort> {
        let or = |text: &str, default: &str| {
            CompactString::from(if text.is_empty() { default } else { text })
        };
        (port.int("hostPort") > 0).then(|| HostPort {
            protocol: or(port.str("protocol"), "TCP"),
            address: or(port.str("hostIP"), ALL_ADDRESSES),
            port: port.int("hostPort"),
        })
    }

    /// Whether both cannot be taken at once.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address
                || self.address == ALL_ADDRESSES
                || other.address == ALL_ADDRESSES)
    }
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
