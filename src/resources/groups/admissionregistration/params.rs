//! Parameters of policies: their kind, references to them, and the permission needed for a reference.

use crate::auth::{Attributes, Decision, User};
use crate::meta::errors::quoted;
use crate::meta::{At, Errors, names};
use crate::resources::Cx;
use crate::schema::Value;

/// The kind of parameters: validateParamKind.
pub(super) fn kind(param: At<'_>, errors: &mut Errors) {
    let (version, kind) = (param.field("apiVersion"), param.field("kind"));
    if version.required("", errors) {
        match version.str().matches('/').count() {
            0 | 1 => self::version(version, errors),
            _ => version.invalid(
                format!("unexpected GroupVersion string: {}", version.str()),
                errors,
            ),
        }
    }
    if kind.required("", errors) {
        let wrong = names::dns1035_label(&kind.str().to_lowercase());
        if !wrong.is_empty() {
            kind.invalid(
                format!(
                    "may have mixed case, but should otherwise match: {}",
                    wrong.join(",")
                ),
                errors,
            );
        }
    }
}

fn version(at: At<'_>, errors: &mut Errors) {
    let (group, version) = split(at.str());
    let mut judge = |text: &str, wrong: Vec<String>| {
        if !wrong.is_empty() {
            errors.invalid(at.path, text, wrong.join(","));
        }
    };
    if !group.is_empty() {
        judge(group, names::dns1123_subdomain(group));
    }
    if version.is_empty() {
        at.invalid("version must be specified", errors);
    } else {
        judge(version, names::dns1035_label(version));
    }
}

/// Splits an apiVersion into group and version.
fn split(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// A reference to parameters, by name or by labels: validateParamRef.
pub(super) fn reference(reference: At<'_>, errors: &mut Errors) {
    if reference.is_absent() {
        return;
    }
    let (name, selector) = (reference.field("name"), reference.field("selector"));
    let action = reference.field("parameterNotFoundAction");
    let both = "name and selector are mutually exclusive";
    let (named, selected) = (!name.str().is_empty(), !selector.is_absent());
    if named {
        name.checked(names::path_segment, errors);
        if selected {
            errors.forbidden(name.path, both);
        }
    }
    if selected {
        selector.label_selector(false, errors);
        if named {
            errors.forbidden(selector.path, both);
        }
    }
    if !named && !selected {
        errors.required(reference.path, "one of name or selector must be specified");
    }
    action.required_one_of(&["Deny", "Allow"], errors);
}

/// A user as printed by Go.
fn shown(user: &User) -> String {
    let list = |items: &[compact_str::CompactString]| {
        let items: Vec<&str> = items
            .iter()
            .map(compact_str::CompactString::as_str)
            .collect();
        format!("[{}]", items.join(" "))
    };
    let extra: Vec<String> = user
        .extra
        .iter()
        .map(|(key, values)| format!("{key}:{}", list(values)))
        .collect();
    format!(
        "&{{{} {} {} map[{}]}}",
        user.name,
        user.uid,
        list(&user.groups),
        extra.join(" ")
    )
}

/// Whether the user is allowed everything, or this request.
fn may(cx: &Cx<'_>, attributes: &Attributes<'_>) -> bool {
    let master = cx.user.groups.iter().any(|group| group == "system:masters");
    master
        || cx.authorizer.is_none_or(|authorizer| {
            matches!(
                authorizer.authorize(cx.user, attributes),
                Decision::Allow(_)
            )
        })
}

/// The group, version and resource of a kind of parameters; the resource is `*` if the kind is not served.
fn resource_of<'a>(kind: &'a Value, cx: &Cx<'_>) -> Option<(&'a str, &'a str, String)> {
    let api_version = kind.str("apiVersion");
    if api_version.matches('/').count() > 1 {
        return None;
    }
    let (group, version) = split(api_version);
    let registry = cx.cluster.registry();
    let resource = registry
        .by_kind(group, kind.str("kind"))
        .filter(|resource| resource.version(version).is_some());
    let plural = resource.map_or_else(|| "*".to_owned(), |found| found.plural.to_string());
    Some((group, version, plural))
}

/// The author of a policy must be allowed to read its kind of parameters. Reports errors at `spec.paramKind`.
pub(super) fn may_read_kind(policy: At<'_>, old: Option<At<'_>>, cx: &Cx<'_>, errors: &mut Errors) {
    let spec = policy.field("spec");
    let kind = spec.field("paramKind");
    let same = old.is_some_and(|old| old.value.at("spec").at("paramKind") == kind.value);
    if !errors.is_empty() || kind.is_absent() || same {
        return;
    }
    let found = resource_of(kind.value, cx);
    let (group, version, resource) = found.unwrap_or(("*", "*", "*".to_owned()));
    let attributes = Attributes {
        verb: "get",
        namespace: "*",
        group,
        version,
        resource: &resource,
        name: "*",
        ..Attributes::default()
    };
    if !may(cx, &attributes) {
        errors.forbidden(
            kind.path,
            format!(
                "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
                shown(cx.user),
                kind.value.str("kind"),
                kind.value.str("apiVersion")
            ),
        );
    }
}

/// Who writes a binding must be allowed to read what it refers to; told at `spec.paramRef`. That it did not change makes no
/// difference: upstream compares pointers that are never equal.
pub(super) fn may_read_object(binding: At<'_>, policies: &str, cx: &Cx<'_>, errors: &mut Errors) {
    let spec = binding.field("spec");
    let reference = spec.field("paramRef");
    if !errors.is_empty() || reference.is_absent() {
        return;
    }
    let name = spec.value.str("policyName");
    let policy = cx
        .cluster
        .get("admissionregistration.k8s.io", policies, "", name);
    let kind = policy
        .as_ref()
        .and_then(|policy| policy.at("spec").get("paramKind"));
    let found = kind.and_then(|kind| resource_of(kind, cx));
    let (group, version, resource) = found.clone().unwrap_or(("*", "*", "*".to_owned()));
    let (named, namespace) = (
        reference.value.str("name"),
        reference.value.str("namespace"),
    );
    let verb = if named.is_empty() { "list" } else { "get" };
    let attributes = Attributes {
        verb,
        namespace,
        group,
        version,
        resource: &resource,
        name: named,
        ..Attributes::default()
    };
    if may(cx, &attributes) {
        return;
    }
    let user = shown(cx.user);
    let minimum = |why: String| {
        format!(
            "unable to {why} to determine minimum required permissions and user {user} does not have {} permission for all groups, versions and resources",
            quoted(verb)
        )
    };
    let printed = |kind: &Value| {
        format!(
            "&ParamKind{{APIVersion:{},Kind:{},}}",
            kind.str("apiVersion"),
            kind.str("kind")
        )
    };
    let why = match (&policy, kind, &found) {
        (None, ..) => minimum(format!("get policy {name}")),
        (_, Some(kind), None) => minimum(format!("parse paramKind {}", printed(kind))),
        (_, Some(kind), Some((_, _, plural))) if plural == "*" => {
            minimum(format!("resolve paramKind {}", printed(kind)))
        }
        _ => format!(
            "user {user} does not have {} permission on the object referenced by paramRef",
            quoted(verb)
        ),
    };
    errors.forbidden(reference.path, why);
}
