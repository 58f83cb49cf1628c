//! Who asks, and whether they may: authentication, impersonation, authorization.

pub mod kubeconfig;
pub mod masters;
pub mod pki;

use compact_str::CompactString;

/// Who a request is from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// `pods`; empty for requests that are not about a resource.
    pub resource: &'a str,
    /// `status`; empty for none.
    pub subresource: &'a str,
    /// Empty for none.
    pub name: &'a str,
    /// The path, for requests that are not about a resource.
    pub path: &'a str,
    /// The field selector of a list or watch, as given.
    pub field_selector: &'a str,
    /// The label selector of a list or watch, as given.
    pub label_selector: &'a str,
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
