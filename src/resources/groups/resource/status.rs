//! The status of a resource claim. Follows validateResourceClaimStatusUpdate of
//! k8s.io/kubernetes/pkg/apis/resource/validation and the status strategy of pkg/registry/resource/resourceclaim.

use std::collections::HashSet;

use super::{checks, claims, permissions, requests};
use crate::meta::errors::Path;
use crate::meta::{At, Errors, addresses, names};
use crate::resources::Cx;
use crate::resources::groups::core::pods::defaults;
use crate::resources::groups::core::pods::validate::node_selector;
use crate::resources::groups::core::pods::validate::sources::driver_name;
use crate::schema::Value;
use crate::value;

const RESULTS: usize = 32;
const RESERVED: usize = 256;
const SOURCES: [&str; 2] = ["FromClaim", "FromClass"];
const BAD_UID: &str = "must be a lowercase UUID in 8-4-4-4-12 format";

/// Driver, pool, device and share, which identify a device.
pub(super) type Device<'a> = [&'a str; 4];

pub(super) fn device_of(item: &Value) -> Device<'_> {
    ["driver", "pool", "device", "shareID"].map(|name| item.str(name))
}

fn allocated(claim: &Value) -> HashSet<Device<'_>> {
    let devices = claim.path(&["status", "allocation", "devices"]);
    devices.list("results").iter().map(device_of).collect()
}

/// Sets the default operators of tolerations.
pub(super) fn set_defaults(claim: &mut Value) {
    let devices = ["status", "allocation", "devices"]
        .iter()
        .try_fold(claim, |value, name| value.get_mut(name));
    if let Some(devices) = devices {
        for result in defaults::items(devices, "results") {
            for toleration in defaults::items(result, "tolerations") {
                defaults::text(toleration, "operator", "Equal");
            }
        }
    }
}

/// Drops fields of disabled features, and the status of devices that are not allocated any more.
pub(super) fn prepare(claim: &mut Value, old: &Value) {
    let kept = allocated(claim);
    let gone: Vec<[String; 4]> = allocated(old)
        .into_iter()
        .filter(|device| !kept.contains(device))
        .map(|device| device.map(str::to_owned))
        .collect();
    let Some(status) = claim.get_mut("status") else {
        return;
    };
    if let Some(devices) = status.get_mut("devices").and_then(Value::as_array_mut) {
        devices.retain(|device| {
            let device = device_of(device);
            !gone.iter().any(|gone| gone.iter().eq(device.iter()))
        });
    }
    let devices = status
        .get_mut("allocation")
        .and_then(|all| all.get_mut("devices"));
    if let Some(devices) = devices {
        for result in defaults::items(devices, "results") {
            result.remove("skipNodeOperations");
        }
    }
}

/// Validates the status that replaces that of `old`.
pub(super) fn validate(claim: At<'_>, old: At<'_>, cx: &Cx<'_>, errors: &mut Errors) {
    let (status, before) = (claim.field("status"), old.value.at("status"));
    let devices = claim.value.path(&["spec", "devices"]);
    let allocation = status.field("allocation");
    let had = before.at("allocation");
    admin(claim.value, old.value, cx, errors);
    permissions::judge(status, before, cx, errors);
    let reserved = status.field("reservedFor");
    if reserved.list().len() <= RESERVED {
        for consumer in reserved.items() {
            for name in ["resource", "name", "uid"] {
                consumer.field(name).required("", errors);
            }
        }
    }
    let known = allocated(claim.value);
    for device in status.field("devices").items() {
        device_status(device, &known, errors);
    }
    if !reserved.list().is_empty() {
        let deleted = claim.value.path(&["metadata", "deletionTimestamp"]);
        let new = |item: &&Value| !before.list("reservedFor").contains(item);
        if allocation.is_absent() {
            let why = "may not be specified when `allocated` is not set";
            errors.forbidden(reserved.path, why);
        } else if !deleted.is_null() && reserved.list().iter().any(|item| new(&item)) {
            let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.forbidden(reserved.path, why);
        }
    }
    if !allocation.is_absent() && had.is_null() {
        self::allocation(allocation, devices, errors);
    }
    declared(status, before, errors);
}

fn admin(claim: &Value, old: &Value, cx: &Cx<'_>, errors: &mut Errors) {
    let asks = |claim: &Value| {
        let devices = claim.path(&["status", "allocation", "devices"]);
        let mut results = devices.list("results").iter();
        results.position(|result| result.bool("adminAccess"))
    };
    if let (None, Some(index)) = (asks(old), asks(claim)) {
        let results = Path::ROOT.field("status.allocation.devices.results");
        claims::may_have_admin(results.index(index).field("adminAccess"), cx, errors);
    }
}

fn device_status(device: At<'_>, known: &HashSet<Device<'_>>, errors: &mut Errors) {
    driver_name(device.field("driver"), errors);
    checks::pool_name(device.field("pool"), errors);
    device.field("device").checked(names::dns1123_label, errors);
    let own = device_of(device.value);
    if !known.contains(&own) {
        let [driver, pool, name, share] = own;
        let shown = value!({"Driver": driver, "Pool": pool, "Device": name, "ShareID": share});
        let why = "must be an allocated device in the claim";
        errors.invalid(device.path, shown, why);
    }
    let list = device.field("conditions");
    checks::few(list, 8, errors);
    list.conditions(errors);
    let data = device.field("data");
    if !data.is_absent() {
        checks::parameters(data, errors);
    }
    let ips = device.field("networkData");
    let ips = ips.field("ips");
    if ips.list().len() <= 16 {
        let each = ips.items();
        each.for_each(|ip| ip.checked(addresses::interface_address, errors));
    }
}

fn allocation(allocation: At<'_>, requested: &Value, errors: &mut Errors) {
    let devices = allocation.field("devices");
    let (results, config) = (devices.field("results"), devices.field("config"));
    if results.list().len() <= RESULTS {
        for result in results.items() {
            requests::reference(result.field("request"), requested, errors);
            result.field("device").checked(names::dns1123_label, errors);
            checks::binding_conditions(result, errors);
            checks::tolerations(result.field("tolerations"), errors);
        }
    }
    if config.list().len() <= 64 {
        for config in config.items() {
            requests::references(config.field("requests"), requested, errors);
            checks::configuration(config, errors);
        }
    }
    let selector = allocation.field("nodeSelector");
    if !selector.is_absent() {
        node_selector(selector, || false, errors);
    }
}

fn declared(status: At<'_>, before: &Value, errors: &mut Errors) {
    let allocation = status.field("allocation");
    let had = before.at("allocation");
    match (allocation.is_absent(), had.is_null()) {
        (true, _) => {}
        (false, true) => declared_allocation(allocation, errors),
        (false, false) if allocation.value != had => {
            let why = "field cannot be modified once set";
            errors.invalid(allocation.path, Value::Null, why);
        }
        (false, false) => {}
    }
    let changed = |name: &str| before.at(name) != status.value.at(name);
    let reserved = status.field("reservedFor");
    if changed("reservedFor") && checks::few(reserved, RESERVED, errors) {
        checks::unique(reserved, |consumer| consumer.str("uid"), errors);
    }
    let devices = status.field("devices");
    if changed("devices") {
        checks::unique(devices, device_of, errors);
        for device in devices.items() {
            share(device.field("shareID"), errors);
            let data = device.field("networkData");
            data.field("interfaceName").at_most(256, errors);
            let ips = data.field("ips");
            if checks::few(ips, 16, errors) {
                checks::unique_texts(ips, errors);
            }
            data.field("hardwareAddress").at_most(128, errors);
        }
    }
}

fn declared_allocation(allocation: At<'_>, errors: &mut Errors) {
    let devices = allocation.field("devices");
    let (results, config) = (devices.field("results"), devices.field("config"));
    if checks::few(results, RESULTS, errors) {
        for result in results.items() {
            checks::declared_driver(result.field("driver"), errors);
            checks::declared_pool_name(result.field("pool"), errors);
            checks::declared_tolerations(result.field("tolerations"), errors);
            checks::declared_binding_conditions(result, errors);
            share(result.field("shareID"), errors);
        }
    }
    if checks::few(config, 64, errors) {
        for config in config.items() {
            config.field("source").required_one_of(&SOURCES, errors);
            requests::declared_references(config.field("requests"), errors);
            checks::declared_configuration(config, errors);
        }
    }
}

/// Validates the share of a device, a lower-case UUID.
fn share(share: At<'_>, errors: &mut Errors) {
    let Some(text) = share.value.as_str() else {
        return;
    };
    let good = text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
        });
    if !good {
        share.invalid(BAD_UID, errors);
    }
}
