//! Persistent volumes of reddwarf's own driver, which nodes keep.

use crate::schema::Value;

/// The provisioner and driver of these volumes.
pub const DRIVER: &str = "reddwarf.io";
/// The finalizer of a volume object until its node has removed the volume.
pub const FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
/// The label by which a volume refers to its node.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// The host name of the node that keeps a volume; None if it is not one of these volumes.
pub fn keeper(volume: &Value) -> Option<&str> {
    let spec = volume.at("spec");
    if spec.at("csi").str("driver") != DRIVER {
        return None;
    }
    let required = spec.at("nodeAffinity").at("required");
    let [term] = required.list("nodeSelectorTerms") else {
        return None;
    };
    let [chosen] = term.list("matchExpressions") else {
        return None;
    };
    match chosen.list("values") {
        [host] if chosen.str("key") == HOSTNAME => host.as_str(),
        _ => None,
    }
}
