//! Projected volumes. Follows validateProjectedVolumeSource; signer names follow names.go.

use std::collections::BTreeSet;

use super::{Before, volumes};
use crate::meta::errors::quoted;
use crate::meta::{At, Errors, names};

const KEYS: &[&str] = &[
    "RSA3072",
    "RSA4096",
    "ECDSAP256",
    "ECDSAP384",
    "ECDSAP521",
    "ED25519",
];
const DAY: i64 = 24 * 60 * 60;

/// The paths in a projected volume, which must be unique.
struct Paths<'a> {
    volume: At<'a>,
    taken: BTreeSet<String>,
}

impl Paths<'_> {
    /// Adds a path; reports a duplicate, shown as upstream shows it.
    fn take(&mut self, path: &str, shown: &str, errors: &mut Errors) {
        if !self.taken.insert(path.to_owned()) {
            errors.invalid(self.volume.path, shown, "conflicting duplicate paths");
        }
    }
}

/// Validates a projected volume.
pub(super) fn projected(volume: At<'_>, before: Before<'_>, errors: &mut Errors) {
    volumes::mode(volume.field("defaultMode"), errors);
    let mut paths = Paths {
        volume,
        taken: BTreeSet::new(),
    };
    let sources = volume.field("sources");
    for source in sources.items() {
        let mut said = 0;
        for kind in ["secret", "configMap"] {
            let at = source.field(kind);
            if !at.is_absent() {
                said += 1;
                files(at, &mut paths, errors);
            }
        }
        let downward = source.field("downwardAPI");
        if !downward.is_absent() {
            said += 1;
            for item in downward.value.list("items") {
                let file = At {
                    value: item,
                    path: downward.path,
                };
                volumes::downward_file(file, errors);
                let path = item.str("path");
                if !path.is_empty() {
                    paths.take(path, path, errors);
                }
            }
        }
        let token = source.field("serviceAccountToken");
        if !token.is_absent() {
            said += 1;
            self::token(token, volume, before, errors);
        }
        for (kind, check) in [
            ("clusterTrustBundle", trust_bundle as Own),
            ("podCertificate", certificate),
        ] {
            let at = source.field(kind);
            if !at.is_absent() {
                said += 1;
                check(at, &mut paths, errors);
            }
        }
        if said > 1 {
            errors.forbidden(
                source.path,
                "may not specify more than 1 volume type per source",
            );
        }
    }
}

type Own = for<'a, 'b, 'c> fn(At<'a>, &mut Paths<'b>, &'c mut Errors);

fn files(source: At<'_>, paths: &mut Paths<'_>, errors: &mut Errors) {
    let name = source.field("name");
    name.required("", errors);
    for item in source.field("items").items() {
        volumes::key_to_path(item, errors);
        let path = item.value.str("path");
        if !path.is_empty() {
            paths.take(path, name.str(), errors);
        }
    }
}

fn token(token: At<'_>, volume: At<'_>, before: Before<'_>, errors: &mut Errors) {
    let seconds = token.field("expirationSeconds");
    match seconds.int() {
        None => errors.required(seconds.path, ""),
        Some(n) if n < 600 => {
            seconds.invalid("may not specify a duration less than 10 minutes", errors);
        }
        Some(n) if n > 1 << 32 => {
            seconds.invalid(
                "may not specify a duration larger than 2^32 seconds",
                errors,
            );
        }
        Some(_) => {}
    }
    // Upstream reports the volume's path.
    let path = At {
        value: token.value.at("path"),
        path: volume.path.field("path"),
    };
    let refused = errors.0.len();
    if path.required("", errors) {
        volumes::local_path(path, errors);
        if errors.0.len() > refused && before.any_token_path() {
            errors.truncate(refused);
        }
    }
}

fn trust_bundle(bundle: At<'_>, paths: &mut Paths<'_>, errors: &mut Errors) {
    let (name, signer) = (bundle.field("name"), bundle.field("signerName"));
    let selector = bundle.field("labelSelector");
    match (name.is_absent(), signer.is_absent()) {
        (false, false) => bundle.invalid_dump(
            "core.ClusterTrustBundleProjection",
            "only one of name and signerName may be used",
            errors,
        ),
        (false, true) => {
            name.required("must be a valid object name", errors);
            for wrong in trust_bundle_name(name.str()) {
                name.invalid(
                    format!("not a valid clustertrustbundlename: {wrong}"),
                    errors,
                );
            }
            if !selector.is_absent() {
                selector.invalid("labelSelector must be unset if name is specified", errors);
            }
        }
        (true, false) => {
            signer.required("must be a valid signer name", errors);
            signer_name(signer, errors);
            selector.label_selector(false, errors);
        }
        (true, true) => {
            errors.required(bundle.path, "either name or signerName must be specified");
        }
    }
    let path = bundle.field("path");
    path.required("", errors);
    volumes::local_path(path, errors);
    paths.take(path.str(), path.str(), errors);
}

/// ValidateClusterTrustBundleName, with the signer in the name itself.
fn trust_bundle_name(name: &str) -> Vec<String> {
    let own = name.rsplit_once(':').map_or(name, |(_, own)| own);
    names::dns1123_subdomain(own)
}

fn certificate(certificate: At<'_>, paths: &mut Paths<'_>, errors: &mut Errors) {
    let signer = certificate.field("signerName");
    signer_name(signer, errors);
    user_annotations(certificate.field("userAnnotations"), errors);
    certificate.field("keyType").one_of(KEYS, errors);
    let lifetime = certificate.field("maxExpirationSeconds");
    if let Some(seconds) = lifetime.int() {
        if seconds < 3600 {
            lifetime.invalid("if provided, maxExpirationSeconds must be >= 3600", errors);
        }
        let host = signer.str().split('/').next().unwrap_or_default();
        let most = match host == "kubernetes.io" || host.ends_with(".kubernetes.io") {
            true => DAY,
            false => 91 * DAY,
        };
        if seconds > most {
            lifetime.invalid(
                format!("if provided, maxExpirationSeconds must be <= {most}"),
                errors,
            );
        }
    }
    let mut said = false;
    for path in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let path = certificate.field(path);
        if !path.str().is_empty() {
            said = true;
            volumes::local_path(path, errors);
            paths.take(path.str(), path.str(), errors);
        }
    }
    if !said {
        errors.required(
            certificate.path,
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
        );
    }
}

/// ValidateUserAnnotations
pub(in crate::resources::groups) fn user_annotations(annotations: At<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in annotations.entries() {
        size += key.len() + value.str().len();
        let key = key.to_lowercase();
        let wrong = names::qualified_name(&key);
        if key.is_empty() {
            errors.required(annotations.path, "");
        } else if !wrong.is_empty() {
            for wrong in wrong {
                errors.invalid(annotations.path, key.as_str(), wrong);
            }
        } else if !key.contains('/') {
            errors.invalid(
                annotations.path,
                key.as_str(),
                "must be a domain-prefixed key (such as \"acme.io/foo\")",
            );
        }
    }
    if size > crate::resources::metadata::ANNOTATIONS_MAX {
        errors.too_long(
            annotations.path,
            crate::resources::metadata::ANNOTATIONS_MAX,
        );
    }
}

/// Validates a signer name like `example.com/name`: ValidateSignerName.
pub(in crate::resources::groups) fn signer_name(signer: At<'_>, errors: &mut Errors) {
    const MAX: usize = 2 * names::SUBDOMAIN_MAX + names::LABEL_MAX + 2;
    if !signer.required("", errors) {
        return;
    }
    let segments: Vec<&str> = signer.str().split('/').collect();
    let [domain, path] = segments[..] else {
        return signer.invalid(
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
            errors,
        );
    };
    if domain.len() > names::SUBDOMAIN_MAX {
        errors.too_long(signer.path, names::SUBDOMAIN_MAX);
    }
    labels(signer, domain, names::dns1123_label, errors);
    if !domain.contains('.') {
        errors.invalid(
            signer.path,
            domain,
            "should be a domain with at least two segments separated by dots",
        );
    }
    labels(signer, path, names::dns1123_subdomain, errors);
    if signer.str().len() > MAX {
        errors.too_long(signer.path, MAX);
    }
}

/// Validates the labels of a part of a signer name, and reports the first invalid one.
fn labels(signer: At<'_>, part: &str, check: fn(&str) -> Vec<String>, errors: &mut Errors) {
    let wrong = part
        .split('.')
        .map(|label| (label, check(label)))
        .find(|(_, wrong)| !wrong.is_empty());
    if let Some((label, wrong)) = wrong {
        for wrong in wrong {
            let wrong = format!("validating label {}: {wrong}", quoted(label));
            errors.invalid(signer.path, part, wrong);
        }
    }
}
