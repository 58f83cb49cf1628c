//! The usage of an object, and the quotas that count it. Follows k8s.io/kubernetes/pkg/quota/v1/evaluator/core
//! and k8s.io/apiserver/pkg/quota/v1.

mod claims;
mod pods;

use std::collections::{BTreeSet, HashSet};

use compact_str::CompactString;

use self::claims::{BY_CLASS, BY_DEVICE, claim_storage, devices};
use self::pods::{compute, crosses_namespaces, pod, scopes};
use crate::admission::resize::claim_class;
use crate::meta::amounts::{Amounts, Side};
use crate::meta::quantity::{Form, Quantity};
use crate::meta::selector::Selector;
use crate::schema::Value;
use crate::value;

pub use self::pods::{is_best_effort, is_terminating};

/// Computes the usage of a resource's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluator {
    /// The group of the resource.
    pub group: CompactString,
    /// Its plural name.
    pub plural: CompactString,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pods,
    Services,
    Claims,
    Devices,
    /// Counted by number; also under a second name, if not empty.
    Count(&'static str),
}

/// Resources that are not counted: they are not stored, or upstream never counted them.
const IGNORED: [(&str, &str); 10] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("events.k8s.io", "events"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
];

const STATIC: [(&str, &str); 8] = [
    ("", "pods"),
    ("", "services"),
    ("", "persistentvolumeclaims"),
    ("resource.k8s.io", "resourceclaims"),
    ("", "configmaps"),
    ("", "resourcequotas"),
    ("", "replicationcontrollers"),
    ("", "secrets"),
];

const POD_NAMES: [&str; 11] = [
    "count/pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];
const SERVICE_NAMES: [&str; 4] = [
    "count/services",
    "services",
    "services.nodeports",
    "services.loadbalancers",
];
/// Resources that every container must set if a quota limits them.
const SAID: [&str; 6] = [
    "cpu",
    "memory",
    "requests.cpu",
    "requests.memory",
    "limits.cpu",
    "limits.memory",
];
impl Evaluator {
    /// The evaluator of a resource; `None` if it is not counted.
    pub fn of(group: &str, plural: &str) -> Option<Evaluator> {
        if IGNORED.contains(&(group, plural)) {
            return None;
        }
        let kind = match (group, plural) {
            ("", "pods") => Kind::Pods,
            ("", "services") => Kind::Services,
            ("", "persistentvolumeclaims") => Kind::Claims,
            ("resource.k8s.io", "resourceclaims") => Kind::Devices,
            ("", "configmaps") => Kind::Count("configmaps"),
            ("", "resourcequotas") => Kind::Count("resourcequotas"),
            ("", "replicationcontrollers") => Kind::Count("replicationcontrollers"),
            ("", "secrets") => Kind::Count("secrets"),
            _ => Kind::Count(""),
        };
        Some(Evaluator {
            group: group.into(),
            plural: plural.into(),
            kind,
        })
    }

    /// The evaluators for the resource names in a quota.
    pub fn for_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Evaluator> {
        let names: Vec<&str> = names.into_iter().collect();
        let counted = names
            .iter()
            .filter_map(|name| name.strip_prefix("count/"))
            .map(|name| {
                name.split_once('.')
                    .map_or(("", name), |(plural, group)| (group, plural))
            });
        let listed: HashSet<&str> = names.iter().copied().collect();
        let mut seen = HashSet::new();
        let mut out: Vec<Evaluator> = Vec::new();
        for (group, plural) in STATIC.into_iter().chain(counted) {
            if !seen.insert((group, plural)) {
                continue;
            }
            let Some(evaluator) = Evaluator::of(group, plural) else {
                continue;
            };
            // The name that was just read needs no search.
            let counts = matches!(evaluator.kind, Kind::Count(_))
                && listed.contains(evaluator.count_name().as_str());
            if counts || !evaluator.names(names.iter().copied()).is_empty() {
                out.push(evaluator);
            }
        }
        out
    }

    fn count_name(&self) -> String {
        if self.group.is_empty() {
            format!("count/{}", self.plural)
        } else {
            format!("count/{}.{}", self.plural, self.group)
        }
    }

    /// The names in a quota that objects of this resource can use.
    pub fn names<'a>(&self, hard: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
        let count = self.count_name();
        let concerns = |name: &str| match self.kind {
            Kind::Pods => {
                POD_NAMES.contains(&name)
                    || name.starts_with("hugepages-")
                    || name.starts_with("requests.hugepages-")
                    || (name.starts_with("requests.")
                        && (!is_native(name)
                            || name.starts_with("requests.deviceclass.resource.kubernetes.io/")))
            }
            Kind::Services => SERVICE_NAMES.contains(&name),
            Kind::Claims => {
                let own = ["persistentvolumeclaims", "requests.storage"];
                name == count
                    || own.contains(&name)
                    || own.iter().any(|own| {
                        name.strip_suffix(own)
                            .is_some_and(|class| class.ends_with(BY_CLASS))
                    })
            }
            Kind::Devices => name == count || name.ends_with(BY_DEVICE),
            Kind::Count(alias) => name == count || name == alias,
        };
        hard.into_iter().filter(|name| concerns(name)).collect()
    }

    /// The usage of an object. `now` is in seconds since 1970.
    pub fn usage(&self, object: &Value, now: i64) -> Amounts {
        let mut used = Amounts::default();
        let mut set = |name: &str, amount: Quantity| {
            used.0.insert(name.into(), amount);
        };
        set(&self.count_name(), number(1));
        match self.kind {
            Kind::Count("") => {}
            Kind::Count(alias) => set(alias, number(1)),
            Kind::Pods => used.add(&pod(object, now)),
            Kind::Services => {
                let ports = object.at("spec").list("ports");
                let kind = object.at("spec").str("type");
                let given = object
                    .at("spec")
                    .at("allocateLoadBalancerNodePorts")
                    .as_bool();
                let nodes = match kind {
                    "LoadBalancer" if given == Some(false) => ports
                        .iter()
                        .filter(|port| port.int("nodePort") != 0)
                        .count(),
                    "NodePort" | "LoadBalancer" => ports.len(),
                    _ => 0,
                };
                set("services", number(1));
                set("services.nodeports", number(nodes as i64));
                set(
                    "services.loadbalancers",
                    number(i64::from(kind == "LoadBalancer")),
                );
            }
            Kind::Claims => {
                set("persistentvolumeclaims", number(1));
                let storage = claim_storage(object);
                if let Some(storage) = storage {
                    set("requests.storage", storage);
                }
                let class = claim_class(object);
                if !class.is_empty() {
                    set(
                        &format!("{class}{BY_CLASS}persistentvolumeclaims"),
                        number(1),
                    );
                    if let Some(storage) = storage {
                        set(&format!("{class}{BY_CLASS}requests.storage"), storage);
                    }
                }
            }
            Kind::Devices => used.add(&devices(object)),
        }
        used
    }

    /// Whether a quota's scopes include an object.
    pub fn in_scopes(&self, quota: &Value, object: &Value) -> bool {
        scopes(quota)
            .iter()
            .all(|scope| self.in_scope(scope, object))
    }

    fn in_scope(&self, scope: &Value, object: &Value) -> bool {
        let spec = object.at("spec");
        let name = scope.str("scopeName");
        match (self.kind, name) {
            (Kind::Pods, "Terminating") => is_terminating(object),
            (Kind::Pods, "NotTerminating") => !is_terminating(object),
            (Kind::Pods, "BestEffort") => is_best_effort(object),
            (Kind::Pods, "NotBestEffort") => !is_best_effort(object),
            (Kind::Pods, "PriorityClass") => selects(scope, &[spec.str("priorityClassName")]),
            (Kind::Pods, "CrossNamespacePodAffinity") => crosses_namespaces(spec),
            (Kind::Claims, "VolumeAttributesClass") => {
                let status = object.at("status");
                let classes = [
                    spec.str("volumeAttributesClassName"),
                    status.str("currentVolumeAttributesClassName"),
                    status
                        .at("modifyVolumeStatus")
                        .str("targetVolumeAttributesClassName"),
                ];
                selects(scope, &classes)
            }
            _ => false,
        }
    }

    /// The limited resources that the containers of a pod must set but do not.
    pub fn unsaid(&self, names: &BTreeSet<&str>, object: &Value) -> Option<String> {
        let spec = object.at("spec");
        let whole = spec.at("resources");
        let says_whole = ["requests", "limits"].iter().any(|side| {
            whole
                .entries(side)
                .any(|(name, _)| crate::meta::amounts::is_pod_level(name))
        });
        if self.kind != Kind::Pods || says_whole {
            return None;
        }
        let mut missing = Vec::new();
        for name in names.iter().filter(|name| SAID.contains(name)) {
            let silent: BTreeSet<&str> = spec
                .list("containers")
                .iter()
                .chain(spec.list("initContainers"))
                .filter(|container| {
                    let side = |side| Amounts::container(container, side);
                    !compute(&side(Side::Requests), &side(Side::Limits))
                        .0
                        .contains_key(*name)
                })
                .map(|container| container.str("name"))
                .collect();
            if !silent.is_empty() {
                let silent: Vec<&str> = silent.into_iter().collect();
                missing.push(format!("{name} for: {}", silent.join(",")));
            }
        }
        (!missing.is_empty()).then(|| format!("must specify {}", missing.join("; ")))
    }
}

/// Whether a requirement selects one of the names (ignoring empty ones), or nothing if there are none.
fn selects(scope: &Value, names: &[&str]) -> bool {
    let name = scope.str("scopeName");
    let expression = value!({
        "key": name,
        "operator": (scope.str("operator")),
        "values": (scope.at("values"))
    });
    let Ok(selector) = Selector::from_object(&value!({"matchExpressions": [expression]})) else {
        return false;
    };
    let mut some = names.iter().filter(|name| !name.is_empty()).peekable();
    if some.peek().is_none() {
        return selector.matches(|_| None);
    }
    some.any(|value| selector.matches(|key| (key == name).then_some(*value)))
}

fn number(units: i64) -> Quantity {
    Quantity::units(units, Form::Decimal)
}

/// Whether a resource is defined by Kubernetes itself.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}
