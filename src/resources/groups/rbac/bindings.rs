//! Bindings of roles.

use super::{COMMON, GROUP};
use crate::meta::{At, Errors, names, table};
use crate::resources::groups::core::pods::defaults;
use crate::resources::{Printing, Rules, metadata};
use crate::schema::Value;

/// The rules of role bindings.
pub(super) const ROLE_BINDINGS: Rules = Rules {
    validate: |binding, old, cx, errors| {
        metadata::again(binding, old, cx, errors);
        validate(binding, old, &["Role", "ClusterRole"], errors);
    },
    internal: "rbac.RoleBinding",
    ..BINDINGS
};

/// The rules of cluster role bindings.
pub(super) const CLUSTER_ROLE_BINDINGS: Rules = Rules {
    validate: |binding, old, cx, errors| {
        metadata::again(binding, old, cx, errors);
        validate(binding, old, &["ClusterRole"], errors);
    },
    internal: "rbac.ClusterRoleBinding",
    ..BINDINGS
};

const BINDINGS: Rules = Rules {
    defaults: |binding, _| {
        let reference = binding.object_mut().object_mut("roleRef");
        let mut reference = Value::Object(std::mem::take(reference));
        defaults::text(&mut reference, "apiGroup", GROUP);
        binding.set("roleRef", reference);
        for subject in defaults::items(binding, "subjects") {
            if matches!(subject.str("kind"), "User" | "Group") {
                defaults::text(subject, "apiGroup", GROUP);
            }
        }
    },
    printing: Printing::of(cells),
    ..COMMON
};

fn validate(binding: At<'_>, old: Option<At<'_>>, kinds: &[&str], errors: &mut Errors) {
    let namespaced = kinds.contains(&"Role");
    let reference = binding.field("roleRef");
    let changed = old.is_some_and(|old| old.value.at("roleRef") != reference.value);
    let name = reference.field("name");
    reference.field("apiGroup").one_of(&[GROUP], errors);
    reference.field("kind").one_of(kinds, errors);
    // Upstream reports declarative validation last; for a changed reference only that it is immutable.
    if changed {
        name.required("", errors);
    }
    name.checked_if_said(names::path_segment, errors);
    let subjects = binding.field("subjects");
    for subject in subjects.items() {
        self::subject(subject, namespaced, errors);
    }
    if changed {
        reference.invalid_dump("rbac.RoleRef", "field is immutable", errors);
    }
    for subject in subjects.items() {
        subject.field("name").required("", errors);
    }
    name.required("", errors);
}

fn subject(subject: At<'_>, namespaced: bool, errors: &mut Errors) {
    let group = subject.field("apiGroup");
    match subject.value.str("kind") {
        "ServiceAccount" => {
            subject
                .field("name")
                .checked_if_said(names::dns1123_subdomain, errors);
            if !group.str().is_empty() {
                group.one_of(&[""], errors);
            }
            if !namespaced {
                subject.field("namespace").required("", errors);
            }
        }
        "User" | "Group" => group.one_of(&[GROUP], errors),
        _ => subject
            .field("kind")
            .one_of(&["ServiceAccount", "User", "Group"], errors),
    }
}

fn cells(binding: &Value, now: i64) -> Vec<Value> {
    let reference = binding.at("roleRef");
    let subjects = |kind: &str, text: fn(&Value) -> String| -> Value {
        let of_kind = binding.list("subjects").iter();
        let names: Vec<String> = of_kind
            .filter(|subject| subject.str("kind") == kind)
            .map(text)
            .collect();
        names.join(", ").into()
    };
    let name = |subject: &Value| subject.str("name").to_owned();
    vec![
        binding.at("metadata").str("name").into(),
        format!("{}/{}", reference.str("kind"), reference.str("name")).into(),
        table::age(binding, now),
        subjects("User", name),
        subjects("Group", name),
        subjects("ServiceAccount", |subject| {
            format!("{}/{}", subject.str("namespace"), subject.str("name"))
        }),
    ]
}
