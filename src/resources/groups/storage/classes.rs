//! Storage classes and volume attributes classes. Follows k8s.io/kubernetes/pkg/registry/storage/{storageclass,
//! volumeattributesclass}/strategy.go and pkg/apis/storage/validation.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::meta::{At, Errors, names, table};
use crate::resources::groups::core::pods::defaults;
use crate::resources::groups::core::pods::warnings::old_label;
use crate::resources::{Deletion, Printing, Rules, metadata};

/// The maximum number of parameters of a class.
const PARAMETERS: usize = 512;
/// The maximum total size of parameters, in bytes.
const PARAMETERS_SIZE: usize = 256 << 10;

/// The rules of storage classes.
pub(super) const STORAGE: Rules = Rules {
    defaults: |object, _| {
        defaults::absent(object, "reclaimPolicy", "Delete");
        defaults::absent(object, "volumeBindingMode", "Immediate");
    },
    validate: |class, old, cx, errors| {
        metadata::again(class, old, cx, errors);
        validate(class, old, errors);
    },
    warnings: |class, _, _| {
        let mut warnings = Vec::new();
        for (i, topology) in class.list("allowedTopologies").iter().enumerate() {
            for (j, expression) in topology.list("matchLabelExpressions").iter().enumerate() {
                if let Some(why) = old_label(expression.str("key")) {
                    warnings.push(format!(
                        "allowedTopologies[{i}].matchLabelExpressions[{j}].key: {why}"
                    ));
                }
            }
        }
        warnings
    },
    printing: Printing {
        cells: |object, now| {
            vec![
                object.at("metadata").str("name").into(),
                object.str("provisioner").into(),
                object.str("reclaimPolicy").into(),
                object.str("volumeBindingMode").into(),
                object.bool("allowVolumeExpansion").into(),
                table::age(object, now),
            ]
        },
        default_row: |classes| metadata::newest_marked(classes, &metadata::DEFAULT_STORAGE_CLASS),
        ..Printing::DEFAULT
    },
    deletion: Deletion::RETURNS_OBJECT,
    internal: "storage.StorageClass",
    ..Rules::DEFAULT
};

/// The rules of volume attributes classes.
pub(super) const ATTRIBUTES: Rules = Rules {
    validate: |class, old, cx, errors| {
        metadata::again(class, old, cx, errors);
        let (driver, parameters) = (class.field("driverName"), class.field("parameters"));
        if let Some(old) = old {
            for field in [driver, parameters] {
                let was = field.path.to_string();
                if field.value != old.value.at(&was) {
                    errors.forbidden(field.path, format!("updates to {was} are forbidden."));
                }
            }
        }
        if driver.required("", errors) {
            provisioner(driver, errors);
        }
        self::parameters(parameters, false, errors);
    },
    printing: Printing::of(|object, now| {
        vec![
            object.at("metadata").str("name").into(),
            object.str("driverName").into(),
            table::age(object, now),
        ]
    }),
    deletion: Deletion::RETURNS_OBJECT,
    internal: "storage.VolumeAttributesClass",
    ..Rules::DEFAULT
};

fn validate(class: At<'_>, old: Option<At<'_>>, errors: &mut Errors) {
    let driver = class.field("provisioner");
    if !driver.str().is_empty() {
        provisioner(driver, errors);
    }
    parameters(class.field("parameters"), true, errors);
    let policy = class.field("reclaimPolicy");
    if !policy.str().is_empty() {
        policy.one_of(&["Delete", "Retain"], errors);
    }
    let mode = class.field("volumeBindingMode");
    if mode.is_absent() {
        errors.required(mode.path, "");
    } else {
        mode.one_of(&["Immediate", "WaitForFirstConsumer"], errors);
    }
    topologies(class.field("allowedTopologies"), errors);
    // Upstream reports declarative validation last.
    let changed = |name: &str| old.map(|old| old.value.at(name));
    driver.required("", errors);
    for name in [
        "provisioner",
        "parameters",
        "reclaimPolicy",
        "volumeBindingMode",
    ] {
        if let Some(old) = changed(name) {
            class.field(name).frozen(old, "", errors);
        }
    }
}

fn provisioner(name: At<'_>, errors: &mut Errors) {
    let lower = name.str().to_lowercase();
    for wrong in names::qualified_name(&lower) {
        errors.invalid(name.path, &lower, wrong);
    }
}

fn parameters(parameters: At<'_>, may_be_empty: bool, errors: &mut Errors) {
    if parameters.entries().count() > PARAMETERS {
        errors.too_long(parameters.path, PARAMETERS);
        return;
    }
    let mut size = 0;
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            errors.invalid(parameters.path, "", "field can not be empty.");
        }
        size += key.len() + value.str().len();
    }
    if size > PARAMETERS_SIZE {
        errors.too_long(parameters.path, PARAMETERS_SIZE);
    }
    if !may_be_empty && parameters.value.is_empty() {
        errors.required(parameters.path, "must contain at least one key/value pair");
    }
}

fn topologies(topologies: At<'_>, errors: &mut Errors) {
    let mut seen: HashMap<BTreeMap<&str, BTreeSet<&str>>, usize> = HashMap::new();
    for (term, value) in topologies.items().zip(topologies.list()) {
        let expressions = term.field("matchLabelExpressions");
        let mut values_by_key = BTreeMap::new();
        let raw = value.list("matchLabelExpressions");
        for (expression, raw) in expressions.items().zip(raw) {
            let mut set = BTreeSet::new();
            let values = expression.field("values");
            values.required("", errors);
            for (value, raw) in values.items().zip(raw.list("values")) {
                if !set.insert(raw.as_str().unwrap_or_default()) {
                    errors.duplicate(value.path, value.str());
                }
            }
            let key = expression.field("key");
            key.checked(names::qualified_name, errors);
            if values_by_key.insert(raw.str("key"), set).is_some() {
                errors.duplicate(key.path, key.str());
            }
        }
        // Upstream compares with as many empty terms as there are terms: a term without expressions is a duplicate
        // of each of them.
        let empty = topologies.list().len();
        let more = if values_by_key.is_empty() { empty } else { 0 };
        let before = seen.entry(values_by_key).or_default();
        for _ in 0..*before + more {
            if errors.is_full() {
                return;
            }
            errors.duplicate(expressions.path, "");
        }
        *before += 1;
    }
}
