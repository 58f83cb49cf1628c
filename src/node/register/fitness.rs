//! Whether a host can run pods.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerImage, NodeRuntimeHandler, NodeRuntimeHandlerFeatures};

use super::super::supplies::Supplies;
use crate::zone::ZoneRuntime;

/// How long the runtime may take to report its state.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a host can run pods.
#[derive(Clone)]
pub enum Fitness {
    /// Checked each time.
    Asked(Arc<dyn ZoneRuntime>, Arc<dyn Supplies>),
    /// It cannot, for this reason.
    Unfit(String),
}

impl Fitness {
    pub(super) async fn lacks(&self) -> Vec<String> {
        match self {
            Fitness::Asked(runtime, _) => {
                match tokio::time::timeout(PATIENCE, runtime.lacks()).await {
                    Ok(Ok(lacks)) => lacks,
                    Ok(Err(error)) => vec![error.to_string()],
                    Err(_) => vec!["container runtime is down".to_owned()],
                }
            }
            Fitness::Unfit(reason) => vec![reason.clone()],
        }
    }

    /// The images on the host.
    pub(super) async fn images(&self) -> Vec<ContainerImage> {
        match self {
            Fitness::Asked(_, supplies) => supplies.images().await,
            Fitness::Unfit(_) => Vec::new(),
        }
    }

    /// The supported brands of zones, as the scheduler knows them, and their features.
    pub(super) fn handlers(&self) -> Vec<NodeRuntimeHandler> {
        let brands = match self {
            Fitness::Asked(runtime, _) => runtime.brands(),
            Fitness::Unfit(_) => Vec::new(),
        };
        let recursive = match self {
            Fitness::Asked(runtime, _) => runtime.recursive_read_only(),
            Fitness::Unfit(_) => false,
        };
        let handlers = brands.into_iter().map(|brand| NodeRuntimeHandler {
            name: Some(brand.to_owned()),
            features: Some(NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(recursive),
                // Processes in a zone have the same user ids on the host.
                user_namespaces: Some(false),
            }),
        });
        handlers.collect()
    }
}
