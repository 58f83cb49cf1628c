//! Decides about certificate signing requests.

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CertificateSigningRequest, CertificateSigningRequestCondition, Request};
use crate::auth::pki::Terms;
use crate::meta::pem;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
/// The minimum lifetime that a request may ask for, in seconds.
const SHORTEST: i64 = 10 * MINUTE;
/// How far in the past certificates begin, because clocks differ.
const BACKDATE: i64 = 5 * MINUTE;
/// Certificates with a shorter lifetime are not shortened by that.
const SHORT: i64 = 8 * HOUR;
/// How long requests are kept that were approved, denied or failed.
const ANSWERED: i64 = HOUR;
/// How long pending requests are kept.
const PENDING: i64 = 24 * HOUR;

/// The signer of client certificates.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// The signer of nodes' client certificates.
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// The signer of nodes' serving certificates.
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// The signer of requests from before signers existed.
const LEGACY: &str = "kubernetes.io/legacy-unknown";

fn conditions(
    request: &CertificateSigningRequest,
) -> impl Iterator<Item = &CertificateSigningRequestCondition> {
    let status = request.status.as_ref();
    status
        .into_iter()
        .flat_map(|status| status.conditions.iter().flatten())
}

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(request).any(|condition| condition.type_ == kind)
}

fn usages(spec: &CertificateSigningRequestSpec) -> &[String] {
    spec.usages.as_deref().unwrap_or_default()
}

/// Whether the certificate was issued.
pub(super) fn is_issued(request: &CertificateSigningRequest) -> bool {
    let status = request.status.as_ref();
    status
        .and_then(|status| status.certificate.as_ref())
        .is_some_and(|certificate| !certificate.0.is_empty())
}

/// Whether it was approved or denied.
pub(super) fn is_judged(request: &CertificateSigningRequest) -> bool {
    has(request, "Approved") || has(request, "Denied")
}

/// Whether it is approved and has not failed.
pub(super) fn is_to_be_signed(request: &CertificateSigningRequest) -> bool {
    let failed = conditions(request)
        .any(|condition| condition.type_ == "Failed" && condition.status == "True");
    has(request, "Approved") && !has(request, "Denied") && !failed
}

/// A condition that is true.
pub(super) fn condition(
    kind: &str,
    reason: &str,
    message: String,
) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        ..CertificateSigningRequestCondition::default()
    }
}

/// Checks a request by the rules of its signer; None if this server does not have the signer.
///
/// # Errors
/// What the signer rejects, in upstream's words.
pub(super) fn check(
    spec: &CertificateSigningRequestSpec,
    request: &Request,
) -> Option<Result<(), String>> {
    let usages = usages(spec);
    Some(match spec.signer_name.as_str() {
        CLIENT => client_usages(usages),
        KUBELET_CLIENT => kubelet(request, usages, false),
        KUBELET_SERVING => kubelet(request, usages, true),
        LEGACY => Ok(()),
        _ => return None,
    })
}

fn client_usages(usages: &[String]) -> Result<(), String> {
    const CLIENT_AUTH: &str = "client auth";
    let known = ["digital signature", "key encipherment", CLIENT_AUTH];
    if let Some(other) = usages.iter().find(|usage| !known.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if !usages.iter().any(|usage| usage == CLIENT_AUTH) {
        return Err(format!(
            "missing required usage for client certificate: {CLIENT_AUTH}"
        ));
    }
    Ok(())
}

/// Checks a node's request for a serving or client certificate.
fn kubelet(request: &Request, usages: &[String], serving: bool) -> Result<(), String> {
    if request.subject.groups != ["system:nodes"] {
        return Err("subject organization is not system:nodes".to_owned());
    }
    let named = [
        ("DNS", !request.dns.is_empty()),
        ("Email", !request.emails.is_empty()),
        ("IP", !request.addresses.is_empty()),
        ("URI", !request.uris.is_empty()),
    ];
    if serving && request.dns.is_empty() && request.addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    let refused = named
        .iter()
        .find(|(what, there)| *there && !(serving && matches!(*what, "DNS" | "IP")));
    if let Some((what, _)) = refused {
        return Err(format!("{what} subjectAltNames are not allowed"));
    }
    let purpose = if serving {
        "server auth"
    } else {
        "client auth"
    };
    let usages: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let all = BTreeSet::from(["digital signature", "key encipherment", purpose]);
    // Only RSA keys can be used for key encipherment.
    let others = BTreeSet::from(["digital signature", purpose]);
    if usages != all && usages != others {
        let listed: Vec<&str> = all.into_iter().collect();
        return Err(format!("usages did not match [{}]", listed.join(" ")));
    }
    if !request.subject.name.starts_with("system:node:") {
        return Err("subject common name does not begin with system:node:".to_owned());
    }
    Ok(())
}

/// The terms of a certificate issued at `now`, by a CA that expires at `authority_expires` (seconds since 1970): valid
/// for `longest` seconds, or fewer if requested.
///
/// # Errors
/// The CA has expired.
pub(super) fn terms(
    spec: &CertificateSigningRequestSpec,
    longest: i64,
    now: i64,
    authority_expires: i64,
) -> Result<Terms, String> {
    let seconds = match spec.expiration_seconds.map(i64::from) {
        None => longest,
        Some(asked) if asked > longest => longest,
        Some(asked) => asked.max(SHORTEST),
    };
    let end = now + seconds - if seconds < SHORT { 0 } else { BACKDATE };
    if now >= authority_expires {
        let at = crate::meta::time::print(authority_expires);
        return Err(format!("the signer has expired: NotAfter={at}"));
    }
    Ok(Terms {
        usages: usages(spec).to_vec(),
        not_before: now - BACKDATE,
        not_after: end.min(authority_expires),
    })
}

/// The rights that lead to automatic approval of a request, and the message for each.
pub(super) fn approvals(
    request: &CertificateSigningRequest,
    asked: &Request,
) -> Vec<(&'static str, &'static str)> {
    let spec = &request.spec;
    if spec.signer_name != KUBELET_CLIENT || kubelet(asked, usages(spec), false).is_err() {
        return Vec::new();
    }
    let own = spec.username.as_deref() == Some(&asked.subject.name);
    let own = own.then_some((
        "selfnodeclient",
        "Auto approving self kubelet client certificate after SubjectAccessReview.",
    ));
    let any = (
        "nodeclient",
        "Auto approving kubelet client certificate after SubjectAccessReview.",
    );
    own.into_iter().chain([any]).collect()
}

/// Whether a request can be deleted.
pub(super) fn is_old(request: &CertificateSigningRequest, now: Timestamp) -> bool {
    let older = |time: Option<&Time>, seconds: i64| {
        time.is_some_and(|time| now.as_second() - time.0.as_second() > seconds)
    };
    let issued = is_issued(request);
    if conditions(request).next().is_none() {
        return older(request.metadata.creation_timestamp.as_ref(), PENDING);
    }
    conditions(request).any(|condition| {
        let since = condition.last_update_time.as_ref();
        match condition.type_.as_str() {
            "Denied" | "Failed" => older(since, ANSWERED),
            "Approved" if issued => older(since, ANSWERED) || has_expired(request, now),
            "Approved" => older(since, PENDING),
            _ => false,
        }
    })
}

/// Whether the issued certificate has expired.
fn has_expired(request: &CertificateSigningRequest, now: Timestamp) -> bool {
    let status = request.status.as_ref();
    let bytes = status.and_then(|status| status.certificate.as_ref());
    let text = String::from_utf8_lossy(bytes.map_or(&[], |bytes| &bytes.0));
    let blocks = pem::blocks(&text);
    let first = blocks
        .first()
        .and_then(|block| X509Certificate::from_der(&block.bytes).ok());
    first.is_some_and(|(_, first)| now.as_second() > first.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests;
