//! Flow schemas: which requests go to which priority level.

use super::{COMMON, conditions, mandatory};
use crate::meta::{At, Errors, names, table};
use crate::resources::groups::core::pods::defaults;
use crate::resources::{Printing, Rules, metadata};
use crate::schema::{Value, internal};

/// The highest precedence value.
const LAST: i64 = 10_000;
/// Verbs, sorted.
const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];

/// The rules of flow schemas.
pub(super) const RULES: Rules = Rules {
    printing: Printing {
        row_order: |schema| schema.at("spec").int("matchingPrecedence"),
        cells: |schema, now| {
            let spec = schema.at("spec");
            let method = match spec.get("distinguisherMethod") {
                Some(method) => method.str("type"),
                None => "<none>",
            };
            let dangling = schema.at("status").list("conditions").iter();
            let dangling = dangling
                .clone()
                .find(|condition| condition.str("type") == "Dangling");
            vec![
                schema.at("metadata").str("name").into(),
                spec.at("priorityLevelConfiguration").str("name").into(),
                spec.int("matchingPrecedence").into(),
                method.into(),
                table::age(schema, now),
                dangling
                    .map_or("?", |condition| condition.str("status"))
                    .into(),
            ]
        },
        ..COMMON.printing
    },
    defaults: |schema, _| {
        let spec = schema.object_mut().object_mut("spec");
        let mut spec_value = Value::Object(std::mem::take(spec));
        defaults::number(&mut spec_value, "matchingPrecedence", 1000);
        schema.set("spec", spec_value);
    },
    validate: |schema, old, cx, errors| {
        metadata::again(schema, old, cx, errors);
        let spec = schema.field("spec");
        let name = schema.value.at("metadata").str("name");
        self::spec(spec, name, errors);
        if mandatory("FlowSchema", schema.value).is_some_and(|want| want != spec.value) {
            spec.invalid_dump(
                "flowcontrol.FlowSchemaSpec",
                format!("spec of '{name}' must equal the fixed value"),
                errors,
            );
        }
        conditions(schema, errors);
    },
    internal: "flowcontrol.FlowSchema",
    ..COMMON
};

fn spec(spec: At<'_>, name: &str, errors: &mut Errors) {
    let precedence = spec.field("matchingPrecedence");
    let number = precedence.int().unwrap_or(0);
    if number <= 0 {
        precedence.invalid("must be a positive value", errors);
    }
    if number > LAST {
        precedence.invalid(format!("must not be greater than {LAST}"), errors);
    }
    if number == 1 && name != "exempt" {
        precedence.invalid(
            "only the schema named 'exempt' may have matchingPrecedence 1",
            errors,
        );
    }
    let method = spec.field("distinguisherMethod");
    let methods = ["ByNamespace", "ByUser"];
    if !method.is_absent() && !methods.contains(&method.value.str("type")) {
        let shown = internal::dump(method.value, "flowcontrol.FlowDistinguisherMethod");
        errors.not_supported(method.path.field("type"), shown, &methods);
    }
    let level = spec.field("priorityLevelConfiguration");
    let level = level.field("name");
    if level.required("must reference a priority level", errors) {
        level.checked(names::dns1123_subdomain, errors);
    }
    for rule in spec.field("rules").items() {
        self::rule(rule, errors);
    }
}

fn rule(rule: At<'_>, errors: &mut Errors) {
    let subjects = rule.field("subjects");
    subjects.required("subjects must contain at least one value", errors);
    subjects.items().for_each(|it| subject(it, errors));
    let (resources, paths) = (rule.field("resourceRules"), rule.field("nonResourceRules"));
    if resources.value.is_empty() && paths.value.is_empty() {
        errors.required(
            rule.path,
            "at least one of resourceRules and nonResourceRules has to be non-empty",
        );
    }
    resources.items().for_each(|it| resource_rule(it, errors));
    paths.items().for_each(|it| path_rule(it, errors));
}

/// Kinds of subjects, their fields, and their descriptions in errors.
const SUBJECTS: [(&str, &str); 3] = [
    ("ServiceAccount", "serviceAccount"),
    ("User", "user"),
    ("Group", "group"),
];

fn subject(subject: At<'_>, errors: &mut Errors) {
    let kind = subject.field("kind");
    let Some((known, field)) = SUBJECTS.iter().find(|(known, _)| *known == kind.str()) else {
        return kind.one_of(&["Group", "ServiceAccount", "User"], errors);
    };
    let own = subject.field(field);
    if own.is_absent() {
        errors.required(
            own.path,
            &format!("{field} is required when subject kind is '{known}'"),
        );
    } else {
        let name = own.field("name");
        if name.required("", errors) && *known == "ServiceAccount" && name.str() != "*" {
            name.checked(names::dns1123_subdomain, errors);
        }
        if *known == "ServiceAccount" {
            let namespace = own.field("namespace");
            if namespace.str().is_empty() {
                errors.required(namespace.path, "must specify namespace for service account");
            } else {
                namespace.checked(names::dns1123_label, errors);
            }
        }
    }
    // Upstream's order of errors about the fields of other kinds.
    let order: [&str; 2] = match *known {
        "ServiceAccount" => ["user", "group"],
        "User" => ["serviceAccount", "group"],
        _ => ["serviceAccount", "user"],
    };
    for other in order {
        let kind = SUBJECTS.iter().find(|(_, field)| *field == other);
        let kind = kind.map_or("", |(kind, _)| kind);
        subject.field(other).forbid(
            &format!("{other} is forbidden when subject kind is not '{kind}'"),
            errors,
        );
    }
}

fn verbs(verbs: At<'_>, errors: &mut Errors) {
    if verbs.all_or_some("verbs must contain at least one value", "verbs", errors)
        && !verbs
            .list()
            .iter()
            .all(|verb| VERBS.contains(&verb.as_str().unwrap_or_default()))
    {
        errors.not_supported(verbs.path, verbs.value, VERBS);
    }
}

fn resource_rule(rule: At<'_>, errors: &mut Errors) {
    verbs(rule.field("verbs"), errors);
    for (field, what, many) in [
        ("apiGroups", "api group", "api groups"),
        ("resources", "resource", "resources"),
    ] {
        rule.field(field).all_or_some(
            &format!("resource rules must supply at least one {what}"),
            many,
            errors,
        );
    }
    let namespaces = rule.field("namespaces");
    if namespaces.value.is_empty() && rule.value.bool("clusterScope") {
        return;
    }
    let judged = namespaces.all_or_some(
        "resource rules that are not cluster scoped must supply at least one namespace",
        "namespaces",
        errors,
    );
    if judged {
        for namespace in namespaces.items() {
            let wrong = names::dns1123_label(namespace.str());
            namespace.invalid_each(
                wrong.into_iter().map(|wrong| {
                    format!("each member of this list must be '*' or a DNS-1123 label; {wrong}")
                }),
                errors,
            );
        }
    }
}

fn path_rule(rule: At<'_>, errors: &mut Errors) {
    verbs(rule.field("verbs"), errors);
    let urls = rule.field("nonResourceURLs");
    let judged = urls.all_or_some(
        "nonResourceURLs must contain at least one value",
        "non-resource URLs",
        errors,
    );
    if judged {
        urls.items().for_each(|url| path(url, errors));
    }
}

/// A path, or a prefix of paths: ValidateNonResourceURLPath.
fn path(url: At<'_>, errors: &mut Errors) {
    let text = url.str();
    let wildcards = text.matches('*').count();
    let why = if text.is_empty() {
        "must not be empty"
    } else if text == "/" {
        return;
    } else if !text.starts_with('/') {
        "must start with slash"
    } else if text.contains(' ') {
        "must not contain white-space"
    } else if text.contains("//") {
        "must not contain double slash"
    } else if wildcards > 1 || (wildcards == 1 && !text.ends_with("/*")) {
        "wildcard can only do suffix matching"
    } else {
        return;
    };
    url.invalid(why, errors);
}
