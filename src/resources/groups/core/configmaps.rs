//! Config maps. Follows k8s.io/kubernetes/pkg/registry/core/configmap/strategy.go and pkg/apis/core/validation.

use crate::meta::{At, Errors, names, table};
use crate::resources::{Printing, Rules, metadata};
use crate::schema::Value;

/// The maximum total size of the values of a config map or secret, in bytes.
pub(super) const MAX_SIZE: usize = 1 << 20;
const FROZEN: &str = "field is immutable when `immutable` is set";

/// The rules of config maps.
pub(super) const RULES: Rules = Rules {
    validate: |object, old, cx, errors| {
        metadata::again(object, old, cx, errors);
        if let Some(old) = old {
            frozen(
                object,
                old.value,
                &[("data", false), ("binaryData", true)],
                errors,
            );
        }
        let (data, binary) = (object.field("data"), object.field("binaryData"));
        let mut size = 0;
        for (key, value) in data.entries() {
            value_key(key, value, errors);
            if binary.value.get(key).is_some() {
                errors.invalid(value.path, key, "duplicate of key present in binaryData");
            }
            size += value.str().len();
        }
        for (key, value) in binary.entries() {
            value_key(key, value, errors);
            size += decoded_len(value.str());
        }
        if size > MAX_SIZE {
            errors.too_long(object.path.field("[]"), MAX_SIZE);
        }
    },
    printing: Printing::of(|object, now| {
        let entries = ["data", "binaryData"].map(|key| object.entries(key).count());
        vec![
            object.at("metadata").str("name").into(),
            count(entries.iter().sum()),
            table::age(object, now),
        ]
    }),
    internal: "core.ConfigMap",
    ..Rules::DEFAULT
};

/// A number as a table cell.
pub(super) fn count(n: usize) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

/// Validates the key of a value.
pub(super) fn value_key(key: &str, value: At<'_>, errors: &mut Errors) {
    for wrong in names::config_map_key(key) {
        errors.invalid(value.path, key, wrong);
    }
}

/// The decoded length of base64 text, in bytes.
pub(super) fn decoded_len(text: &str) -> usize {
    (text.len() / 4 * 3).saturating_sub(text.bytes().rev().take_while(|b| *b == b'=').count())
}

/// Rejects changes of an immutable object. For fields with `true`, an empty map differs from an absent one, because
/// upstream has no default for them.
pub(super) fn frozen(object: At<'_>, old: &Value, fields: &[(&str, bool)], errors: &mut Errors) {
    if !old.bool("immutable") {
        return;
    }
    let immutable = object.field("immutable");
    if !immutable.bool() {
        errors.forbidden(immutable.path, FROZEN);
    }
    for (name, nil_counts) in fields {
        let (field, was) = (object.field(name), old.at(name));
        let both_empty = field.value.is_empty() && was.is_empty();
        if field.value != was && (*nil_counts || !both_empty) {
            errors.forbidden(field.path, FROZEN);
        }
    }
}
