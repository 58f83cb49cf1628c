//! Additional permissions for writes to a claim's status: to allocate and reserve it (`binding`), and to
//! report the status of a driver's devices (`driver`). Follows AuthorizedForBinding and AuthorizedForDeviceStatus of
//! k8s.io/kubernetes/pkg/registry/resource/utils.go.

use std::collections::{BTreeSet, HashSet};

use super::status::{Device, device_of};
use crate::auth::authorize::forbidden;
use crate::auth::{Attributes, Decision, accounts};
use crate::meta::{At, Errors};
use crate::resources::Cx;
use crate::schema::{Value, json};

/// Checks the permissions for a change of the status.
pub(super) fn judge(status: At<'_>, old: &Value, cx: &Cx<'_>, errors: &mut Errors) {
    let new = status.value;
    let changed = |member: &str| new.at(member) != old.at(member);
    if (changed("allocation") || changed("reservedFor"))
        && let Err(why) = may(cx, &[cx.verb.to_owned()], "binding", "", "")
    {
        errors.forbidden(
            status.path.field("allocation"),
            format!(
                "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"{}\" permission: {why}",
                cx.verb
            ),
        );
    }
    if new.at("allocation").is_null() {
        return;
    }
    let mut verbs = vec![format!("arbitrary-node:{}", cx.verb)];
    if is_on_node(cx, new.at("allocation")) {
        verbs.insert(0, format!("associated-node:{}", cx.verb));
    }
    for driver in drivers(new, old) {
        if let Err(why) = may(cx, &verbs, "driver", cx.namespace, driver) {
            errors.forbidden(
                status.path.field("devices"),
                format!(
                    "changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[{}]\" permission: {why}",
                    verbs.join(" ")
                ),
            );
        }
    }
}

/// Requires permission for one of the verbs; otherwise reports the first one as forbidden.
fn may(
    cx: &Cx<'_>,
    verbs: &[String],
    subresource: &str,
    namespace: &str,
    name: &str,
) -> Result<(), String> {
    let mut first = None;
    for verb in verbs {
        let wants = Attributes {
            verb,
            group: "resource.k8s.io",
            version: cx.version,
            resource: "resourceclaims",
            subresource,
            namespace,
            name,
            ..Attributes::default()
        };
        // Nothing is written without an authorizer.
        match cx
            .authorizer
            .map(|authorizer| authorizer.authorize(cx.user, &wants))
        {
            None | Some(Decision::Allow(_)) => return Ok(()),
            Some(Decision::NoOpinion(why) | Decision::Deny(why)) => {
                first.get_or_insert_with(|| forbidden(cx.user, &wants, &why).message);
            }
        }
    }
    first.map_or(Ok(()), Err)
}

/// The drivers of devices whose status was changed or removed.
fn drivers<'a>(new: &'a Value, old: &'a Value) -> BTreeSet<&'a str> {
    let (new, old) = (new.list("devices"), old.list("devices"));
    // In canonical form, equal values are written alike.
    let had: HashSet<String> = old.iter().map(json::to_string).collect();
    let told = new
        .iter()
        .filter(|device| !had.contains(&json::to_string(device)));
    let left: HashSet<Device<'_>> = new.iter().map(device_of).collect();
    let gone = old
        .iter()
        .filter(|device| !left.contains(&device_of(device)));
    told.chain(gone)
        .map(|device| device.str("driver"))
        .collect()
}

/// Whether the user is a service account on the only node for which the claim is allocated.
fn is_on_node(cx: &Cx<'_>, allocation: &Value) -> bool {
    const NODE: &str = "authentication.kubernetes.io/node-name";
    let terms = allocation.at("nodeSelector").list("nodeSelectorTerms");
    let [term] = terms else {
        return false;
    };
    let [field] = term.list("matchFields") else {
        return false;
    };
    let [node] = field.list("values") else {
        return false;
    };
    let alone = term.list("matchExpressions").is_empty()
        && (field.str("key"), field.str("operator")) == ("metadata.name", "In");
    let mut extra = cx.user.extra.iter();
    let of_user = extra.find(|(key, _)| key == NODE);
    let is_account = cx.user.name.starts_with(accounts::PREFIX);
    let there = matches!(of_user, Some((_, nodes)) if matches!(nodes.as_slice(), [one] if Some(&**one) == node.as_str()));
    alone && is_account && there
}
