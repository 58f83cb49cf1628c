//! A server's own certificates, renewed while it runs: what it serves with, the administrator's, and who it is to nodes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::prepare::{towards_nodes, unusable};
use crate::api::server::Server;
use crate::auth::kubeconfig;
use crate::auth::pki::{Pki, PkiError};

/// The name of the task.
pub(super) const TASK: &str = "certificates of the server";
/// How often certificates are looked at. They are renewed sixty days before they end.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// What is renewed, and where it goes.
pub(super) struct Renewal {
    /// Keys and certificates.
    pub pki: Arc<Pki>,
    /// The administrator's kubeconfig,
    pub kubeconfig: PathBuf,
    /// and the server in it.
    pub url: String,
    /// Who asks nodes.
    pub server: Arc<Server>,
}

impl Renewal {
    /// Renews what is to be renewed until `ends`.
    pub(super) async fn keep(&self, ends: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = ends.cancelled() => return,
            }
            if let Err(error) = self.look() {
                tracing::error!(%error, "the server's certificates are not renewed; it is tried again in an hour");
            }
        }
    }

    fn look(&self) -> Result<(), PkiError> {
        if self.pki.renew()? {
            kubeconfig::write_admin(&self.kubeconfig, &self.url, &self.pki)?;
            let path = self.kubeconfig.display();
            tracing::info!("the server's certificates were renewed, and {path} was written again");
        }
        // It is nowhere but in memory, so it costs nobody anything to have it always young.
        match &self.server.kubelets {
            Some(kubelets) => kubelets
                .identify(&towards_nodes(&self.pki)?)
                .map_err(unusable),
            None => Ok(()),
        }
    }
}
