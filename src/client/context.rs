//! What is handed to each program that works on the cluster.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{events, informer};

/// What a controller works with.
#[derive(Clone)]
pub struct Context {
    /// The API, as this controller.
    pub client: kube::Client,
    /// The caches that controllers share.
    pub informers: informer::Informers,
    /// The way in for events.
    pub events: events::Events,
    /// Facts about the cluster.
    pub settings: Arc<Settings>,
    /// When to end.
    pub ends: CancellationToken,
}

/// Facts about the cluster that controllers need.
#[derive(Clone, Default)]
pub struct Settings {
    /// The certificates that clients in the cluster trust, in PEM.
    pub root_ca: String,
    /// Who signs certificates; none where nobody does.
    pub pki: Option<Arc<crate::auth::pki::Pki>>,
    /// Who signs tokens of service accounts; none where nobody does.
    pub tokens: Option<Arc<crate::auth::tokens::Tokens>>,
    /// Where controllers tell what they count.
    pub metrics: crate::meta::prometheus::Sources,
}
