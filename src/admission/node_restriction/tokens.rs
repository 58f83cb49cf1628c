//! Which tokens a node may request for the service accounts of its pods.

use super::super::Attributes;
use super::pods::find;
use super::{Verdict, refuse};
use crate::schema::Value;

pub(super) fn token(node: &str, request: &Attributes<'_>) -> Verdict {
    let spec = request.object.at("spec");
    let bound = spec.at("boundObjectRef");
    let (api, kind, name) = (
        bound.str("apiVersion"),
        bound.str("kind"),
        bound.str("name"),
    );
    if (api, kind) != ("v1", "Pod") || name.is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    let uid = bound.str("uid");
    if uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let pod = find(request, name)?;
    if pod.at("metadata").str("uid") != uid {
        return refuse(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    if pod.at("spec").str("nodeName") != node {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    audience(request, &pod)
}

/// Checks that a node requests tokens only for audiences that a volume of the pod names, or that it has permission for.
fn audience(request: &Attributes<'_>, pod: &Value) -> Verdict {
    let audience = match request.object.at("spec").list("audiences") {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return refuse("node may only request 0 or 1 audiences"),
    };
    let volumes = pod.at("spec").list("volumes");
    let projected = volumes
        .iter()
        .flat_map(|volume| volume.at("projected").list("sources"))
        .filter_map(|source| source.get("serviceAccountToken"))
        .any(|token| token.str("audience") == audience);
    if projected {
        return Ok(());
    }
    let mut missing = Vec::new();
    for volume in volumes {
        match driver_asks(request, pod, volume, audience) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(why) => missing.push(why),
        }
    }
    missing.dedup();
    match missing.as_slice() {
        [] => {}
        [one] => return refuse(format!("error validating audience {audience:?}: {one}")),
        several => {
            let several = several.join(", ");
            return refuse(format!(
                "error validating audience {audience:?}: [{several}]"
            ));
        }
    }
    let wants = crate::auth::Attributes {
        verb: "request-serviceaccounts-token-audience",
        namespace: request.namespace,
        version: "v1",
        resource: audience,
        name: request.name,
        ..crate::auth::Attributes::default()
    };
    match request.authorizer.authorize(request.user, &wants) {
        crate::auth::Decision::Allow(_) => Ok(()),
        _ => refuse(format!(
            "{} is not authorized to request tokens for audience {audience:?}",
            request.user.name
        )),
    }
}

/// Whether the CSI driver of a volume requests tokens for an audience; errors name objects missing on the way to the
/// driver.
fn driver_asks(
    request: &Attributes<'_>,
    pod: &Value,
    volume: &Value,
    audience: &str,
) -> Result<bool, String> {
    let find = |group: &str, plural: &str, kind: &str, namespace: &str, name: &str| {
        let found = request.cluster.get(group, plural, namespace, name);
        found.ok_or_else(|| format!("{kind} {name:?} not found"))
    };
    let claimed = volume.at("persistentVolumeClaim").str("claimName");
    let claim = match volume.at("ephemeral").get("volumeClaimTemplate") {
        Some(_) => format!("{}-{}", pod.at("metadata").str("name"), volume.str("name")),
        None => claimed.to_owned(),
    };
    let driver = if claim.is_empty() {
        volume.at("csi").str("driver").to_owned()
    } else {
        let (plural, kind) = ("persistentvolumeclaims", "persistentvolumeclaim");
        let claim = find("", plural, kind, request.namespace, &claim)?;
        let volume = claim.at("spec").str("volumeName");
        let volume = find("", "persistentvolumes", "persistentvolume", "", volume)?;
        volume.at("spec").at("csi").str("driver").to_owned()
    };
    if driver.is_empty() {
        return Ok(false);
    }
    let kind = "csidriver.storage.k8s.io";
    let driver = find("storage.k8s.io", "csidrivers", kind, "", &driver)?;
    let mut wanted = driver.at("spec").list("tokenRequests").iter();
    Ok(wanted.any(|wanted| wanted.str("audience") == audience))
}
