//! Authentication, impersonation, authorization.

pub mod accounts;
pub mod authorize;
pub mod bootstrap;
mod der;
pub mod impersonate;
pub mod kubeconfig;
pub mod node;
pub mod pki;
pub mod rbac;
pub mod review;
pub mod signers;
pub mod tokens;

use compact_str::CompactString;

/// The group with all permissions.
pub const MASTERS: &str = "system:masters";
/// The group of all authenticated users.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of unauthenticated requests.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user name of unauthenticated requests.
pub const ANONYMOUS: &str = "system:anonymous";

/// The user who makes a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// `system:serviceaccount:default:app`
    pub name: CompactString,
    /// Empty if unknown.
    pub uid: CompactString,
    /// In the order in which authentication added them.
    pub groups: Vec<CompactString>,
    /// Extras, sorted by key.
    pub extra: Vec<(CompactString, Vec<CompactString>)>,
}

impl User {
    /// A user with some groups and nothing else.
    pub fn new(name: &str, groups: &[&str]) -> User {
        User {
            name: name.into(),
            groups: groups.iter().map(|group| (*group).into()).collect(),
            ..User::default()
        }
    }

    /// The values of an extra.
    pub fn extra(&self, key: &str) -> &[CompactString] {
        self.extra
            .iter()
            .find(|(known, _)| known == key)
            .map_or(&[], |(_, values)| values)
    }

    /// Sets an extra, keeping the order of keys.
    pub fn set_extra(&mut self, key: &str, values: Vec<CompactString>) {
        match self
            .extra
            .binary_search_by(|(known, _)| known.as_str().cmp(key))
        {
            Ok(at) => self.extra[at].1 = values,
            Err(at) => self.extra.insert(at, (key.into(), values)),
        }
    }

    /// Whether the user is in a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// The attributes of a request, for authorizers.
#[derive(Clone, Debug, Default)]
pub struct Attributes<'a> {
    /// `get`, `list`, `watch`, `create`, ..., or the lower-case HTTP method for paths.
    pub verb: &'a str,
    /// Empty for cluster-scoped requests.
    pub namespace: &'a str,
    /// Empty for core.
    pub group: &'a str,
    /// `v1`
    pub version: &'a str,
    /// `pods`
    pub resource: &'a str,
    /// `status`; empty if the request is about the object itself.
    pub subresource: &'a str,
    /// Empty if the request names no object.
    pub name: &'a str,
    /// The path, for requests that are not about a resource.
    pub path: Option<&'a str>,
    /// The field selector of a list or watch, as given.
    pub field_selector: &'a str,
    /// The label selector of a list or watch, as given.
    pub label_selector: &'a str,
}

impl Attributes<'_> {
    /// Whether this is a resource request and not just a path.
    pub fn is_resource(&self) -> bool {
        self.path.is_none()
    }
}

/// An authorizer's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, for this reason (may be empty).
    Allow(String),
    /// Left to the other authorizers; the reason may be empty.
    NoOpinion(String),
    /// Denied, whatever others decide.
    Deny(String),
}

/// Authorizes requests. Synchronous: it reads snapshots.
pub trait Authorizer: Send + Sync {
    /// Whether `user` may make a request with these attributes.
    fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision;
}
