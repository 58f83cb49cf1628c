//! ResourceSlices: the devices of a driver. Follows k8s.io/kubernetes/pkg/registry/resource/resourceslice/strategy.go
//! and pkg/apis/resource/validation.

use super::{checks, classes, devices};
use crate::meta::errors::{Path, Reason};
use crate::meta::{At, Errors, names, table};
use crate::resources::groups::core::pods::defaults;
use crate::resources::groups::core::pods::validate::node_selector;
use crate::resources::groups::core::pods::validate::sources::driver_name;
use crate::resources::{
    Deletion, Generation, Printing, Rules, Selectable, Selection, SelectorError,
};
use crate::schema::Value;
use crate::schema::semantic::same_as;

const COUNTER_SETS: usize = 8;
const COUNTERS: usize = 32;
/// The fields of which a slice has exactly one.
const PLACES: &str =
    "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";

/// The rules of resource slices.
pub(super) const RULES: Rules = Rules {
    deletion: Deletion::RETURNS_OBJECT,
    defaults: |slice, cx| {
        if let Some(spec) = slice.get_mut("spec") {
            for device in defaults::items(spec, "devices") {
                defaults::items(device, "taints").for_each(|taint| classes::set_time(taint, cx));
            }
        }
    },
    prepare_create: |slice, _| {
        set_generation(slice, 1);
        drop_disabled(slice);
    },
    prepare_update: |slice, old, _| {
        // Dropped fields count as changes.
        if !same_as(
            "resource.ResourceSliceSpec",
            slice.at("spec"),
            old.at("spec"),
        ) {
            set_generation(slice, old.at("metadata").int("generation") + 1);
        }
        drop_disabled(slice);
    },
    validate: |slice, old, _, errors| {
        let spec = slice.field("spec");
        let before = old.map(|old| old.value.at("spec"));
        self::spec(spec, before, errors);
        declared(spec, before, errors);
    },
    warnings: |slice, _, _| {
        let driver = slice.at("spec").str("driver");
        if driver == driver.to_lowercase() {
            return Vec::new();
        }
        vec![format!(
            "spec.driver: driver names should be lowercase; {} contains uppercase characters",
            crate::meta::errors::quoted(driver)
        )]
    },
    printing: Printing::of(|slice, now| {
        let spec = slice.at("spec");
        vec![
            slice.at("metadata").str("name").into(),
            spec.str("nodeName").into(),
            spec.str("driver").into(),
            spec.at("pool").str("name").into(),
            table::age(slice, now),
        ]
    }),
    selection: Selection {
        by_namespace: false,
        refusal: SelectorError::WithKind,
        fields: &[
            Selectable {
                name: "spec.nodeName",
                value: |slice| slice.at("spec").str("nodeName").to_owned(),
            },
            Selectable {
                name: "spec.driver",
                value: |slice| slice.at("spec").str("driver").to_owned(),
            },
            Selectable {
                name: "spec.pool.name",
                value: |slice| slice.path(&["spec", "pool"]).str("name").to_owned(),
            },
        ],
        trigger: Some("spec.nodeName"),
        ..Selection::DEFAULT
    },
    generation: Generation::Own,
    internal: "resource.ResourceSlice",
    ..Rules::DEFAULT
};

fn set_generation(slice: &mut Value, generation: i64) {
    let meta = slice.object_mut().object_mut("metadata");
    meta.insert("generation", generation);
}

/// Drops fields of features that are disabled by default.
fn drop_disabled(slice: &mut Value) {
    let Some(spec) = slice.get_mut("spec") else {
        return;
    };
    spec.remove("partitionTypeAttribute");
    spec.remove("skipNodeOperations");
    defaults::items(spec, "devices").for_each(devices::drop_disabled);
}

fn spec(spec: At<'_>, old: Option<&Value>, errors: &mut Errors) {
    let driver = spec.field("driver");
    driver_name(driver, errors);
    let pool = spec.field("pool");
    let (name, node) = (pool.field("name"), spec.field("nodeName"));
    checks::pool_name(name, errors);
    let count = pool.field("resourceSliceCount");
    if count.int().unwrap_or(0) <= 0 {
        let number = count.int().unwrap_or(0);
        errors.invalid(count.path, number, "must be greater than zero");
    }
    let generation = pool.field("generation");
    if generation.int().is_some_and(|n| n < 0) {
        generation.invalid("must be greater than or equal to zero", errors);
    }
    if let Some(old) = old {
        name.immutable(old.at("pool").at("name"), errors);
        driver.immutable(old.at("driver"), errors);
        node.immutable(old.at("nodeName"), errors);
    }
    places(spec, errors);
    let (counters, list) = (spec.field("sharedCounters"), spec.field("devices"));
    if !counters.is_absent() && !list.is_absent() {
        let why = "only one of `sharedCounters` or `devices` is allowed";
        errors.invalid(spec.path, "", why);
    }
    let advanced = |device: &Value| {
        !device.list("taints").is_empty() || !device.list("consumesCounters").is_empty()
    };
    let most = if list.list().iter().any(advanced) {
        64
    } else {
        128
    };
    if checks::few(list, most, errors) {
        let per_device = spec.value.bool("perDeviceNodeSelection");
        for device in list.items() {
            let name = device.value.str("name");
            let old = old.and_then(|old| {
                let mut devices = old.list("devices").iter();
                devices.find(|device| device.str("name") == name)
            });
            devices::device(device, old, per_device, errors);
        }
        let mut seen = std::collections::BTreeSet::new();
        for device in list.items() {
            let name = device.value.str("name");
            if !seen.insert(name) {
                errors.duplicate(device.path, name);
            }
        }
    }
    if counters.list().len() <= COUNTER_SETS {
        for set in counters.items() {
            too_many_counters(set.field("counters"), errors);
        }
    }
}

/// Rejects too many counters, which upstream does not validate declaratively.
pub(super) fn too_many_counters(counters: At<'_>, errors: &mut Errors) {
    let count = counters.entries().count();
    if count > COUNTERS {
        errors.too_many(counters.path, count, COUNTERS);
    }
}

/// Requires exactly one of the four fields that specify the nodes.
fn places(spec: At<'_>, errors: &mut Errors) {
    let mut said = Vec::new();
    let node = spec.field("nodeName");
    match node.value.as_str() {
        None => {}
        Some("") => node.invalid("must be either unset or set to a non-empty string", errors),
        Some(_) => {
            said.push("nodeName");
            node.checked(|name| names::subdomain_name(name, false), errors);
        }
    }
    let selector = spec.field("nodeSelector");
    if !selector.is_absent() {
        said.push("nodeSelector");
        node_selector(selector, || false, errors);
        let terms = selector.field("nodeSelectorTerms");
        if terms.list().len() != 1 {
            let why = "must have exactly one node selector term";
            terms.invalid_dump("[]core.NodeSelectorTerm", why, errors);
        }
    }
    for name in ["allNodes", "perDeviceNodeSelection"] {
        let field = spec.field(name);
        match field.value.as_bool() {
            None => {}
            Some(true) => said.push(name),
            Some(false) => field.invalid("must be either unset or set to true", errors),
        }
    }
    one_place(
        spec.path,
        &said,
        PLACES,
        ", but multiple fields are set",
        errors,
    );
}

/// Requires exactly one of some fields.
pub(super) fn one_place(
    path: Path<'_>,
    said: &[&str],
    why: &str,
    several: &str,
    errors: &mut Errors,
) {
    match said.len() {
        0 => errors.required(path, why),
        1 => {}
        _ => {
            let shown = checks::several(said);
            let message = format!("Invalid value: {shown}: {why}{several}");
            errors.push(Reason::Invalid, path, message);
        }
    }
}

fn declared(spec: At<'_>, old: Option<&Value>, errors: &mut Errors) {
    let changed = |name: &str| old.is_none_or(|old| old.at(name) != spec.value.at(name));
    if changed("devices") {
        spec.field("devices")
            .items()
            .for_each(|device| devices::declared(device, errors));
    }
    let counters = spec.field("sharedCounters");
    if changed("sharedCounters") && checks::few(counters, COUNTER_SETS, errors) {
        checks::unique(counters, |set| set.str("name"), errors);
        for set in counters.items() {
            checks::declared_name(set.field("name"), names::short_name, errors);
            checks::declared_counters(set.field("counters"), errors);
        }
    }
}
