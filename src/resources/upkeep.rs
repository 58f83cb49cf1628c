//! Periodic repair of allocations: releases node ports and addresses that no service uses, and allocates those in use
//! but not recorded. Follows k8s.io/kubernetes/pkg/registry/core/service/{ipallocator,portallocator}/controller.

use super::cluster::Cluster;
use super::groups::services;
use crate::store::StoreError;

/// Compares allocations with the services, and corrects them. A lost race is left to the next run.
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
