//! Kinds of the group `certificates.k8s.io`. Follows k8s.io/kubernetes/pkg/registry/certificates and
//! pkg/apis/certificates.

mod bundles;
mod pods;
mod requests;
#[cfg(test)]
mod tests;
mod x509;

use crate::resources::{Rules, Selectable};

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "certificatesigningrequests" => requests::RULES,
        "clustertrustbundles" => bundles::RULES,
        "podcertificaterequests" => pods::RULES,
        _ => Rules::DEFAULT,
    }
}

/// The signer, a selectable field of all three kinds.
const SIGNER: Selectable = Selectable {
    name: "spec.signerName",
    value: |object| object.at("spec").str("signerName").to_owned(),
};
