//! The list of controllers, and the meaning of `--controllers`. Follows
//! k8s.io/kubernetes/cmd/kube-controller-manager/names and k8s.io/controller-manager/options.

use futures::FutureExt as _;

use super::{
    Controller, Identity, account_tokens, autoscaling, bootstrap_tokens, ca_publisher,
    certificates, cluster_roles, cron_jobs, daemon_sets, deployments, disruption, endpoints,
    garbage, jobs, namespaces, node_lifecycle, node_ttl, pod_garbage, quotas, replicas,
    service_accounts, stateful_sets, taint_eviction, ttl_after_finished, volumes,
};

const fn absent(name: &'static str, aliases: &'static str) -> Controller {
    Controller {
        name,
        aliases,
        default: true,
        program: None,
    }
}

const fn off(controller: Controller) -> Controller {
    Controller {
        default: false,
        ..controller
    }
}

macro_rules! controller {
    ($name:literal, $aliases:literal, $account:literal, $run:path) => {
        Controller {
            name: $name,
            aliases: $aliases,
            default: true,
            program: Some((Identity::Account($account), |context| $run(context).boxed())),
        }
    };
}

/// Every controller of upstream, in upstream's start order, and the scheduler.
pub static CONTROLLERS: &[Controller] = &[
    Controller {
        name: "serviceaccount-token-controller",
        aliases: "serviceaccount-token",
        default: true,
        program: Some((Identity::User("kube-controller-manager"), |context| {
            account_tokens::run(context).boxed()
        })),
    },
    controller!(
        "endpoints-controller",
        "endpoint",
        "endpoint-controller",
        endpoints::endpoints
    ),
    controller!(
        "endpointslice-controller",
        "endpointslice",
        "endpointslice-controller",
        endpoints::endpoint_slices
    ),
    controller!(
        "endpointslice-mirroring-controller",
        "endpointslicemirroring",
        "endpointslicemirroring-controller",
        endpoints::endpoint_slice_mirroring
    ),
    controller!(
        "replicationcontroller-controller",
        "replicationcontroller",
        "replication-controller",
        replicas::replication_controllers
    ),
    controller!(
        "pod-garbage-collector-controller",
        "podgc",
        "pod-garbage-collector",
        pod_garbage::run
    ),
    controller!(
        "resourcequota-controller",
        "resourcequota",
        "resourcequota-controller",
        quotas::run
    ),
    controller!(
        "namespace-controller",
        "namespace",
        "namespace-controller",
        namespaces::run
    ),
    controller!(
        "serviceaccount-controller",
        "serviceaccount",
        "service-account-controller",
        service_accounts::run
    ),
    controller!(
        "garbage-collector-controller",
        "garbagecollector",
        "generic-garbage-collector",
        garbage::run
    ),
    controller!(
        "daemonset-controller",
        "daemonset",
        "daemon-set-controller",
        daemon_sets::run
    ),
    controller!("job-controller", "job", "job-controller", jobs::run),
    off(absent("podgroup-protection-controller", "")),
    controller!(
        "deployment-controller",
        "deployment",
        "deployment-controller",
        deployments::run
    ),
    controller!(
        "replicaset-controller",
        "replicaset",
        "replicaset-controller",
        replicas::replica_sets
    ),
    controller!(
        "horizontal-pod-autoscaler-controller",
        "horizontalpodautoscaling",
        "horizontal-pod-autoscaler",
        autoscaling::run
    ),
    controller!(
        "disruption-controller",
        "disruption",
        "disruption-controller",
        disruption::run
    ),
    controller!(
        "statefulset-controller",
        "statefulset",
        "statefulset-controller",
        stateful_sets::run
    ),
    controller!(
        "cronjob-controller",
        "cronjob",
        "cronjob-controller",
        cron_jobs::run
    ),
    controller!(
        "certificatesigningrequest-signing-controller",
        "csrsigning",
        "certificate-controller",
        certificates::signing
    ),
    controller!(
        "certificatesigningrequest-approving-controller",
        "csrapproving",
        "certificate-controller",
        certificates::approving
    ),
    controller!(
        "certificatesigningrequest-cleaner-controller",
        "csrcleaner",
        "certificate-controller",
        certificates::cleaning
    ),
    controller!(
        "podcertificaterequest-cleaner-controller",
        "",
        "podcertificaterequestcleaner",
        certificates::cleaning_pods
    ),
    controller!("ttl-controller", "ttl", "ttl-controller", node_ttl::run),
    off(controller!(
        "bootstrap-signer-controller",
        "bootstrapsigner",
        "bootstrap-signer",
        bootstrap_tokens::signing
    )),
    off(controller!(
        "token-cleaner-controller",
        "tokencleaner",
        "token-cleaner",
        bootstrap_tokens::cleaning
    )),
    absent("node-ipam-controller", "nodeipam"),
    controller!(
        "node-lifecycle-controller",
        "nodelifecycle",
        "node-controller",
        node_lifecycle::run
    ),
    controller!(
        "persistentvolume-binder-controller",
        "persistentvolume-binder",
        "persistent-volume-binder",
        volumes::binder
    ),
    absent("persistentvolume-attach-detach-controller", "attachdetach"),
    controller!(
        "persistentvolume-expander-controller",
        "persistentvolume-expander",
        "expand-controller",
        volumes::expander
    ),
    controller!(
        "clusterrole-aggregation-controller",
        "clusterrole-aggregation",
        "clusterrole-aggregation-controller",
        cluster_roles::run
    ),
    controller!(
        "persistentvolumeclaim-protection-controller",
        "pvc-protection",
        "pvc-protection-controller",
        volumes::claim_protection
    ),
    controller!(
        "persistentvolume-protection-controller",
        "pv-protection",
        "pv-protection-controller",
        volumes::volume_protection
    ),
    controller!(
        "volumeattributesclass-protection-controller",
        "",
        "volumeattributesclass-protection-controller",
        volumes::attributes_protection
    ),
    controller!(
        "ttl-after-finished-controller",
        "ttl-after-finished",
        "ttl-after-finished-controller",
        ttl_after_finished::run
    ),
    controller!(
        "root-ca-certificate-publisher-controller",
        "root-ca-cert-publisher",
        "root-ca-cert-publisher",
        ca_publisher::run
    ),
    controller!(
        "kube-apiserver-serving-clustertrustbundle-publisher-controller",
        "",
        "kube-apiserver-serving-clustertrustbundle-publisher",
        certificates::trust_bundles
    ),
    controller!(
        "ephemeral-volume-controller",
        "ephemeral-volume",
        "ephemeral-volume-controller",
        volumes::ephemeral_claims
    ),
    absent(
        "storageversion-garbage-collector-controller",
        "storage-version-gc",
    ),
    absent("resourceclaim-controller", "resource-claim-controller"),
    absent("resourcepoolstatusrequest-controller", ""),
    absent("device-taint-eviction-controller", ""),
    absent(
        "legacy-serviceaccount-token-cleaner-controller",
        "legacy-service-account-token-cleaner",
    ),
    absent("validatingadmissionpolicy-status-controller", ""),
    controller!(
        "taint-eviction-controller",
        "",
        "node-controller",
        taint_eviction::run
    ),
    absent("service-cidr-controller", ""),
    absent("storage-version-migrator-controller", "svm"),
    off(absent("selinux-warning-controller", "")),
    // Upstream's scheduler is a separate process.
    Controller {
        name: "scheduler",
        aliases: "kube-scheduler",
        default: true,
        program: Some((Identity::User("kube-scheduler"), |context| {
            crate::scheduler::run(context).boxed()
        })),
    },
];

/// An invalid name in `--controllers`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownController {
    /// Upstream has no controller of this name.
    #[error(
        "--controllers: {0:?} is not in the list of known controllers; use `*`, NAME or -NAME, such as `*,-garbage-collector-controller`"
    )]
    Unknown(String),
    /// Upstream has it, but this server does not.
    #[error("--controllers: {0:?} is not implemented; leave it out")]
    Absent(&'static str),
}

/// The controllers selected by the values of `--controllers`: `*` for all that are on by default, `NAME` to add one,
/// `-NAME` to remove one, `-*` for none. A name takes precedence over `*`, and the first value for a name over later
/// ones.
///
/// # Errors
/// A name is unknown, or explicitly adds a controller that this server does not have.
pub fn select(said: &[String]) -> Result<Vec<&'static Controller>, UnknownController> {
    let mut chosen: Vec<(&'static Controller, bool)> = Vec::new();
    let mut star = false;
    for word in said.iter().map(|word| word.trim()) {
        let (name, on) = match word.strip_prefix('-') {
            Some(name) => (name, false),
            None => (word, true),
        };
        if name == "*" {
            star |= on;
            continue;
        }
        let controller = CONTROLLERS
            .iter()
            .find(|known| known.name == name || known.aliases.split(' ').any(|alias| alias == name))
            .filter(|_| !name.is_empty())
            .ok_or_else(|| UnknownController::Unknown(name.to_owned()))?;
        if on && controller.program.is_none() {
            return Err(UnknownController::Absent(controller.name));
        }
        chosen.push((controller, on));
    }
    let wanted = |controller: &&'static Controller| {
        chosen
            .iter()
            .find(|(said, _)| said.name == controller.name)
            .map_or(star && controller.default, |(_, on)| *on)
    };
    Ok(CONTROLLERS
        .iter()
        .filter(|controller| controller.program.is_some())
        .filter(wanted)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_as_upstream_reads_them() {
        let names = |said: &str| -> Result<Vec<&str>, String> {
            let said: Vec<String> = said.split(',').map(str::to_owned).collect();
            select(&said)
                .map(|chosen| chosen.iter().map(|controller| controller.name).collect())
                .map_err(|error| error.to_string())
        };
        let (accounts, ca) = (
            "serviceaccount-controller",
            "root-ca-certificate-publisher-controller",
        );
        let all = names("*").unwrap();
        assert!(all.contains(&accounts) && all.contains(&ca));
        assert_eq!(names("-*").unwrap(), [""; 0]);
        assert_eq!(names("serviceaccount").unwrap(), [accounts]);
        assert_eq!(
            names(&format!("{ca},{accounts}")).unwrap(),
            [accounts, ca],
            "in upstream's order"
        );
        assert!(!names("*,-serviceaccount").unwrap().contains(&accounts));
        assert!(names("*,-selinux-warning-controller").is_ok());
        assert_eq!(
            names("serviceaccount,-serviceaccount-controller").unwrap(),
            [accounts],
            "the first word counts"
        );
        for (said, why) in [
            ("*,red-controller", "\"red-controller\" is not in the list"),
            ("-grey", "\"grey\" is not in the list"),
            ("", "\"\" is not in the list"),
            ("selinux-warning-controller", "is not implemented"),
        ] {
            let refused = names(said).unwrap_err();
            assert!(refused.contains(why), "{said}: {refused}");
        }
    }
}
