//! Kinds of the group `admissionregistration.k8s.io`: webhooks and policies. Follows
//! k8s.io/kubernetes/pkg/registry/admissionregistration and pkg/apis/admissionregistration.

mod bindings;
mod configurations;
mod matching;
mod params;
mod policies;
#[cfg(test)]
mod tests;

use crate::meta::{At, Errors};
use crate::resources::groups::core::pods::defaults;
use crate::resources::{Generation, Rules};
use crate::schema::{Object, Value};

/// The values of `failurePolicy`.
const FAILURES: &[&str] = &["Fail", "Ignore"];
/// The values of `matchPolicy`.
const MATCHES: &[&str] = &["Equivalent", "Exact"];
/// The values of `reinvocationPolicy`.
const REINVOCATIONS: &[&str] = &["IfNeeded", "Never"];
/// The suffix of the names of objects that are configured by files.
const STATIC: &str = ".static.k8s.io";

/// What all kinds have in common.
const COMMON: Rules = Rules {
    generation: Generation::AllButStatusAsSaid,
    unconditional_update: false,
    warnings: |object, old, _| static_warning(object, old).into_iter().collect(),
    ..Rules::DEFAULT
};

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "mutatingwebhookconfigurations" => configurations::MUTATING,
        "validatingwebhookconfigurations" => configurations::VALIDATING,
        "mutatingadmissionpolicies" => policies::MUTATING,
        "validatingadmissionpolicies" => policies::VALIDATING,
        "mutatingadmissionpolicybindings" => bindings::MUTATING,
        "validatingadmissionpolicybindings" => bindings::VALIDATING,
        _ => Rules::DEFAULT,
    }
}

fn reserved() -> String {
    format!(
        "names ending with \"{STATIC}\" are reserved for static manifest-based configurations and cannot be managed via the API"
    )
}

/// Rejects the reserved suffix in names of new objects: ValidateStaticSuffix.
fn static_name(object: At<'_>, old: Option<At<'_>>, errors: &mut Errors) {
    let meta = object.field("metadata");
    let name = meta.field("name");
    if old.is_none() && name.str().ends_with(STATIC) {
        name.invalid(reserved(), errors);
    }
}

/// Warns about an existing object with the reserved suffix.
fn static_warning(object: &Value, old: Option<&Value>) -> Option<String> {
    let name = object.at("metadata").str("name");
    (old.is_some() && name.ends_with(STATIC)).then(|| format!("metadata.name: {}", reserved()))
}

/// Sets defaults that match everything.
fn match_defaults(owner: &mut Value) {
    defaults::absent(owner, "matchPolicy", "Equivalent");
    defaults::absent(owner, "namespaceSelector", Object::new());
    defaults::absent(owner, "objectSelector", Object::new());
    for list in ["rules", "resourceRules", "excludeResourceRules"] {
        for rule in defaults::items(owner, list) {
            defaults::absent(rule, "scope", "*");
        }
    }
}
