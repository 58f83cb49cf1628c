//! Where pods may run according to nodes and pods: labels, taints and tolerations, node selectors and affinity.
//! Follows k8s.io/component-helpers/scheduling/corev1.

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;

use super::selector::{Op, Selector, Term};
use crate::schema::Value;

/// The annotation with the brand of a pod's zone.
pub const ZONE_BRAND: &str = "reddwarf.io/zone-brand";
/// Zone brands that a RuntimeClass handler can name; other handlers do not choose a brand.
pub const BRANDS: [&str; 4] = ["lx", "reddwarf", "linux", "simulated"];

/// The feature declared by nodes that can restart all containers of a pod when one of them exits.
pub const RESTARTS_ALL: &str = "RestartAllContainersOnContainerExits";

/// The node feature that a pod requires because of the restart rule actions of its containers; `None` if it requires
/// none. Follows k8s.io/component-helpers/nodedeclaredfeatures.
pub fn needed_feature<'a>(mut actions: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    let restarts_all = actions.any(|action| action == "RestartAllContainers");
    restarts_all.then_some(RESTARTS_ALL)
}

/// Labels by name; clones share them.
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

    /// Whether a selector matches these labels.
    pub fn are_selected(&self, selector: &Selector) -> bool {
        selector.matches_pairs(&self.0)
    }

    /// All labels, by name.
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

/// Labels in any representation.
pub trait Lookup {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Lookup for Labels {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)
    }
}

impl Lookup for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

/// The region and zone from a node's labels; empty if it has neither.
pub fn zone(labels: &impl Lookup) -> CompactString {
    let label = |new: &str, old: &str| {
        let value = labels.label(new).or_else(|| labels.label(old));
        value.unwrap_or_default().to_owned()
    };
    let region = label(
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/region",
    );
    let zone = label(
        "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/zone",
    );
    if region.is_empty() && zone.is_empty() {
        return CompactString::default();
    }
    format!("{region}:\0:{zone}").into()
}

/// A taint, which keeps pods away from a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Its name.
    pub key: CompactString,
    /// Its value.
    pub value: CompactString,
    /// `NoSchedule`, `PreferNoSchedule`, `NoExecute`
    pub effect: Effect,
}

/// The effect of a taint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// New pods are not scheduled here.
    NoSchedule,
    /// New pods are scheduled elsewhere if possible.
    PreferNoSchedule,
    /// Running pods are evicted, too.
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
    /// A taint of a node; `None` if its effect is unknown.
    pub fn new(key: &str, value: &str, effect: &str) -> Option<Taint> {
        Some(Taint {
            key: key.into(),
            value: value.into(),
            effect: Effect::read(effect)?,
        })
    }

    /// Reads a taint of a node; `None` if its effect is unknown.
    pub fn read(taint: &Value) -> Option<Taint> {
        Taint::new(taint.str("key"), taint.str("value"), taint.str("effect"))
    }

    /// Whether it keeps new pods away.
    pub fn repels(&self) -> bool {
        self.effect != Effect::PreferNoSchedule
    }
}

/// A toleration of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toleration {
    key: CompactString,
    /// `Exists`; otherwise values are compared, unless the operator is unknown.
    exists: bool,
    broken: bool,
    value: CompactString,
    /// `None` for all effects, and for an unknown one (which no taint has).
    effect: Option<Effect>,
    any_effect: bool,
}

impl Toleration {
    /// A toleration of a pod; absent fields are empty.
    pub fn new(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        Toleration {
            key: key.into(),
            exists: operator == "Exists",
            broken: !matches!(operator, "" | "Equal" | "Exists"),
            value: value.into(),
            effect: Effect::read(effect),
            any_effect: effect.is_empty(),
        }
    }

    /// Reads a toleration of a pod.
    pub fn read(toleration: &Value) -> Toleration {
        let text = |member| toleration.str(member);
        Toleration::new(text("key"), text("operator"), text("value"), text("effect"))
    }

    /// Whether it tolerates a taint.
    pub fn bears(&self, taint: &Taint) -> bool {
        !self.broken
            && (self.any_effect || self.effect == Some(taint.effect))
            && (self.key.is_empty() || self.key == taint.key)
            && (self.exists || self.value == taint.value)
    }

    /// Whether it applies to `PreferNoSchedule` taints.
    pub fn softens(&self) -> bool {
        self.any_effect || self.effect == Some(Effect::PreferNoSchedule)
    }
}

/// Whether one of these tolerations tolerates a taint.
pub fn bear(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| toleration.bears(taint))
}

/// The nodes that a pod requires or prefers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAffinity {
    /// `nodeSelector`
    pub selector: Selector,
    /// One of these terms must match; `None` if nothing is required.
    pub required: Option<Vec<NodeTerm>>,
    /// Preferred terms with their weights.
    pub preferred: Vec<(i64, NodeTerm)>,
}

/// A term of a node selector: all its requirements must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTerm {
    labels: Selector,
    names: Selector,
    /// It is invalid and matches no node.
    broken: bool,
}

impl NodeTerm {
    /// Reads a term; `None` for an empty one, which matches no node.
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

    /// Whether it matches a node.
    pub fn holds(&self, name: &str, labels: &impl Lookup) -> bool {
        !self.broken
            && self.labels.matches(|key| labels.label(key))
            && (self.names.is_empty() || self.names.matches(|_| Some(name)))
    }

    /// The only node names that it can match; `None` if it does not restrict names.
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

/// Requirements of a node selector; `None` if one is invalid.
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

/// The strings in a list.
pub fn texts(list: &[Value]) -> Vec<CompactString> {
    list.iter()
        .filter_map(Value::as_str)
        .map(Into::into)
        .collect()
}

impl NodeAffinity {
    /// Reads `nodeSelector` and `nodeAffinity` from a pod's spec.
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

    /// Whether the pod may run on a node.
    pub fn allows(&self, name: &str, labels: &impl Lookup) -> bool {
        self.selector.matches(|key| labels.label(key))
            && self
                .required
                .as_ref()
                .is_none_or(|terms| any_holds(terms, name, labels))
    }

    /// The only nodes, by name, on which the pod can run; `None` if it does not restrict names.
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

/// Whether one of the terms matches a node.
pub fn any_holds(terms: &[NodeTerm], name: &str, labels: &impl Lookup) -> bool {
    terms.iter().any(|term| term.holds(name, labels))
}

/// The selector that matches objects with all these labels.
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
