//! Leases. Follows k8s.io/kubernetes/pkg/registry/coordination/lease/strategy.go and pkg/apis/coordination.

use crate::meta::{At, Errors, names, table};
use crate::resources::{Printing, Rules};
use crate::schema::{Object, Value};

/// The rules of leases.
pub(super) const LEASES: Rules = Rules {
    prepare_create: |lease, _| drop_disabled(lease, &Value::Null),
    prepare_update: |lease, old, _| drop_disabled(lease, old),
    validate: |lease, _, _, errors| spec(lease.field("spec"), errors),
    printing: Printing::of(|lease, now| {
        vec![
            lease.at("metadata").str("name").into(),
            lease.at("spec").str("holderIdentity").into(),
            table::age(lease, now),
        ]
    }),
    create_on_update: true,
    unconditional_update: false,
    internal: "coordination.Lease",
    ..Rules::DEFAULT
};

/// Drops the fields of coordinated leader election, a disabled feature.
fn drop_disabled(lease: &mut Value, old: &Value) {
    let Some(spec) = lease.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let drop = |spec: &mut Object, key: &str| {
        if old.at("spec").get(key).is_none() {
            spec.remove(key);
        }
    };
    drop(spec, "strategy");
    drop(spec, "preferredHolder");
}

fn spec(spec: At<'_>, errors: &mut Errors) {
    let seconds = spec.field("leaseDurationSeconds");
    if seconds.int().is_some_and(|n| n <= 0) {
        seconds.invalid("must be greater than 0", errors);
    }
    spec.field("leaseTransitions").non_negative(errors);
    let strategy = spec.field("strategy");
    if !strategy.is_absent() {
        self::strategy(strategy, errors);
    }
    let holder = spec.field("preferredHolder");
    if !holder.str().is_empty() && strategy.str().is_empty() {
        holder.forbid("may only be specified if `strategy` is defined", errors);
    }
}

/// ValidateCoordinatedLeaseStrategy, whose paths contain the field twice.
fn strategy(strategy: At<'_>, errors: &mut Errors) {
    let twice = strategy.path.field("strategy");
    let strategy = At {
        value: strategy.value,
        path: twice,
    };
    if strategy.str().contains('/') {
        strategy.checked(names::qualified_name, errors);
    } else {
        strategy.one_of(&["OldestEmulationVersion"], errors);
    }
}
