//! The list of plugins, their order, and their selection by flags.
//! Follows k8s.io/kubernetes/pkg/kubeapiserver/options/plugins.go and k8s.io/apiserver/pkg/server/options/admission.go.

use super::{
    Plugin, certificates, defaults, extras, limit_ranges, namespaces, node_restriction,
    owner_references, pod_security, priority, quota, resize, runtime_class, service_accounts,
};

/// Settings of plugins.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--default-not-ready-toleration-seconds`
    pub not_ready_seconds: i64,
    /// `--default-unreachable-toleration-seconds`
    pub unreachable_seconds: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            not_ready_seconds: 300,
            unreachable_seconds: 300,
        }
    }
}

type Make = fn(&Settings) -> Box<dyn Plugin>;

/// A plugin by its upstream name.
pub struct Known {
    /// Its name in `--enable-admission-plugins`.
    pub name: &'static str,
    /// Whether it runs unless it is disabled.
    pub default: bool,
    /// Creates it; `None` if this server does not implement it.
    make: Option<Make>,
}

const fn on(name: &'static str, make: Make) -> Known {
    Known {
        name,
        default: true,
        make: Some(make),
    }
}

const fn off(name: &'static str, make: Make) -> Known {
    Known {
        name,
        default: false,
        make: Some(make),
    }
}

const fn absent(name: &'static str, default: bool) -> Known {
    Known {
        name,
        default,
        make: None,
    }
}

/// Every upstream plugin, in execution order.
pub static PLUGINS: &[Known] = &[
    off("AlwaysAdmit", |_| Box::new(extras::AlwaysAdmit)),
    absent("NamespaceAutoProvision", false),
    on("NamespaceLifecycle", |_| {
        Box::new(namespaces::NamespaceLifecycle)
    }),
    off("NamespaceExists", |_| Box::new(namespaces::NamespaceExists)),
    off("LimitPodHardAntiAffinityTopology", |_| {
        Box::new(extras::LimitPodHardAntiAffinityTopology)
    }),
    on("LimitRanger", |_| Box::new(limit_ranges::LimitRanger)),
    on("ServiceAccount", |_| {
        Box::new(service_accounts::ServiceAccount)
    }),
    on("NodeRestriction", |_| {
        Box::new(node_restriction::NodeRestriction)
    }),
    on("TaintNodesByCondition", |_| {
        Box::new(defaults::TaintNodesByCondition)
    }),
    off("AlwaysPullImages", |_| Box::new(extras::AlwaysPullImages)),
    absent("ImagePolicyWebhook", false),
    on("PodSecurity", |_| Box::new(pod_security::PodSecurity)),
    off("PodNodeSelector", |_| Box::new(extras::PodNodeSelector)),
    on("Priority", |_| Box::new(priority::Priority)),
    on("DefaultTolerationSeconds", |settings| {
        Box::new(defaults::DefaultTolerationSeconds {
            not_ready: settings.not_ready_seconds,
            unreachable: settings.unreachable_seconds,
        })
    }),
    off("PodTolerationRestriction", |_| {
        Box::new(extras::PodTolerationRestriction)
    }),
    absent("EventRateLimit", false),
    off("ExtendedResourceToleration", |_| {
        Box::new(extras::ExtendedResourceToleration)
    }),
    on("DefaultStorageClass", |_| {
        Box::new(defaults::DefaultStorageClass)
    }),
    on("StorageObjectInUseProtection", |_| {
        Box::new(defaults::StorageObjectInUseProtection)
    }),
    absent("PodGroupProtection", true),
    off("OwnerReferencesPermissionEnforcement", |_| {
        Box::new(owner_references::OwnerReferencesPermissionEnforcement)
    }),
    on("PersistentVolumeClaimResize", |_| {
        Box::new(resize::PersistentVolumeClaimResize)
    }),
    on("RuntimeClass", |_| Box::new(runtime_class::RuntimeClass)),
    on("CertificateApproval", |_| {
        Box::new(certificates::CertificateApproval)
    }),
    on("CertificateSigning", |_| {
        Box::new(certificates::CertificateSigning)
    }),
    on("ClusterTrustBundleAttest", |_| {
        Box::new(certificates::ClusterTrustBundleAttest)
    }),
    on("CertificateSubjectRestriction", |_| {
        Box::new(certificates::CertificateSubjectRestriction)
    }),
    on("DefaultIngressClass", |_| {
        Box::new(defaults::DefaultIngressClass)
    }),
    off("DenyServiceExternalIPs", |_| {
        Box::new(extras::DenyServiceExternalIps)
    }),
    on("PodTopologyLabels", |_| {
        Box::new(defaults::PodTopologyLabels)
    }),
    absent("NodeDeclaredFeatureValidator", true),
    on("PodResizeValidator", |_| {
        Box::new(resize::PodResizeValidator)
    }),
    absent("MutatingAdmissionPolicy", true),
    absent("MutatingAdmissionWebhook", true),
    absent("ValidatingAdmissionPolicy", true),
    absent("ValidatingAdmissionWebhook", true),
    on("ResourceQuota", |_| Box::new(quota::ResourceQuota)),
    off("AlwaysDeny", |_| Box::new(extras::AlwaysDeny)),
];

/// Why the plugin flags are invalid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// An unknown plugin name.
    #[error("{flag}-admission-plugins plugin {name:?} is unknown")]
    Unknown {
        /// `enable` or `disable`
        flag: &'static str,
        /// The name.
        name: String,
    },
    /// Names in both flags.
    #[error("[{}] in enable-admission-plugins and disable-admission-plugins overlapped", .0.join(" "))]
    Both(Vec<String>),
    /// An upstream plugin that this server does not implement.
    #[error("enable-admission-plugins plugin {0:?} is not implemented; leave it out")]
    Absent(&'static str),
}

/// The plugins selected by the flags, in execution order: the default ones, plus those in `enable`, minus those
/// in `disable`.
///
/// # Errors
/// [`ChainError`] for invalid names.
pub fn chain(
    enable: &[String],
    disable: &[String],
    settings: &Settings,
) -> Result<Vec<Box<dyn Plugin>>, ChainError> {
    for (flag, names) in [("enable", enable), ("disable", disable)] {
        if let Some(name) = names
            .iter()
            .find(|name| PLUGINS.iter().all(|known| known.name != name.as_str()))
        {
            return Err(ChainError::Unknown {
                flag,
                name: name.clone(),
            });
        }
    }
    let mut both: Vec<String> = enable
        .iter()
        .filter(|name| disable.contains(name))
        .cloned()
        .collect();
    if !both.is_empty() {
        both.sort();
        both.dedup();
        return Err(ChainError::Both(both));
    }
    let has = |names: &[String], known: &Known| names.iter().any(|name| name == known.name);
    let mut out = Vec::new();
    for known in PLUGINS {
        let asked = has(enable, known);
        match known.make {
            Some(make) if asked || (known.default && !has(disable, known)) => {
                out.push(make(settings));
            }
            None if asked && !known.default => return Err(ChainError::Absent(known.name)),
            _ => {}
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_choose_as_upstream_reads_them() {
        let names = |enable: &str, disable: &str| -> Result<Vec<&str>, String> {
            let list = |names: &str| -> Vec<String> {
                let names = names.split(',').filter(|name| !name.is_empty());
                names.map(str::to_owned).collect()
            };
            chain(&list(enable), &list(disable), &Settings::default())
                .map(|plugins| plugins.iter().map(|plugin| plugin.name()).collect())
                .map_err(|error| error.to_string())
        };
        let default = names("", "").unwrap();
        let order: Vec<&str> = PLUGINS
            .iter()
            .filter(|known| known.default && known.make.is_some())
            .map(|known| known.name)
            .collect();
        assert_eq!(default, order);
        assert!(!names("", "Priority").unwrap().contains(&"Priority"));
        let more = names("NamespaceExists,Priority", "").unwrap();
        assert_eq!(more.len(), default.len() + 1);
        assert_eq!(more[1], "NamespaceExists");
        for (enable, disable, why) in [
            (
                "Nope",
                "",
                "enable-admission-plugins plugin \"Nope\" is unknown",
            ),
            (
                "",
                "Nope",
                "disable-admission-plugins plugin \"Nope\" is unknown",
            ),
            (
                "Priority,LimitRanger",
                "LimitRanger,Priority",
                "[LimitRanger Priority] in enable-admission-plugins and disable-admission-plugins overlapped",
            ),
        ] {
            assert_eq!(names(enable, disable).unwrap_err(), why);
        }
    }
}
