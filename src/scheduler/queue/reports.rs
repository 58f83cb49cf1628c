//! The order of reports about a pod.

use tokio::sync::oneshot;

/// Resolves when all earlier reports about a pod are done.
pub struct Told(pub(super) oneshot::Receiver<()>);

impl Told {
    /// Waits for them.
    pub async fn heard(self) {
        // The sender is dropped without a message.
        let _ = self.0.await;
    }
}

/// A place in the order of reports about a pod, so that its status shows the newest result.
pub struct Telling {
    pub(super) before: Option<Told>,
    pub(super) own: oneshot::Sender<()>,
}

impl Telling {
    /// Waits for earlier reports. Keep the returned value until this report is done.
    pub async fn begin(self) -> impl Send {
        if let Some(before) = self.before {
            before.heard().await;
        }
        self.own
    }
}
