//! Kinds of the group `rbac.authorization.k8s.io`. Follows k8s.io/kubernetes pkg/apis/rbac.

use crate::meta::names;
use crate::resources::Rules;

/// The rules of a resource of this group.
pub(super) fn rules(_plural: &str) -> Rules {
    Rules {
        name: |name, prefix| {
            if prefix {
                names::path_segment_prefix(name)
            } else {
                names::path_segment(name)
            }
        },
        create_on_update: true,
        ..Rules::DEFAULT
    }
}
