//! CertificateApproval, CertificateSigning, ClusterTrustBundleAttest and CertificateSubjectRestriction: approving,
//! signing and attesting requires permission for the signer, and no certificate may grant the group system:masters.
//! Follows k8s.io/kubernetes/plugin/pkg/admission/certificates.

use super::{Attributes, Operation, Plugin};
use crate::auth::pki::{Request, Subject};
use crate::auth::rbac::changes_nothing_else;
use crate::auth::{MASTERS, signers};
use crate::meta::Status;
use crate::schema::Value;

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
/// The signer of client certificates for the API server.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Approving a request requires permission to approve for its signer.
pub struct CertificateApproval;
/// Setting a certificate or its failure requires permission to sign for its signer.
pub struct CertificateSigning;
/// Writing a bundle with a signer requires permission to attest for it.
pub struct ClusterTrustBundleAttest;
/// Rejects requests for certificates with the group system:masters.
pub struct CertificateSubjectRestriction;

fn signer(object: &Value) -> &str {
    object.at("spec").str("signerName")
}

fn may(request: &Attributes<'_>, verb: &str, signer: &str) -> bool {
    signers::may(request.authorizer, request.user, verb, signer)
}

impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(old) = request.old else {
            return Ok(());
        };
        let approval = request.operation == Operation::Update && request.subresource == "approval";
        if !approval || !request.is_about(GROUP, REQUESTS) || may(request, "approve", signer(old)) {
            return Ok(());
        }
        let name = crate::meta::errors::quoted(signer(old));
        Err(request.forbidden(&format!(
            "user not permitted to approve requests with signerName {name}"
        )))
    }
}

impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(old) = request.old else {
            return Ok(());
        };
        let status = request.operation == Operation::Update && request.subresource == "status";
        let changed = |key: &str| request.object.at("status").at(key) != old.at("status").at(key);
        if !status
            || !request.is_about(GROUP, REQUESTS)
            || !["certificate", "conditions"].into_iter().any(changed)
            || may(request, "sign", signer(old))
        {
            return Ok(());
        }
        let name = crate::meta::errors::quoted(signer(old));
        Err(request.forbidden(&format!(
            "user not permitted to sign requests with signerName {name}"
        )))
    }
}

impl Plugin for ClusterTrustBundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        let asked = signer(&request.object);
        if !matches!(request.operation, Operation::Create | Operation::Update)
            || !request.is_about(GROUP, "clustertrustbundles")
            || asked.is_empty()
            || request
                .old
                .is_some_and(|old| changes_nothing_else(&request.object, old))
            || may(request, "attest", asked)
        {
            return Ok(());
        }
        let name = crate::meta::errors::quoted(asked);
        Err(request.forbidden(&format!(
            "user not permitted to attest for signerName {name}"
        )))
    }
}

impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if request.operation != Operation::Create
            || !request.is_of(GROUP, REQUESTS)
            || signer(&request.object) != CLIENT_SIGNER
        {
            return Ok(());
        }
        let asked = request.object.at("spec").str("request");
        match subject(asked) {
            Err(why) => Err(request.forbidden(&format!("failed to parse CSR: {why}"))),
            Ok(subject) if subject.groups.iter().any(|group| group == MASTERS) => Err(request
                .forbidden(&format!(
                    "use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"
                ))),
            Ok(_) => Ok(()),
        }
    }
}

/// The subject of a request (base64 of PEM).
///
/// # Errors
/// The text is not a valid request.
pub(super) fn subject(request: &str) -> Result<Subject, String> {
    use base64::Engine as _;
    let engine = &base64::engine::general_purpose::STANDARD;
    let text = engine.decode(request).unwrap_or_default();
    Request::parse(&String::from_utf8_lossy(&text)).map(|request| request.subject)
}
