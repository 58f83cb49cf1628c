//! CSI nodes. Follows k8s.io/kubernetes/pkg/registry/storage/csinode/strategy.go and pkg/apis/storage/validation.

use std::collections::HashMap;

use std::collections::BTreeSet;

use crate::meta::{At, Errors, names, table};
use crate::resources::groups::core::pods::validate::sources::driver_name;
use crate::resources::{Deletion, MetaOnStatus, Printing, Rules, StatusRules, metadata};
use crate::schema::Value;

/// The maximum length of a node ID, in bytes.
const NODE_ID_SIZE: usize = 256;

/// The rules of CSI nodes.
pub(super) const RULES: Rules = Rules {
    status: StatusRules {
        // Node health is a disabled feature: kept only if the old object has it.
        prepare: |new, old, _| {
            if old.at("status").list("storageHealth").is_empty()
                && let Some(status) = new.get_mut("status")
            {
                status.remove("storageHealth");
            }
        },
        metadata: MetaOnStatus::Kept,
        ..StatusRules::DEFAULT
    },
    validate: |node, old, cx, errors| {
        metadata::again(node, old, cx, errors);
        let drivers = node.field("spec");
        let drivers = drivers.field("drivers");
        self::drivers(drivers, errors);
        let before = old.map_or(&[][..], |old| old.value.at("spec").list("drivers"));
        let mut named: HashMap<&str, Vec<&Value>> = HashMap::new();
        for now in drivers.list() {
            named.entry(now.str("name")).or_default().push(now);
        }
        for was in before {
            for now in named.get(was.str("name")).into_iter().flatten() {
                let (now, was) = (fixed(now), fixed(was));
                if now != was {
                    let shown = crate::schema::internal::shown(&now, "storage.CSINodeDriver");
                    errors.invalid_shown(drivers.path, &shown, "field is immutable");
                }
            }
        }
    },
    printing: Printing::of(|node, now| {
        let drivers = node.at("spec").list("drivers").len();
        vec![
            node.at("metadata").str("name").into(),
            Value::Int(i64::try_from(drivers).unwrap_or(i64::MAX)),
            table::age(node, now),
        ]
    }),
    unconditional_update: false,
    deletion: Deletion::RETURNS_OBJECT,
    internal: "storage.CSINode",
    ..Rules::DEFAULT
};

/// A driver without its mutable fields.
fn fixed(driver: &Value) -> Value {
    let mut driver = driver.clone();
    driver.remove("allocatable");
    driver
}

fn drivers(drivers: At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for driver in drivers.items() {
        let name = driver.field("name");
        driver_name(name, errors);
        let id = driver.field("nodeID");
        id.required("", errors);
        if id.str().len() > NODE_ID_SIZE {
            id.invalid(format!("must be {NODE_ID_SIZE} characters or less"), errors);
        }
        let allocatable = driver.field("allocatable");
        allocatable.field("count").non_negative(errors);
        if !seen.insert(driver.value.str("name")) {
            errors.duplicate(name.path, name.str());
        }
        let mut keys = BTreeSet::new();
        for key in driver.field("topologyKeys").items() {
            if key.str().is_empty() {
                errors.required(driver.path, "");
            }
            if !keys.insert(key.str()) {
                errors.duplicate(driver.path, key.str());
            }
            for wrong in names::qualified_name(key.str()) {
                errors.invalid(driver.path, key.str(), wrong);
            }
        }
    }
}
