//! Nodes, and parts shared with other kinds: node selectors, deprecated labels.

pub(in crate::resources::groups::core) mod rules;

use crate::meta::names;
use crate::resources::groups::core::pods::warnings::old_label;
use crate::schema::Value;

/// Warnings about a LabelSelector for nodes at `path`.
pub(in crate::resources::groups) fn selector_warnings(selector: &Value, path: &str) -> Vec<String> {
    let mut warnings = term_warnings(selector, path);
    for (label, _) in selector.entries("matchLabels") {
        if let Some(why) = old_label(label) {
            warnings.push(format!("{path}.matchLabels.{label}: {why}"));
        }
    }
    warnings
}

/// Warnings about the `matchExpressions` of a term at `path`.
pub(in crate::resources::groups) fn term_warnings(term: &Value, path: &str) -> Vec<String> {
    let expressions = term.list("matchExpressions").iter().enumerate();
    expressions
        .filter_map(|(i, expression)| {
            let key = expression.str("key");
            let why = old_label(key)?;
            Some(format!("{path}.matchExpressions[{i}].key: {key} is {why}"))
        })
        .collect()
}

/// Whether a NodeSelector contains invalid label values.
pub(in crate::resources::groups) fn has_bad_label_values(selector: &Value) -> bool {
    selector.list("nodeSelectorTerms").iter().any(|term| {
        term.list("matchExpressions").iter().any(|expression| {
            let mut values = expression.list("values").iter();
            values.any(|value| !names::label_value(value.as_str().unwrap_or_default()).is_empty())
        })
    })
}
