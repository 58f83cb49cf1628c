//! Renews a server's own certificates while it runs: its serving certificate, the administrator's, and the client
//! certificate that it shows to nodes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::prepare::{towards_nodes, unusable};
use crate::api::server::Server;
use crate::auth::kubeconfig;
use crate::auth::pki::{Pki, PkiError};
use crate::blocking::blocking;

/// The name of the task.
pub(super) const TASK: &str = "certificates of the server";
/// How often certificates are checked. They are renewed sixty days before they expire.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// The certificates of a server, and everything that uses them.
pub(super) struct Renewal {
    /// Keys and certificates.
    pub pki: Arc<Pki>,
    /// The path of the administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The server's URL in it.
    pub url: String,
    /// The server, which identifies itself to nodes.
    pub server: Arc<Server>,
}

impl Renewal {
    /// Renews certificates until `ends` is cancelled.
    pub(super) async fn keep(self: Arc<Self>, ends: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = ends.cancelled() => return,
            }
            let renewal = self.clone();
            let look = move || renewal.look().map_err(|error| error.to_string());
            if let Err(error) = blocking(look).await {
                tracing::error!(
                    error,
                    "cannot renew the server's certificates; retrying in an hour"
                );
            }
        }
    }

    fn look(&self) -> Result<(), PkiError> {
        if self.pki.renew()? {
            kubeconfig::write_admin(&self.kubeconfig, &self.url, &self.pki)?;
            let path = self.kubeconfig.display();
            tracing::info!("the server's certificates were renewed, and {path} was written again");
        }
        // It is only in memory, so it is simply issued anew each time.
        match &self.server.kubelets {
            Some(kubelets) => kubelets
                .identify(&towards_nodes(&self.pki)?)
                .map_err(unusable),
            None => Ok(()),
        }
    }
}
