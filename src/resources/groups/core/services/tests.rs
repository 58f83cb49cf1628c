use std::collections::BTreeSet;
use std::sync::Arc;

use super::{ports, repairs};
use crate::auth::User;
use crate::meta::Status;
use crate::meta::addresses::parse_cidr;
use crate::resources::cluster::{Cluster, Settings};
use crate::resources::{Cx, NOTHING, Resource, record};
use crate::schema::{Value, json};
use crate::store::{Change, Expect, StoreError};
use crate::value;

/// A server with an address range per IP family, and four node ports.
struct Server {
    cluster: Cluster,
    services: Arc<Resource>,
    user: User,
}

impl Server {
    async fn new() -> Server {
        let ranges = ["10.96.0.0/28", "fd00::/124"];
        let settings = Settings {
            service_ranges: ranges
                .iter()
                .map(|range| parse_cidr(range).unwrap().1)
                .collect(),
            node_ports: (30000, 30003),
            ..Settings::default()
        };
        let cluster = Cluster::new(crate::store::memory(), settings);
        let resource = cluster.resource("networking.k8s.io", "servicecidrs");
        let range = value!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/28", "fd00::/124"]}});
        let change = Change {
            resource: resource.as_ref().unwrap().prefix.clone(),
            key: resource.as_ref().unwrap().key("", "kubernetes"),
            expect: Expect::Absent,
            put: Some(record::encode(resource.as_ref().unwrap(), &range)),
            ttl: None,
        };
        cluster.store.commit(vec![change]).await.unwrap();
        Server {
            services: cluster.resource("", "services").unwrap(),
            cluster,
            user: User::new("jane", &[]),
        }
    }

    /// The changes that writing a service leads to, and its spec; without `spec` the service is deleted.
    fn decide(&self, name: &str, spec: Option<&str>) -> Result<(Vec<Change>, Value), Status> {
        let cx = Cx {
            namespace: "default",
            version: "v1",
            verb: "update",
            subresource: "",
            now: 1_000_000,
            dry_run: false,
            sent: &NOTHING,
            user: &self.user,
            authorizer: None,
            resource: &self.services,
            cluster: &self.cluster,
        };
        let key = self.services.key("default", name);
        let old = self.cluster.store.head(&key);
        let was = self.cluster.get("", "services", "default", name);
        let mut new = spec.map(|spec| {
            let spec = json::parse(spec.as_bytes()).unwrap().value;
            value!({"metadata": {"name": name, "namespace": "default"}, "spec": spec})
        });
        let mut changes = super::allocate::effects(new.as_mut(), was.as_deref(), &cx)?;
        changes.push(Change {
            resource: self.services.prefix.clone(),
            key,
            expect: old.map_or(Expect::Absent, |old| Expect::Revision(old.rev)),
            put: new.as_ref().map(|new| record::encode(&self.services, new)),
            ttl: None,
        });
        Ok((changes, new.unwrap_or_default().at("spec").clone()))
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.cluster.store.commit(changes).await.map(drop)
    }

    /// Writes a service. Returns its spec, or the error's message.
    async fn write(&self, name: &str, spec: Option<&str>) -> Result<Value, String> {
        let (changes, spec) = self
            .decide(name, spec)
            .map_err(|refusal| refusal.message.to_string())?;
        self.commit(changes).await.unwrap();
        Ok(spec)
    }

    /// The allocated addresses and node ports.
    fn taken(&self) -> (Vec<String>, BTreeSet<i64>) {
        let held = self.cluster.list("networking.k8s.io", "ipaddresses", "");
        let names = held
            .iter()
            .map(|held| held.at("metadata").str("name").to_owned());
        (names.collect(), ports::taken(&self.cluster))
    }
}

#[tokio::test]
async fn what_a_service_takes_is_written_with_it_and_given_back() {
    let server = Server::new().await;
    for (spec, addresses, ports) in [
        (
            r#"{"type":"NodePort","clusterIP":"10.96.0.5","ports":[{"name":"a","protocol":"TCP","port":1,"nodePort":30001},{"name":"b","protocol":"UDP","port":1}]}"#,
            &["10.96.0.5"][..],
            &[30001][..],
        ),
        (
            r#"{"type":"NodePort","ports":[{"name":"a","protocol":"TCP","port":1},{"name":"c","protocol":"TCP","port":2,"nodePort":30002}]}"#,
            &["10.96.0.5"],
            &[30001, 30002],
        ),
        (
            r#"{"type":"LoadBalancer","externalTrafficPolicy":"Local","healthCheckNodePort":30000,"allocateLoadBalancerNodePorts":false,"ports":[{"name":"c","protocol":"TCP","port":2,"nodePort":30002}]}"#,
            &["10.96.0.5"],
            &[30000, 30002],
        ),
        (
            r#"{"type":"ClusterIP","ipFamilyPolicy":"RequireDualStack","clusterIP":"10.96.0.5","clusterIPs":["10.96.0.5","fd00::7"],"ports":[{"name":"c","protocol":"TCP","port":2}]}"#,
            &["10.96.0.5", "fd00::7"],
            &[],
        ),
        (
            r#"{"type":"ClusterIP","ipFamilyPolicy":"SingleStack","ports":[{"name":"c","protocol":"TCP","port":2}]}"#,
            &["10.96.0.5"],
            &[],
        ),
        (
            r#"{"type":"ExternalName","externalName":"example.com"}"#,
            &[],
            &[],
        ),
        (
            r#"{"type":"NodePort","clusterIP":"10.96.0.6","ports":[{"name":"a","protocol":"TCP","port":1,"nodePort":30003}]}"#,
            &["10.96.0.6"],
            &[30003],
        ),
    ] {
        server.write("a", Some(spec)).await.unwrap();
        let (held, used) = server.taken();
        assert_eq!(held, addresses, "{spec}");
        assert!(used.iter().eq(ports), "{spec}: {used:?}");
        assert!(repairs(&server.cluster).is_empty(), "{spec}");
    }
    for (spec, refused) in [
        (
            r#"{"type":"ClusterIP","clusterIP":"10.96.0.6","ports":[{"port":1}]}"#,
            r#"spec.clusterIPs: Invalid value: ["10.96.0.6"]: failed to allocate IP 10.96.0.6: provided IP is already allocated"#,
        ),
        (
            r#"{"type":"ClusterIP","ipFamilyPolicy":"RequireDualStack","clusterIP":"10.96.0.6","ports":[{"port":1}]}"#,
            r#"spec.clusterIPs: Invalid value: ["10.96.0.6",""]: failed to allocate IP 10.96.0.6: provided IP is already allocated"#,
        ),
        (
            r#"{"type":"NodePort","ports":[{"port":1,"nodePort":30003}]}"#,
            "spec.ports[0].nodePort: Invalid value: 30003: provided port is already allocated",
        ),
        (
            r#"{"type":"NodePort","ports":[{"port":1,"nodePort":30004}]}"#,
            "spec.ports[0].nodePort: Invalid value: 30004: provided port is not in the valid range. The range of valid ports is 30000-30003",
        ),
    ] {
        let told = server.write("b", Some(spec)).await.unwrap_err();
        assert_eq!(told, format!("Service \"b\" is invalid: {refused}"));
    }
    server.write("a", None).await.unwrap();
    assert_eq!(server.taken(), (Vec::new(), BTreeSet::new()));
}

#[tokio::test]
async fn two_that_take_at_once_do_not_take_the_same() {
    let server = Server::new().await;
    for spec in [
        r#"{"type":"NodePort","ports":[{"protocol":"TCP","port":1}]}"#,
        r#"{"type":"ClusterIP","clusterIP":"10.96.0.3","ports":[{"port":1}]}"#,
    ] {
        let (first, _) = server.decide("a", Some(spec)).unwrap();
        let (second, _) = server.decide("b", Some(spec)).unwrap();
        server.commit(first).await.unwrap();
        let lost = server.commit(second).await;
        assert!(matches!(lost, Err(StoreError::Conflict { .. })), "{spec}");
        assert!(
            server.cluster.get("", "services", "default", "b").is_none(),
            "{spec}"
        );
        server.write("a", None).await.unwrap();
    }
    let any = r#"{"type":"NodePort","ports":[{"protocol":"TCP","port":1}]}"#;
    let mut given = BTreeSet::new();
    for name in ["a", "b", "c", "d"] {
        let spec = server.write(name, Some(any)).await.unwrap();
        given.insert(spec.list("ports")[0].int("nodePort"));
    }
    assert!(given.into_iter().eq(30000..=30003));
    assert_eq!(
        server.write("e", Some(any)).await.unwrap_err(),
        "Internal error occurred: failed to allocate a nodePort: range is full"
    );
}

#[tokio::test]
async fn what_is_taken_is_made_what_services_have_once() {
    let server = Server::new().await;
    // As left by a server with another range of node ports.
    let service = value!({
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {
            "type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ports": [{"port": 1, "nodePort": 31000}, {"port": 2, "nodePort": 30001}]
        }
    });
    let change = Change {
        resource: server.services.prefix.clone(),
        key: server.services.key("default", "a"),
        expect: Expect::Absent,
        put: Some(record::encode(&server.services, &service)),
        ttl: None,
    };
    server.commit(vec![change]).await.unwrap();
    let changes = repairs(&server.cluster);
    assert_eq!(changes.len(), 2);
    for change in changes {
        server.commit(vec![change]).await.unwrap();
    }
    let (held, used) = server.taken();
    assert_eq!(held, ["10.96.0.9"]);
    assert!(used.into_iter().eq([30001]));
    assert!(repairs(&server.cluster).is_empty());
}
