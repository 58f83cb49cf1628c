//! Privilege escalation checks: writes to roles and bindings may not grant more than the user has. Follows
//! k8s.io/kubernetes pkg/registry/rbac/{escalation_check.go,validation/rule.go} and the policybased storages.

use super::rule::{Rule, describe, go_list, missing};
use super::{GROUP, NoRole, Policy};
use crate::auth::{Attributes, Authorizer, Decision, MASTERS, User};
use crate::meta::Status;
use crate::meta::errors::quoted;
use crate::meta::status::{About, aggregate, key_name};
use crate::schema::Value;

/// The request that writes a role or binding.
pub struct Grant<'a> {
    /// The user.
    pub user: &'a User,
    /// The authorizer for the verbs `escalate` and `bind`.
    pub authorizer: &'a dyn Authorizer,
    /// The current roles and bindings.
    pub policy: &'a Policy,
    /// `roles`, `clusterroles`, `rolebindings`, `clusterrolebindings`
    pub resource: &'a str,
    /// The namespace in the path; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// The name in the path; empty for a create request.
    pub name: &'a str,
}

impl Grant<'_> {
    fn is_master(&self) -> bool {
        self.user.in_group(MASTERS)
    }

    fn may(&self, verb: &str, group: &str, resource: &str, name: &str) -> bool {
        let wants = Attributes {
            verb,
            namespace: self.namespace,
            group,
            version: "*",
            resource,
            name,
            ..Attributes::default()
        };
        matches!(
            self.authorizer.authorize(self.user, &wants),
            Decision::Allow(_)
        )
    }

    /// Rejects permissions that the user does not have, with the text of a 403.
    fn holds(&self, rules: &[Rule]) -> Result<(), String> {
        let (held, errors) = self.policy.rules(self.user, self.namespace);
        let missing = missing(&held, rules);
        if missing.is_empty() {
            return Ok(());
        }
        let mut message = format!(
            "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            quoted(&self.user.name),
            go_list(&self.user.groups),
            describe(missing).join("\n")
        );
        if !errors.is_empty() {
            let errors = errors.iter().map(|why| why.while_writing(self.resource));
            let errors = aggregate(&errors.collect::<Vec<_>>());
            message.push_str(&format!("; resolution errors: [{errors}]"));
        }
        Err(message)
    }

    fn forbidden(&self, object: &Value, why: &str) -> Status {
        let about = About {
            group: GROUP,
            kind: self.resource,
            name: object.at("metadata").str("name"),
        };
        Status::forbidden(about, why)
    }
}

/// Whether a write only changes what garbage collection and managedFields need: IsOnlyMutatingGCFields.
pub fn changes_nothing_else(new: &Value, old: &Value) -> bool {
    let mut new = new.clone();
    for key in ["ownerReferences", "finalizers", "selfLink", "managedFields"] {
        match old.at("metadata").get(key) {
            Some(value) => new.object_mut().object_mut("metadata").insert(key, value),
            None => new.object_mut().object_mut("metadata").remove(key),
        };
    }
    new == *old
}

/// Checks a write of `new` (a Role or ClusterRole in canonical form, defaulted, not yet validated) over `old`, after
/// mutating admission. `new` has the resourceVersion from the request, `old` the stored one.
///
/// # Errors
/// 403 that lists the permissions that the user lacks.
pub fn check_role(grant: &Grant<'_>, new: &Value, old: Option<&Value>) -> Result<(), Status> {
    if grant.is_master() || grant.may("escalate", GROUP, grant.resource, grant.name) {
        return Ok(());
    }
    if old.is_some_and(|old| changes_nothing_else(new, old)) {
        return Ok(());
    }
    grant
        .holds(&Rule::all(new))
        .map_err(|why| grant.forbidden(new, &why))?;
    if super::is_aggregated(new) || old.is_some_and(super::is_aggregated) {
        let everything = [
            Rule::new(&["*"], &["*"], &["*"]),
            Rule {
                urls: vec!["*".into()],
                ..Rule::new(&["*"], &[], &[])
            },
        ];
        if grant.holds(&everything).is_err() {
            return Err(grant.forbidden(
                new,
                "must have cluster-admin privileges to use the aggregationRule",
            ));
        }
    }
    Ok(())
}

/// Checks a write of `new` (a RoleBinding or ClusterRoleBinding) over `old`, like [`check_role`].
///
/// # Errors
/// 403 that lists the permissions that the user lacks; 404 for a missing role, 400 for an invalid role reference.
pub fn check_binding(grant: &Grant<'_>, new: &Value, old: Option<&Value>) -> Result<(), Status> {
    if grant.is_master() || old.is_some_and(|old| changes_nothing_else(new, old)) {
        return Ok(());
    }
    let role = new.at("roleRef");
    let (kind, name) = (role.str("kind"), role.str("name"));
    let resource = match kind {
        "ClusterRole" => "clusterroles",
        "Role" => "roles",
        _ => "",
    };
    if !resource.is_empty() && grant.may("bind", role.str("apiGroup"), resource, name) {
        return Ok(());
    }
    if kind == "Role" && grant.namespace.is_empty() {
        return Err(Status::bad_request("Namespace parameter required."));
    }
    if !resource.is_empty() {
        key_name(name)?;
    }
    let rules = grant
        .policy
        .role(kind, grant.namespace, name)
        .map_err(|why| match why {
            NoRole::Unsupported(_) => Status::unclassified(why.to_string()),
            // The error shows the resource of the request, not the role's.
            NoRole::Missing { .. } => Status::not_found(About {
                group: GROUP,
                kind: grant.resource,
                name,
            }),
        })?;
    grant
        .holds(&rules)
        .map_err(|why| grant.forbidden(new, &why))
}
