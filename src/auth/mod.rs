//! Who asks, and whether they may: authentication, impersonation, authorization.

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

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of everybody who is authenticated.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody who is not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user who is nobody known.
pub const ANONYMOUS: &str = "system:anonymous";

/// Who a request is from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// `system:serviceaccount:default:app`
    pub name: CompactString,
    /// Empty for none.
    pub uid: CompactString,
    /// In the order in which authentication found them.
    pub groups: Vec<CompactString>,
    /// Extra facts by key, sorted by key.
    pub extra: Vec<(CompactString, Vec<CompactString>)>,
}

impl User {
    /// A user of some groups, with nothing else known.
    pub fn new(name: &str, groups: &[&str]) -> User {
        User {
            name: name.into(),
            groups: groups.iter().map(|group| (*group).into()).collect(),
            ..User::default()
        }
    }

    /// The values of an extra fact.
    pub fn extra(&self, key: &str) -> &[CompactString] {
        self.extra
            .iter()
            .find(|(known, _)| known == key)
            .map_or(&[], |(_, values)| values)
    }

    /// Sets an extra fact, in its place in the order of keys.
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

/// What a request wants to do, as authorizers see it.
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
    /// `status`; empty for none.
    pub subresource: &'a str,
    /// Empty for none.
    pub name: &'a str,
    /// The path, for requests that are not about a resource.
    pub path: Option<&'a str>,
    /// The field selector of a list or watch, as given.
    pub field_selector: &'a str,
    /// The label selector of a list or watch, as given.
    pub label_selector: &'a str,
}

impl Attributes<'_> {
    /// Whether this is about a resource and not about a path alone.
    pub fn is_resource(&self) -> bool {
        self.path.is_none()
    }
}

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, for this reason (may be empty).
    Allow(String),
    /// Somebody else may decide; the reason may be empty.
    NoOpinion(String),
    /// Refused, whatever others say.
    Deny(String),
}

/// Decides about requests. Synchronous: it reads snapshots.
pub trait Authorizer: Send + Sync {
    /// The decision about `user` doing `attributes`.
    fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision;
}
