//! ResourceClaims and their templates. Follows k8s.io/kubernetes/pkg/registry/resource/resourceclaim and
//! resourceclaimtemplate, and pkg/apis/resource/validation.

use super::{requests, status};
use crate::meta::errors::Path;
use crate::meta::{At, Errors, table};
use crate::resources::groups::core::pods::validate::labels_and_annotations;
use crate::resources::{Cx, Deletion, MetaOnStatus, Printing, Rules, StatusRules, metadata};
use crate::schema::Value;
use crate::schema::semantic::same_as;

/// The label of namespaces in which claims may request admin access.
const ADMIN: &str = "resource.kubernetes.io/admin-access";

/// The rules of resource claims.
pub(super) const CLAIMS: Rules = Rules {
    deletion: Deletion::RETURNS_OBJECT,
    defaults: |claim, _| {
        if let Some(devices) = devices(claim, &["spec"]) {
            requests::set_defaults(devices);
        }
        status::set_defaults(claim);
    },
    prepare_create: |claim, _| {
        if let Some(devices) = devices(claim, &["spec"]) {
            requests::drop_disabled(devices);
        }
    },
    prepare_update: |claim, _, _| {
        if let Some(devices) = devices(claim, &["spec"]) {
            requests::drop_disabled(devices);
        }
    },
    validate: |claim, old, cx, errors| {
        let spec = claim.field("spec");
        match old {
            None => {
                let devices = spec.field("devices");
                admin(devices, cx, errors);
                requests::validate(devices, errors);
                requests::declared(devices, errors);
            }
            Some(old) => {
                metadata::again(claim, Some(old), cx, errors);
                spec.frozen(old.value.at("spec"), "resource.ResourceClaimSpec", errors);
            }
        }
    },
    status: StatusRules {
        prepare: |claim, old, _| status::prepare(claim, old),
        validate: |claim, old, cx, errors| status::validate(claim, old, cx, errors),
        metadata: MetaOnStatus::Kept,
        ..StatusRules::DEFAULT
    },
    printing: Printing::of(|claim, now| {
        let (meta, status) = (claim.at("metadata"), claim.at("status"));
        let deleted = meta.get("deletionTimestamp").is_some();
        let allocated = status.get("allocation").is_some();
        let states = [
            (deleted, "deleted"),
            (!allocated && !deleted, "pending"),
            (allocated, "allocated"),
            (
                allocated && !status.list("reservedFor").is_empty(),
                "reserved",
            ),
        ];
        let states: Vec<&str> = states
            .into_iter()
            .filter(|state| state.0)
            .map(|state| state.1)
            .collect();
        vec![
            meta.str("name").into(),
            states.join(",").into(),
            table::age(claim, now),
        ]
    }),
    internal: "resource.ResourceClaim",
    ..Rules::DEFAULT
};

/// The rules of templates of resource claims.
pub(super) const TEMPLATES: Rules = Rules {
    deletion: Deletion::RETURNS_OBJECT,
    defaults: |template, _| {
        if let Some(devices) = devices(template, &["spec", "spec"]) {
            requests::set_defaults(devices);
        }
    },
    prepare_create: |template, _| {
        if let Some(devices) = devices(template, &["spec", "spec"]) {
            requests::drop_disabled(devices);
        }
    },
    prepare_update: |template, _, _| {
        if let Some(devices) = devices(template, &["spec", "spec"]) {
            requests::drop_disabled(devices);
        }
    },
    validate: |template, old, cx, errors| {
        let spec = template.field("spec");
        let inner = spec.field("spec");
        let devices = inner.field("devices");
        if old.is_none() {
            admin(devices, cx, errors);
        }
        metadata::again(template, old, cx, errors);
        labels_and_annotations(spec.field("metadata"), errors);
        requests::validate(devices, errors);
        const SPEC: &str = "resource.ResourceClaimTemplateSpec";
        let same = old.is_some_and(|old| same_as(SPEC, old.value.at("spec"), spec.value));
        if old.is_some() && !same {
            spec.invalid_dump(SPEC, "field is immutable", errors);
        }
        if !same {
            requests::declared(devices, errors);
        }
    },
    internal: "resource.ResourceClaimTemplate",
    ..Rules::DEFAULT
};

/// The `devices` of the claim spec at `path`.
fn devices<'a>(object: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    let spec = path
        .iter()
        .try_fold(object, |value, name| value.get_mut(name))?;
    spec.get_mut("devices")
}

/// Admin access requires a label of the namespace.
fn admin(devices: At<'_>, cx: &Cx<'_>, errors: &mut Errors) {
    let requests = devices.value.list("requests");
    let asks = requests
        .iter()
        .position(|request| request.at("exactly").bool("adminAccess"));
    let Some(index) = asks else {
        return;
    };
    // Upstream's path omits `exactly`.
    let root = Path::ROOT;
    let list = root.field("spec.devices.requests");
    may_have_admin(list.index(index).field("adminAccess"), cx, errors);
}

/// Rejects admin access at `path` if the namespace does not allow it.
pub(super) fn may_have_admin(path: Path<'_>, cx: &Cx<'_>, errors: &mut Errors) {
    let namespace = cx.cluster.get("", "namespaces", "", cx.namespace);
    let allowed = namespace
        .as_ref()
        .is_some_and(|namespace| namespace.at("metadata").at("labels").str(ADMIN) == "true");
    if !allowed {
        let why = format!(
            "admin access to devices requires the `{ADMIN}: true` label on the containing namespace"
        );
        errors.forbidden(path, why);
    }
}
