//! Trust anchors in volumes, for `clusterTrustBundle` projections. Follows
//! k8s.io/kubernetes/pkg/kubelet/clustertrustbundle.

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;
use kube::api::{Api, ListParams};
use kube::core::Selector;

use super::Host;
use crate::meta::pem;

/// All certificates in some bundles, without duplicates. Other content is left out.
fn anchors<'a>(bundles: impl IntoIterator<Item = &'a ClusterTrustBundle>) -> String {
    let bundles = bundles.into_iter();
    let blocks = bundles.flat_map(|bundle| pem::blocks(&bundle.spec.trust_bundle));
    let certificates: BTreeSet<Vec<u8>> = blocks.map(|block| block.bytes).collect();
    let texts = certificates.iter();
    texts.map(|bytes| pem::text("CERTIFICATE", bytes)).collect()
}

impl Host {
    /// The trust anchors of a projection, as PEM.
    pub(super) async fn trust_anchors(
        &self,
        of: &ClusterTrustBundleProjection,
    ) -> Result<String, String> {
        let api: Api<ClusterTrustBundle> = Api::all(self.client.clone());
        let optional = of.optional == Some(true);
        let failed = |error: kube::Error| format!("failed to get trust anchors: {error}");
        if let Some(name) = &of.name {
            return match api.get_opt(name).await.map_err(failed)? {
                None if !optional => Err(format!("clustertrustbundle {name:?} not found")),
                found => Ok(anchors(&found)),
            };
        }
        let Some(signer) = &of.signer_name else {
            return Err(
                "ClusterTrustBundle projection requires either name or signerName to be set".into(),
            );
        };
        // A missing selector selects nothing; an empty one selects all.
        let found = match of.label_selector.clone().map(Selector::try_from) {
            None => Vec::new(),
            Some(Err(error)) => return Err(format!("while parsing label selector: {error}")),
            Some(Ok(labels)) => {
                let of_signer = ListParams::default()
                    .fields(&format!("spec.signerName={signer}"))
                    .labels_from(&labels);
                api.list(&of_signer).await.map_err(failed)?.items
            }
        };
        match found.is_empty() && !optional {
            true => Err(
                "combination of signerName and labelSelector matched zero ClusterTrustBundles"
                    .into(),
            ),
            false => Ok(anchors(&found)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_shown_once_and_alone() {
        let bundle = |text: &str| {
            let mut bundle = ClusterTrustBundle::default();
            bundle.spec.trust_bundle = text.to_owned();
            bundle
        };
        let (a, b) = (
            pem::text("CERTIFICATE", b"a"),
            pem::text("CERTIFICATE", b"b"),
        );
        for (bundles, shown) in [
            (vec![], String::new()),
            (vec![bundle(&format!("of a\n{a}"))], a.clone()),
            (
                vec![bundle(&format!("{b}{a}")), bundle(&format!("{a}end"))],
                format!("{a}{b}"),
            ),
        ] {
            assert_eq!(anchors(&bundles), shown);
        }
    }
}
