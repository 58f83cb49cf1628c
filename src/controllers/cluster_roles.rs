//! clusterrole-aggregation-controller: copies the rules of cluster roles into those that aggregate them. Follows
//! k8s.io/kubernetes/pkg/controller/clusterroleaggregation.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{AggregationRule, ClusterRole, PolicyRule};
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::client::Context;
use crate::client::queue::{Next, Queue};
use crate::client::selector;

/// The field manager that applies the rules.
const MANAGER: &str = "clusterrole-aggregation-controller";

crate::slim!(
    /// A cluster role, without its rules.
    Role of ClusterRole {
        /// Selects the cluster roles whose rules it aggregates.
        aggregation_rule: Option<AggregationRule>,
    }
);

/// The rules that a role should have, given all roles ordered by name. None if it has them already, or aggregates
/// nothing.
///
/// # Errors
/// A selector is invalid.
fn wanted(role: &ClusterRole, all: &[ClusterRole]) -> Result<Option<Vec<PolicyRule>>, String> {
    let Some(aggregation) = &role.aggregation_rule else {
        return Ok(None);
    };
    let mut rules: Vec<PolicyRule> = Vec::new();
    for chosen in aggregation.cluster_role_selectors.iter().flatten() {
        let others = all
            .iter()
            .filter(|other| other.metadata.name != role.metadata.name);
        for other in others {
            if !selector::selects(chosen, other.metadata.labels.as_ref())? {
                continue;
            }
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    let had = role.rules.as_deref().unwrap_or_default();
    Ok((had != rules).then_some(rules))
}

/// Runs the controller.
pub async fn run(context: Context) {
    let queue = Arc::new(Queue::<()>::new());
    let roles = context.informers.of::<Role>();
    roles.enqueue(&queue, |_| Some(()));
    let api: Api<ClusterRole> = Api::all(context.client.clone());
    let look = |()| {
        let gathers = roles
            .all()
            .iter()
            .any(|(_, role)| role.aggregation_rule.is_some());
        let api = api.clone();
        async move {
            if gathers {
                gather(&api).await?;
            }
            Ok::<_, kube::Error>(Next::Done)
        }
    };
    context.work(&queue, 1, look).await;
}

/// Updates the rules of every aggregated role. A rejected role does not affect the others.
///
/// # Errors
/// The first rejection.
async fn gather(api: &Api<ClusterRole>) -> Result<(), kube::Error> {
    let mut refused = Ok(());
    let all = api.list(&ListParams::default()).await?.items;
    for role in &all {
        let name = role.metadata.name.as_deref().unwrap_or_default();
        let rules = match wanted(role, &all) {
            Ok(Some(rules)) => rules,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(name, %error, "cannot aggregate the rules of a cluster role");
                continue;
            }
        };
        let mut body = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name}
        });
        // If nothing is selected, upstream applies no rules: existing ones stay.
        if !rules.is_empty() {
            body["rules"] = json!(rules);
        }
        let params = PatchParams::apply(MANAGER).force();
        if let Err(error) = api.patch(name, &params, &Patch::Apply(body)).await {
            tracing::warn!(name, %error, "cannot update the rules of a cluster role");
            refused = refused.and(Err(error));
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(text: &str) -> ClusterRole {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn rules_are_gathered_in_order_of_names_and_none_twice() {
        let gathers = r#"{"metadata":{"name":"b","labels":{"to":"x"}},"rules":RULES,"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"to":"x"}},{"matchExpressions":[{"key":"to","operator":"In","values":["y","x"]}]}]}}"#;
        let rule = |resource: &str| {
            format!(r#"{{"verbs":["get"],"apiGroups":[""],"resources":["{resource}"]}}"#)
        };
        let plain = |name: &str, to: &str, rules: &[&str]| {
            let rules: Vec<String> = rules.iter().map(|resource| rule(resource)).collect();
            role(&format!(
                r#"{{"metadata":{{"name":"{name}","labels":{{"to":"{to}"}}}},"rules":[{}]}}"#,
                rules.join(",")
            ))
        };
        let empty = role(&gathers.replace("RULES", "null"));
        let all = [
            plain("a", "y", &["secrets", "pods"]),
            empty.clone(),
            plain("c", "x", &["pods", "nodes"]),
            plain("d", "z", &["other"]),
        ];
        let rules = wanted(&empty, &all).unwrap().unwrap();
        let names: Vec<&str> = rules
            .iter()
            .filter_map(|rule| rule.resources.as_ref()?.first().map(String::as_str))
            .collect();
        assert_eq!(names, ["pods", "nodes", "secrets"]);
        let full = ClusterRole {
            rules: Some(rules),
            ..empty
        };
        assert_eq!(wanted(&full, &all), Ok(None));
        assert_eq!(wanted(&all[0], &all), Ok(None));
    }
}
