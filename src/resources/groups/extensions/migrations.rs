//! StorageVersionMigrations. Follows
//! k8s.io/kubernetes/pkg/registry/storagemigration/storagemigration/strategy.go and pkg/apis/storagemigration.

use crate::meta::names::{self, Wrong};
use crate::meta::{At, Errors, conditions};
use crate::resources::{MetaOnStatus, Printing, Rules, StatusRules, metadata};
use crate::schema::Value;

/// The rules of storage version migrations.
pub(super) const MIGRATIONS: Rules = Rules {
    validate: |migration, old, cx, errors| {
        metadata::again(migration, old, cx, errors);
        let spec = migration.field("spec");
        resource(spec.field("resource"), errors);
        if old.is_some_and(|old| old.value.at("spec") != spec.value) {
            spec.invalid_dump(
                "storagemigration.StorageVersionMigrationSpec",
                "field is immutable",
                errors,
            );
        }
    },
    status: StatusRules {
        validate: |migration, old, _, errors| {
            status(migration.field("status"), old.value.at("status"), errors);
        },
        metadata: MetaOnStatus::Kept,
        ..StatusRules::DEFAULT
    },
    printing: Printing::of(|migration, _| {
        let resource = migration.at("spec").at("resource");
        let (group, plural) = (resource.str("group"), resource.str("resource"));
        let shown = if group.is_empty() {
            plural.to_owned()
        } else {
            format!("{plural}.{group}")
        };
        let state = migration
            .at("status")
            .list("conditions")
            .iter()
            .rfind(|condition| {
                condition.str("status") == "True"
                    && matches!(condition.str("type"), "Running" | "Failed" | "Succeeded")
            })
            .map_or("Unknown", |condition| condition.str("type"));
        vec![
            migration.at("metadata").str("name").into(),
            shown.into(),
            state.into(),
        ]
    }),
    unconditional_update: false,
    internal: "storagemigration.StorageVersionMigration",
    ..Rules::DEFAULT
};

fn resource(resource: At<'_>, errors: &mut Errors) {
    let (plural, group) = (resource.field("resource"), resource.field("group"));
    if plural.required("resource is required to be set", errors) {
        plural.checked_at_once(names::dns1035_label, errors);
    }
    if !group.str().is_empty() {
        group.checked_at_once(names::dns1123_subdomain, errors);
    }
}

fn status(status: At<'_>, old: &Value, errors: &mut Errors) {
    let (version, list) = (status.field("resourceVersion"), status.field("conditions"));
    if !version.str().is_empty() && !is_version(version.str()) {
        let why = format!("resource version is not well formed: {}", version.str());
        version.invalid(why, errors);
    }
    list.conditions(errors);
    let was = old.str("resourceVersion");
    if !was.is_empty() && was != version.str() {
        version.invalid_text("field is immutable", errors);
    }
    let now = |kind: &str| conditions::holds(list.list(), kind);
    let before = |kind: &str| conditions::holds(old.list("conditions"), kind);
    let mut refuse = |why: &str| {
        list.invalid(why, errors);
    };
    if now("Succeeded") && now("Failed") {
        refuse("Both success and failed conditions cannot be true at the same time");
    }
    if before("Succeeded") && !now("Succeeded") {
        refuse("Success condition cannot be set to false once it is true");
    }
    if before("Failed") && !now("Failed") {
        refuse("Failed condition cannot be set to false once it is true");
    }
}

/// Whether the text is a resourceVersion: digits without leading zeros.
fn is_version(text: &str) -> bool {
    !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit())
}

impl At<'_> {
    /// Reports all that `check` finds in one error.
    fn checked_at_once(&self, check: fn(&str) -> Wrong, errors: &mut Errors) {
        let wrong = check(self.str());
        if !wrong.is_empty() {
            self.invalid(wrong.join(","), errors);
        }
    }
}
