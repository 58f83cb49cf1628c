//! Where a node is, as its own object says.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1;
use kube::ResourceExt as _;
use kube::api::Api;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::follow::{Event, follow};

/// The label that says in which zone a node is.
const ZONE: &str = "topology.kubernetes.io/zone";

crate::slim!(
    /// A node, of which its labels are read.
    Labelled of v1::Node {}
);

/// Tells the zone of a node as it changes, until `ends`.
pub async fn tell(
    client: kube::Client,
    node: String,
    zone: watch::Sender<Option<String>>,
    ends: CancellationToken,
) {
    let api: Api<Labelled> = Api::all(client);
    let mut events = follow(api, &format!("metadata.name={node}"));
    let told = async {
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Listed(object) | Event::Applied(object)) => {
                    let now = object.labels().get(ZONE).cloned();
                    zone.send_if_modified(|known| {
                        let differs = *known != now;
                        *known = now;
                        differs
                    });
                }
                // A node that is gone registers again.
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, node, "the watch of the node broke"),
            }
        }
    };
    tokio::select! {
        () = told => {}
        () = ends.cancelled() => {}
    }
}
