//! What claims of volumes and devices use.

use compact_str::CompactString;

use super::number;
use crate::meta::amounts::Amounts;
use crate::meta::quantity::Quantity;
use crate::schema::Value;

pub(super) const BY_CLASS: &str = ".storageclass.storage.k8s.io/";

pub(super) const BY_DEVICE: &str = ".deviceclass.resource.k8s.io/devices";

/// The maximum number of devices for a request with allocation mode `All`.
const ALL_DEVICES: i64 = 32;

/// The storage that a claim requests, or its allocated storage if that is more; rounded up to whole units.
pub(super) fn claim_storage(claim: &Value) -> Option<Quantity> {
    let read = |list: &Value| Amounts::read(list).0.get("storage").copied();
    let whole = |amount: Quantity| {
        if amount.is_fractional() {
            Quantity::units(amount.value(), amount.form)
        } else {
            amount
        }
    };
    let asked = whole(read(claim.at("spec").at("resources").at("requests"))?);
    let given = read(claim.at("status").at("allocatedResources")).map(whole);
    Some(given.map_or(asked, |given| given.max(asked)))
}

pub(super) fn devices(claim: &Value) -> Amounts {
    let count = |request: &Value| match request.str("allocationMode") {
        "ExactCount" => request.int("count"),
        "All" => ALL_DEVICES,
        _ => 0,
    };
    let name = |request: &Value| -> CompactString {
        format!("{}{BY_DEVICE}", request.str("deviceClassName")).into()
    };
    let mut out = Amounts::default();
    for request in claim.at("spec").at("devices").list("requests") {
        let mut most = Amounts::default();
        let alternatives = request.list("firstAvailable");
        for one in alternatives {
            most.max(&Amounts([(name(one), number(count(one)))].into()));
        }
        if let Some(one) = request.get("exactly").filter(|_| alternatives.is_empty()) {
            most.0.insert(name(one), number(count(one)));
        }
        out.add(&most);
    }
    out
}
