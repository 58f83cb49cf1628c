//! Kinds of the group `policy`. Follows k8s.io/kubernetes/pkg/registry/policy/poddisruptionbudget/strategy.go and
//! pkg/apis/policy.

use crate::meta::{At, Errors, names, table};
use crate::resources::{Generation, Naming, Printing, Rules, StatusRules};
use crate::schema::Value;
use crate::schema::semantic::same_as;
use crate::value;

#[cfg(test)]
mod tests;

/// The label with which selectors of v1beta1 selected everything or nothing; v1 does not use it.
const V1BETA1_LABEL: &str = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match";

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "poddisruptionbudgets" => POD_DISRUPTION_BUDGETS,
        _ => Rules::DEFAULT,
    }
}

const POD_DISRUPTION_BUDGETS: Rules = Rules {
    prepare_create: |budget, _| {
        set_generation(budget, 1);
        strip(budget);
    },
    prepare_update: |budget, old, _| {
        let (spec, was) = (budget.at("spec"), old.at("spec"));
        let kept = spec.at("selector") == was.at("selector");
        // The label counts as a change, although it is removed then.
        if !same_as("policy.PodDisruptionBudgetSpec", spec, was) {
            set_generation(budget, old.at("metadata").int("generation") + 1);
        }
        if !kept {
            strip(budget);
        }
    },
    validate: |budget, old, _, errors| {
        let spec = budget.field("spec");
        let any_value = old.is_some_and(|old| {
            let spec = old.field("spec");
            spec.field("selector").is_bad_selector()
        });
        self::spec(spec, any_value, errors);
    },
    status: StatusRules::validated_by(|budget, _, _, errors| {
        let status = budget.field("status");
        status.field("conditions").conditions(errors);
        for field in [
            "disruptionsAllowed",
            "currentHealthy",
            "desiredHealthy",
            "expectedPods",
        ] {
            status.field(field).non_negative(errors);
        }
    }),
    printing: Printing::of(|budget, now| {
        let spec = budget.at("spec");
        let amount = |key: &str| match spec.at(key) {
            Value::Null => "N/A".into(),
            Value::Int(number) => number.to_string().into(),
            text => text.clone(),
        };
        vec![
            budget.at("metadata").str("name").into(),
            amount("minAvailable"),
            amount("maxUnavailable"),
            budget.at("status").int("disruptionsAllowed").into(),
            table::age(budget, now),
        ]
    }),
    naming: Naming::validated_by(|name, _| names::path_segment(name)),
    metadata_last: true,
    generation: Generation::Own,
    unconditional_update: false,
    internal: "policy.PodDisruptionBudget",
    ..Rules::DEFAULT
};

fn set_generation(budget: &mut Value, generation: i64) {
    let meta = budget.object_mut().object_mut("metadata");
    meta.insert("generation", generation);
}

fn spec(spec: At<'_>, any_value: bool, errors: &mut Errors) {
    let amounts = [spec.field("minAvailable"), spec.field("maxUnavailable")];
    if amounts.iter().all(|amount| !amount.is_absent()) {
        spec.invalid_dump(
            "policy.PodDisruptionBudgetSpec",
            "minAvailable and maxUnavailable cannot be both set",
            errors,
        );
    }
    for amount in amounts {
        amount.int_or_percent(errors);
        amount.at_most_all(errors);
    }
    spec.field("selector").label_selector(any_value, errors);
    spec.field("unhealthyPodEvictionPolicy")
        .one_of_if_there(&["AlwaysAllow", "IfHealthyBudget"], errors);
}

/// Removes v1beta1's label from a selector that also contains something else.
fn strip(budget: &mut Value) {
    let Some(selector) = budget
        .get_mut("spec")
        .and_then(|spec| spec.get_mut("selector"))
    else {
        return;
    };
    let none = value!({"matchExpressions": [{"key": V1BETA1_LABEL, "operator": "Exists"}]});
    if *selector == none {
        return;
    }
    if let Some(expressions) = selector
        .get_mut("matchExpressions")
        .and_then(Value::as_array_mut)
    {
        expressions.retain(|expression| expression.str("key") != V1BETA1_LABEL);
    }
}
