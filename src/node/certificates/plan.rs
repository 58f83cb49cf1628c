//! Decides when a certificate is renewed, and interprets the status of a request. Pure functions. Follows
//! k8s.io/client-go/util/certificate/{certificate_manager.go,csr/csr.go}.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::Purpose;
use crate::auth::pki::{Pair, Request, Wanted};

/// What to do about a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until this time, in seconds since 1970.
    Keep(i64),
    /// Request a new one.
    Renew(Why),
}

/// Why a certificate is to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is none.
    Missing,
    /// It has expired.
    Expired,
    /// It lacks some of what is wanted.
    Different,
    /// It expires soon.
    Due,
}

/// What to do at `now` (seconds since 1970) about the current certificate. `chance` is a random number from 0 to 1,
/// drawn once per certificate, so that nodes created together do not renew together.
pub fn next(held: Option<&Pair>, wanted: &Wanted, now: i64, chance: f64) -> Next {
    let Some(held) = held else {
        return Next::Renew(Why::Missing);
    };
    if now > held.not_after {
        return Next::Renew(Why::Expired);
    }
    if !satisfies(held, wanted) {
        return Next::Renew(Why::Different);
    }
    match deadline(held.not_before, held.not_after, chance) {
        at if at <= now => Next::Renew(Why::Due),
        at => Next::Keep(at),
    }
}

/// Whether a certificate has everything that is wanted; it may have more.
fn satisfies(held: &Pair, wanted: &Wanted) -> bool {
    let addresses = wanted.addresses.iter().map(ToString::to_string);
    let mut names = wanted.dns.iter().cloned().chain(addresses);
    held.subject.name == wanted.subject.name
        && names.all(|name| held.names.contains(&name))
        && (wanted.subject.groups.iter()).all(|group| held.subject.groups.contains(group))
}

/// When a certificate is renewed: after 70 to 90 percent of its lifetime.
fn deadline(not_before: i64, not_after: i64, chance: f64) -> i64 {
    let life = (not_after - not_before) as f64;
    not_before + (life * (0.7 + 0.2 * chance)).round() as i64
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Neither approved nor denied.
    Pending,
    /// Approved, but not signed yet.
    Approved,
    /// The certificate, PEM.
    Issued(String),
    /// Denied: reason and message.
    Denied(String),
    /// The signer failed: reason and message.
    Failed(String),
}

/// What became of a request.
pub fn answer(request: &CertificateSigningRequest) -> Answer {
    let status = request.status.as_ref();
    let conditions = || {
        status
            .into_iter()
            .flat_map(|s| s.conditions.iter().flatten())
    };
    let said = |kind: &str| {
        let found = conditions().find(|condition| condition.type_ == kind)?;
        let parts = [&found.reason, &found.message];
        let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
        let text = parts.map(String::as_str).collect::<Vec<_>>().join(": ");
        Some(match text.is_empty() {
            true => "no reason was given".to_owned(),
            false => text,
        })
    };
    if let Some(why) = said("Denied") {
        return Answer::Denied(why);
    }
    if let Some(why) = said("Failed") {
        return Answer::Failed(why);
    }
    if said("Approved").is_none() {
        return Answer::Pending;
    }
    let certificate = status.and_then(|status| status.certificate.as_ref());
    // Upstream ignores an empty certificate, whatever the conditions say.
    match certificate.filter(|certificate| !certificate.0.is_empty()) {
        Some(certificate) => Answer::Issued(String::from_utf8_lossy(&certificate.0).into_owned()),
        None => Answer::Approved,
    }
}

/// Checks that an existing request with our request's name is ours: made for the same contents with this key, whose
/// digest is part of the name.
///
/// # Errors
/// How it differs.
pub fn compatible(
    found: &CertificateSigningRequest,
    purpose: Purpose,
    wanted: &Wanted,
) -> Result<(), String> {
    let text = String::from_utf8_lossy(&found.spec.request.0);
    let asked = Request::parse(&text)?;
    if asked.subject != wanted.subject {
        return Err(format!("it is for {}", asked.subject.name));
    }
    if found.spec.signer_name != purpose.signer() {
        return Err(format!("its signer is {}", found.spec.signer_name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::api::certificates::v1::{
        CertificateSigningRequestCondition, CertificateSigningRequestStatus,
    };

    use super::*;
    use crate::auth::pki::{Key, Pki, Terms};
    use crate::node::certificates::{client, serving};

    /// A certificate as wanted, valid from 1000 to 2000.
    fn held(wanted: &Wanted) -> Pair {
        let dir = tempfile::tempdir().expect("a directory");
        let pki = Pki::open(dir.path(), [""; 0]).expect("keys");
        let key = Key::generate().expect("a key");
        let asked = key.request(wanted).expect("a request");
        let terms = Terms {
            usages: vec!["client auth".to_owned()],
            not_before: 1000,
            not_after: 2000,
        };
        let asked = Request::parse(&asked).expect("a request");
        let certificate = pki.certify(&asked, &terms).expect("a certificate");
        Pair::read(&certificate, &key.pem()).expect("a pair")
    }

    #[test]
    fn a_certificate_is_renewed_in_time_and_where_it_is_not_for_what_is_wanted() {
        let addresses = |list: &[&str]| -> Vec<String> {
            list.iter().map(|address| (*address).to_owned()).collect()
        };
        let of = |list: &[&str]| serving("n", &addresses(list)).expect("wanted");
        let (one, two) = (of(&["192.0.2.1"]), of(&["192.0.2.1", "192.0.2.2"]));
        let client_of = |node: &str| client(node);
        for (held, wanted, now, chance, expected) in [
            (None, &one, 1500, 0.0, Next::Renew(Why::Missing)),
            (Some(&one), &one, 1000, 0.0, Next::Keep(1700)),
            (Some(&one), &one, 1000, 0.5, Next::Keep(1800)),
            (Some(&one), &one, 1000, 1.0, Next::Keep(1900)),
            (Some(&one), &one, 1699, 0.0, Next::Keep(1700)),
            (Some(&one), &one, 1700, 0.0, Next::Renew(Why::Due)),
            (Some(&one), &one, 1899, 1.0, Next::Keep(1900)),
            // The clock was changed.
            (Some(&one), &one, 2000, 1.0, Next::Renew(Why::Due)),
            (Some(&one), &one, 2001, 1.0, Next::Renew(Why::Expired)),
            (Some(&one), &one, 900, 0.0, Next::Keep(1700)),
            // An address was added or removed, or the node's name differs.
            (Some(&one), &two, 1000, 0.0, Next::Renew(Why::Different)),
            (Some(&two), &one, 1000, 0.0, Next::Keep(1700)),
            (
                Some(&client_of("n")),
                &client_of("m"),
                1000,
                0.0,
                Next::Renew(Why::Different),
            ),
            (
                Some(&client_of("n")),
                &client_of("n"),
                1000,
                0.0,
                Next::Keep(1700),
            ),
        ] {
            let held = held.map(super::tests::held);
            let told = next(held.as_ref(), wanted, now, chance);
            assert_eq!(told, expected, "{wanted:?} at {now}, {chance}");
        }
    }

    #[test]
    fn a_request_is_answered_by_its_conditions_and_never_with_nothing() {
        let condition = |kind: &str| CertificateSigningRequestCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: Some("Because".to_owned()),
            message: Some("so it is".to_owned()),
            ..CertificateSigningRequestCondition::default()
        };
        let why = "Because: so it is".to_owned();
        for (conditions, certificate, expected) in [
            (&[][..], None, Answer::Pending),
            (&[], Some("PEM"), Answer::Pending),
            (&["Approved"], None, Answer::Approved),
            (&["Approved"], Some(""), Answer::Approved),
            (&["Approved"], Some("PEM"), Answer::Issued("PEM".to_owned())),
            (
                &["Approved", "Denied"],
                Some("PEM"),
                Answer::Denied(why.clone()),
            ),
            (&["Approved", "Failed"], None, Answer::Failed(why)),
        ] {
            let request = CertificateSigningRequest {
                status: Some(CertificateSigningRequestStatus {
                    conditions: Some(conditions.iter().map(|kind| condition(kind)).collect()),
                    certificate: certificate.map(|text: &str| ByteString(text.into())),
                }),
                ..CertificateSigningRequest::default()
            };
            assert_eq!(answer(&request), expected, "{conditions:?} {certificate:?}");
        }
        assert_eq!(
            answer(&CertificateSigningRequest::default()),
            Answer::Pending
        );
    }

    #[test]
    fn a_request_of_somebody_else_is_not_ours() {
        let key = Key::generate().expect("a key");
        let mut found = CertificateSigningRequest::default();
        let pem = key.request(&client("n")).expect("a request");
        found.spec.request = ByteString(pem.into_bytes());
        found.spec.signer_name = Purpose::Client.signer().to_owned();
        assert_eq!(compatible(&found, Purpose::Client, &client("n")), Ok(()));
        let wrong = compatible(&found, Purpose::Client, &client("m"));
        assert_eq!(wrong, Err("it is for system:node:n".to_owned()));
        assert!(compatible(&found, Purpose::Serving, &client("n")).is_err());
    }
}
