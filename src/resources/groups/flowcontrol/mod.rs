//! Kinds of the group `flowcontrol.apiserver.k8s.io`. Follows k8s.io/kubernetes/pkg/registry/flowcontrol and
//! pkg/apis/flowcontrol.

mod levels;
mod schemas;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::auth::bootstrap;
use crate::meta::{At, Errors};
use crate::resources::{Generation, MetaOnStatus, Rules, StatusRules};
use crate::schema::Value;

/// The names of mandatory objects, whose specs are fixed.
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

/// What both kinds have in common.
const COMMON: Rules = Rules {
    status: StatusRules {
        validate: |object, _, _, errors| conditions(object, errors),
        metadata: MetaOnStatus::Kept,
        ..StatusRules::DEFAULT
    },
    generation: Generation::Spec,
    ..Rules::DEFAULT
};

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "flowschemas" => schemas::RULES,
        "prioritylevelconfigurations" => levels::RULES,
        _ => Rules::DEFAULT,
    }
}

/// The fixed spec of a mandatory object.
fn mandatory(kind: &str, object: &Value) -> Option<&'static Value> {
    let name = object.at("metadata").str("name");
    if !MANDATORY.contains(&name) {
        return None;
    }
    let of_name =
        |found: &&Value| found.str("kind") == kind && found.at("metadata").str("name") == name;
    let objects = bootstrap::objects().iter();
    let found = objects.map(|made| &made.object).find(of_name)?;
    Some(found.at("spec"))
}

/// Validates that each condition type occurs once and is set.
fn conditions(object: At<'_>, errors: &mut Errors) {
    let status = object.field("status");
    let mut known = BTreeSet::new();
    for condition in status.field("conditions").items() {
        let kind = condition.field("type");
        if !known.insert(condition.value.str("type")) {
            errors.duplicate(kind.path, kind.str());
        }
        kind.required("", errors);
    }
}

impl At<'_> {
    /// Whether the list contains `*`.
    fn has_wildcard(&self) -> bool {
        self.list().iter().any(|item| item.as_str() == Some("*"))
    }

    /// Rejects an empty list, and other items beside `*`. Returns whether to validate the items.
    fn all_or_some(&self, missing: &str, what: &str, errors: &mut Errors) -> bool {
        if !self.required(missing, errors) {
            return false;
        }
        if !self.has_wildcard() {
            return true;
        }
        if self.list().len() > 1 {
            self.invalid(
                format!("if '*' is present, must not specify other {what}"),
                errors,
            );
        }
        false
    }
}
