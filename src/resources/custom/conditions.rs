//! The status of a CustomResourceDefinition: accepted names, whether it is established, and its deletion. A pure
//! decision over the definition and the others; the caller writes it. Follows
//! k8s.io/apiextensions-apiserver/pkg/controller (status, establish, apiapproval, nonstructuralschema, finalizer).

use std::collections::HashSet;

use super::condition;
use crate::meta::errors::quoted;
use crate::meta::url;
use crate::schema::{Object, Value};

/// The finalizer that keeps a definition until its instances are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// The annotation with the approval of a definition in a protected group.
pub const APPROVAL: &str = "api-approved.kubernetes.io";

/// The next step for a definition.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Nothing.
    Rest,
    /// Write this status (and metadata).
    Write(Value),
    /// Delete its instances, and call again when none are left.
    DeleteInstances,
}

/// A desired condition.
struct Wanted<'a> {
    kind: &'a str,
    status: &'a str,
    reason: &'a str,
    message: &'a str,
}

/// Decides the next step. `others` are the other definitions; `instances` is true if instances are left; `now` is the
/// current time as text.
pub fn next<'a>(
    definition: &Value,
    others: impl Iterator<Item = &'a Value>,
    instances: bool,
    now: &str,
) -> Next {
    if let Some(next) = ending(definition, instances, now) {
        return next;
    }
    // Upstream's controllers race; the approval controller usually comes first.
    if let Some((status, reason, message)) = approval(definition) {
        let wanted = Wanted {
            kind: "KubernetesAPIApprovalPolicyConformant",
            status,
            reason,
            message: &message,
        };
        if !says(definition, &wanted) {
            return Next::Write(with(definition, &wanted, now));
        }
    }
    if let Some(changed) = names(definition, others, now) {
        return Next::Write(changed);
    }
    if condition(definition, "NamesAccepted") == "True"
        && condition(definition, "Established") != "True"
    {
        let wanted = established(definition);
        if !says(definition, &wanted) {
            return Next::Write(with(definition, &wanted, now));
        }
    }
    Next::Rest
}

/// Whether a definition already has a condition with this content.
fn says(definition: &Value, wanted: &Wanted<'_>) -> bool {
    definition
        .at("status")
        .list("conditions")
        .iter()
        .any(|condition| {
            condition.str("type") == wanted.kind
                && condition.str("status") == wanted.status
                && condition.str("reason") == wanted.reason
                && condition.str("message") == wanted.message
        })
}

/// The definition with a condition replaced, or appended.
fn with(definition: &Value, wanted: &Wanted<'_>, now: &str) -> Value {
    let mut changed = definition.clone();
    set(&mut changed, wanted, now);
    changed
}

fn set(definition: &mut Value, wanted: &Wanted<'_>, now: &str) {
    let conditions = definition
        .object_mut()
        .object_mut("status")
        .array_mut("conditions");
    let found = conditions
        .iter_mut()
        .find(|condition| condition.str("type") == wanted.kind);
    let condition = match found {
        Some(condition) => condition,
        None => {
            conditions.push(crate::value!({"type": (wanted.kind), "status": ""}));
            match conditions.last_mut() {
                Some(last) => last,
                None => return,
            }
        }
    };
    if condition.str("status") != wanted.status || condition.str("lastTransitionTime").is_empty() {
        condition.set("lastTransitionTime", now);
    }
    condition.set("status", wanted.status);
    condition.set("reason", wanted.reason);
    condition.set("message", wanted.message);
}

fn established(definition: &Value) -> Wanted<'static> {
    let bundle = definition.path(&["spec", "conversion", "webhook", "clientConfig", "caBundle"]);
    if bundle.as_str().is_some_and(|bundle| !is_bundle(bundle)) {
        return Wanted {
            kind: "Established",
            status: "False",
            reason: "InvalidCABundle",
            message: "The conversion webhook CABundle is invalid",
        };
    }
    Wanted {
        kind: "Established",
        status: "True",
        reason: "InitialNamesAccepted",
        message: "the initial names have been accepted",
    }
}

/// Whether base64 text contains PEM certificates, or is empty (system roots). Like upstream's ValidateCABundle.
pub fn is_bundle(base64_text: &str) -> bool {
    use base64::Engine as _;
    if base64_text.is_empty() {
        return true;
    }
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(base64_text) else {
        return false;
    };
    let mut found = false;
    for block in x509_parser::pem::Pem::iter_from_buffer(&bytes) {
        match block {
            Ok(block) if block.label == "CERTIFICATE" => {
                if block.parse_x509().is_err() {
                    return false;
                }
                found = true;
            }
            Ok(_) => {}
            Err(_) => return found,
        }
    }
    found
}

/// Whether a group is protected, so that its definitions need approval.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|domain| {
        group
            .strip_suffix(domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// The approval of a definition: status, reason and message of the condition.
pub fn approval(definition: &Value) -> Option<(&'static str, &'static str, String)> {
    if !is_protected(definition.at("spec").str("group")) {
        return None;
    }
    let said = definition.path(&["metadata", "annotations"]).str(APPROVAL);
    let wanted = "see https://github.com/kubernetes/enhancements/pull/1111";
    Some(match url::parse_request(said) {
        _ if said.is_empty() => (
            "False",
            "MissingAnnotation",
            format!(
                "protected groups must have approval annotation {}, {wanted}",
                quoted(APPROVAL)
            ),
        ),
        _ if said.starts_with("unapproved") => (
            "False",
            "UnapprovedAnnotation",
            format!("not approved: {}", quoted(said)),
        ),
        Ok(url) if !url.host.is_empty() && !url.scheme.is_empty() => {
            ("True", "ApprovedAnnotation", format!("approved in {said}"))
        }
        _ => (
            "False",
            "InvalidAnnotation",
            format!(
                "protected groups must have approval annotation {} with either a URL or a reason starting with \"unapproved\", {wanted}",
                quoted(APPROVAL)
            ),
        ),
    })
}

/// The definition with its accepted names, if they differ from those in its status.
fn names<'a>(
    definition: &Value,
    others: impl Iterator<Item = &'a Value>,
    now: &str,
) -> Option<Value> {
    let group = definition.at("spec").str("group");
    let requested = definition.path(&["spec", "names"]);
    let accepted = definition.path(&["status", "acceptedNames"]);
    if requested == accepted {
        return None;
    }
    let (mut resources, mut kinds) = (HashSet::new(), HashSet::new());
    for other in others.filter(|other| other.at("spec").str("group") == group) {
        let taken = other.path(&["status", "acceptedNames"]);
        resources.extend(["plural", "singular"].map(|key| taken.str(key)));
        resources.extend(taken.list("shortNames").iter().filter_map(Value::as_str));
        kinds.extend(["kind", "listKind"].map(|key| taken.str(key)));
    }
    // Names that it has already do not conflict.
    let mut conflict: Option<(&str, String)> = None;
    let mut new = accepted.as_object().cloned().unwrap_or_else(Object::new);
    let mut single = |key: &str, reason: &'static str, taken: &HashSet<&str>| {
        let wanted = requested.str(key);
        if wanted != accepted.str(key) && taken.contains(wanted) {
            conflict = Some((reason, format!("{} is already in use", quoted(wanted))));
        } else {
            new.insert(key, wanted);
        }
    };
    single("plural", "PluralConflict", &resources);
    single("singular", "SingularConflict", &resources);
    if requested.list("shortNames") != accepted.list("shortNames") {
        let own = accepted.list("shortNames");
        let wrong: Vec<String> = requested
            .list("shortNames")
            .iter()
            .filter(|name| !own.contains(name))
            .filter_map(Value::as_str)
            .filter(|name| resources.contains(name))
            .map(|name| format!("{} is already in use", quoted(name)))
            .collect();
        match wrong.as_slice() {
            [] => {
                new.insert("shortNames", requested.at("shortNames"));
            }
            [one] => conflict = Some(("ShortNamesConflict", one.clone())),
            several => conflict = Some(("ShortNamesConflict", format!("[{}]", several.join(", ")))),
        }
    }
    let mut single = |key: &str, reason: &'static str, taken: &HashSet<&str>| {
        let wanted = requested.str(key);
        if wanted != accepted.str(key) && taken.contains(wanted) {
            conflict = Some((reason, format!("{} is already in use", quoted(wanted))));
        } else {
            new.insert(key, wanted);
        }
    };
    single("kind", "KindConflict", &kinds);
    single("listKind", "ListKindConflict", &kinds);
    new.insert("categories", requested.at("categories"));
    new.retain(|_, value| !value.is_null());
    let naming = match &conflict {
        Some((reason, message)) => Wanted {
            kind: "NamesAccepted",
            status: "False",
            reason,
            message,
        },
        None => Wanted {
            kind: "NamesAccepted",
            status: "True",
            reason: "NoConflicts",
            message: "no conflicts found",
        },
    };
    let new = Value::Object(new);
    let mut before = accepted.clone();
    if let Some(members) = before.as_object_mut() {
        members.retain(|_, value| !value.is_empty());
    }
    let mut after = new.clone();
    if let Some(members) = after.as_object_mut() {
        members.retain(|_, value| !value.is_empty());
    }
    if before == after && says(definition, &naming) {
        return None;
    }
    let mut changed = with(definition, &naming, now);
    changed
        .object_mut()
        .object_mut("status")
        .insert("acceptedNames", new);
    if condition(definition, "Established") != "True" {
        let (reason, message) = match (conflict.is_some(), condition(definition, "Established")) {
            (false, _) => ("Installing", "the initial names have been accepted"),
            (true, "") => ("NotAccepted", "not all names are accepted"),
            (true, _) => return Some(changed),
        };
        let wanted = Wanted {
            kind: "Established",
            status: "False",
            reason,
            message,
        };
        set(&mut changed, &wanted, now);
    }
    Some(changed)
}

/// Marks a definition as terminating: it stays until its instances are gone.
pub fn begin_ending(definition: &mut Value, now: &str) {
    let meta = definition.object_mut().object_mut("metadata");
    let finalizers = meta.array_mut("finalizers");
    if !finalizers.iter().any(|name| name.as_str() == Some(CLEANUP)) {
        finalizers.push(CLEANUP.into());
    }
    let wanted = Wanted {
        kind: "Terminating",
        status: "True",
        reason: "InstanceDeletionPending",
        message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    };
    set(definition, &wanted, now);
}

/// The next step for a definition that is being deleted; `None` for others.
fn ending(definition: &Value, instances: bool, now: &str) -> Option<Next> {
    let meta = definition.at("metadata");
    meta.get("deletionTimestamp")?;
    if !meta
        .list("finalizers")
        .iter()
        .any(|name| name.as_str() == Some(CLEANUP))
    {
        return Some(Next::Rest);
    }
    let terminating = |status, reason, message| Wanted {
        kind: "Terminating",
        status,
        reason,
        message,
    };
    let going_on = terminating(
        "True",
        "InstanceDeletionInProgress",
        "CustomResource deletion is in progress",
    );
    if !says(definition, &going_on) {
        return Some(Next::Write(with(definition, &going_on, now)));
    }
    let was_served = condition(definition, "Established") == "True";
    if was_served && instances {
        return Some(Next::DeleteInstances);
    }
    let done = if was_served {
        terminating(
            "False",
            "InstanceDeletionCompleted",
            "removed all instances",
        )
    } else {
        terminating(
            "False",
            "NeverEstablished",
            "resource was never established",
        )
    };
    let mut changed = with(definition, &done, now);
    changed
        .object_mut()
        .object_mut("metadata")
        .array_mut("finalizers")
        .retain(|name| name.as_str() != Some(CLEANUP));
    Some(Next::Write(changed))
}
