//! Warnings about accepted pods and templates. Follows k8s.io/kubernetes/pkg/api/pod/warnings.go.

mod paths;
mod ports;

use std::collections::HashSet;

use super::prepare::annotated_profile;
use super::validate::{APP_ARMOR, CONTAINER_SECCOMP, CONTAINERS, SECCOMP};
use crate::meta::budget::Budget;
use crate::meta::errors::quoted;
use crate::meta::quantity::Quantity;
use crate::meta::{At, Path, addresses, names};
use crate::schema::Value;

const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
/// Resources that should be whole numbers.
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
/// Removed and deprecated volume types: field, name in warnings, and warning.
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

/// Deprecated node labels and their replacements.
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

/// The warning about a deprecated node label.
pub(in crate::resources::groups) fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS
        .iter()
        .find(|(label, _)| *label == key)
        .map(|(_, text)| *text)
}

/// Texts, most of them behind the path of what they are about. Only the beginning is ever shown.
#[derive(Default)]
struct Told(Vec<String>, Budget);

impl Told {
    fn say(&mut self, path: Path<'_>, text: impl std::fmt::Display) {
        self.add(format_args!("{path}: {text}"));
    }

    fn add(&mut self, text: impl std::fmt::Display) {
        if !self.is_full() {
            let text = text.to_string();
            self.1.spend(text.len());
            self.0.push(text);
        }
    }

    fn is_full(&self) -> bool {
        self.1.is_spent()
    }
}

/// Warnings about a pod, except its name.
pub(super) fn pod(pod: &Value) -> Vec<String> {
    of(At::root(pod), false)
}

/// Warnings about a template.
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
    paths::overlaps(spec.value.list("volumes"), &mut told);
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
    ports::tell(spec, &mut told);
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

/// Warnings about expressions for node labels; with `check_values` also about invalid label values.
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

/// Warnings about the spec of a PersistentVolumeClaim.
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
        let mut had = HashSet::new();
        for (item, raw) in list.items().zip(list.list()) {
            let own = item.field(key);
            if !had.insert(raw.str(key)) {
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
    let mut had = HashSet::new();
    for variable in list.items() {
        let name = variable.value.str("name");
        if had.insert(name) {
            continue;
        }
        // The new value may refer to the one that it hides.
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

/// The warning about AppArmor annotations.
pub(super) const OLD_APP_ARMOR: &str =
    r#"deprecated since v1.30; use the "appArmorProfile" field instead"#;

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
