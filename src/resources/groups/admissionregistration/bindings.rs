//! Policy bindings: the scope and parameters of a policy.

use std::collections::BTreeSet;

use super::{COMMON, match_defaults, matching, params, policies, static_name};
use crate::meta::{At, Errors, names, table};
use crate::resources::{Generation, Printing, Rules, metadata};
use crate::schema::Value;

/// The values of `validationActions`, sorted.
const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];

/// The rules of bindings of validating policies.
pub(super) const VALIDATING: Rules = Rules {
    validate: |binding, old, cx, errors| {
        metadata::again(binding, old, cx, errors);
        let spec = binding.field("spec");
        let (name, list) = (spec.field("policyName"), spec.field("validationActions"));
        name.checked_if_said(names::dns1123_subdomain, errors);
        common(spec, errors);
        actions(list, errors);
        static_name(binding, old, errors);
        if !name.str().is_empty() && !list.value.is_empty() {
            params::may_read_object(binding, "validatingadmissionpolicies", cx, errors);
        }
        // Upstream reports declarative validation last.
        name.required("", errors);
        list.required("", errors);
    },
    internal: "admissionregistration.ValidatingAdmissionPolicyBinding",
    ..BINDINGS
};

/// The rules of bindings of mutating policies.
pub(super) const MUTATING: Rules = Rules {
    validate: |binding, old, cx, errors| {
        metadata::again(binding, old, cx, errors);
        let spec = binding.field("spec");
        spec.field("policyName")
            .required_checked(names::dns1123_subdomain, errors);
        common(spec, errors);
        let matched = spec.field("matchResources");
        policies::only_mutable(matched.field("resourceRules"), errors);
        static_name(binding, old, errors);
        params::may_read_object(binding, "mutatingadmissionpolicies", cx, errors);
    },
    internal: "admissionregistration.MutatingAdmissionPolicyBinding",
    ..BINDINGS
};

const BINDINGS: Rules = Rules {
    defaults: |binding, _| {
        let matched = binding
            .get_mut("spec")
            .and_then(|spec| spec.get_mut("matchResources"));
        if let Some(matched) = matched {
            match_defaults(matched);
        }
    },
    printing: Printing::of(|binding, now| {
        let spec = binding.at("spec");
        vec![
            binding.at("metadata").str("name").into(),
            spec.str("policyName").into(),
            shown(spec.at("paramRef")).into(),
            table::age(binding, now),
        ]
    }),
    generation: Generation::Spec,
    ..COMMON
};

fn common(spec: At<'_>, errors: &mut Errors) {
    params::reference(spec.field("paramRef"), errors);
    let matched = spec.field("matchResources");
    if !matched.is_absent() {
        matching::match_resources(matched, errors);
    }
}

fn actions(list: At<'_>, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    for action in list.items() {
        action.one_of(ACTIONS, errors);
        if !known.insert(action.str()) {
            errors.duplicate(action.path, action.str());
        }
    }
    if known.contains("Deny") && known.contains("Warn") {
        list.invalid(
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
            errors,
        );
    }
}

/// A parameter reference as shown in a table.
fn shown(reference: &Value) -> String {
    let (name, namespace) = (reference.str("name"), reference.str("namespace"));
    match reference.get("selector") {
        _ if reference.is_null() => "<unset>".to_owned(),
        _ if !name.is_empty() && namespace.is_empty() => format!("*/{name}"),
        _ if !name.is_empty() => format!("{namespace}/{name}"),
        Some(selector) => printed(selector),
        None => "<unset>".to_owned(),
    }
}

/// A selector as printed by Go.
fn printed(selector: &Value) -> String {
    let labels: Vec<String> = selector
        .entries("matchLabels")
        .map(|(key, value)| format!("{key}: {},", value.as_str().unwrap_or_default()))
        .collect();
    let expressions: Vec<String> = selector
        .list("matchExpressions")
        .iter()
        .map(|expression| {
            let values: Vec<&str> = expression
                .list("values")
                .iter()
                .filter_map(Value::as_str)
                .collect();
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{}],}},",
                expression.str("key"),
                expression.str("operator"),
                values.join(" ")
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.join(""),
        expressions.concat()
    )
}
