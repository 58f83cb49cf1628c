//! What a node may write of persistent volumes.

use super::super::{Attributes, Operation};
use super::{Verdict, refuse};
use crate::meta::volumes::{DRIVER, FINALIZER, keeper};
use crate::schema::Value;

/// Whether a node only lets go of a volume that it keeps: removes the finalizer by which it holds it. Upstream's nodes
/// may not write volumes at all, so its plugin has no such rule; here nodes keep those of a driver of their own, and
/// whoever lets them write volumes should not let them write those of others.
pub(super) fn volume(node: &str, request: &Attributes<'_>) -> Verdict {
    let refusal = || {
        refuse(format!(
            "node {node:?} can only remove the finalizer of volumes of {DRIVER} that are on it"
        ))
    };
    let Some(old) = request
        .old
        .filter(|_| request.operation == Operation::Update)
    else {
        return refusal();
    };
    let rest = |volume: &Value| {
        let mut volume = volume.clone();
        if let Some(meta) = volume.get_mut("metadata") {
            meta.remove("resourceVersion");
            meta.remove("managedFields");
            meta.remove("finalizers");
        }
        volume
    };
    // Those of others.
    let finalizers = |volume: &Value| -> Vec<Value> {
        let all = volume.at("metadata").list("finalizers").iter();
        all.filter(|one| one.as_str() != Some(FINALIZER))
            .cloned()
            .collect()
    };
    let new = &request.object;
    let is_only_released = rest(old) == rest(new) && finalizers(old) == finalizers(new);
    match keeper(old) == Some(node) && is_only_released {
        true => Ok(()),
        false => refusal(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::NodeRestriction;
    use super::*;
    use crate::admission::trial::Trial;
    use crate::auth::User;
    use crate::auth::node;

    #[test]
    fn a_node_lets_go_of_its_own_volumes_and_writes_nothing_else() {
        let trial = Trial::new("{}");
        let node = User::new("system:node:n", &[node::NODES]);
        let volume = |driver: &str, host: &str, finalizers: &str, rest: &str| {
            format!(
                r#"{{"metadata":{{"name":"v","finalizers":[{finalizers}]}},"spec":{{"csi":{{"driver":"{driver}"}},{rest}"nodeAffinity":{{"required":{{"nodeSelectorTerms":[{{"matchExpressions":[{{"key":"kubernetes.io/hostname","operator":"In","values":["{host}"]}}]}}]}}}}}}}}"#
            )
        };
        let held = format!(r#""{FINALIZER}","kubernetes.io/pv-protection""#);
        let (own, released) = (DRIVER, r#""kubernetes.io/pv-protection""#);
        let other = r#""persistentVolumeReclaimPolicy":"Retain","#;
        for (what, driver, host, (finalizers, rest), fine) in [
            ("lets go", own, "n", (released, ""), true),
            ("changes nothing", own, "n", (&*held, ""), true),
            ("removes what protects it", own, "n", ("", ""), false),
            ("holds it by another", own, "n", (r#""a/b""#, ""), false),
            ("changes it", own, "n", (released, other), false),
            ("of another node", own, "m", (released, ""), false),
            ("of another driver", "d", "n", (released, ""), false),
        ] {
            let old = volume(driver, host, &held, "");
            let new = volume(driver, host, finalizers, rest);
            let by = |user: &User| {
                trial.spec_by(user, &NodeRestriction, "persistentvolumes", &old, &new)
            };
            assert_eq!(by(&node).starts_with('{'), fine, "{what}: {}", by(&node));
            assert!(by(&User::new("jane", &[])).starts_with('{'), "{what}");
        }
        let new = volume(own, "n", &held, "");
        let made = trial.spec_by(&node, &NodeRestriction, "persistentvolumes", "", &new);
        assert!(made.contains("can only remove the finalizer"), "{made}");
    }
}
