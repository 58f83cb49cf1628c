//! Keeps the certificates of a node that joined renewed.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::super::patient::patient;
use crate::auth::pki::{Pair, Serving, Wanted};
use crate::client::Changing;
use crate::meta::time;
use crate::node::addresses::Addresses;
use crate::node::certificates;
use crate::node::certificates::store::{Store, StoreError};
use crate::node::certificates::upkeep::{self, Holder};

/// The certificate in a store, if it is still valid and is for `wanted`.
pub(super) fn kept(
    store: &Store,
    authority: &[Vec<u8>],
    wanted: &Wanted,
) -> Result<Option<Pair>, StoreError> {
    let authority: Vec<CertificateDer<'_>> = authority
        .iter()
        .map(|one| CertificateDer::from(one.as_slice()))
        .collect();
    let kept = store.current()?.filter(|pair| {
        pair.subject == wanted.subject && pair.not_after >= time::now() && pair.is_of(&authority)
    });
    Ok(kept)
}

/// A configuration with the credentials in a store.
pub(super) fn by_file(config: &kube::Config, store: &Store) -> kube::Config {
    let mut config = config.clone();
    let path = store.path().display().to_string();
    config.auth_info = kube::config::AuthInfo {
        client_certificate: Some(path.clone()),
        client_key: Some(path),
        ..kube::config::AuthInfo::default()
    };
    config
}

/// The client certificate of a node, which is renewed.
pub(super) struct Renewal {
    pub(super) store: Store,
    pub(super) wanted: Wanted,
    pub(super) held: Mutex<Option<Pair>>,
    /// The API server, without credentials of the node.
    pub(super) config: kube::Config,
    pub(super) changing: Changing,
    /// Requests a new certificate after the node's own has expired.
    pub(super) bootstrap: Option<kube::Client>,
}

impl Holder for Renewal {
    fn take(&self, pair: &Pair) {
        *self.held.lock() = Some(pair.clone());
        match patient(by_file(&self.config, &self.store)) {
            Ok(client) => self.changing.replace(client),
            Err(error) => tracing::error!(%error, "the renewed client certificate is not used"),
        }
    }

    fn lost(&self) {
        *self.held.lock() = None;
        tracing::error!(
            "the client certificate of this node has expired, so the API server rejects it; unless a new one is issued soon, run `reddwarf token create` on its host and start the agent with the command line that it prints"
        );
    }

    fn client(&self, held: Option<&Pair>) -> kube::Client {
        match (&self.bootstrap, held) {
            (Some(bootstrap), None) => bootstrap.clone(),
            _ => self.changing.client(),
        }
    }
}

/// The serving certificate of a node, issued by the cluster's signer.
pub(super) struct Shown {
    pub(super) store: Store,
    pub(super) authority: Vec<Vec<u8>>,
    pub(super) serving: Arc<Serving>,
    /// The name and addresses of the node.
    pub(super) names: Mutex<Vec<String>>,
    pub(super) client: kube::Client,
}

impl Shown {
    /// Keeps the certificate renewed, and asks for another one when the node has other addresses, until `ends` is cancelled.
    pub(super) async fn keep(&self, node: &str, mut addresses: Addresses, ends: CancellationToken) {
        loop {
            let now = addresses.all();
            let names = [node.to_owned()].into_iter().chain(now.iter().cloned());
            *self.names.lock() = names.collect();
            let wanted = certificates::serving(node, &now);
            let kept = async {
                match wanted {
                    Some(wanted) => self.renew(&wanted, ends.clone()).await,
                    // Upstream asks for none without an address.
                    None => ends.cancelled().await,
                }
            };
            tokio::select! {
                () = kept => return,
                // A request that is waited for is abandoned: it is for the wrong addresses.
                () = addresses.changed() => {}
            }
        }
    }

    async fn renew(&self, wanted: &Wanted, ends: CancellationToken) {
        let held = kept(&self.store, &self.authority, wanted).unwrap_or_else(|error| {
            tracing::warn!(%error, "the stored serving certificate is not used");
            None
        });
        if held.is_none() {
            self.lost();
        }
        upkeep::keep(&self.store, wanted, held, self, ends).await;
    }
}

impl Holder for Shown {
    fn take(&self, pair: &Pair) {
        self.serving.show(pair);
    }

    fn lost(&self) {
        if let Err(error) = self.serving.show_self_signed(&self.names.lock()) {
            tracing::error!(%error, "the node's serving certificate has expired");
        }
    }

    fn client(&self, _: Option<&Pair>) -> kube::Client {
        self.client.clone()
    }
}
