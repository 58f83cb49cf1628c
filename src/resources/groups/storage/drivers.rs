//! CSI drivers. Follows k8s.io/kubernetes/pkg/registry/storage/csidriver/strategy.go and pkg/apis/storage/validation.

use std::collections::BTreeSet;

use crate::meta::{At, Errors, table};
use crate::resources::groups::core::pods::defaults;
use crate::resources::{Deletion, Generation, Printing, Rules};
use crate::schema::{Object, Value};
use crate::value;

const TOKENS_IN_SECRETS: &str = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes";

/// The rules of CSI drivers.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| {
        let spec = object.object_mut().entry("spec", || Object::new().into());
        defaults::absent(spec, "attachRequired", true);
        defaults::absent(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        for key in [
            "podInfoOnMount",
            "storageCapacity",
            "requiresRepublish",
            "seLinuxMount",
            "preventPodSchedulingIfMissing",
        ] {
            defaults::absent(spec, key, false);
        }
        if spec.list("volumeLifecycleModes").is_empty() {
            spec.set("volumeLifecycleModes", value!(["Persistent"]));
        }
    },
    prepare_update: |new, old, _| {
        if new.at("spec") != old.at("spec") {
            let generation = old.at("metadata").int("generation");
            let meta = new.object_mut().object_mut("metadata");
            meta.insert("generation", generation + 1);
        }
    },
    validate: |driver, old, _, errors| {
        let spec = driver.field("spec");
        self::spec(spec, errors);
        if let Some(old) = old {
            let attach = spec.field("attachRequired");
            let before = old.value.at("spec");
            if attach.value != before.at("attachRequired") {
                let path = spec.path.field("attachedRequired");
                errors.invalid(path, attach.value, "field is immutable");
            }
            spec.field("volumeLifecycleModes")
                .immutable(before.at("volumeLifecycleModes"), errors);
        }
    },
    warnings: |driver, old, _| {
        let spec = driver.at("spec");
        let requests = spec.at("tokenRequests");
        let changed = old.is_none_or(|old| old.at("spec").at("tokenRequests") != requests);
        let unset = spec.get("serviceAccountTokenInSecrets").is_none();
        if changed && unset && !requests.is_empty() {
            vec![TOKENS_IN_SECRETS.to_owned()]
        } else {
            Vec::new()
        }
    },
    printing: Printing::of(cells),
    generation: Generation::Own,
    unconditional_update: false,
    deletion: Deletion::RETURNS_OBJECT,
    internal: "storage.CSIDriver",
    ..Rules::DEFAULT
};

fn spec(spec: At<'_>, errors: &mut Errors) {
    spec.field("fsGroupPolicy")
        .one_of_if_there(&["File", "None", "ReadWriteOnceWithFSType"], errors);
    let requests = spec.field("tokenRequests");
    let mut audiences = BTreeSet::new();
    for request in requests.items() {
        let audience = request.field("audience");
        if !audiences.insert(request.value.str("audience")) {
            errors.duplicate(audience.path, audience.str());
            continue;
        }
        let seconds = request.field("expirationSeconds");
        match seconds.int() {
            Some(n) if n < 600 => {
                seconds.invalid("may not specify a duration less than 10 minutes", errors);
            }
            Some(n) if n > 1 << 32 => {
                seconds.invalid(
                    "may not specify a duration larger than 2^32 seconds",
                    errors,
                );
            }
            _ => {}
        }
    }
    let modes = spec.field("volumeLifecycleModes");
    for mode in modes.list() {
        let supported = ["Persistent", "Ephemeral"];
        if !supported.contains(&mode.as_str().unwrap_or_default()) {
            errors.not_supported(modes.path, mode, &supported);
        }
    }
    let period = spec.field("nodeAllocatableUpdatePeriodSeconds");
    if period.int().is_some_and(|seconds| seconds < 10) {
        period.invalid("must be greater than or equal to 10 seconds", errors);
    }
    let in_secrets = spec.field("serviceAccountTokenInSecrets");
    if !in_secrets.is_absent() && requests.value.is_empty() {
        in_secrets.invalid(
            "serviceAccountTokenInSecrets is set but no tokenRequests are specified",
            errors,
        );
    }
}

fn cells(driver: &Value, now: i64) -> Vec<Value> {
    let spec = driver.at("spec");
    let joined = |items: &[Value], text: fn(&Value) -> &str| {
        items.iter().map(text).collect::<Vec<_>>().join(",")
    };
    let audiences = match spec.get("tokenRequests") {
        None => "<unset>".to_owned(),
        Some(_) => joined(spec.list("tokenRequests"), |request| {
            request.str("audience")
        }),
    };
    let mut modes = joined(spec.list("volumeLifecycleModes"), |mode| {
        mode.as_str().unwrap_or_default()
    });
    if modes.is_empty() {
        "<none>".clone_into(&mut modes);
    }
    vec![
        driver.at("metadata").str("name").into(),
        (spec.at("attachRequired").as_bool().unwrap_or(true)).into(),
        spec.bool("podInfoOnMount").into(),
        spec.bool("storageCapacity").into(),
        audiences.into(),
        spec.bool("requiresRepublish").into(),
        modes.into(),
        table::age(driver, now),
    ]
}
