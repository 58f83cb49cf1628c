//! endpointslice-mirroring-controller: mirrors Endpoints written by others to endpoint slices. Follows
//! k8s.io/kubernetes/pkg/controller/endpointslicemirroring.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::legacy::LOCK;
use super::managed::{Changes, MANAGED_BY, Refused, SERVICE_NAME, Slices, in_place_of};
use super::slices::{Ports, ports_key, says_same};
use super::{Service, TRIGGER};
use crate::client::Context;
use crate::client::events::{Recorder, Tone};
use crate::client::informer::{Informer, Key};
use crate::client::owners::controller_reference;
use crate::client::queue::{Delays, Next, Queue};

const WORKERS: usize = 5;
/// How long failed services are delayed.
const DELAYS: Delays = Delays {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(100),
};
/// The most endpoints of one subset that are mirrored.
const MOST: usize = 1000;
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn is_mirrored(endpoints: &v1::Endpoints) -> bool {
    endpoints
        .labels()
        .get(SKIP)
        .is_none_or(|skip| skip != "true")
        && !endpoints.annotations().contains_key(LOCK)
}

struct Mirror {
    context: Context,
    services: Informer<Service>,
    endpoints: Informer<v1::Endpoints>,
    slices: Slices,
    recorder: Recorder,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let mirror = Mirror {
        services: context.informers.of(),
        endpoints: context.informers.of(),
        slices: Slices::of(&context, MANAGER),
        recorder: context.recorder("endpoint-slice-mirroring-controller"),
        context,
    };
    let queue = Arc::new(Queue::<Key>::with_delays(DELAYS));
    mirror.services.enqueue(&queue, |change| {
        let selects = |service: &Arc<Service>| service.spec.selector.is_some();
        (change.old.map(selects) != change.new.map(selects)).then(|| change.key.clone())
    });
    mirror.endpoints.enqueue(&queue, |change| {
        let mirrored = |endpoints: &Arc<v1::Endpoints>| is_mirrored(endpoints);
        let is_ours = change.old.is_some_and(mirrored) || change.new.is_some_and(mirrored);
        is_ours.then(|| change.key.clone())
    });
    mirror.slices.follow(&queue);
    let look = |key: Key| mirror.sync(key);
    mirror.context.work(&queue, WORKERS, look).await;
}

impl Mirror {
    async fn sync(&self, key: Key) -> Result<Next, Refused> {
        let own = self.slices.list(&key);
        let service = self.services.get(&key.namespace, &key.name);
        let endpoints = self
            .endpoints
            .get(&key.namespace, &key.name)
            .filter(|endpoints| is_mirrored(endpoints))
            .filter(|_| service.is_some_and(|service| service.spec.selector.is_none()));
        let changes = match &endpoints {
            None => Changes {
                delete: own.iter().map(|slice| slice.name_any()).collect(),
                ..Changes::default()
            },
            Some(endpoints) => {
                let (wanted, left_out) = wanted(endpoints);
                self.tell(endpoints, &left_out);
                plan(endpoints, &own, wanted)
            }
        };
        let owner = format!("Endpoints {}/{}", key.namespace, key.name);
        let written = self.slices.carry_out(&key.namespace, &owner, changes).await;
        written.or_else(Refused::patiently)
    }

    fn tell(&self, endpoints: &v1::Endpoints, left_out: &LeftOut) {
        let warn = |reason: &str, message: String| {
            self.recorder
                .tell(endpoints, Tone::Warning, reason, message);
        };
        let LeftOut { invalid, skipped } = *left_out;
        if invalid > 0 {
            warn(
                "InvalidIPAddress",
                format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices"),
            );
        }
        if skipped > invalid {
            warn(
                "TooManyAddressesToMirror",
                format!(
                    "A max of {MOST} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} addresses were skipped"
                ),
            );
        }
    }
}

/// Addresses that are not mirrored.
#[derive(Debug, Default, PartialEq, Eq)]
struct LeftOut {
    /// Invalid addresses.
    invalid: usize,
    /// These, and those beyond the limit.
    skipped: usize,
}

/// The endpoints that should exist, by address family and ports.
type Wanted = BTreeMap<(&'static str, Ports), (Vec<EndpointPort>, Vec<Endpoint>)>;

fn wanted(endpoints: &v1::Endpoints) -> (Wanted, LeftOut) {
    let (mut out, mut left_out) = (Wanted::new(), LeftOut::default());
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(mirrored_port).collect();
        let ready = subset
            .addresses
            .iter()
            .flatten()
            .map(|address| (address, true));
        let others = subset.not_ready_addresses.iter().flatten();
        let mut taken = 0;
        for (address, ready) in ready.chain(others.map(|address| (address, false))) {
            let parsed = address.ip.parse::<IpAddr>();
            left_out.invalid += usize::from(parsed.is_err() && taken < MOST);
            let Some(ip) = parsed.ok().filter(|_| taken < MOST) else {
                left_out.skipped += 1;
                continue;
            };
            taken += 1;
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let (_, list) = out
                .entry((family, ports_key(&ports)))
                .or_insert_with(|| (ports.clone(), Vec::new()));
            let endpoint = mirrored_endpoint(address, ip, ready);
            if !list.iter().any(|known| says_same(known, &endpoint)) {
                list.push(endpoint);
            }
        }
    }
    (out, left_out)
}

fn mirrored_port(port: &v1::EndpointPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    }
}

fn mirrored_endpoint(address: &v1::EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

/// A slice for endpoints of one family and set of ports.
fn new_slice(endpoints: &v1::Endpoints, family: &str, ports: Vec<EndpointPort>) -> EndpointSlice {
    let mut labels = endpoints.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), endpoints.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.annotations().clone();
    annotations.retain(|key, _| ![TRIGGER, LAST_APPLIED].contains(&key.as_str()));
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", endpoints.name_any())),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: Some(vec![controller_reference(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: None,
        ports: Some(ports),
    }
}

/// One slice for each family and set of ports. Only changed slices are written, reusing an obsolete slice of the same
/// family if there is one.
fn plan(endpoints: &v1::Endpoints, own: &[Arc<EndpointSlice>], wanted: Wanted) -> Changes {
    let mut changes = Changes::default();
    let mut left: Vec<&Arc<EndpointSlice>> = own.iter().collect();
    let mut made = Vec::new();
    for ((family, key), (ports, list)) in wanted {
        let mut new = new_slice(endpoints, family, ports);
        let found = left.iter().position(|slice| {
            slice.address_type == family
                && ports_key(slice.ports.as_deref().unwrap_or_default()) == key
        });
        new.endpoints = Some(list);
        match found.map(|at| left.remove(at)) {
            Some(old) if says_all(old, &new) => {}
            Some(old) => changes.update.push(in_place_of(new, old)),
            None => made.push(new),
        }
    }
    for new in made {
        let spare = left
            .iter()
            .position(|slice| slice.address_type == new.address_type);
        match spare.map(|at| left.remove(at)) {
            Some(old) => changes.update.push(in_place_of(new, old)),
            None => changes.create.push(new),
        }
    }
    changes.delete = left.iter().map(|slice| slice.name_any()).collect();
    changes
}

/// Whether a slice has the desired content.
fn says_all(old: &EndpointSlice, new: &EndpointSlice) -> bool {
    let list = |slice: &EndpointSlice| slice.endpoints.clone().unwrap_or_default();
    let (had, wanted) = (list(old), list(new));
    let includes = |all: &[Endpoint], one: &Endpoint| all.iter().any(|other| says_same(other, one));
    old.labels() == new.labels()
        && old.annotations() == new.annotations()
        && old.owner_references() == new.owner_references()
        && had.len() == wanted.len()
        && wanted.iter().all(|one| includes(&had, one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(rest: &str) -> v1::Endpoints {
        serde_json::from_str(&format!(
            r#"{{"metadata":{{"name":"s","namespace":"n","uid":"u","labels":{{"a":"b"}},"annotations":{{"c":"d","{LAST_APPLIED}":"x"}}}},"subsets":[{rest}]}}"#
        ))
        .unwrap()
    }

    #[test]
    fn each_family_and_set_of_ports_has_a_slice() {
        let port = r#""ports":[{"port":80,"protocol":"TCP"}]"#;
        let one = endpoints(&format!(
            r#"{{"addresses":[{{"ip":"10.0.0.1","hostname":"h"}},{{"ip":"fd00::1"}},{{"ip":"x"}}],"notReadyAddresses":[{{"ip":"10.0.0.2"}}],{port}}}"#
        ));
        let (found, left_out) = wanted(&one);
        assert_eq!((left_out.invalid, left_out.skipped), (1, 1));
        let changes = plan(&one, &[], found.clone());
        assert_eq!((changes.create.len(), changes.update.len()), (2, 0));
        let four = &changes.create[0];
        assert_eq!(four.address_type, "IPv4");
        assert_eq!(four.labels()[MANAGED_BY], MANAGER);
        assert_eq!(four.annotations().len(), 1);
        let told: Vec<(String, Option<bool>)> = four
            .endpoints
            .iter()
            .flatten()
            .map(|one| {
                (
                    one.addresses.join(","),
                    one.conditions.as_ref().and_then(|of| of.ready),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("10.0.0.1".to_owned(), Some(true)),
                ("10.0.0.2".to_owned(), Some(false))
            ]
        );

        let named = |slice: &EndpointSlice, name: &str| {
            let mut slice = slice.clone();
            slice.metadata.name = Some(name.to_owned());
            Arc::new(slice)
        };
        let own = [
            named(&changes.create[0], "x"),
            named(&changes.create[1], "y"),
        ];
        let again = plan(&one, &own, found);
        assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty());

        let other = endpoints(
            r#"{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":81,"protocol":"TCP"}]}"#,
        );
        let moved = plan(&other, &own, wanted(&other).0);
        let names: Vec<String> = moved.update.iter().map(|slice| slice.name_any()).collect();
        assert_eq!(
            (names, moved.delete),
            (vec!["x".to_owned()], vec!["y".to_owned()])
        );
        assert!(moved.create.is_empty());
    }

    #[test]
    fn a_subset_is_mirrored_up_to_a_bound() {
        let many: Vec<String> = (0..1002)
            .map(|i| format!(r#"{{"ip":"10.0.{}.{}"}}"#, i / 250, i % 250))
            .collect();
        let many = endpoints(&format!(r#"{{"addresses":[{}]}}"#, many.join(",")));
        let (found, left_out) = wanted(&many);
        assert_eq!(
            left_out,
            LeftOut {
                invalid: 0,
                skipped: 2
            }
        );
        assert_eq!(
            found
                .into_values()
                .map(|(_, list)| list.len())
                .sum::<usize>(),
            MOST
        );
    }

    #[test]
    fn locks_and_what_says_so_are_not_mirrored() {
        let mut one = endpoints("");
        assert!(is_mirrored(&one));
        one.labels_mut().insert(SKIP.to_owned(), "true".to_owned());
        assert!(!is_mirrored(&one));
        one.labels_mut().clear();
        one.annotations_mut()
            .insert(LOCK.to_owned(), "{}".to_owned());
        assert!(!is_mirrored(&one));
    }
}
