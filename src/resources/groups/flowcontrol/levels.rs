//! Priority levels: limits for concurrent requests.

use super::{COMMON, conditions, mandatory};
use crate::meta::{At, Errors, table};
use crate::resources::groups::core::pods::defaults;
use crate::resources::{Printing, Rules, metadata};
use crate::schema::Value;

/// The maximum number of queues of a level.
const QUEUES: i64 = 10_000_000;
/// The number of bits of a hash for choosing queues.
const HASH_BITS: i64 = 60;
/// The annotation with which older versions kept zero shares.
const ZERO_SHARES: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";

/// The rules of priority level configurations.
pub(super) const RULES: Rules = Rules {
    defaults: |level, _| {
        let Some(spec) = level.get_mut("spec") else {
            return;
        };
        for (kind, shares) in [("exempt", 0), ("limited", 30)] {
            if let Some(settings) = spec.get_mut(kind) {
                defaults::absent(settings, "nominalConcurrencyShares", shares);
                defaults::absent(settings, "lendablePercent", 0);
            }
        }
        let queuing = spec
            .get_mut("limited")
            .and_then(|limited| limited.get_mut("limitResponse"))
            .and_then(|response| response.get_mut("queuing"));
        if let Some(queuing) = queuing {
            defaults::number(queuing, "handSize", 8);
            defaults::number(queuing, "queues", 64);
            defaults::number(queuing, "queueLengthLimit", 50);
        }
    },
    validate: |level, old, cx, errors| {
        metadata::again(level, old, cx, errors);
        let (meta, spec) = (level.field("metadata"), level.field("spec"));
        let annotations = meta.field("annotations");
        if annotations.value.get(ZERO_SHARES).is_some() {
            errors.forbidden(
                annotations.path,
                format!("annotation '{ZERO_SHARES}' is forbidden"),
            );
        }
        self::spec(spec, meta.value.str("name"), errors);
        fixed(level, errors);
        conditions(level, errors);
        declared(spec, errors);
    },
    printing: Printing::of(cells),
    internal: "flowcontrol.PriorityLevelConfiguration",
    ..COMMON
};

fn fixed(level: At<'_>, errors: &mut Errors) {
    const TYPE: &str = "flowcontrol.PriorityLevelConfigurationSpec";
    let Some(want) = mandatory("PriorityLevelConfiguration", level.value) else {
        return;
    };
    let name = level.value.at("metadata").str("name");
    let spec = level.field("spec");
    let mut have = spec.value.clone();
    let except = if name == "exempt" {
        // `spec.exempt` is the administrator's choice.
        have.set("exempt", want.at("exempt"));
        " except the 'spec.exempt' field"
    } else {
        ""
    };
    if have != *want {
        let why = format!("spec of '{name}'{except} must equal the fixed value");
        spec.invalid_dump(TYPE, why, errors);
    }
}

fn spec(spec: At<'_>, name: &str, errors: &mut Errors) {
    let kind = spec.field("type");
    if (name == "exempt") != (kind.str() == "Exempt") {
        kind.invalid_text("must be 'Exempt' if and only if `name` is 'exempt'", errors);
    }
    match kind.str() {
        "Exempt" => {
            let exempt = spec.field("exempt");
            non_negative(exempt.field("nominalConcurrencyShares"), "", errors);
            percent(exempt.field("lendablePercent"), errors);
        }
        "Limited" => limited(spec.field("limited"), errors),
        "" => {}
        _ => kind.one_of(&["Exempt", "Limited"], errors),
    }
}

fn non_negative(number: At<'_>, if_said: &str, errors: &mut Errors) {
    if number.int().is_some_and(|n| n < 0) {
        number.invalid(format!("{if_said}must be a non-negative integer"), errors);
    }
}

fn percent(percent: At<'_>, errors: &mut Errors) {
    percent.within(0, 100, "must be between 0 and 100, inclusive", errors);
}

fn limited(limited: At<'_>, errors: &mut Errors) {
    if limited.is_absent() {
        return;
    }
    non_negative(limited.field("nominalConcurrencyShares"), "", errors);
    let response = limited.field("limitResponse");
    let kind = response.field("type");
    match kind.str() {
        "Queue" => queuing(response.field("queuing"), errors),
        "Reject" | "" => {}
        _ => kind.one_of(&["Queue", "Reject"], errors),
    }
    percent(limited.field("lendablePercent"), errors);
    non_negative(
        limited.field("borrowingLimitPercent"),
        "if specified, ",
        errors,
    );
}

fn queuing(queuing: At<'_>, errors: &mut Errors) {
    if queuing.is_absent() {
        return;
    }
    let number = |key: &str| queuing.value.int(key);
    let mut refuse = |key: &str, why: String| {
        errors.invalid(queuing.path.field(key), number(key), why);
    };
    let positive = || "must be positive".to_owned();
    let (queues, hand) = (number("queues"), number("handSize"));
    if number("queueLengthLimit") <= 0 {
        refuse("queueLengthLimit", positive());
    }
    if queues <= 0 {
        refuse("queues", positive());
    } else if queues > QUEUES {
        refuse("queues", format!("must not be greater than {QUEUES}"));
    }
    if hand <= 0 {
        refuse("handSize", positive());
    } else if hand > queues {
        refuse(
            "handSize",
            format!("should not be greater than queues ({queues})"),
        );
    } else if entropy(queues, hand) > HASH_BITS {
        refuse(
            "handSize",
            format!(
                "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
            ),
        );
    }
}

/// How many bits it takes to deal a hand from a deck.
fn entropy(deck: i64, hand: i64) -> i64 {
    ((deck as f64).log2() * hand as f64).ceil() as i64
}

/// Each type has its own settings and no others.
fn declared(spec: At<'_>, errors: &mut Errors) {
    let (kind, limited) = (spec.field("type"), spec.field("limited"));
    if kind.str() != "Exempt" {
        spec.field("exempt").forbid("", errors);
    }
    if kind.str() == "Limited" {
        limited.required_there(errors);
    } else {
        limited.forbid("", errors);
    }
    kind.required("", errors);
    if limited.is_absent() {
        return;
    }
    let response = limited.field("limitResponse");
    let (kind, queuing) = (response.field("type"), response.field("queuing"));
    if kind.str() == "Queue" {
        queuing.required_there(errors);
    } else {
        queuing.forbid("", errors);
    }
    kind.required("", errors);
}

impl At<'_> {
    /// Requires a struct, even an empty one.
    fn required_there(&self, errors: &mut Errors) {
        if self.is_absent() {
            errors.required(self.path, "");
        }
    }
}

fn cells(level: &Value, now: i64) -> Vec<Value> {
    let spec = level.at("spec");
    let limited = spec.at("limited");
    let queuing = limited.at("limitResponse").at("queuing");
    let shown = |of: &Value, key: &str| match of {
        Value::Null => Value::from("<none>"),
        of => of.int(key).into(),
    };
    vec![
        level.at("metadata").str("name").into(),
        spec.str("type").into(),
        shown(limited, "nominalConcurrencyShares"),
        shown(queuing, "queues"),
        shown(queuing, "handSize"),
        shown(queuing, "queueLengthLimit"),
        table::age(level, now),
    ]
}
