//! DeviceClasses and DeviceTaintRules. Follows k8s.io/kubernetes/pkg/registry/resource/deviceclass and
//! devicetaintrule, and pkg/apis/resource/validation.

use super::checks;
use crate::meta::{At, Errors, names, table, time};
use crate::resources::groups::core::pods::validate::sources::driver_name;
use crate::resources::{
    Cx, Deletion, Generation, MetaOnStatus, Naming, Printing, Rules, StatusRules, metadata,
};
use crate::schema::Value;

/// The rules of device classes.
pub(super) const CLASSES: Rules = Rules {
    deletion: Deletion::RETURNS_OBJECT,
    validate: |class, old, cx, errors| {
        metadata::again(class, old, cx, errors);
        let spec = class.field("spec");
        let (selectors, config) = (spec.field("selectors"), spec.field("config"));
        checks::selectors(selectors, errors);
        if config.list().len() <= 32 {
            config
                .items()
                .for_each(|config| checks::configuration(config, errors));
        }
        if old.is_none() {
            let meta = class.field("metadata");
            meta.field("name").checked_if_said(names::long_name, errors);
        }
        let before = old.map(|old| old.value.at("spec"));
        let changed = |name: &str| before.is_none_or(|old| old.at(name) != spec.value.at(name));
        if changed("selectors") {
            checks::few(selectors, 32, errors);
        }
        if changed("config") && checks::few(config, 32, errors) {
            config
                .items()
                .for_each(|config| checks::declared_configuration(config, errors));
        }
        if changed("extendedResourceName") {
            extended_resource(spec.field("extendedResourceName"), errors);
        }
    },
    naming: Naming {
        // The name is validated declaratively, that is last; name prefixes are not validated.
        validate: |_, _| Vec::new(),
        ..Naming::DEFAULT
    },
    generation: Generation::Spec,
    internal: "resource.DeviceClass",
    ..Rules::DEFAULT
};

/// Declarative validation of the name of an extended resource.
fn extended_resource(name: At<'_>, errors: &mut Errors) {
    if name.is_absent() {
        return;
    }
    if !name.str().contains('/') {
        let why = "a name must be a domain-prefixed path, such as 'example.com/my-prop'";
        name.invalid(why, errors);
    } else if name.str().contains("kubernetes.io/") {
        name.invalid("must not have \"kubernetes.io/\" domain", errors);
    }
    if name.str().starts_with("requests.") {
        name.invalid("must not have \"requests.\" prefix", errors);
    }
    name.invalid_each(
        names::qualified_name(&format!("requests.{}", name.str())),
        errors,
    );
}

/// The rules of device taint rules.
pub(super) const TAINT_RULES: Rules = Rules {
    printing: Printing::of(|rule, now| {
        let taint = rule.path(&["spec", "taint"]);
        vec![
            rule.at("metadata").str("name").into(),
            taint.str("key").into(),
            taint.str("value").into(),
            taint.str("effect").into(),
            match taint.get("timeAdded") {
                Some(added) => table::since(added, now),
                None => "".into(),
            },
            table::age(rule, now),
        ]
    }),
    defaults: |rule, cx| {
        if let Some(taint) = rule.get_mut("spec").and_then(|spec| spec.get_mut("taint")) {
            set_time(taint, cx);
        }
    },
    prepare_update: |rule, old, cx| {
        let before = old.path(&["spec", "taint"]);
        if let Some(taint) = rule.get_mut("spec").and_then(|spec| spec.get_mut("taint"))
            && taint.str("effect") != before.str("effect")
            && taint.at("timeAdded") == before.at("timeAdded")
        {
            taint.set("timeAdded", time::print(cx.now));
        }
    },
    validate: |rule, old, _, errors| {
        let spec = rule.field("spec");
        let selector = spec.field("deviceSelector");
        if !selector.is_absent() {
            let (driver, pool) = (selector.field("driver"), selector.field("pool"));
            if !driver.is_absent() {
                driver_name(driver, errors);
            }
            if !pool.is_absent() {
                checks::pool_name(pool, errors);
            }
            selector
                .field("device")
                .checked_if_there(names::dns1123_label, errors);
        }
        let taint = spec.field("taint");
        checks::taint(taint, errors);
        if old.is_none_or(|old| old.value.path(&["spec", "taint"]) != taint.value) {
            checks::declared_taint(taint, errors);
        }
    },
    status: StatusRules {
        validate: |rule, _, _, errors| {
            let status = rule.field("status");
            let list = status.field("conditions");
            list.conditions(errors);
            checks::few(list, 8, errors);
        },
        metadata: MetaOnStatus::Kept,
        ..StatusRules::DEFAULT
    },
    generation: Generation::Spec,
    unconditional_update: false,
    internal: "resource.DeviceTaintRule",
    ..Rules::DEFAULT
};

/// Sets the time of a taint to now if it is absent.
pub(super) fn set_time(taint: &mut Value, cx: &Cx<'_>) {
    taint
        .object_mut()
        .set_default("timeAdded", time::print(cx.now));
}
