//! Images for pods: whether they are present and may be used, and pulling them with the pods' secrets. Follows
//! pkg/kubelet/images.

use k8s_openapi::api::core::v1::{ContainerImage, Pod, Secret};

use super::{Host, text};
use crate::blocking::blocking;
use crate::client::events::Tone;
use crate::node::images::{Access, Holder, Image, ImageError, Keyring, Reference};
use crate::node::supplies::{Lack, Pulled};

/// The registry credentials of a pod.
#[derive(Default)]
struct PullSecrets {
    keyring: Keyring,
    /// Names of secrets that could not be read.
    missing: Vec<String>,
}

impl Host {
    /// Reads the pod's imagePullSecrets.
    async fn pull_secrets(&self, pod: &Pod) -> Result<PullSecrets, Lack> {
        let mut all = PullSecrets::default();
        let spec = pod.spec.iter();
        for reference in spec.flat_map(|spec| spec.image_pull_secrets.iter().flatten()) {
            let found = self.object::<Secret>(pod, &reference.name).await;
            let Ok(Some(secret)) = found else {
                all.missing.push(reference.name.clone());
                continue;
            };
            let key = match secret.type_.as_deref() {
                Some("kubernetes.io/dockerconfigjson") => ".dockerconfigjson",
                Some("kubernetes.io/dockercfg") => ".dockercfg",
                _ => continue,
            };
            let Some(content) = secret.data.as_ref().and_then(|data| data.get(key)) else {
                continue;
            };
            let metadata = &secret.metadata;
            let [uid, namespace, name] = [&metadata.uid, &metadata.namespace, &metadata.name]
                .map(|value| text(value.as_ref()).to_owned());
            let holder = Holder {
                uid,
                namespace,
                name,
                hash: String::new(),
            };
            let added = all.keyring.add(&holder, &content.0);
            added.map_err(|error| Lack::new("ErrImagePull", error))?;
        }
        Ok(all)
    }

    /// Whether an image need not be pulled: one that was pulled with a secret is only for pods that have it.
    pub(super) async fn is_present(
        &self,
        pod: &Pod,
        name: &str,
        policy: Option<&str>,
    ) -> Result<bool, Lack> {
        let never = || {
            Lack::new(
                "ErrImageNeverPull",
                format!("Container image {name:?} is not present with pull policy of Never"),
            )
        };
        let is_never = policy == Some("Never");
        let Some(image) = self.image(name).await? else {
            return if is_never { Err(never()) } else { Ok(false) };
        };
        // A manually loaded image has no registry: it is used, whatever the policy.
        if policy == Some("Always") || !image.pulled {
            return Ok(!image.pulled);
        }
        let repository = repository(name);
        if image.admits(&repository, &[]) {
            return Ok(true);
        }
        let secrets = self.pull_secrets(pod).await?;
        match image.admits(&repository, &secrets.keyring.lookup(&repository)) {
            false if is_never => Err(never()),
            admitted => Ok(admitted),
        }
    }

    /// Pulls an image, trying all matching credentials in order until one is accepted.
    pub(super) async fn pull(&self, pod: &Pod, name: &str) -> Result<Pulled, Lack> {
        let begun = std::time::Instant::now();
        let secrets = self.pull_secrets(pod).await?;
        let found = secrets.keyring.lookup(&repository(name));
        let mut ways: Vec<_> = found
            .into_iter()
            .map(|own| (Some(own), Access::Holders(vec![own.holder.clone()])))
            .collect();
        if ways.is_empty() {
            ways.push((None, Access::Anyone));
        }
        let mut failures = Vec::new();
        for (credentials, access) in ways {
            let pulled = self
                .images
                .pull(&self.registries, name, credentials, Some(access));
            match pulled.await {
                Ok(image) => {
                    let took = format!("{}ms", begun.elapsed().as_millis());
                    return Ok(Pulled::Fetched(format!(
                        "Successfully pulled image {name:?} in {took} ({took} including waiting). Image size: {} bytes.",
                        image.size
                    )));
                }
                Err(error) => failures.push(error.to_string()),
            }
        }
        if !secrets.missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                secrets.missing.join(", ")
            );
            let reason = "FailedToRetrieveImagePullSecret";
            self.recorder.tell(pod, Tone::Warning, reason, message);
        }
        let whole = Reference::parse(name);
        let whole = whole.map_or_else(|_| name.to_owned(), |whole| whole.to_string());
        failures.dedup();
        Err(Lack::new(
            "ErrImagePull",
            format!(
                "failed to pull and unpack image {whole:?}: {}",
                failures.join(", ")
            ),
        ))
    }

    /// The local image with this name.
    pub(super) async fn image(&self, name: &str) -> Result<Option<Image>, Lack> {
        let (images, own) = (self.images.clone(), name.to_owned());
        let found = blocking(move || images.find(&own)).await;
        found.map_err(|error| match error {
            ImageError::Name { .. } => Lack::new(
                "InvalidImageName",
                format!("Failed to apply default image tag {name:?}: {error}"),
            ),
            other => Lack::new(
                "ImageInspectError",
                format!("Failed to inspect image {name:?}: {other}"),
            ),
        })
    }
}

/// The repository of an image, including its registry.
fn repository(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.name())
}

/// How many images a node's status lists.
pub(in crate::node) const TOLD: usize = 50;
/// How many names of each image it lists.
const NAMES: usize = 5;

/// The images for a node's status: the largest first, with digests before names.
pub(super) fn told(mut images: Vec<Image>) -> Vec<ContainerImage> {
    images.sort_by(|a, b| (b.size, &a.id).cmp(&(a.size, &b.id)));
    let told = images.into_iter().take(TOLD).map(|image| {
        let names = image.digests.into_iter().chain(image.names);
        ContainerImage {
            names: Some(names.take(NAMES).collect()),
            size_bytes: i64::try_from(image.size).ok(),
        }
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_tells_of_its_largest_images() {
        let image = |number: usize| -> Image {
            let names: Vec<_> = (0..number)
                .map(|name| format!("i{number}:{name}"))
                .collect();
            serde_json::from_value(serde_json::json!({
                "id": format!("sha256:{number}"), "names": names, "digests": [format!("i{number}@d")],
                "config": {}, "chains": [], "size": number, "loaded": "2026-01-01T00:00:00Z",
            }))
            .expect("an image")
        };
        let told = told((0..60).map(image).collect());
        assert_eq!(told.len(), TOLD);
        assert_eq!(
            (told[0].size_bytes, told[49].size_bytes),
            (Some(59), Some(10))
        );
        let names = ["i59@d", "i59:0", "i59:1", "i59:2", "i59:3"].map(str::to_owned);
        assert_eq!(told[0].names, Some(names.to_vec()));
    }
}
