//! Validation of resource names and quantities in quotas. Follows k8s.io/kubernetes/pkg/apis/core/helper/helpers.go.

use super::pods::validate::{is_standard_quota, quantity, resource_name};
use crate::meta::{At, Errors};

/// Validates a resource and its amount in a quota: ValidateResourceQuotaResourceName and ValidateResourceQuantityValue.
pub(super) fn quota(name: &str, at: At<'_>, errors: &mut Errors) {
    resource_name(name, at, errors);
    if !name.contains('/') && !is_standard_quota(name) {
        errors.invalid(at.path, name, "must be a standard resource for quota");
    }
    quantity(name, at, errors);
}
