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
use crate::client::owners::{controller_of, controller_reference};
use crate::client::queue::{Next, Queue};

const WORKERS: usize = 10;

/// Runs the controller.
pub async fn run(context: Context) {
    let claims: Informer<Claim> = context.informers.of();
    let pods: Informer<Pod> = context.informers.of();
    let queue = Arc::new(Queue::<Key>::new());
    pods.enqueue(&queue, |change| {
        let made = |pod: &Arc<Pod>| {
            pod.spec
                .volumes
                .iter()
                .any(|volume| volume.ephemeral.is_some())
        };
        let waits = change.old.is_none() && change.new.is_some_and(made);
        waits.then(|| change.key.clone())
    });
    claims.enqueue(&queue, |change| {
        let gone = change.old.filter(|_| change.new.is_none())?;
        let owner = controller_of(&gone.metadata)?;
        (owner.kind == "Pod").then(|| Key::new(&change.key.namespace, &owner.name))
    });
    let recorder = context.recorder("ephemeral_volume");
    let look = |key: Key| {
        let pod = pods.get(&key.namespace, &key.name);
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
