//! Service accounts as users: their names and groups. Follows k8s.io/apiserver/pkg/authentication/serviceaccount.

use compact_str::{CompactString, format_compact};

use crate::meta::names;

/// The prefix of service accounts' user names.
pub const PREFIX: &str = "system:serviceaccount:";
/// The group of all service accounts; with `:NAMESPACE`, of those in a namespace.
pub const GROUP: &str = "system:serviceaccounts";
/// User extra: the pod to which the token is bound.
pub const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// User extra: the uid of that pod.
pub const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// User extra: the node to which the token is bound, directly or through the pod.
pub const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// User extra: the uid of that node.
pub const NODE_UID: &str = "authentication.kubernetes.io/node-uid";
/// User extra: the ID of the credential (`JTI=...`, `X509SHA256=...`).
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The namespace and name of the service account with this user name.
pub fn split(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(PREFIX)?.split_once(':')?;
    (names::label_name(namespace, false).is_empty()
        && names::subdomain_name(name, false).is_empty())
    .then_some((namespace, name))
}

/// The name of the user's service account, if it is one of this namespace. Does not check that both are valid names.
pub fn name_in<'a>(user: &'a str, namespace: &str) -> Option<&'a str> {
    user.strip_prefix(PREFIX)?
        .strip_prefix(namespace)?
        .strip_prefix(':')
}

/// The user name of a service account.
pub fn user_name(namespace: &str, name: &str) -> CompactString {
    format_compact!("{PREFIX}{namespace}:{name}")
}

/// The groups of service accounts in a namespace.
pub fn groups(namespace: &str) -> [CompactString; 2] {
    [GROUP.into(), format_compact!("{GROUP}:{namespace}")]
}
