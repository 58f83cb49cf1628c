//! kube-apiserver-serving-clustertrustbundle-publisher-controller: publishes the CAs of the API server as a
//! ClusterTrustBundle. Follows k8s.io/kubernetes/pkg/controller/certificates/clustertrustbundlepublisher.

use std::sync::Arc;

use k8s_openapi::api::certificates::v1::{ClusterTrustBundle, ClusterTrustBundleSpec};
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};

use crate::client::Context;
use crate::client::errors::{is_already_exists, is_conflict, is_not_found};
use crate::client::informer::{Cached, Informer};
use crate::client::queue::{Next, Queue};

const SIGNER: &str = "kubernetes.io/kube-apiserver-serving";

impl Cached for ClusterTrustBundle {
    // Only the bundles of this signer; no other controller uses bundles.
    const FIELDS: &'static str = "spec.signerName=kubernetes.io/kube-apiserver-serving";
}

/// The bundle to publish; its name includes a hash of its content.
fn wanted(root_ca: &str) -> ClusterTrustBundle {
    let digest = ring::digest::digest(&ring::digest::SHA256, root_ca.as_bytes());
    let hash: String = digest.as_ref()[..12]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    ClusterTrustBundle {
        metadata: ObjectMeta {
            name: Some(format!("{}:{hash}", SIGNER.replace('/', ":"))),
            ..ObjectMeta::default()
        },
        spec: ClusterTrustBundleSpec {
            signer_name: Some(SIGNER.to_owned()),
            trust_bundle: root_ca.to_owned(),
        },
    }
}

/// Runs the controller.
pub async fn run(context: Context) {
    let queue = Arc::new(Queue::<()>::new());
    let bundles: Informer<ClusterTrustBundle> = context.informers.of();
    bundles.enqueue(&queue, |_| Some(()));
    queue.add(());
    let api: Api<ClusterTrustBundle> = Api::all(context.client.clone());
    let look = |()| {
        let (api, all) = (&api, bundles.all());
        let wanted = wanted(&context.settings.root_ca);
        async move { publish(api, wanted, &all).await }
    };
    context.work(&queue, 1, look).await;
}

async fn publish(
    api: &Api<ClusterTrustBundle>,
    wanted: ClusterTrustBundle,
    all: &[(crate::client::informer::Key, Arc<ClusterTrustBundle>)],
) -> Result<Next, kube::Error> {
    let name = wanted.metadata.name.clone().unwrap_or_default();
    let params = PostParams::default();
    let written = match all.iter().find(|(key, _)| key.name == name) {
        None => api.create(&params, &wanted).await.map(drop),
        Some((_, found)) if found.spec.trust_bundle != wanted.spec.trust_bundle => {
            let changed = ClusterTrustBundle {
                metadata: found.metadata.clone(),
                ..wanted
            };
            api.replace(&name, &params, &changed).await.map(drop)
        }
        Some(_) => Ok(()),
    };
    match written {
        Err(error) if is_conflict(&error) || is_already_exists(&error) => return Ok(Next::Retry),
        other => other?,
    }
    for (key, _) in all.iter().filter(|(key, _)| key.name != name) {
        match api.delete(&key.name, &DeleteParams::default()).await {
            Err(error) if !is_not_found(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(Next::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_bundle_tells_what_is_in_it() {
        let name = |text: &str| wanted(text).metadata.name.unwrap();
        assert_eq!(
            name("PEM"),
            "kubernetes.io:kube-apiserver-serving:384fb9a44fabe158be2757b9"
        );
        assert_ne!(name("PEM"), name("OTHER"));
    }
}
