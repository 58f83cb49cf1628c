//! Aggregated cluster roles. Follows k8s.io/kubernetes pkg/controller/clusterroleaggregation.

use indexmap::IndexSet;

use super::Rule;
use crate::meta::selector::Selector;
use crate::schema::Value;

/// Whether a cluster role has an aggregation rule.
pub fn is_aggregated(role: &Value) -> bool {
    !role
        .at("aggregationRule")
        .list("clusterRoleSelectors")
        .is_empty()
}

/// The rules for `role`, given all cluster roles: those of the roles matched by its selectors, by selector and role
/// name, without duplicates. `None` if it has no aggregation rule.
///
/// # Errors
/// A selector is invalid.
pub fn aggregated(role: &Value, all: &[Value]) -> Result<Option<Vec<Rule>>, String> {
    let Some(aggregation) = role.get("aggregationRule") else {
        return Ok(None);
    };
    let name = role.at("metadata").str("name");
    let mut others: Vec<&Value> = all
        .iter()
        .filter(|other| other.at("metadata").str("name") != name)
        .collect();
    others.sort_by_key(|other| other.at("metadata").str("name"));
    let mut rules: IndexSet<Rule> = IndexSet::new();
    for selector in aggregation.list("clusterRoleSelectors") {
        let selector = Selector::from_object(selector)?;
        for other in &others {
            let labels = other.at("metadata").at("labels");
            if selector.matches(|label| labels.at(label).as_str()) {
                rules.extend(Rule::all(other));
            }
        }
    }
    Ok(Some(rules.into_iter().collect()))
}
