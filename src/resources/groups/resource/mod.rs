//! Kinds of the group `resource`.

use crate::resources::{Rules, Selectable, SelectorError};

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "resourceslices" => RESOURCE_SLICES,
        _ => Rules::DEFAULT,
    }
}

const RESOURCE_SLICES: Rules = Rules {
    selects_namespace: false,
    selector_error: SelectorError::WithKind,
    selectable: &[
        Selectable {
            name: "spec.nodeName",
            value: |slice| slice.at("spec").str("nodeName").to_owned(),
        },
        Selectable {
            name: "spec.driver",
            value: |slice| slice.at("spec").str("driver").to_owned(),
        },
    ],
    ..Rules::DEFAULT
};
