//! Warnings about accepted pods and templates. Follows k8s.io/kubernetes/pkg/api/pod/warnings.go.

mod paths;

use std::collections::BTreeMap;

use super::prepare::annotated_profile;
use super::validate::{APP_ARMOR, CONTAINER_SECCOMP, CONTAINERS, SECCOMP, containers};
use crate::meta::errors::quoted;
use crate::meta::quantity::Quantity;
use crate::meta::{At, Path, addresses, names};
use crate::schema::Value;

const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
/// Amounts that should be whole.
const BYTES: [&str; 2] = ["memory", "ephemeral-storage"];

const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        r#"non-functional in v1.11+; use the "sysctls" field instead"#,
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        r#"non-functional in v1.11+; use the "sysctls" field instead"#,
    ),
];
/// Kinds of volumes that are gone or going, and how their field is called.
const OLD_VOLUMES: [(&str, &str, &str); 7] = [
    (
        "photonPersistentDisk",
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    (
        "gitRepo",
        "gitRepo",
        "deprecated in v1.11, and disabled by default in v1.33+",
    ),
    (
        "scaleIO",
        "scaleIO",
        "deprecated in v1.16, non-functional in v1.22+",
    ),
    (
        "flocker",
        "flocker",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "storageos",
        "storageOS",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "quobyte",
        "quobyte",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "glusterfs",
        "glusterfs",
        "deprecated in v1.25, non-functional in v1.26+",
    ),
];
const GONE_IN_1_31: &str = "deprecated in v1.28, non-functional in v1.31+";

/// Labels of nodes that have newer names.
const OLD_LABELS: [(&str, &str); 8] = [
    (
        "beta.kubernetes.io/arch",
        r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#,
    ),
    (
        "beta.kubernetes.io/os",
        r#"deprecated since v1.14; use "kubernetes.io/os" instead"#,
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#,
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#,
    ),
    (
        "beta.kubernetes.io/instance-type",
        r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#,
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    (
        "node-role.kubernetes.io/master",
        r#"use "node-role.kubernetes.io/control-plane" instead"#,
    ),
];

/// What to say of a deprecated label of nodes.
pub(in crate::resources::groups) fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS
        .iter()
        .find(|(label, _)| *label == key)
        .map(|(_, text)| *text)
}

/// Texts, each behind the path of what it is about.
#[derive(Default)]
struct Told(Vec<String>);

impl Told {
    fn say(&mut self, path: Path<'_>, text: impl std::fmt::Display) {
        self.0.push(format!("{path}: {text}"));
    }
}

/// Warnings of a pod, its name aside.
pub(super) fn pod(pod: &Value) -> Vec<String> {
    of(At::root(pod), false)
}

/// Warnings of a template.
pub(in crate::resources::groups) fn template(template: At<'_>) -> Vec<String> {
    of(template, true)
}

fn of(whole: At<'_>, is_template: bool) -> Vec<String> {
    let mut told = Told::default();
    let spec = whole.field("spec");
    node_labels(spec, &mut told);
    let meta = whole.field("metadata");
    let annotations = meta.field("annotations");
    for (key, text) in OLD_ANNOTATIONS {
        if annotations.value.get(key).is_some() {
            told.say(annotations.path.key(key), text);
        }
    }
    for volume in spec.field("volumes").items() {
        old_volume(volume, &mut told);
    }
    paths::overlaps(spec.value.list("volumes"), &mut told.0);
    duplicates(spec, &mut told);
    let overhead = spec.field("overhead");
    fractions(overhead, &BYTES, &mut told);
    if annotations.value.get(SECCOMP).is_some()
        && spec
            .value
            .path(&["securityContext", "seccompProfile"])
            .is_null()
    {
        told.say(annotations.path.key(SECCOMP), NO_SECCOMP);
    }
    for list in CONTAINERS {
        for container in spec.field(list).items() {
            self::container(container, spec.value, annotations, is_template, &mut told);
        }
    }
    ports(spec, &mut told);
    let grace = spec.field("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds < 0) {
        told.say(
            grace.path,
            "must be >= 0; negative values are invalid and will be treated as 1",
        );
    }
    null_selectors(spec, &mut told);
    let dns = spec.field("dnsConfig");
    for server in dns.field("nameservers").items() {
        address(server, &mut told);
    }
    for alias in spec.field("hostAliases").items() {
        address(alias.field("ip"), &mut told);
    }
    told.0
}

const NO_SECCOMP: &str = r#"non-functional in v1.27+; use the "seccompProfile" field instead"#;

fn address(at: At<'_>, told: &mut Told) {
    if let Some(text) = addresses::ip_warning(at.str()) {
        told.say(at.path, text);
    }
}

fn node_labels(spec: At<'_>, told: &mut Told) {
    for (key, at) in spec.field("nodeSelector").entries() {
        if let Some(text) = old_label(key) {
            told.say(at.path, text);
        }
    }
    let affinity = spec.field("affinity");
    let nodes = affinity.field("nodeAffinity");
    let required = nodes.field(REQUIRED);
    for term in required.field("nodeSelectorTerms").items() {
        node_term(term, false, told);
    }
    for preferred in nodes.field(PREFERRED).items() {
        node_term(preferred.field("preference"), true, told);
    }
    for constraint in spec.field("topologySpreadConstraints").items() {
        let key = constraint.field("topologyKey");
        if let Some(text) = old_label(key.str()) {
            told.say(key.path, format!("{} is {text}", key.str()));
        }
        let selector = constraint.field("labelSelector");
        if selector.is_absent() {
            told.say(selector.path, NULL_SELECTOR);
        }
    }
}

/// Expressions over labels of nodes; values that no label can have are told of where they are no mistake.
fn node_term(term: At<'_>, check_values: bool, told: &mut Told) {
    for expression in term.field("matchExpressions").items() {
        let key = expression.field("key");
        if let Some(text) = old_label(key.str()) {
            told.say(key.path, format!("{} is {text}", key.str()));
        }
        if !check_values {
            continue;
        }
        for value in expression.field("values").items() {
            for wrong in names::label_value(value.str()) {
                told.say(value.path, format!("{} is invalid, {wrong}", value.str()));
            }
        }
    }
}

fn old_volume(volume: At<'_>, told: &mut Told) {
    for (field, shown, text) in OLD_VOLUMES {
        if volume.value.get(field).is_some() {
            told.say(volume.path.field(shown), text);
        }
    }
    let ephemeral = volume.field("ephemeral");
    let template = ephemeral.field("volumeClaimTemplate");
    if !template.is_absent() {
        claim(template.field("spec"), told);
    }
    for field in ["cephfs", "rbd"] {
        let at = volume.field(field);
        if !at.is_absent() {
            told.say(at.path, GONE_IN_1_31);
        }
    }
}

/// Warnings of the spec of a PersistentVolumeClaim.
pub(in crate::resources::groups) fn claim_spec(spec: At<'_>) -> Vec<String> {
    let mut told = Told::default();
    claim(spec, &mut told);
    told.0
}

fn claim(spec: At<'_>, told: &mut Told) {
    let resources = spec.field("resources");
    for list in ["requests", "limits"] {
        fractions(resources.field(list), &["storage"], told);
    }
}

fn fractions(list: At<'_>, names: &[&str], told: &mut Told) {
    for name in names {
        let text = list.value.at(name).as_str();
        if let Some(text) = text
            && Quantity::parse(text).is_ok_and(|amount| amount.is_fractional())
        {
            told.say(
                list.path.key(name),
                format!(
                    "fractional byte value {} is invalid, must be an integer",
                    quoted(text)
                ),
            );
        }
    }
}

fn duplicates(spec: At<'_>, told: &mut Told) {
    for (list, key, what) in [
        ("hostAliases", "ip", "ip"),
        ("imagePullSecrets", "name", "name"),
    ] {
        let list = spec.field(list);
        for (i, item) in list.items().enumerate() {
            let own = item.field(key);
            if list.list()[..i]
                .iter()
                .any(|other| other.str(key) == own.str())
            {
                told.say(own.path, format!("duplicate {what} {}", quoted(own.str())));
            }
        }
    }
    for secret in spec.field("imagePullSecrets").items() {
        let name = secret.field("name");
        if name.str().is_empty() {
            told.say(name.path, r#"invalid empty name """#);
        }
    }
}

fn container(
    container: At<'_>,
    spec: &Value,
    annotations: At<'_>,
    is_template: bool,
    told: &mut Told,
) {
    let name = container.value.str("name");
    let context = container.value.at("securityContext");
    let key = format!("{CONTAINER_SECCOMP}{name}");
    if context.get("seccompProfile").is_none() && annotations.value.get(&key).is_some() {
        told.say(annotations.path.key(&key), NO_SECCOMP);
    }
    let key = format!("{APP_ARMOR}{name}");
    if is_template
        && context.get("appArmorProfile").is_none()
        && let Some(said) = annotations.value.get(&key)
    {
        let of_pod = spec.path(&["securityContext", "appArmorProfile"]);
        let said = annotated_profile(said.as_str().unwrap_or_default());
        if of_pod.is_null() || said.as_ref() != Some(of_pod) {
            told.say(annotations.path.key(&key), OLD_APP_ARMOR);
        }
    }
    let resources = container.field("resources");
    for resource in BYTES {
        for list in ["limits", "requests"] {
            fractions(resources.field(list), &[resource], told);
        }
    }
    let list = container.field("env");
    for (i, variable) in list.items().enumerate() {
        let name = variable.value.str("name");
        if !list.list()[..i]
            .iter()
            .any(|other| other.str("name") == name)
        {
            continue;
        }
        // The new value may use the one it hides.
        let reference = format!("$({name})");
        let value = variable.value.str("value");
        if variable.value.get("valueFrom").is_some()
            || value == reference
            || !value.contains(&reference)
        {
            told.say(
                variable.path,
                format!(
                    "hides previous definition of {}, which may be dropped when using apply",
                    quoted(name)
                ),
            );
        }
    }
}

/// What is told of AppArmor profiles in annotations.
pub(super) const OLD_APP_ARMOR: &str =
    r#"deprecated since v1.30; use the "appArmorProfile" field instead"#;

/// One port of a container, and where it is.
struct Port<'a> {
    path: String,
    port: &'a Value,
}

fn all_ports(spec: At<'_>) -> Vec<Port<'_>> {
    let mut all = Vec::new();
    for list in CONTAINERS {
        let at = spec.path.field(list);
        for (i, container) in spec.value.list(list).iter().enumerate() {
            let at = at.index(i);
            let at = at.field("ports");
            for (j, port) in container.list("ports").iter().enumerate() {
                let path = at.index(j).to_string();
                all.push(Port { path, port });
            }
        }
    }
    all
}

fn ports(spec: At<'_>, told: &mut Told) {
    if containers(spec.value).all(|container| container.list("ports").is_empty()) {
        return;
    }
    let all = all_ports(spec);
    for (i, Port { path, port }) in all.iter().enumerate() {
        let (host, ip) = (port.int("hostPort"), port.str("hostIP"));
        if !ip.is_empty() && host == 0 {
            told.0.push(format!(
                "{path}: hostIP set without hostPort: {{Name:{} HostPort:{host} ContainerPort:{} Protocol:{} HostIP:{ip}}}",
                port.str("name"),
                port.int("containerPort"),
                port.str("protocol"),
            ));
        }
        let same = |other: &&Port<'_>| {
            ["containerPort", "protocol"]
                .iter()
                .all(|key| other.port.at(key) == port.at(key))
        };
        for other in all[..i].iter().filter(same) {
            let (other_host, other_ip) = (other.port.int("hostPort"), other.port.str("hostIP"));
            let what = if host == other_host && ip == other_ip {
                "duplicate"
            } else if host == 0 || other_host == 0 {
                "overlapping"
            } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            told.0.push(format!(
                "{path}: {what} port definition with {}",
                other.path
            ));
        }
    }
    let mut named: BTreeMap<&str, &str> = BTreeMap::new();
    for Port { path, port } in &all {
        let name = port.str("name");
        if name.is_empty() {
            continue;
        }
        match named.get(name) {
            Some(other) => told.0.push(format!(
                "{path}: duplicate port name {} with {other}, services and probes that select ports by name will use {other}",
                quoted(name)
            )),
            None => drop(named.insert(name, path)),
        }
    }
}

fn null_selectors(spec: At<'_>, told: &mut Told) {
    let affinity = spec.field("affinity");
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.field(kind);
        for term in pods.field(REQUIRED).items() {
            let selector = term.field("labelSelector");
            if selector.is_absent() {
                told.say(selector.path, NULL_SELECTOR);
            }
        }
        for preferred in pods.field(PREFERRED).items() {
            let term = preferred.field("podAffinityTerm");
            let selector = term.field("labelSelector");
            if selector.is_absent() {
                told.say(selector.path, NULL_SELECTOR);
            }
        }
    }
}
