//! CSI storage capacities. Follows k8s.io/kubernetes/pkg/registry/storage/csistoragecapacity/strategy.go and
//! pkg/apis/storage/validation.

use crate::meta::{names, table};
use crate::resources::groups::core::nodes::selector_warnings;
use crate::resources::{Printing, Rules, metadata};

/// The rules of CSI storage capacities.
pub(super) const RULES: Rules = Rules {
    validate: |object, old, cx, errors| {
        metadata::again(object, old, cx, errors);
        let topology = object.field("nodeTopology");
        let class = object.field("storageClassName");
        let lax = old.is_some_and(|old| old.field("nodeTopology").is_bad_selector());
        topology.label_selector(lax, errors);
        class.checked(|name| names::subdomain_name(name, false), errors);
        object.field("capacity").non_negative_quantity(errors);
        if let Some(old) = old {
            topology.immutable(old.value.at("nodeTopology"), errors);
            class.immutable(old.value.at("storageClassName"), errors);
        }
    },
    warnings: |object, _, _| selector_warnings(object.at("nodeTopology"), "nodeTopology"),
    printing: Printing::of(|object, _| {
        vec![
            object.at("metadata").str("name").into(),
            table::created(object),
        ]
    }),
    unconditional_update: false,
    internal: "storage.CSIStorageCapacity",
    ..Rules::DEFAULT
};
