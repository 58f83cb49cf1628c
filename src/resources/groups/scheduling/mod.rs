//! Kinds of the group `scheduling.k8s.io`. Follows k8s.io/kubernetes/pkg/registry/scheduling/priorityclass/strategy.go
//! and pkg/apis/scheduling.

use crate::meta::{At, Errors, table};
use crate::resources::groups::core::pods::defaults;
use crate::resources::{Deletion, Generation, Printing, Rules};
use crate::schema::Value;

#[cfg(test)]
mod tests;

/// The highest priority of user-defined classes.
const HIGHEST_OF_USERS: i64 = 1_000_000_000;
/// The prefix of system classes' names.
const SYSTEM: &str = "system-";
/// The system classes and their priorities.
const SYSTEM_CLASSES: [(&str, i64); 2] = [
    ("system-node-critical", 2_000_001_000),
    ("system-cluster-critical", 2_000_000_000),
];

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "priorityclasses" => PRIORITY_CLASSES,
        _ => Rules::DEFAULT,
    }
}

const PRIORITY_CLASSES: Rules = Rules {
    defaults: |class, _| defaults::absent(class, "preemptionPolicy", "PreemptLowerPriority"),
    prepare_create: |class, _| {
        let meta = class.object_mut().object_mut("metadata");
        meta.insert("generation", 1);
    },
    validate: |class, old, _, errors| match old {
        None => create(class, errors),
        Some(old) => {
            let value = class.field("value");
            if value.value != old.value.at("value") {
                errors.forbidden(value.path, "may not be changed in an update.");
            }
            class
                .field("preemptionPolicy")
                .immutable(old.value.at("preemptionPolicy"), errors);
        }
    },
    printing: Printing::of(|class, now| {
        vec![
            class.at("metadata").str("name").into(),
            class.int("value").into(),
            class.bool("globalDefault").into(),
            table::age(class, now),
            class.str("preemptionPolicy").into(),
        ]
    }),
    generation: Generation::Own,
    deletion: Deletion {
        kept: |name| {
            let mut names = SYSTEM_CLASSES.iter().map(|class| class.0);
            names
                .any(|class| class == name)
                .then_some("this is a system priority class and cannot be deleted")
        },
        ..Deletion::DEFAULT
    },
    internal: "scheduling.PriorityClass",
    ..Rules::DEFAULT
};

fn create(class: At<'_>, errors: &mut Errors) {
    let (value, meta) = (class.field("value"), class.field("metadata"));
    let name = meta.field("name");
    if name.str().starts_with(SYSTEM) {
        if let Err(why) = known(class.value) {
            errors.forbidden(
                name.path,
                format!("priority class names with '{SYSTEM}' prefix are reserved for system use only. error: {why}"),
            );
        }
    } else if value.int().is_some_and(|n| n > HIGHEST_OF_USERS) {
        errors.forbidden(
            value.path,
            format!("maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}"),
        );
    }
    class
        .field("preemptionPolicy")
        .required_one_of(&["PreemptLowerPriority", "Never"], errors);
}

/// Whether a class equals one of the system classes.
fn known(class: &Value) -> Result<(), String> {
    let name = class.at("metadata").str("name");
    let Some((_, value)) = SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) else {
        return Err(format!("{name} is not a known system priority class"));
    };
    if class.int("value") != *value {
        return Err(format!("value of {name} PriorityClass must be {value}"));
    }
    if class.bool("globalDefault") {
        return Err(format!(
            "globalDefault of {name} PriorityClass must be false"
        ));
    }
    Ok(())
}
