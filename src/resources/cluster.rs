//! The server's state: the store, the registry, and settings. Rules, admission and verbs read other objects through
//! it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::custom::definition::{self, Definitions};
use super::decoded::Decoded;
use super::registry::{Registry, Resource};
use crate::meta::addresses::Network;
use crate::schema::{Value, json};
use crate::store::view::View;
use crate::store::{Entry, Revision, Store};

/// Server settings used by rules and admission.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--service-cluster-ip-range`: one range, or one per IP version, the default one first.
    pub service_ranges: Vec<Network>,
    /// `--service-node-port-range`, inclusive.
    pub node_ports: (u16, u16),
    /// The API's port.
    pub secure_port: u16,
    /// The endpoint of the service `kubernetes`; a loopback address gives it no endpoint.
    pub advertise_address: IpAddr,
    /// `--service-account-issuer`
    pub issuer: String,
    /// `--event-ttl` in seconds.
    pub event_ttl: u64,
    /// Whether resource metrics of nodes and pods are served as `metrics.k8s.io`.
    pub node_metrics: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            service_ranges: vec![Network {
                address: Ipv4Addr::new(10, 96, 0, 0).into(),
                prefix: 16,
            }],
            node_ports: (30000, 32767),
            secure_port: 6443,
            advertise_address: Ipv4Addr::LOCALHOST.into(),
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            event_ttl: 3600,
            node_metrics: false,
        }
    }
}

/// The store, the registry and the settings.
pub struct Cluster {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The settings.
    pub settings: Settings,
    definitions: View<Definitions>,
    registry: ArcSwap<Served>,
    decoded: Decoded,
}

/// The registry, and the definitions from which it was built.
struct Served {
    definitions: Arc<Definitions>,
    registry: Arc<Registry>,
}

impl Cluster {
    /// A cluster on a store, initially with the built-in resources.
    pub fn new(store: Arc<dyn Store>, settings: Settings) -> Self {
        let registry = Registry::serving(&Definitions::default(), settings.node_metrics);
        Cluster {
            store,
            settings,
            definitions: View::new(vec![definition::PREFIX.into()]),
            registry: ArcSwap::from_pointee(Served {
                definitions: Arc::default(),
                registry: Arc::new(registry),
            }),
            decoded: Decoded::default(),
        }
    }

    /// The CustomResourceDefinitions in the store.
    pub fn definitions(&self) -> Arc<Definitions> {
        self.definitions.of(&self.store.world())
    }

    /// The current registry: built-in resources and those of the definitions in the store.
    pub fn registry(&self) -> Arc<Registry> {
        let definitions = self.definitions();
        let served = self.registry.load();
        if served.definitions.objects.ptr_eq(&definitions.objects) {
            return served.registry.clone();
        }
        let registry = Arc::new(Registry::serving(&definitions, self.settings.node_metrics));
        self.registry.store(Arc::new(Served {
            definitions,
            registry: registry.clone(),
        }));
        registry
    }

    /// The newest accepted object, in its storage version, with resourceVersion.
    pub fn get(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Value>> {
        let registry = self.registry();
        let resource = registry.get(group, plural)?;
        self.store
            .head(&resource.key(namespace, name))
            .map(|entry| self.decoded.object(&entry))
    }

    /// The durable objects of a resource in a namespace (all if empty), in key order, in the storage version.
    pub fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Value>> {
        let registry = self.registry();
        let Some(resource) = registry.get(group, plural) else {
            return Vec::new();
        };
        let world = self.store.world();
        let keys = resource.keys(namespace);
        world
            .range(&resource.prefix, &keys, "")
            .map(|entry| self.decoded.object(entry))
            .collect()
    }

    /// The resource `plural` of `group`, if served.
    pub fn resource(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        self.registry().get(group, plural).cloned()
    }
}

/// Decodes a stored entry, without resourceVersion. Null if it cannot be decoded, which is logged: its row was intact
/// when the store was opened, so its writer was wrong.
pub fn stored(entry: &Entry) -> Value {
    match json::parse(&entry.record.body) {
        Ok(parsed) => parsed.value,
        Err(error) => {
            tracing::error!(key = &*entry.key, rev = entry.rev, %error, "a stored object cannot be decoded");
            Value::Null
        }
    }
}

/// Decodes a stored entry to the storage version, with resourceVersion.
pub fn object(entry: &Entry) -> Value {
    let mut value = stored(entry);
    set_revision(&mut value, entry.rev);
    value
}

/// Inserts the resourceVersion, which is stored separately, after the uid, as in Go's order.
pub fn set_revision(object: &mut Value, rev: Revision) {
    let meta = object.object_mut().object_mut("metadata");
    meta.insert_behind("uid", "resourceVersion", rev.to_string());
}
