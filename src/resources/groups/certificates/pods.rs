//! PodCertificateRequests: kubelets request certificates for their pods.

use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::X509Certificate;

use super::SIGNER;
use super::x509::{self, Key};
use crate::auth::signers;
use crate::meta::{At, Errors, conditions, names, pem, time};
use crate::resources::groups::core::pods::validate::{signer_name, user_annotations};
use crate::resources::groups::core::pods::{cells, defaults};
use crate::resources::{
    Cx, MetaOnStatus, Printing, Rules, Selectable, Selection, SelectorError, StatusRules,
};
use crate::schema::{Object, Value};

const DAY: i64 = 86_400;
const HOUR: i64 = 3_600;
/// The maximum size of the PKCS#10 request, in bytes.
const SIZE: usize = 10 << 10;
/// The maximum length of the certificate chain, in bytes.
const CHAIN_SIZE: usize = 100 << 10;
/// The terminal conditions; a request gets at most one of them, once.
const ENDS: [&str; 3] = ["Issued", "Denied", "Failed"];

/// The rules of pod certificate requests.
pub(super) const RULES: Rules = Rules {
    defaults: |request, _| {
        let spec = request.object_mut().entry("spec", || Object::new().into());
        defaults::absent(spec, "maxExpirationSeconds", DAY);
    },
    validate: |request, old, _, errors| {
        let spec = request.field("spec");
        match old {
            None => self::spec(spec, errors),
            Some(old) if old.value.at("spec") != spec.value => spec.invalid_dump(
                "certificates.PodCertificateRequestSpec",
                "field is immutable",
                errors,
            ),
            Some(_) => {}
        }
    },
    status: StatusRules {
        validate: validate_status,
        metadata: MetaOnStatus::Kept,
        ..StatusRules::DEFAULT
    },
    printing: Printing::of(|request, _| {
        let spec = request.at("spec");
        let text = |key: &str| spec.str(key).into();
        let end = request.at("status").list("conditions").iter().rev();
        let state = end
            .map(|condition| condition.str("type"))
            .find(|kind| ENDS.contains(kind));
        vec![
            request.at("metadata").str("name").into(),
            text("podName"),
            text("serviceAccountName"),
            text("nodeName"),
            text("signerName"),
            state.unwrap_or("Pending").into(),
            cells::labels(spec.at("unverifiedUserAnnotations")),
        ]
    }),
    selection: Selection {
        fields: &[
            SIGNER,
            Selectable {
                name: "spec.podName",
                value: |request| request.at("spec").str("podName").to_owned(),
            },
            Selectable {
                name: "spec.nodeName",
                value: |request| request.at("spec").str("nodeName").to_owned(),
            },
        ],
        by_namespace: false,
        refusal: SelectorError::Own,
        ..Selection::DEFAULT
    },
    unconditional_update: false,
    internal: "certificates.PodCertificateRequest",
    ..Rules::DEFAULT
};

fn spec(spec: At<'_>, errors: &mut Errors) {
    let signer = spec.field("signerName");
    signer_name(signer, errors);
    user_annotations(spec.field("unverifiedUserAnnotations"), errors);
    for (name, uid) in [
        ("podName", "podUID"),
        ("serviceAccountName", "serviceAccountUID"),
        ("nodeName", "nodeUID"),
    ] {
        spec.field(name).checked(names::dns1123_subdomain, errors);
        let uid = spec.field(uid);
        if uid.str().is_empty() {
            uid.invalid_text("must not be empty", errors);
        }
        uid.at_most(128, errors);
    }
    let seconds = spec.field("maxExpirationSeconds");
    let Some(asked) = seconds.int() else {
        return errors.required(seconds.path, "must be set");
    };
    let host = signer.str().split('/').next().unwrap_or_default();
    let days = match host == "kubernetes.io" || host.ends_with(".kubernetes.io") {
        true => 1,
        false => 91,
    };
    if !(HOUR..=days * DAY).contains(&asked) {
        seconds.invalid(
            format!("must be in the range [{HOUR}, {}]", days * DAY),
            errors,
        );
    }
    key(spec, errors);
}

/// Validates the key, given by a PKCS#10 request without contents.
fn key(spec: At<'_>, errors: &mut Errors) {
    let stub = spec.field("stubPKCS10Request");
    if stub.str().is_empty() {
        let why =
            "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
        return errors.invalid_omitted(spec.path, why);
    }
    let der = bytes(stub);
    if der.len() > SIZE {
        return errors.too_long(stub.path, SIZE);
    }
    let Ok(request) = x509::request(&der) else {
        return errors.invalid_omitted(stub.path, "must be a valid PKCS#10 CSR");
    };
    match x509::key_of(&request.certification_request_info.subject_pki) {
        Key::Curve(bits) if !matches!(bits, 256 | 384 | 521) => errors.invalid(
            stub.path,
            format!("curve P-{bits}"),
            "elliptic public keys must use curve P256, P384, or P521",
        ),
        Key::Rsa(bits) if !matches!(bits, 3072 | 4096) => errors.invalid(
            stub.path,
            format!("{bits}-bit modulus"),
            "RSA keys must have modulus size 3072 or 4096",
        ),
        Key::Other => errors.invalid_omitted(
            stub.path,
            "unknown public key type; supported types are Ed25519, ECDSA, and RSA",
        ),
        _ if x509::check_signature(&request).is_err() => {
            errors.invalid_omitted(stub.path, "invalid signature");
        }
        _ => {}
    }
}

/// Decodes base64.
fn bytes(field: At<'_>) -> Vec<u8> {
    use base64::Engine as _;
    let engine = &base64::engine::general_purpose::STANDARD;
    engine.decode(field.str()).unwrap_or_default()
}

/// The terminal condition in a status; empty if there is none.
fn end(status: &Value) -> &str {
    let list = status.list("conditions");
    ENDS.into_iter()
        .find(|kind| conditions::holds(list, kind))
        .unwrap_or_default()
}

fn validate_status(request: At<'_>, old: At<'_>, cx: &Cx<'_>, errors: &mut Errors) {
    if !errors.is_empty() {
        return;
    }
    let (status, was) = (request.field("status"), old.value.at("status"));
    ends(status, errors);
    if !errors.is_empty() {
        return;
    }
    let changed = status.value != was;
    match (end(was), end(status.value)) {
        ("", "Issued") => issued(request, cx.now, errors),
        ("", "Denied" | "Failed") => {
            let fields = status.value.as_object().into_iter().flat_map(|o| o.iter());
            if fields
                .into_iter()
                .any(|(key, value)| key != "conditions" && !value.is_empty())
            {
                let why = "non-condition status fields must be empty when denying or failing the PodCertificateRequest";
                errors.invalid_omitted(status.path, why);
            }
        }
        ("", _) if changed => {
            let why =
                r#"status is immutable unless transitioning to "Issued", "Denied", or "Failed""#;
            errors.invalid_omitted(status.path, why);
        }
        ("", _) => {}
        _ if changed => {
            let why = "immutable after PodCertificateRequest is issued, denied, or failed";
            errors.invalid_omitted(status.path, why);
        }
        _ => {}
    }
    let signer = old.value.at("spec").str("signerName");
    let may = |authorizer| signers::may(authorizer, cx.user, "sign", signer);
    if errors.is_empty() && changed && !cx.authorizer.is_some_and(may) {
        let [user, signer] = [&cx.user.name, signer].map(crate::meta::errors::quoted);
        errors.forbidden(
            request.path.field("spec.signerName"),
            format!("User {user} is not permitted to \"sign\" for signer {signer}"),
        );
    }
}

/// Validates that there is at most one terminal condition and that it is true, and then the conditions themselves.
fn ends(status: At<'_>, errors: &mut Errors) {
    let list = status.field("conditions");
    let mut known = 0;
    for (i, value) in list.list().iter().enumerate() {
        // Upstream writes the index as a field name.
        let index = format!("[{i}]");
        let condition = At {
            value,
            path: list.path.field(&index),
        };
        let kind = condition.field("type");
        if !ENDS.contains(&kind.str()) {
            kind.one_of(&ENDS, errors);
            continue;
        }
        known += 1;
        if known > 1 {
            kind.invalid(
                r#"There may be at most one condition with type "Issued", "Denied", or "Failed""#,
                errors,
            );
        }
        condition.field("status").one_of(&["True"], errors);
    }
    list.conditions(errors);
}

/// Validates an issued certificate chain: it must match the key and the validity in the status.
fn issued(request: At<'_>, now: i64, errors: &mut Errors) {
    let (spec, status) = (request.field("spec"), request.field("status"));
    let chain = status.field("certificateChain");
    if chain.str().len() > CHAIN_SIZE {
        return errors.too_long(chain.path, CHAIN_SIZE);
    }
    let blocks = pem::blocks(chain.str());
    let refuse = |why: &str, errors: &mut Errors| chain.invalid_text(why, errors);
    let Some(first) = blocks.first() else {
        return refuse(
            "issued certificate chain must contain at least one certificate",
            errors,
        );
    };
    if first.label != "CERTIFICATE" {
        return refuse(
            "issued certificate chain must consist entirely of CERTIFICATE PEM blocks",
            errors,
        );
    }
    let Ok(leaf) = x509::certificate(&first.bytes) else {
        return refuse("leaf certificate does not parse as valid X.509", errors);
    };
    names_of(&leaf, chain, errors);
    let stub = bytes(spec.field("stubPKCS10Request"));
    let request = x509::request(&stub);
    let key = request
        .as_ref()
        .map(|request| request.certification_request_info.subject_pki.raw);
    if key != Ok(leaf.public_key().raw) {
        return refuse(
            "leaf certificate was not issued to the requested public key",
            errors,
        );
    }
    times(spec.value, status, &leaf, now, errors);
    if !errors.is_empty() {
        return;
    }
    for block in &blocks[1..] {
        if block.label != "CERTIFICATE" {
            return refuse(
                "issued certificate chain must consist entirely of CERTFICATE PEM blocks",
                errors,
            );
        }
        if x509::certificate(&block.bytes).is_err() {
            return refuse(
                "intermediate certificate does not parse as valid X.509",
                errors,
            );
        }
    }
}

fn names_of(leaf: &X509Certificate<'_>, chain: At<'_>, errors: &mut Errors) {
    let names =
        leaf.extensions()
            .iter()
            .filter_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
                _ => None,
            });
    for name in names.flatten() {
        match name {
            GeneralName::DNSName(name) => {
                for (wrong, why) in [
                    (name.is_empty(), "should not contain empty DNSName"),
                    (name.contains(".."), "'s DNSName should not contain '..'"),
                    (
                        name.starts_with('.') || name.ends_with('.'),
                        "'s DNSName should not start or end with '.'",
                    ),
                ] {
                    let space = if why.starts_with('\'') { "" } else { " " };
                    if wrong {
                        errors.invalid(chain.path, *name, format!("leaf certificate{space}{why}"));
                    }
                }
            }
            GeneralName::RFC822Name(address) if !is_address(address) => errors.invalid(
                chain.path,
                *address,
                "leaf certificate should not contain invalid EmailAddress",
            ),
            _ => {}
        }
    }
}

/// Whether the text has something on both sides of an `@`.
fn is_address(address: &str) -> bool {
    address
        .rsplit_once('@')
        .is_some_and(|(local, host)| !local.is_empty() && !host.is_empty() && !host.contains(' '))
}

fn times(spec: &Value, status: At<'_>, leaf: &X509Certificate<'_>, now: i64, errors: &mut Errors) {
    let told = errors.0.len();
    let fields = ["notBefore", "notAfter", "beginRefreshAt"];
    let details = [
        "must be present and consistent with the issued certificate",
        "must be present and consistent with the issued certificate",
        "must be present and in the range [notbefore+10min, notafter-10min]",
    ];
    for (field, detail) in fields.iter().zip(details) {
        status.field(field).required(detail, errors);
    }
    if errors.0.len() > told {
        return;
    }
    let at = |field: &str| time::parse(status.value.str(field)).unwrap_or(0);
    let [before, after, refresh] = fields.map(at);
    let validity = leaf.validity();
    let (from, until) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    let chain = status.field("certificateChain");
    let most = spec.int("maxExpirationSeconds");
    let minute = 60;
    let (field, why) = if before != from {
        (
            0,
            "must be set to the NotBefore time encoded in the leaf certificate",
        )
    } else if (before - now).abs() >= 5 * minute {
        (
            0,
            "must be set to within 5 minutes of kube-apiserver's current time",
        )
    } else if after != until {
        (
            1,
            "must be set to the NotAfter time encoded in the leaf certificate",
        )
    } else if until - from < HOUR {
        let nanos = (until - from).saturating_mul(1_000_000_000);
        return errors.invalid(
            chain.path,
            nanos,
            "leaf certificate lifetime must be >= 1 hour",
        );
    } else if until - from > most {
        let nanos = (until - from).saturating_mul(1_000_000_000);
        return errors.invalid(
            chain.path,
            nanos,
            format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({most})"),
        );
    } else if refresh < before + 10 * minute {
        (2, "must be at least 10 minutes after status.notBefore")
    } else if refresh > after - 10 * minute {
        (2, "must be at least 10 minutes before status.notAfter")
    } else {
        return;
    };
    status.field(fields[field]).invalid(why, errors);
}
