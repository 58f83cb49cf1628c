//! Role-based access control: roles, and bindings that grant them to users, groups and service accounts.
//! Decisions are pure functions of a [`Policy`], which a view derives from the store. Follows k8s.io/kubernetes
//! plugin/pkg/auth/authorizer/rbac and pkg/registry/rbac.

mod aggregation;
mod escalation;
mod rule;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use compact_str::{CompactString, format_compact};
use foldhash::fast::RandomState;

use super::{Attributes, Decision, User};
use crate::meta::errors::quoted;
use crate::meta::status::aggregate;
use crate::resources::cluster::object;
use crate::schema::Value;
use crate::store::view::{Derived, View};
use crate::store::{Entry, World};

pub use aggregation::{aggregated, is_aggregated};
pub use escalation::{Grant, changes_nothing_else, check_binding, check_role};
pub use rule::{Rule, go_list, missing};

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// The resources from which a policy is derived, in the order used by [`Policy::apply`].
const RESOURCES: [&str; 4] = [
    "/registry/roles/",
    "/registry/clusterroles/",
    "/registry/rolebindings/",
    "/registry/clusterrolebindings/",
];

/// All roles and bindings at one revision. Cheap to clone.
#[derive(Clone, Default)]
pub struct Policy {
    /// By `namespace/name`.
    roles: imbl::HashMap<CompactString, Arc<[Rule]>>,
    /// By name.
    cluster_roles: imbl::HashMap<CompactString, Arc<[Rule]>>,
    /// Bindings by namespace; cluster role bindings under the empty name.
    bindings: imbl::HashMap<CompactString, Bindings>,
}

/// The bindings of one namespace by their users and groups, in order of the bindings' names.
#[derive(Clone, Default)]
struct Bindings {
    users: imbl::HashMap<CompactString, imbl::OrdMap<CompactString, Arc<Binding>>>,
    groups: imbl::HashMap<CompactString, imbl::OrdMap<CompactString, Arc<Binding>>>,
}

#[derive(Debug)]
struct Binding {
    name: CompactString,
    /// Empty for a ClusterRoleBinding.
    namespace: CompactString,
    /// `Role` or `ClusterRole`
    role_kind: CompactString,
    role: CompactString,
    subjects: Vec<Subject>,
}

#[derive(Debug)]
struct Subject {
    who: Who,
    name: CompactString,
    /// As shown in reasons: `User "jane"`.
    shown: CompactString,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Who {
    User,
    Group,
}

impl Binding {
    fn of(binding: &Value) -> Binding {
        let meta = binding.at("metadata");
        let namespace = meta.str("namespace");
        let role = binding.at("roleRef");
        Binding {
            name: meta.str("name").into(),
            namespace: namespace.into(),
            role_kind: role.str("kind").into(),
            role: role.str("name").into(),
            subjects: binding
                .list("subjects")
                .iter()
                .filter_map(|subject| Subject::of(subject, namespace))
                .collect(),
        }
    }

    /// `RoleBinding "b/ns" of Role "r" to User "jane"`
    fn shown(&self, subject: &Subject) -> String {
        let (kind, name) = if self.namespace.is_empty() {
            ("ClusterRoleBinding", self.name.clone())
        } else {
            (
                "RoleBinding",
                format_compact!("{}/{}", self.name, self.namespace),
            )
        };
        format!(
            "{kind} {} of {} {} to {}",
            quoted(&name),
            self.role_kind,
            quoted(&self.role),
            subject.shown
        )
    }
}

impl Subject {
    /// A subject of a binding in `namespace`; `None` if it matches nobody.
    fn of(subject: &Value, namespace: &str) -> Option<Subject> {
        let (kind, name) = (subject.str("kind"), subject.str("name"));
        let (who, known_as, shown) = match kind {
            "User" => (Who::User, name.into(), name.into()),
            "Group" => (Who::Group, name.into(), name.into()),
            "ServiceAccount" => {
                let of = match subject.str("namespace") {
                    "" => namespace,
                    own => own,
                };
                if of.is_empty() {
                    return None;
                }
                (
                    Who::User,
                    format_compact!("system:serviceaccount:{of}:{name}"),
                    format_compact!("{name}/{of}"),
                )
            }
            _ => return None,
        };
        Some(Subject {
            who,
            name: known_as,
            shown: format_compact!("{kind} {}", quoted(&shown)),
        })
    }

    /// Whether this is a user who is in these groups.
    fn is(&self, user: &User, groups: &HashSet<&str, RandomState>) -> bool {
        match self.who {
            Who::User => self.name == user.name,
            Who::Group => groups.contains(self.name.as_str()),
        }
    }
}

impl Derived for Policy {
    fn apply(&mut self, resource: usize, old: Option<&Entry>, new: Option<&Entry>) {
        match resource {
            0 | 1 => {
                let (roles, namespaced) = if resource == 0 {
                    (&mut self.roles, true)
                } else {
                    (&mut self.cluster_roles, false)
                };
                if let Some(new) = new {
                    let role = object(new);
                    roles.insert(key(&role, namespaced), Rule::all(&role).into());
                } else if let Some(old) = old {
                    roles.remove(&key(&object(old), namespaced));
                }
            }
            _ => {
                if let Some(old) = old {
                    self.unbind(&Binding::of(&object(old)));
                }
                if let Some(new) = new {
                    self.bind(Binding::of(&object(new)));
                }
            }
        }
    }
}

/// Why a role reference has no rules. Its text is that of upstream's authorizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRole {
    /// There is no such role.
    Missing {
        /// `role` or `clusterrole`
        resource: &'static str,
        /// The role's name.
        name: String,
    },
    /// It refers to another kind.
    Unsupported(String),
}

impl NoRole {
    /// The text if a missing role is searched while `resource` is written: upstream's storage names the resource of the
    /// request.
    pub fn while_writing(&self, resource: &str) -> String {
        match self {
            NoRole::Missing { name, .. } => {
                format!("{resource}.{GROUP} {} not found", quoted(name))
            }
            NoRole::Unsupported(kind) => {
                format!("unsupported role reference kind: {}", quoted(kind))
            }
        }
    }
}

impl fmt::Display for NoRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resource = match self {
            NoRole::Missing { resource, .. } => resource,
            NoRole::Unsupported(_) => "",
        };
        f.write_str(&self.while_writing(resource))
    }
}

fn key(object: &Value, namespaced: bool) -> CompactString {
    let meta = object.at("metadata");
    if namespaced {
        format_compact!("{}/{}", meta.str("namespace"), meta.str("name"))
    } else {
        meta.str("name").into()
    }
}

impl Policy {
    /// A policy made of objects that are not in the store.
    pub fn from_objects<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Policy {
        let mut policy = Policy::default();
        for object in objects {
            match object.str("kind") {
                "Role" => {
                    let rules = Rule::all(object).into();
                    policy.roles.insert(key(object, true), rules);
                }
                "ClusterRole" => {
                    let rules = Rule::all(object).into();
                    policy.cluster_roles.insert(key(object, false), rules);
                }
                _ => policy.bind(Binding::of(object)),
            }
        }
        policy
    }

    fn bind(&mut self, binding: Binding) {
        let binding = Arc::new(binding);
        let of = self.bindings.entry(binding.namespace.clone()).or_default();
        for subject in &binding.subjects {
            of.by(subject.who)
                .entry(subject.name.clone())
                .or_default()
                .insert(binding.name.clone(), binding.clone());
        }
    }

    fn unbind(&mut self, binding: &Binding) {
        let Some(of) = self.bindings.get_mut(&binding.namespace) else {
            return;
        };
        for subject in &binding.subjects {
            let by = of.by(subject.who);
            if let Some(bindings) = by.get_mut(&subject.name) {
                bindings.remove(&binding.name);
                if bindings.is_empty() {
                    by.remove(&subject.name);
                }
            }
        }
        if of.users.is_empty() && of.groups.is_empty() {
            self.bindings.remove(&binding.namespace);
        }
    }

    /// The rules of a role referenced by a binding in `namespace`.
    ///
    /// # Errors
    /// Why there are none.
    pub fn role(&self, kind: &str, namespace: &str, name: &str) -> Result<Arc<[Rule]>, NoRole> {
        let (found, resource) = match kind {
            "Role" => (
                self.roles.get(&format_compact!("{namespace}/{name}")),
                "role",
            ),
            "ClusterRole" => (self.cluster_roles.get(name), "clusterrole"),
            other => return Err(NoRole::Unsupported(other.to_owned())),
        };
        found.cloned().ok_or_else(|| NoRole::Missing {
            resource,
            name: name.to_owned(),
        })
    }

    /// Visits the rules of `user` in `namespace` (first from cluster role bindings, then by the bindings' names) with
    /// their source, until `visit` returns false. Returns errors found up to there.
    fn visit(
        &self,
        user: &User,
        namespace: &str,
        mut visit: impl FnMut(&Binding, &Subject, &Rule) -> bool,
    ) -> Vec<NoRole> {
        let mut errors = Vec::new();
        // A review may name any number of groups, and each as often as it likes.
        let groups: HashSet<&str, RandomState> =
            user.groups.iter().map(CompactString::as_str).collect();
        let places: &[&str] = if namespace.is_empty() {
            &[""]
        } else {
            &["", namespace]
        };
        for place in places {
            let Some(of) = self.bindings.get(*place) else {
                continue;
            };
            let mut bindings = BTreeMap::new();
            let found = of.users.get(&user.name).into_iter();
            for found in found.chain(groups.iter().filter_map(|group| of.groups.get(*group))) {
                bindings.extend(found.iter());
            }
            for binding in bindings.values() {
                let Some(subject) = binding
                    .subjects
                    .iter()
                    .find(|subject| subject.is(user, &groups))
                else {
                    continue;
                };
                match self.role(&binding.role_kind, place, &binding.role) {
                    Err(missing) => errors.push(missing),
                    Ok(rules) => {
                        for rule in &*rules {
                            if !visit(binding, subject, rule) {
                                return errors;
                            }
                        }
                    }
                }
            }
        }
        errors
    }

    /// The rules of `user` in `namespace` (empty for cluster role bindings only), and errors about missing roles of
    /// bindings.
    pub fn rules(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<NoRole>) {
        let mut rules = Vec::new();
        let errors = self.visit(user, namespace, |_, _, rule| {
            rules.push(rule.clone());
            true
        });
        (rules, errors)
    }

    /// Whether `user` may do what `wants` describes.
    pub fn decide(&self, user: &User, wants: &Attributes<'_>) -> Decision {
        let mut allowed = None;
        let errors = self.visit(user, wants.namespace, |binding, subject, rule| {
            if rule.allows(wants) {
                allowed = Some(format!("RBAC: allowed by {}", binding.shown(subject)));
            }
            allowed.is_none()
        });
        match allowed {
            Some(reason) => Decision::Allow(reason),
            None if errors.is_empty() => Decision::NoOpinion(String::new()),
            None => {
                let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                Decision::NoOpinion(format!("RBAC: {}", aggregate(&errors)))
            }
        }
    }
}

impl Bindings {
    fn by(
        &mut self,
        who: Who,
    ) -> &mut imbl::HashMap<CompactString, imbl::OrdMap<CompactString, Arc<Binding>>> {
        match who {
            Who::User => &mut self.users,
            Who::Group => &mut self.groups,
        }
    }
}

/// The policy in a store.
pub struct Rbac(View<Policy>);

impl Default for Rbac {
    fn default() -> Self {
        Rbac(View::new(RESOURCES.map(Into::into).to_vec()))
    }
}

impl Rbac {
    /// The policy in `world`.
    pub fn policy(&self, world: &World) -> Arc<Policy> {
        self.0.of(world)
    }
}

#[cfg(test)]
mod tests;
