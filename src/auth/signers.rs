//! Permissions to approve, sign and attest for a signer. Follows k8s.io/kubernetes/pkg/certauthorization.

use super::{Attributes, Authorizer, Decision, User};

/// Whether a user may do `verb` (`approve`, `sign`, `attest`) for the signer `example.com/name` or for all signers of
/// its domain.
pub fn may(authorizer: &dyn Authorizer, user: &User, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    let all = format!("{domain}/*");
    [signer, &all].iter().any(|name| {
        let attributes = Attributes {
            verb,
            group: "certificates.k8s.io",
            version: "*",
            resource: "signers",
            name,
            ..Attributes::default()
        };
        matches!(authorizer.authorize(user, &attributes), Decision::Allow(_))
    })
}
