//! Where pods may be, as nodes and pods say it: labels, taints and what bears them, node selectors and affinity.
//! Follows k8s.io/component-helpers/scheduling/corev1.

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;

use super::selector::{Op, Selector, Term};
use crate::schema::Value;

/// The annotation that names the brand of a pod's zone.
pub const ZONE_BRAND: &str = "reddwarf.io/zone-brand";
/// Brands of zones that handlers of runtime classes name; other handlers say nothing about zones.
pub const BRANDS: [&str; 4] = ["lx", "reddwarf", "linux", "simulated"];

/// What a node declares that can start all containers of a pod anew when one of them ends.
pub const RESTARTS_ALL: &str = "RestartAllContainersOnContainerExits";

/// The feature that a pod needs of its node for what is done when its containers end, by the actions that its containers
/// name. Follows k8s.io/component-helpers/nodedeclaredfeatures.
pub fn needed_feature<'a>(mut actions: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    let restarts_all = actions.any(|action| action == "RestartAllContainers");
    restarts_all.then_some(RESTARTS_ALL)
}

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

/// Labels in any form.
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

/// The region and zone that a node's labels name; empty where they name neither.
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
    /// A taint of a node; none where its effect is not known.
    pub fn new(key: &str, value: &str, effect: &str) -> Option<Taint> {
        Some(Taint {
            key: key.into(),
            value: value.into(),
            effect: Effect::read(effect)?,
        })
    }

    /// Reads a taint of a node; none where its effect is not known.
    pub fn read(taint: &Value) -> Option<Taint> {
        Taint::new(taint.str("key"), taint.str("value"), taint.str("effect"))
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
    /// A toleration of a pod; what is absent is empty.
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

    /// Whether it bears a taint.
    pub fn bears(&self, taint: &Taint) -> bool {
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
    pub fn holds(&self, name: &str, labels: &impl Lookup) -> bool {
        !self.broken
            && self.labels.matches(|key| labels.label(key))
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
    pub fn allows(&self, name: &str, labels: &impl Lookup) -> bool {
        self.selector.matches(|key| labels.label(key))
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
pub fn any_holds(terms: &[NodeTerm], name: &str, labels: &impl Lookup) -> bool {
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
