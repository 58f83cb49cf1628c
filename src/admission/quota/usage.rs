//! The usage of an object, and the quotas that count it. Follows k8s.io/kubernetes/pkg/quota/v1/evaluator/core
//! and k8s.io/apiserver/pkg/quota/v1.

use std::collections::{BTreeSet, HashSet};

use compact_str::CompactString;

use crate::admission::resize::claim_class;
use crate::meta::amounts::{Amounts, Side};
use crate::meta::quantity::{Form, Quantity};
use crate::meta::selector::Selector;
use crate::meta::time;
use crate::schema::Value;
use crate::value;

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
const BY_CLASS: &str = ".storageclass.storage.k8s.io/";
const BY_DEVICE: &str = ".deviceclass.resource.k8s.io/devices";
/// The maximum number of devices for a request with allocation mode `All`.
const ALL_DEVICES: i64 = 32;

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

/// Whether a pod has an active deadline.
pub fn is_terminating(pod: &Value) -> bool {
    let seconds = pod.at("spec").at("activeDeadlineSeconds").as_int();
    seconds.is_some_and(|seconds| seconds >= 0)
}

/// The scopes of a quota as requirements.
fn scopes(quota: &Value) -> Vec<Value> {
    let spec = quota.at("spec");
    let plain = spec.list("scopes").iter();
    plain
        .map(|scope| value!({"scopeName": scope, "operator": "Exists"}))
        .chain(
            spec.at("scopeSelector")
                .list("matchExpressions")
                .iter()
                .cloned(),
        )
        .collect()
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

/// The usage of a pod that is not finished.
fn pod(pod: &Value, now: i64) -> Amounts {
    if matches!(pod.at("status").str("phase"), "Failed" | "Succeeded") || is_overdue(pod, now) {
        return Amounts::default();
    }
    let amounts = |side| Amounts::pod_at_most(pod, side);
    compute(&amounts(Side::Requests), &amounts(Side::Limits))
}

/// Whether a terminating pod has exceeded its grace period.
fn is_overdue(pod: &Value, now: i64) -> bool {
    let meta = pod.at("metadata");
    let deleted = time::parse(meta.str("deletionTimestamp")).ok();
    deleted
        .zip(meta.at("deletionGracePeriodSeconds").as_int())
        .is_some_and(|(deleted, grace)| now > deleted.saturating_add(grace))
}

fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut out = Amounts::default();
    let mut set = |name: String, amount: Quantity| {
        out.0.insert(name.into(), amount);
    };
    set("pods".to_owned(), number(1));
    for (name, amount) in &requests.0 {
        let plain = ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str())
            || name.starts_with("hugepages-");
        if plain {
            set(name.to_string(), *amount);
        }
        let extended = !is_native(name) || name.starts_with("deviceclass.resource.kubernetes.io/");
        if plain || (extended && !name.starts_with("requests.")) {
            set(format!("requests.{name}"), *amount);
        }
    }
    for (name, amount) in &limits.0 {
        if ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str()) {
            set(format!("limits.{name}"), *amount);
        }
    }
    out
}

/// Whether a pod has neither cpu nor memory requests or limits.
pub fn is_best_effort(pod: &Value) -> bool {
    let class = pod.at("status").str("qosClass");
    if !class.is_empty() {
        return class == "BestEffort";
    }
    let spec = pod.at("spec");
    let silent = |holder: &Value| {
        [Side::Requests, Side::Limits].into_iter().all(|side| {
            let said = Amounts::container(holder, side);
            ["cpu", "memory"]
                .iter()
                .all(|name| said.get(name).sign() == 0)
        })
    };
    if !spec.at("resources").is_empty() {
        return silent(spec);
    }
    ["containers", "initContainers"]
        .iter()
        .all(|list| spec.list(list).iter().all(silent))
}

fn crosses_namespaces(spec: &Value) -> bool {
    let crosses = |term: &Value| {
        !term.list("namespaces").is_empty() || term.get("namespaceSelector").is_some()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|key| {
        let affinity = spec.at("affinity").at(key);
        affinity
            .list("requiredDuringSchedulingIgnoredDuringExecution")
            .iter()
            .any(crosses)
            || affinity
                .list("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|weighted| crosses(weighted.at("podAffinityTerm")))
    })
}

/// The storage that a claim requests, or its allocated storage if that is more; rounded up to whole units.
fn claim_storage(claim: &Value) -> Option<Quantity> {
    let read = |list: &Value| Amounts::read(list).0.get("storage").copied();
    let whole = |amount: Quantity| {
        if amount.is_fractional() {
            Quantity::units(amount.value(), amount.form)
        } else {
            amount
        }
    };
    let asked = whole(read(claim.at("spec").at("resources").at("requests"))?);
    let given = read(claim.at("status").at("allocatedResources")).map(whole);
    Some(given.map_or(asked, |given| given.max(asked)))
}

fn devices(claim: &Value) -> Amounts {
    let count = |request: &Value| match request.str("allocationMode") {
        "ExactCount" => request.int("count"),
        "All" => ALL_DEVICES,
        _ => 0,
    };
    let name = |request: &Value| -> CompactString {
        format!("{}{BY_DEVICE}", request.str("deviceClassName")).into()
    };
    let mut out = Amounts::default();
    for request in claim.at("spec").at("devices").list("requests") {
        let mut most = Amounts::default();
        let alternatives = request.list("firstAvailable");
        for one in alternatives {
            most.max(&Amounts([(name(one), number(count(one)))].into()));
        }
        if let Some(one) = request.get("exactly").filter(|_| alternatives.is_empty()) {
            most.0.insert(name(one), number(count(one)));
        }
        out.add(&most);
    }
    out
}
