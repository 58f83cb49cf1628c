//! What quotas count, and how much of it. Follows k8s.io/kubernetes/pkg/apis/core/helper/helpers.go.

use super::pods::validate::{quantity, resource_name};
use crate::meta::{At, Errors};

/// Whether a resource may be limited by a quota under this plain name.
pub(super) fn is_standard_quota(name: &str) -> bool {
    matches!(
        name,
        "cpu"
            | "memory"
            | "ephemeral-storage"
            | "requests.cpu"
            | "requests.memory"
            | "requests.storage"
            | "requests.ephemeral-storage"
            | "limits.cpu"
            | "limits.memory"
            | "limits.ephemeral-storage"
            | "pods"
            | "resourcequotas"
            | "services"
            | "replicationcontrollers"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    ) || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
}

/// Judges what a quota counts and how much of it, as ValidateResourceQuotaResourceName and
/// ValidateResourceQuantityValue.
pub(super) fn quota(name: &str, at: At<'_>, errors: &mut Errors) {
    resource_name(name, at, errors);
    if !name.contains('/') && !is_standard_quota(name) {
        errors.invalid(at.path, name, "must be a standard resource for quota");
    }
    quantity(name, at, errors);
}
