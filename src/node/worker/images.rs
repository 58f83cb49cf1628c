//! Images of containers: pulling them, waiting for them, and reporting those that are not available.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::{Told, Worker};
use crate::node::machine::{ERR_IMAGE_PULL, ImageOf, ImageState, image_of, later, named};
use crate::node::supplies::Lack;

/// The first and the longest back-off after a failed pull, in seconds.
const WAITS: (i64, i64) = (10, 300);
/// When upstream next looks at a pod after a failure, in seconds (`backOffPeriod`).
const PERIOD: i64 = 10;

impl Worker {
    /// Pulls the image of a container.
    pub(super) async fn pull(&mut self, pod: &Arc<Pod>, name: &str) {
        let shared = self.shared.clone();
        let Some(container) = named(pod, name) else {
            return;
        };
        let image = image_of(&container);
        match shared.supplies.present(pod, &container).await {
            Ok(true) => {
                let message = format!(
                    "Container image {:?} already present on machine and can be accessed by the pod",
                    image.1
                );
                self.event(pod, false, "Pulled", Some(name), &message);
                self.memory.images.insert(image, ImageState::Ready);
            }
            Ok(false) => {
                let message = format!("Pulling image {:?}", image.1);
                self.event(pod, false, "Pulling", Some(name), &message);
                self.memory
                    .images
                    .insert(image.clone(), ImageState::Pulling);
                let (pod, told) = (pod.clone(), self.told.clone());
                let container = container.into_owned();
                self.tasks.spawn(async move {
                    let result = shared.supplies.fetch(&pod, &container).await;
                    let _ = told.send(Box::new(Told::Pulled(image, result))).await;
                });
            }
            Err(lack) => self.not_pulled(pod, image, lack),
        }
    }

    pub(super) fn not_pulled(&mut self, pod: &Pod, image: ImageOf, lack: Lack) {
        let Lack { reason, message } = lack;
        for (reason, message) in events(&image.1, reason, &message) {
            self.event(pod, true, reason, Some(&image.0), &message);
        }
        let wait = match reason {
            ERR_IMAGE_PULL => {
                let last = self.pulling.get(&image);
                let wait = last.map_or(WAITS.0, |wait| (wait * 2).min(WAITS.1));
                self.pulling.insert(image.clone(), wait);
                wait
            }
            _ => PERIOD,
        };
        let now = Timestamp::now();
        let after = |seconds| later(now, SignedDuration::from_secs(seconds));
        let failed = ImageState::Failed {
            reason: reason.into(),
            message,
            told: after(PERIOD),
            again: after(wait),
        };
        self.memory.images.insert(image, failed);
    }
}

/// The events about an unavailable image: what went wrong, and that its container does not start. Follows
/// pkg/kubelet/images/image_manager.go.
fn events(image: &str, reason: &'static str, message: &str) -> [(&'static str, String); 2] {
    let what = match reason {
        ERR_IMAGE_PULL => (
            "Failed",
            format!("Failed to pull image {image:?}: {message}"),
        ),
        "ErrImageNeverPull" => (reason, message.to_owned()),
        _ => ("InspectFailed", message.to_owned()),
    };
    [what, ("Failed", format!("Error: {reason}"))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_tell_what_went_wrong_with_an_image() {
        for (reason, event, message) in [
            (
                "ErrImagePull",
                "Failed",
                "Failed to pull image \"i:1\": why",
            ),
            ("ErrImageNeverPull", "ErrImageNeverPull", "why"),
            ("InvalidImageName", "InspectFailed", "why"),
            ("ImageInspectError", "InspectFailed", "why"),
        ] {
            let second = ("Failed", format!("Error: {reason}"));
            let expected = [(event, message.to_owned()), second];
            assert_eq!(events("i:1", reason, "why"), expected);
        }
    }
}
