//! Label selectors of objects. Follows k8s.io/apimachinery/pkg/apis/meta/v1/helpers.go.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Whether a selector selects an object with these labels. An empty selector selects everything.
///
/// # Errors
/// The selector has an unknown operator.
pub fn selects(
    selector: &LabelSelector,
    labels: Option<&BTreeMap<String, String>>,
) -> Result<bool, String> {
    let value = |key: &str| labels.and_then(|labels| labels.get(key));
    if let Some(wanted) = &selector.match_labels
        && wanted
            .iter()
            .any(|(key, wanted)| value(key) != Some(wanted))
    {
        return Ok(false);
    }
    for expression in selector.match_expressions.iter().flatten() {
        let found = value(&expression.key);
        let values = expression.values.as_deref().unwrap_or_default();
        let among = found.is_some_and(|found| values.contains(found));
        let matches = match expression.operator.as_str() {
            "In" => among,
            "NotIn" => !among,
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            other => return Err(format!("{other:?} is not a valid label selector operator")),
        };
        if !matches {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A selector as Go prints it in messages.
pub fn printed(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else {
        return "nil".to_owned();
    };
    let labels = selector.match_labels.iter().flatten();
    let labels: String = labels
        .map(|(key, value)| format!("{key}: {value},"))
        .collect();
    let expressions = selector.match_expressions.iter().flatten().map(|wanted| {
        let values = wanted.values.as_deref().unwrap_or_default().join(" ");
        let (key, operator) = (&wanted.key, &wanted.operator);
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    });
    let expressions: String = expressions.collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}
