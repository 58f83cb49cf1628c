//! References of pods and volumes. Follows k8s.io/kubernetes pkg/api/pod/util.go (VisitPodSecretNames,
//! VisitPodConfigmapNames) and pkg/api/v1/persistentvolume/util.go.

use compact_str::{CompactString, format_compact};

use crate::schema::Value;

/// Kinds of objects that a node may be related to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
    /// A ServiceAccount.
    ServiceAccount,
    /// A PersistentVolumeClaim.
    Claim,
    /// A ResourceClaim.
    ResourceClaim,
    /// A Pod.
    Pod,
    /// A PersistentVolume.
    Volume,
    /// A VolumeAttachment.
    Attachment,
    /// A ResourceSlice.
    Slice,
    /// A PodCertificateRequest.
    CertificateRequest,
}

/// The annotation of mirror pods, which represent a node's static pods.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whether a pod is a mirror pod.
pub fn is_mirror(pod: &Value) -> bool {
    let annotations = pod.at("metadata").at("annotations");
    annotations.get(MIRROR).is_some()
}

/// Volume sources that refer to a secret in the pod's namespace, with the path of its name.
const VOLUME_SECRETS: [(&str, &[&str]); 10] = [
    ("azureFile", &["secretName"]),
    ("cephfs", &["secretRef", "name"]),
    ("cinder", &["secretRef", "name"]),
    ("flexVolume", &["secretRef", "name"]),
    ("rbd", &["secretRef", "name"]),
    ("secret", &["secretName"]),
    ("scaleIO", &["secretRef", "name"]),
    ("iscsi", &["secretRef", "name"]),
    ("storageos", &["secretRef", "name"]),
    ("csi", &["nodePublishSecretRef", "name"]),
];

/// All objects in its namespace to which a pod refers, sorted by kind and name, without duplicates.
pub fn pod_references(pod: &Value) -> Vec<(Reference, CompactString)> {
    use Reference::{Claim, ConfigMap, ResourceClaim, Secret, ServiceAccount};
    let mut found: Vec<(Reference, CompactString)> = Vec::new();
    let mut add = |kind: Reference, name: &str| {
        if !name.is_empty() {
            found.push((kind, name.into()));
        }
    };
    let (name, spec) = (pod.at("metadata").str("name"), pod.at("spec"));
    add(ServiceAccount, spec.str("serviceAccountName"));
    for secret in spec.list("imagePullSecrets") {
        add(Secret, secret.str("name"));
    }
    for containers in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.list(containers) {
            for from in container.list("envFrom") {
                add(Secret, from.at("secretRef").str("name"));
                add(ConfigMap, from.at("configMapRef").str("name"));
            }
            for variable in container.list("env") {
                let from = variable.at("valueFrom");
                add(Secret, from.at("secretKeyRef").str("name"));
                add(ConfigMap, from.at("configMapKeyRef").str("name"));
            }
        }
    }
    for volume in spec.list("volumes") {
        for (source, path) in VOLUME_SECRETS {
            add(
                Secret,
                volume.at(source).path(path).as_str().unwrap_or_default(),
            );
        }
        add(ConfigMap, volume.at("configMap").str("name"));
        for source in volume.at("projected").list("sources") {
            add(Secret, source.at("secret").str("name"));
            add(ConfigMap, source.at("configMap").str("name"));
        }
        add(Claim, volume.at("persistentVolumeClaim").str("claimName"));
        if volume.get("ephemeral").is_some() {
            add(Claim, &format_compact!("{name}-{}", volume.str("name")));
        }
    }
    let status = pod.at("status");
    for claim in spec.list("resourceClaims") {
        match claim.str("resourceClaimName") {
            "" => {
                let made = status
                    .list("resourceClaimStatuses")
                    .iter()
                    .find(|made| made.str("name") == claim.str("name"));
                add(
                    ResourceClaim,
                    made.map_or("", |made| made.str("resourceClaimName")),
                );
            }
            given => add(ResourceClaim, given),
        }
    }
    add(
        ResourceClaim,
        status
            .at("extendedResourceClaimStatus")
            .str("resourceClaimName"),
    );
    found.sort();
    found.dedup();
    found
}

/// The claim to which a volume is bound, and the secrets needed to mount it, as `namespace/name`.
pub(super) fn volume_references(volume: &Value) -> Option<(CompactString, Vec<CompactString>)> {
    let spec = volume.at("spec");
    let claim = spec.get("claimRef")?;
    let of_claim = claim.str("namespace");
    let mut secrets = Vec::new();
    let mut add = |namespace: &str, name: &str| {
        if !name.is_empty() {
            secrets.push(format_compact!("{namespace}/{name}"));
        }
    };
    // Old volumes refer to a secret in the claim's namespace.
    let or_claim = |namespace| {
        if str::is_empty(namespace) {
            of_claim
        } else {
            namespace
        }
    };
    let azure = spec.at("azureFile");
    add(
        or_claim(azure.str("secretNamespace")),
        azure.str("secretName"),
    );
    for source in ["cephfs", "flexVolume", "rbd", "scaleIO", "iscsi"] {
        let secret = spec.at(source).at("secretRef");
        add(or_claim(secret.str("namespace")), secret.str("name"));
    }
    for source in ["cinder", "storageos"] {
        let secret = spec.at(source).at("secretRef");
        add(secret.str("namespace"), secret.str("name"));
    }
    for key in [
        "nodePublishSecretRef",
        "nodeStageSecretRef",
        "nodeExpandSecretRef",
    ] {
        let secret = spec.at("csi").at(key);
        add(secret.str("namespace"), secret.str("name"));
    }
    Some((format_compact!("{of_claim}/{}", claim.str("name")), secrets))
}
