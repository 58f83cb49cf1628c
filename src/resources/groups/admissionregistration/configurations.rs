//! Webhook configurations.

use indexmap::IndexSet;

use std::collections::BTreeSet;

use super::{
    COMMON, FAILURES, MATCHES, REINVOCATIONS, match_defaults, matching, static_name, static_warning,
};
use crate::meta::{At, Errors, names, table};
use crate::resources::groups::core::pods::defaults;
use crate::resources::groups::webhooks;
use crate::resources::{Printing, Rules, metadata};
use crate::schema::Value;

/// Supported AdmissionReview versions.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];
/// The allowed `sideEffects`.
const HARMLESS: &[&str] = &["None", "NoneOnDryRun"];
/// All values of `sideEffects`, sorted; an update may keep one that is not allowed any more.
const ANY_EFFECT: &[&str] = &["None", "NoneOnDryRun", "Some", "Unknown"];

/// The rules of mutating webhook configurations.
pub(super) const MUTATING: Rules = Rules {
    defaults: |object, _| {
        for webhook in defaults::items(object, "webhooks") {
            webhook_defaults(webhook);
            defaults::absent(webhook, "reinvocationPolicy", "Never");
        }
    },
    validate: |object, old, cx, errors| {
        metadata::again(object, old, cx, errors);
        validate(object, old, true, errors);
    },
    internal: "admissionregistration.MutatingWebhookConfiguration",
    ..CONFIGURATIONS
};

/// The rules of validating webhook configurations.
pub(super) const VALIDATING: Rules = Rules {
    defaults: |object, _| defaults::items(object, "webhooks").for_each(webhook_defaults),
    validate: |object, old, cx, errors| {
        metadata::again(object, old, cx, errors);
        validate(object, old, false, errors);
    },
    internal: "admissionregistration.ValidatingWebhookConfiguration",
    ..CONFIGURATIONS
};

const CONFIGURATIONS: Rules = Rules {
    warnings: |object, old, _| {
        let mut warnings: Vec<String> = static_warning(object, old).into_iter().collect();
        for (i, webhook) in object.list("webhooks").iter().enumerate() {
            for (j, rule) in webhook.list("rules").iter().enumerate() {
                let never = never_asked(rule).into_iter();
                warnings.extend(never.map(|resource| {
                    format!("webhooks[{i}].rules[{j}]: {resource} is excluded from admission webhooks; this rule will have no effect")
                }));
            }
        }
        warnings
    },
    printing: Printing::of(|object, now| {
        let webhooks = object.list("webhooks").len();
        vec![
            object.at("metadata").str("name").into(),
            Value::Int(i64::try_from(webhooks).unwrap_or(i64::MAX)),
            table::age(object, now),
        ]
    }),
    ..COMMON
};

/// Review kinds, for which webhooks are never called.
const REVIEWED: [(&str, &str); 6] = [
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

/// The resources in a rule for which webhooks are never called.
fn never_asked(rule: &Value) -> Vec<String> {
    let texts = |key: &str| rule.list(key).iter().filter_map(Value::as_str);
    if texts("apiGroups")
        .chain(texts("resources"))
        .any(|text| text == "*")
    {
        return Vec::new();
    }
    let known = |group: &&str| REVIEWED.iter().any(|(known, _)| known == group);
    let groups: IndexSet<&str> = texts("apiGroups").filter(known).collect();
    let known = |resource: &&str| REVIEWED.iter().any(|(_, known)| known == resource);
    let resources: IndexSet<&str> = texts("resources").filter(known).collect();
    let mut found = Vec::new();
    for group in groups {
        let of_group = resources
            .iter()
            .filter(|resource| REVIEWED.contains(&(group, **resource)));
        found.extend(of_group.map(|resource| format!("{resource}.{group}")));
    }
    found
}

fn webhook_defaults(webhook: &mut Value) {
    defaults::absent(webhook, "failurePolicy", "Fail");
    match_defaults(webhook);
    defaults::absent(webhook, "timeoutSeconds", 10);
    let service = webhook
        .get_mut("clientConfig")
        .and_then(|client| client.get_mut("service"));
    if let Some(service) = service {
        defaults::absent(service, "port", 443);
    }
}

/// Exceptions for an update: what the old object already violated.
struct Kept {
    any_effect: bool,
    any_review: bool,
    same_names: bool,
    any_value: bool,
    /// The match conditions have not changed.
    conditions: bool,
}

impl Kept {
    fn of(object: &Value, old: Option<&Value>) -> Kept {
        let hooks = old.map_or(&[][..], |old| old.list("webhooks"));
        let mut names = BTreeSet::new();
        let conditions = |object: &Value| -> Vec<Value> {
            let hooks = object.list("webhooks").iter();
            hooks
                .map(|hook| hook.at("matchConditions").clone())
                .collect()
        };
        Kept {
            any_effect: !hooks
                .iter()
                .all(|hook| HARMLESS.contains(&hook.str("sideEffects"))),
            any_review: hooks.iter().any(|hook| {
                let reviews = hook.list("admissionReviewVersions");
                !reviews.is_empty() && !known_review(reviews)
            }),
            same_names: !hooks.iter().all(|hook| names.insert(hook.str("name"))),
            any_value: hooks.iter().any(|hook| {
                ["namespaceSelector", "objectSelector"]
                    .iter()
                    .any(|selector| At::root(hook.at(selector)).is_bad_selector())
            }),
            conditions: old.is_some_and(|old| conditions(old) == conditions(object)),
        }
    }
}

fn known_review(versions: &[Value]) -> bool {
    versions
        .iter()
        .any(|version| REVIEWS.contains(&version.as_str().unwrap_or_default()))
}

fn validate(object: At<'_>, old: Option<At<'_>>, mutating: bool, errors: &mut Errors) {
    let kept = Kept::of(object.value, old.map(|old| old.value));
    let mut known = BTreeSet::new();
    for hook in object.field("webhooks").items() {
        webhook(hook, &kept, mutating, errors);
        reviews(hook.field("admissionReviewVersions"), &kept, errors);
        let name = hook.field("name");
        let named = hook.value.str("name");
        if !kept.same_names && !named.is_empty() && !known.insert(named) {
            errors.duplicate(name.path, named);
        }
    }
    static_name(object, old, errors);
}

fn webhook(hook: At<'_>, kept: &Kept, mutating: bool, errors: &mut Errors) {
    full_name(hook.field("name"), errors);
    for rule in hook.field("rules").items() {
        matching::rule(rule, errors);
    }
    hook.field("failurePolicy")
        .one_of_if_there(FAILURES, errors);
    hook.field("matchPolicy").one_of_if_there(MATCHES, errors);
    let effects = hook.field("sideEffects");
    let allowed = if kept.any_effect {
        ANY_EFFECT
    } else {
        HARMLESS
    };
    if effects.is_absent() {
        errors.required(
            effects.path,
            &format!("must specify one of {}", allowed.join(", ")),
        );
    }
    effects.one_of_if_there(allowed, errors);
    hook.field("timeoutSeconds").within(
        1,
        30,
        "the timeout value must be between 1 and 30 seconds",
        errors,
    );
    for selector in ["namespaceSelector", "objectSelector"] {
        hook.field(selector).label_selector(kept.any_value, errors);
    }
    if mutating {
        hook.field("reinvocationPolicy")
            .one_of_if_there(REINVOCATIONS, errors);
    }
    webhooks::client(hook.field("clientConfig"), errors);
    if !kept.conditions {
        matching::conditions(hook.field("matchConditions"), errors);
    }
}

/// A domain name of at least three labels: IsFullyQualifiedName.
fn full_name(name: At<'_>, errors: &mut Errors) {
    if !name.required("", errors) {
        return;
    }
    let wrong = names::dns1123_subdomain(name.str());
    if !wrong.is_empty() {
        name.invalid(wrong.join(","), errors);
    } else if name.str().split('.').count() < 3 {
        name.invalid(
            "should be a domain with at least three segments separated by dots",
            errors,
        );
    }
}

fn reviews(versions: At<'_>, kept: &Kept, errors: &mut Errors) {
    let known = REVIEWS.join(", ");
    if !versions.required(&format!("must specify one of {known}"), errors) {
        return;
    }
    let mut seen = BTreeSet::new();
    for version in versions.items() {
        if seen.insert(version.str()) {
            version.checked(names::dns1035_label, errors);
        } else {
            version.invalid("duplicate version", errors);
        }
    }
    if !kept.any_review && !known_review(versions.list()) {
        versions.invalid(format!("must include at least one of {known}"), errors);
    }
}
