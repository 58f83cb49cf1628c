//! Exemptions from newer rules: an update may keep what the old pod spec already contained. Follows
//! GetValidationOptionsFromPodSpecAndMeta in k8s.io/kubernetes/pkg/api/pod/util.go.

use super::annotations::DELETION_COST;
use super::{containers, is_sidecar, resources, systems};
use crate::meta::{At, Errors};
use crate::resources::groups::core::nodes::has_bad_label_values;
use crate::schema::Value;

/// The old pod or template, if there is one. Its methods return whether it contained what a rule forbids, and are
/// called only if the rule is violated.
#[derive(Clone, Copy, Default)]
pub(in crate::resources::groups) struct Before<'a> {
    /// Whether this is a pod, not a template.
    pub pod: bool,
    /// The old metadata and spec.
    pub old: Option<&'a Value>,
}

impl<'a> Before<'a> {
    /// A template that replaces `old` (null if there is none).
    pub fn template(old: &'a Value) -> Self {
        Before {
            pod: false,
            old: (!old.is_null()).then_some(old),
        }
    }

    fn spec(&self, had: impl FnOnce(&Value) -> bool) -> bool {
        self.old.is_some_and(|old| had(old.at("spec")))
    }

    /// An annotation pod-deletion-cost that is not a number.
    pub fn any_deletion_cost(&self) -> bool {
        self.old
            .is_some_and(|old| !deletion_cost(old.at("metadata").at("annotations")))
    }

    /// Invalid label values in selectors of pod affinity.
    pub fn any_affinity_value(&self) -> bool {
        self.spec(|spec| {
            let affinity = spec.at("affinity");
            ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
                terms(affinity.at(kind)).any(|term| {
                    ["labelSelector", "namespaceSelector"]
                        .iter()
                        .any(|key| At::root(term.at(key)).is_bad_selector())
                })
            })
        })
    }

    /// Invalid label values in required node affinity.
    pub fn any_node_value(&self) -> bool {
        self.spec(|spec| {
            let required = spec.path(&[
                "affinity",
                "nodeAffinity",
                "requiredDuringSchedulingIgnoredDuringExecution",
            ]);
            has_bad_label_values(required)
        })
    }

    /// Huge pages that are not a whole number of pages.
    pub fn broken_pages(&self) -> bool {
        self.spec(|spec| {
            containers(spec).any(|container| {
                let needs = container.at("resources");
                ["limits", "requests"].iter().any(|list| {
                    needs.entries(list).any(|(name, quantity)| {
                        resources::is_huge_page(name) && !resources::whole_pages(name, quantity)
                    })
                })
            })
        })
    }

    /// An invalid selector of a spread constraint.
    pub fn any_spread_selector(&self) -> bool {
        self.spec(|spec| {
            spec.list("topologySpreadConstraints")
                .iter()
                .any(|constraint| At::root(constraint.at("labelSelector")).is_bad_selector())
        })
    }

    /// Label keys of spread constraints that violate the current rules.
    pub fn any_spread_keys(&self) -> bool {
        self.spec(|spec| {
            spec.list("topologySpreadConstraints")
                .iter()
                .any(|constraint| {
                    let mut errors = Errors::default();
                    super::affinity::label_keys(At::root(constraint), &mut errors);
                    !errors.is_empty()
                })
        })
    }

    /// A path of a token outside of its volume.
    pub fn any_token_path(&self) -> bool {
        self.spec(|spec| {
            spec.list("volumes").iter().any(|volume| {
                volume.at("projected").list("sources").iter().any(|source| {
                    source.get("serviceAccountToken").is_some_and(|token| {
                        let mut errors = Errors::default();
                        super::volumes::local_path(At::root(token.at("path")), &mut errors);
                        !errors.is_empty()
                    })
                })
            })
        })
    }

    /// Sysctls that conflict with host namespaces.
    pub fn any_sysctl(&self) -> bool {
        self.spec(|spec| {
            spec.at("securityContext")
                .list("sysctls")
                .iter()
                .any(|sysctl| super::security::host_sysctl(sysctl.str("name"), spec).is_some())
        })
    }

    /// The host network with a user namespace.
    pub fn host_network_with_own_users(&self) -> bool {
        self.spec(|spec| spec.bool("hostNetwork") && systems::own_users(spec))
    }

    /// Block devices with a user namespace.
    pub fn devices_with_own_users(&self) -> bool {
        self.spec(|spec| {
            systems::own_users(spec)
                && containers(spec).any(|container| !container.list("volumeDevices").is_empty())
        })
    }

    /// Tolerations with numeric comparisons.
    pub fn compares_taints(&self) -> bool {
        self.spec(|spec| {
            spec.list("tolerations")
                .iter()
                .any(|toleration| matches!(toleration.str("operator"), "Lt" | "Gt"))
        })
    }

    /// Init containers with a restart on resize.
    pub fn restarts_init_on_resize(&self) -> bool {
        self.spec(|spec| {
            spec.list("initContainers").iter().any(|container| {
                !is_sidecar(container)
                    && container
                        .list("resizePolicy")
                        .iter()
                        .any(|policy| policy.str("restartPolicy") == "RestartContainer")
            })
        })
    }

    /// An image volume without an image.
    pub fn empty_image(&self) -> bool {
        self.spec(|spec| {
            spec.list("volumes").iter().any(|volume| {
                volume
                    .get("image")
                    .is_some_and(|image| image.str("reference").is_empty())
            })
        })
    }

    /// CAP_SYS_ADMIN without privilege escalation.
    pub fn sys_admin(&self) -> bool {
        self.spec(|spec| {
            containers(spec).any(|container| {
                let context = container.at("securityContext");
                context.at("allowPrivilegeEscalation").as_bool() != Some(true)
                    && super::security::adds_sys_admin(context)
            })
        })
    }
}

/// Whether the annotation pod-deletion-cost, if present, is a 32-bit integer in Go's format.
pub(super) fn deletion_cost(annotations: &Value) -> bool {
    let Some(cost) = annotations.get(DELETION_COST).and_then(Value::as_str) else {
        return true;
    };
    let plain = !cost.starts_with('+') && (cost == "0" || !cost.starts_with('0'));
    plain && cost.parse::<i32>().is_ok()
}

/// The terms of a pod affinity, preferred ones without their weights.
pub(super) fn terms(affinity: &Value) -> impl Iterator<Item = &Value> {
    affinity
        .list("requiredDuringSchedulingIgnoredDuringExecution")
        .iter()
        .chain(
            affinity
                .list("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .map(|weighted| weighted.at("podAffinityTerm")),
        )
}
