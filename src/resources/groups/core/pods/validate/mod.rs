//! Validation of pods and pod specs in templates, in upstream's order and words, one file per topic. Follows
//! k8s.io/kubernetes/pkg/apis/core/validation/validation.go.

mod affinity;
mod annotations;
mod before;
mod claims;
mod containers;
mod dns;
mod env;
mod mounts;
mod pod;
mod probes;
mod projected;
mod resize;
mod resources;
mod scheduling;
mod security;
pub(in crate::resources::groups) mod sources;
mod spec;
mod status;
mod systems;
pub(in crate::resources::groups::core) mod volumes;
mod windows;

pub(in crate::resources::groups) use affinity::node_selector;
pub(in crate::resources::groups::core) use annotations::{APP_ARMOR, CONTAINER_SECCOMP, SECCOMP};
pub(in crate::resources::groups) use before::Before;
pub(in crate::resources::groups::core) use claims::access_modes;
pub(in crate::resources::groups) use claims::{claim_spec, labels_and_annotations};
pub(in crate::resources::groups::core) use pod::{create, ephemeral_containers, update};
pub(in crate::resources::groups) use projected::{signer_name, user_annotations};
pub(in crate::resources::groups::core) use resize::resize;
pub(in crate::resources::groups) use resources::container_resource_name;
pub(in crate::resources::groups::core) use resources::{
    is_standard_quota, overcommits, quantity, resource_name,
};
pub(in crate::resources::groups::core) use scheduling::EFFECTS;
pub(in crate::resources::groups) use scheduling::tolerations;
pub(in crate::resources::groups::core) use security::app_armor;
pub(in crate::resources::groups) use spec::{template, template_metadata};
pub(in crate::resources::groups::core) use status::status;

use std::collections::{BTreeMap, BTreeSet};

use crate::meta::{At, Errors};
use crate::schema::Value;

/// Validates the overhead of a runtime class, like the limits of a container.
pub(in crate::resources::groups) fn class_overhead(overhead: At<'_>, errors: &mut Errors) {
    let scope = Scope {
        spec: &Value::Null,
        before: Before::default(),
        volumes: BTreeMap::new(),
        claims: BTreeSet::new(),
    };
    resources::overhead(overhead, &scope, errors);
}

/// What validations of parts of a pod spec need to know about the whole.
pub(super) struct Scope<'a> {
    /// The pod spec.
    spec: &'a Value,
    /// The old pod spec, for exemptions from newer rules.
    before: Before<'a>,
    /// The valid volumes by name: only they may be mounted.
    volumes: BTreeMap<&'a str, &'a Value>,
    /// The names of the pod's resource claims.
    claims: BTreeSet<&'a str>,
}

impl<'a> Scope<'a> {
    fn volume(&self, name: &str) -> Option<&'a Value> {
        self.volumes.get(name).copied()
    }

    /// The pod's grace period, in seconds.
    fn grace(&self) -> Option<i64> {
        self.spec.at("terminationGracePeriodSeconds").as_int()
    }

    /// Whether the pod uses the host's user namespace.
    fn host_users(&self) -> bool {
        self.spec.at("hostUsers").as_bool().unwrap_or(true)
    }
}

/// The lists of containers in the order in which upstream validates them.
pub(in crate::resources::groups::core) const CONTAINERS: [&str; 3] =
    ["initContainers", "containers", "ephemeralContainers"];

/// All containers of a pod spec, in the order of [`CONTAINERS`].
pub(in crate::resources::groups::core) fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    CONTAINERS.iter().flat_map(|list| spec.list(list))
}

/// Whether an init container is a sidecar.
pub(in crate::resources::groups::core) fn is_sidecar(container: &Value) -> bool {
    container.str("restartPolicy") == "Always"
}
