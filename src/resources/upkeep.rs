//! What is put right from time to time: node ports and addresses that no service has, and those of services that
//! nothing holds. Follows k8s.io/kubernetes/pkg/registry/core/service/{ipallocator,portallocator}/controller.

use super::cluster::Cluster;
use super::groups::services;
use crate::store::StoreError;

/// Compares what is taken with what services have, and writes what differs. A lost race is left to the next time.
pub async fn repair_allocations(cluster: &Cluster) {
    for change in services::repairs(cluster) {
        let key = change.key.clone();
        match cluster.store.commit(vec![change]).await {
            Ok(_) => tracing::info!(%key, "repairing allocations of service addresses and ports"),
            Err(StoreError::Conflict { .. } | StoreError::Closed) => {}
            Err(error) => {
                tracing::warn!(%key, %error, "cannot repair allocations of service addresses and ports");
            }
        }
    }
}
