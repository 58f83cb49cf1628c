//! Service accounts as users: their names and groups. Follows k8s.io/apiserver/pkg/authentication/serviceaccount.

use compact_str::{CompactString, format_compact};

use crate::meta::names;

/// What the names of service accounts' users begin with.
pub const PREFIX: &str = "system:serviceaccount:";
/// The group of all service accounts; with `:NAMESPACE`, that of those of a namespace.
pub const GROUP: &str = "system:serviceaccounts";
/// Extra fact of a user: the pod that its token is bound to.
pub const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// Extra fact of a user: the uid of that pod.
pub const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// Extra fact of a user: the node that its token is bound to, directly or through the pod.
pub const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// Extra fact of a user: the uid of that node.
pub const NODE_UID: &str = "authentication.kubernetes.io/node-uid";
/// Extra fact of a user: which credential it showed (`JTI=...`, `X509SHA256=...`).
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Namespace and name of the service account that a user is.
pub fn split(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(PREFIX)?.split_once(':')?;
    (names::label_name(namespace, false).is_empty()
        && names::subdomain_name(name, false).is_empty())
    .then_some((namespace, name))
}

/// The user name of a service account.
pub fn user_name(namespace: &str, name: &str) -> CompactString {
    format_compact!("{PREFIX}{namespace}:{name}")
}

/// The groups of the service accounts of a namespace.
pub fn groups(namespace: &str) -> [CompactString; 2] {
    [GROUP.into(), format_compact!("{GROUP}:{namespace}")]
}
