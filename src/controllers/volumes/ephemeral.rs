//! ephemeral-volume-controller: creates the claims of pods' ephemeral volumes. Follows
//! k8s.io/kubernetes/pkg/controller/volume/ephemeral.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimTemplate};
use kube::ResourceExt as _;
use kube::api::{Api, ObjectMeta, PostParams};

use super::plan::is_made_for;
use crate::client::Context;
use crate::client::errors::{is_terminating, text};
use crate::client::events::{Recorder, Tone};
use crate::client::informer::{Informer, Key};
use crate::client::kinds::{Claim, Pod};
use crate::client::owners::controller_reference;
use crate::client::queue::{Next, Queue};
use crate::controllers::pods::Pods;

const WORKERS: usize = 10;

/// Runs the controller.
pub async fn run(context: Context) {
    let claims: Informer<Claim> = context.informers.of();
    let pods = Pods::of(&context.informers);
    let queue = listen(&pods, &claims);
    let recorder = context.recorder("ephemeral_volume");
    let look = |key: Key| {
        let pod = pods.cache.get(&key.namespace, &key.name);
        let (context, claims, recorder) = (&context, &claims, &recorder);
        async move {
            match pod.filter(|pod| !pod.is_deleting()) {
                Some(pod) => make(context, claims, recorder, &pod).await,
                None => Ok(Next::Done),
            }
        }
    };
    context.work(&queue, WORKERS, look).await;
}

/// A queue that gets each new pod with ephemeral volumes, and the pods that use a claim that is gone: it may have been
/// made for them, or have been in the way of theirs.
fn listen(pods: &Pods, claims: &Informer<Claim>) -> Arc<Queue<Key>> {
    let queue = Arc::new(Queue::new());
    pods.cache.enqueue(&queue, |change| {
        let mut volumes = change.new.iter().flat_map(|pod| &pod.spec.volumes);
        let waits = change.old.is_none() && volumes.any(|volume| volume.ephemeral.is_some());
        waits.then(|| change.key.clone())
    });
    let pods = pods.clone();
    claims.enqueue(&queue, move |change| -> Vec<Key> {
        if change.new.is_some() {
            return Vec::new();
        }
        let users = pods.users(change.key).into_iter();
        users
            .map(|pod| Key::new(&change.key.namespace, &pod.name_any()))
            .collect()
    });
    queue
}

/// The claim that a template describes for a pod.
fn wanted(
    pod: &Pod,
    name: String,
    template: PersistentVolumeClaimTemplate,
) -> PersistentVolumeClaim {
    let meta = template.metadata.unwrap_or_default();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![controller_reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec),
        status: None,
    }
}

async fn make(
    context: &Context,
    claims: &Informer<Claim>,
    recorder: &Recorder,
    pod: &Pod,
) -> Result<Next, String> {
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &namespace);
    for volume in &pod.spec.volumes {
        let template = volume.ephemeral.as_ref();
        let Some(template) = template.and_then(|of| of.volume_claim_template.clone()) else {
            continue;
        };
        let name = format!("{}-{}", pod.name_any(), volume.name);
        let why = match claims.get(&namespace, &name) {
            Some(claim) if is_made_for(&claim.metadata, pod) => continue,
            Some(_) => format!(
                "PVC {namespace}/{name} was not created for pod {namespace}/{} (pod is not owner)",
                pod.name_any()
            ),
            None => match api
                .create(&PostParams::default(), &wanted(pod, name.clone(), template))
                .await
            {
                Ok(_) => continue,
                Err(error) if is_terminating(&error) => continue,
                Err(error) => format!("create PVC {name}: {}", text(&error)),
            },
        };
        let message = format!("ephemeral volume {}: {why}", volume.name);
        recorder.tell(pod, Tone::Warning, "FailedBinding", message.as_str());
        return Err(format!("pod {namespace}/{}, {message}", pod.name_any()));
    }
    Ok(Next::Done)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn pods_are_looked_at_when_a_claim_goes_that_they_use_whoever_owned_it() {
        let (pods, claims) = (Pods::in_cache(Informer::by_hand()), Informer::by_hand());
        let queue = listen(&pods, &claims);
        let waiting = || {
            let key = queue.next().now_or_never()?;
            queue.done(&key);
            Some(key.name.to_string())
        };
        let pod = |name: &str, volume: &str| {
            let text = format!(
                r#"{{"metadata":{{"name":"{name}","namespace":"n"}},"spec":{{"volumes":[{{"name":"data",{volume}}}]}}}}"#
            );
            serde_json::from_str::<Pod>(&text).expect("a pod")
        };
        pods.cache.put(pod("web", r#""ephemeral":{}"#));
        pods.cache.put(pod("other", r#""emptyDir":{}"#));
        assert_eq!((waiting(), waiting()), (Some("web".to_owned()), None));
        let text = r#"{"metadata":{"name":"web-data","namespace":"n"}}"#;
        claims.put(serde_json::from_str(text).expect("a claim"));
        assert_eq!(waiting(), None, "made by hand: in the way");
        claims.drop(&Key::new("n", "web-data"));
        assert_eq!((waiting(), waiting()), (Some("web".to_owned()), None));
    }
}
