//! ClusterTrustBundles: CA certificates.

use std::collections::BTreeMap;

use super::{SIGNER, x509};
use crate::meta::{At, Errors, names, pem};
use crate::resources::groups::core::pods::validate::signer_name;
use crate::resources::{Naming, Printing, Rules, Selection, SelectorError, metadata};

/// The maximum size of a bundle, in bytes.
const SIZE: usize = 1 << 20;

/// The rules of cluster trust bundles.
pub(super) const RULES: Rules = Rules {
    validate: |bundle, old, cx, errors| {
        metadata::again(bundle, old, cx, errors);
        let spec = bundle.field("spec");
        let (signer, anchors) = (spec.field("signerName"), spec.field("trustBundle"));
        name(bundle, signer.str(), errors);
        if !signer.str().is_empty() {
            signer_name(signer, errors);
        }
        let before = old.map(|old| old.value.at("spec"));
        if before.is_none_or(|old| old.at("trustBundle") != anchors.value) {
            trust_anchors(anchors, errors);
        }
        if before.is_some_and(|old| old.str("signerName") != signer.str()) {
            signer.invalid_text("field is immutable", errors);
        }
    },
    printing: Printing::of(|bundle, _| {
        let signer = match bundle.at("spec").str("signerName") {
            "" => "<none>",
            signer => signer,
        };
        vec![bundle.at("metadata").str("name").into(), signer.into()]
    }),
    selection: Selection {
        fields: &[SIGNER],
        by_namespace: false,
        refusal: SelectorError::Own,
        ..Selection::DEFAULT
    },
    naming: Naming::validated_by(|_, _| Vec::new()),
    unconditional_update: false,
    internal: "certificates.ClusterTrustBundle",
    ..Rules::DEFAULT
};

/// The name must have the signer's name as a prefix, if there is a signer: ValidateClusterTrustBundleName.
fn name(bundle: At<'_>, signer: &str, errors: &mut Errors) {
    let meta = bundle.field("metadata");
    for (field, prefix) in [("generateName", true), ("name", false)] {
        let name = meta.field(field);
        if name.str().is_empty() {
            continue;
        }
        let required = format!("{}:", signer.replace('/', ":"));
        let wrong = match name.str().strip_prefix(&required) {
            _ if signer.is_empty() && name.str().contains(':') => {
                vec![
                    "ClusterTrustBundle without signer name must not have \":\" in its name"
                        .to_owned(),
                ]
            }
            _ if signer.is_empty() => names::subdomain_name(name.str(), prefix),
            Some(own) => names::subdomain_name(own, prefix),
            None => vec![format!(
                "ClusterTrustBundle for signerName {signer} must be named with prefix {required}"
            )],
        };
        name.invalid_each(wrong, errors);
    }
}

/// At least one CA certificate, without duplicates: validateTrustBundle. Errors do not show the text.
fn trust_anchors(bundle: At<'_>, errors: &mut Errors) {
    const OMITTED: &str = "<value omitted>";
    if bundle.str().len() > SIZE {
        return errors.too_long(bundle.path, SIZE);
    }
    let refused = errors.0.len();
    let blocks = pem::blocks(bundle.str());
    let mut indices: BTreeMap<&[u8], Vec<String>> = BTreeMap::new();
    for (i, block) in blocks.iter().enumerate() {
        let wrong = if block.label != "CERTIFICATE" {
            format!("has bad block type: {}", block.label)
        } else if block.headers {
            "has PEM block headers".to_owned()
        } else {
            match x509::certificate(&block.bytes) {
                Err(_) => "does not parse as X.509".to_owned(),
                Ok(certificate) if !certificate.is_ca() => {
                    "does not have the CA bit set".to_owned()
                }
                Ok(_) => {
                    indices.entry(&block.bytes).or_default().push(i.to_string());
                    continue;
                }
            }
        };
        errors.invalid(bundle.path, OMITTED, format!("entry {i} {wrong}"));
    }
    if errors.0.len() > refused {
        return;
    }
    if indices.is_empty() {
        errors.invalid(
            bundle.path,
            OMITTED,
            "at least one trust anchor must be provided",
        );
    }
    for same in indices.values().filter(|same| same.len() > 1) {
        errors.invalid(
            bundle.path,
            OMITTED,
            format!("duplicate trust anchor (indices [{}])", same.join(" ")),
        );
    }
}
