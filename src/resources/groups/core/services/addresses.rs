//! Cluster IPs: each one in use is an IPAddress object, written in the commit that writes the service.
//! Follows k8s.io/kubernetes/pkg/registry/core/service/ipallocator.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::meta::addresses::{Network, parse_cidr, parse_ip};
use crate::meta::{names, time};
use crate::resources::cluster::Cluster;
use crate::resources::{Cx, Resource, record};
use crate::schema::Value;
use crate::store::{Change, Entry, Expect};
use crate::value;

const GROUP: &str = "networking.k8s.io";
const PLURAL: &str = "ipaddresses";
const FAMILY_LABEL: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGER_LABEL: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";
/// How many addresses of a range are tried before it is considered full.
const SEARCHED: u128 = 1 << 20;

/// For how many seconds an IPAddress may exist without its service.
const YOUNG: i64 = 60;

pub(super) const FULL: &str = "range is full";

/// A range of service addresses.
#[derive(Clone, Copy)]
struct Range {
    network: Network,
    ready: bool,
}

impl Range {
    fn bits(&self) -> u32 {
        let all = if self.network.address.is_ipv4() {
            32
        } else {
            128
        };
        all - u32::from(self.network.prefix)
    }

    fn start(&self) -> u128 {
        number(self.network.address)
    }

    /// The first and last usable address: without the network address, and without IPv4's broadcast address.
    fn ends(&self) -> (u128, u128) {
        let (v4, start) = (self.network.address.is_ipv4(), self.start());
        let size = 1u128.checked_shl(self.bits()).unwrap_or(u128::MAX);
        let last = start.saturating_add(size - 1);
        (start + 1, if v4 { last.saturating_sub(1) } else { last })
    }

    fn holds(&self, ip: IpAddr) -> bool {
        let (first, last) = self.ends();
        self.network.address.is_ipv4() == ip.is_ipv4() && (first..=last).contains(&number(ip))
    }

    fn address(&self, number: u128) -> IpAddr {
        if self.network.address.is_ipv4() {
            Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into()
        } else {
            Ipv6Addr::from(number).into()
        }
    }

    /// How many of the first addresses are allocated dynamically only when there are no others.
    fn reserved(&self) -> u128 {
        match 1u128.checked_shl(self.bits()).unwrap_or(u128::MAX) {
            0..=16 => 0,
            size => (size / 16).clamp(16, 256),
        }
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// The service ranges of a cluster, the default ones first.
fn ranges(cluster: &Cluster) -> Vec<Range> {
    let mut objects = cluster.list(GROUP, "servicecidrs", "");
    objects.sort_by_key(|object| object.at("metadata").str("name") != "kubernetes");
    objects
        .iter()
        .flat_map(|object| {
            let ready =
                object.at("metadata").get("deletionTimestamp").is_none() && is_ready(object);
            object
                .at("spec")
                .list("cidrs")
                .iter()
                .filter_map(move |range| {
                    let (_, network) = parse_cidr(range.as_str()?)?;
                    Some(Range { network, ready })
                })
        })
        .collect()
}

/// A range without a condition Ready is ready.
fn is_ready(range: &Value) -> bool {
    let mut conditions = range.at("status").list("conditions").iter();
    conditions
        .find(|condition| condition.str("type") == "Ready")
        .is_none_or(|condition| condition.str("status") == "True")
}

/// Allocates addresses for a service.
pub(super) struct Pool<'a> {
    cx: &'a Cx<'a>,
    /// The service's name.
    name: &'a str,
    ranges: Vec<Range>,
    /// The resource `ipaddresses`.
    held: Option<Arc<Resource>>,
}

impl<'a> Pool<'a> {
    /// An allocator for the service of this name in the request's namespace.
    pub(super) fn new(cx: &'a Cx<'a>, name: &'a str) -> Self {
        Pool {
            cx,
            name,
            ranges: ranges(cx.cluster),
            held: cx.cluster.resource(GROUP, PLURAL),
        }
    }

    /// Allocates an address. Returns the change to commit together with the service; `None` if the service already has
    /// the address.
    ///
    /// # Errors
    /// The address is in no range, or allocated.
    pub(super) fn take(&self, ip: IpAddr) -> Result<Option<Change>, String> {
        if self.cx.dry_run {
            return self.try_out(ip).map(|()| None);
        }
        if !self
            .ranges
            .iter()
            .any(|range| range.ready && range.holds(ip))
        {
            return Err("the provided network does not match the current range".to_owned());
        }
        match self.holder(ip) {
            None => self.write(ip),
            // Left over by a service of this name that is gone.
            Some(holder) if self.is_own(&holder) && !self.is_there() => Ok(None),
            Some(_) => Err("provided IP is already allocated".to_owned()),
        }
    }

    /// For a dry run. As upstream, checks only one range, and not whether the address is allocated.
    fn try_out(&self, ip: IpAddr) -> Result<(), String> {
        let fits = |range: &&Range| range.network.address.is_ipv4() == ip.is_ipv4();
        let mut ranges = self.ranges.iter().filter(fits);
        let range = ranges
            .clone()
            .find(|range| range.holds(ip))
            .or_else(|| ranges.next());
        match range {
            Some(range) if !range.ready => Err("allocator not ready".to_owned()),
            Some(range) if !range.holds(ip) => Err(format!(
                "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}",
                range.network
            )),
            Some(_) => Ok(()),
            None => Err("allocator not ready".to_owned()),
        }
    }

    /// Allocates any address of a family, from the upper part of a range if possible.
    ///
    /// # Errors
    /// All ranges are full.
    pub(super) fn take_any(&self, v4: bool) -> Result<(IpAddr, Option<Change>), String> {
        let mut ranges = self
            .ranges
            .iter()
            .filter(|range| range.network.address.is_ipv4() == v4);
        if self.cx.dry_run {
            // Upstream returns a placeholder, too.
            let range = ranges.next().ok_or(FULL)?;
            return Ok((range.network.address, None));
        }
        let found = ranges.filter(|range| range.ready).find_map(|range| {
            let (first, last) = range.ends();
            let dynamic = first.saturating_add(range.reserved());
            self.free_in(range, dynamic, last)
                .or_else(|| self.free_in(range, first, dynamic.saturating_sub(1)))
        });
        let ip = found.ok_or(FULL)?;
        Ok((ip, self.write(ip)?))
    }

    fn free_in(&self, range: &Range, first: u128, last: u128) -> Option<IpAddr> {
        let size = last.checked_sub(first)?.saturating_add(1);
        let mut bytes = [0; 16];
        names::random(&mut bytes);
        let start = u128::from_le_bytes(bytes) % size;
        (0..size.min(SEARCHED))
            .map(|i| range.address(first + start.wrapping_add(i) % size))
            .find(|ip| self.holder(*ip).is_none())
    }

    /// The stored IPAddress for an address.
    fn holder(&self, ip: IpAddr) -> Option<Arc<Entry>> {
        let key = self.held.as_ref()?.key("", &ip.to_string());
        self.cx.cluster.store.head(&key)
    }

    /// Whether there is a service of this name already.
    fn is_there(&self) -> bool {
        let services = self.cx.cluster.resource("", "services");
        let key = services.map(|services| services.key(self.cx.namespace, self.name));
        key.is_some_and(|key| self.cx.cluster.store.head(&key).is_some())
    }

    fn is_own(&self, holder: &Entry) -> bool {
        let holder = crate::resources::cluster::stored(holder);
        holder.at("spec").at("parentRef") == &parent(self.cx.namespace, self.name)
    }

    /// The change that allocates an address to the service. Rejects a service without a name, which has not been
    /// validated yet.
    fn write(&self, ip: IpAddr) -> Result<Option<Change>, String> {
        if self.name.is_empty() {
            return Err(format!(
                "IPAddress.{GROUP} \"{ip}\" is invalid: spec.parentRef.name: Required value"
            ));
        }
        let write =
            |held: &Arc<Resource>| write(held, self.cx.now, ip, self.cx.namespace, self.name);
        Ok(self.held.as_ref().map(write))
    }
}

fn parent(namespace: &str, name: &str) -> Value {
    value!({"resource": "services", "namespace": namespace, "name": name})
}

/// The change that creates an IPAddress for a service.
fn write(resource: &Resource, now: i64, ip: IpAddr, namespace: &str, name: &str) -> Change {
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let ip = ip.to_string();
    let mut object = value!({
        "kind": "IPAddress",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": (ip.as_str()),
            "uid": (names::new_uid()),
            "creationTimestamp": (time::print(now)),
            "managedFields": [{
                "manager": "kube-apiserver",
                "operation": "Update",
                "apiVersion": "networking.k8s.io/v1",
                "time": (time::print(now)),
                "fieldsType": "FieldsV1",
                "fieldsV1": {
                    "f:metadata": {"f:labels": {
                        ".": {},
                        "f:ipaddress.kubernetes.io/ip-family": {},
                        "f:ipaddress.kubernetes.io/managed-by": {}
                    }},
                    "f:spec": {"f:parentRef": {
                        ".": {}, "f:name": {}, "f:namespace": {}, "f:resource": {}
                    }}
                }
            }]
        },
        "spec": {"parentRef": (parent(namespace, name))}
    });
    let labels = object
        .object_mut()
        .object_mut("metadata")
        .object_mut("labels");
    labels.insert(FAMILY_LABEL, family);
    labels.insert(MANAGER_LABEL, MANAGER);
    crate::resources::forms::tidy(&mut object, resource);
    Change {
        resource: resource.prefix.clone(),
        key: resource.key("", &ip),
        expect: Expect::Absent,
        put: Some(record::encode(resource, &object)),
        ttl: None,
    }
}

/// The change that releases an address; `None` if there is no such IPAddress.
pub(super) fn give_back(cluster: &Cluster, ip: &str) -> Option<Change> {
    let ip = parse_ip(ip)?.to_string();
    let resource = cluster.resource(GROUP, PLURAL)?;
    let key = resource.key("", &ip);
    let entry = cluster.store.head(&key)?;
    Some(Change {
        resource: resource.prefix.clone(),
        key,
        expect: Expect::Revision(entry.rev),
        put: None,
        ttl: None,
    })
}

/// Changes, each to be committed separately, that delete IPAddresses not used by their service, and create missing
/// ones. Service and addresses are written in one commit, so only writes by others can cause a difference. As upstream,
/// new IPAddresses are left alone.
pub(super) fn repairs(cluster: &Cluster) -> Vec<Change> {
    let now = time::now();
    let (Some(services), Some(addresses)) = (
        cluster.resource("", "services"),
        cluster.resource(GROUP, PLURAL),
    ) else {
        return Vec::new();
    };
    let world = cluster.store.world();
    let all = |prefix: &str| -> Vec<(Arc<Entry>, Value)> {
        let entries = world.range(prefix, prefix, "");
        entries
            .map(|entry| (entry.clone(), crate::resources::cluster::object(entry)))
            .collect()
    };
    let mut had: BTreeMap<String, Value> = BTreeMap::new();
    for (_, service) in all(&services.prefix) {
        let meta = service.at("metadata");
        for ip in super::allocate::addresses_of(service.at("spec")) {
            if let Some(ip) = parse_ip(&ip) {
                had.insert(
                    ip.to_string(),
                    parent(meta.str("namespace"), meta.str("name")),
                );
            }
        }
    }
    let mut changes = Vec::new();
    let mut held = BTreeSet::new();
    for (entry, address) in all(&addresses.prefix) {
        let meta = address.at("metadata");
        let name = meta.str("name").to_owned();
        let is_ours = meta.at("labels").str(MANAGER_LABEL) == MANAGER;
        let born = time::parse(meta.str("creationTimestamp")).unwrap_or(0);
        let matches = had.get(&name) == Some(address.at("spec").at("parentRef"));
        if is_ours && !matches && now - born > YOUNG {
            changes.push(Change {
                resource: addresses.prefix.clone(),
                key: entry.key.clone(),
                expect: Expect::Revision(entry.rev),
                put: None,
                ttl: None,
            });
        }
        held.insert(name);
    }
    for (ip, parent) in had.iter().filter(|(ip, _)| !held.contains(*ip)) {
        let (namespace, name) = (parent.str("namespace"), parent.str("name"));
        let made = parse_ip(ip).map(|ip| write(&addresses, now, ip, namespace, name));
        changes.extend(made);
    }
    changes
}
