//! Two servers on one store: no decision depends on state in a process.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams, PostParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt as _};
use reddwarf::api::authenticate::Authentication;
use reddwarf::api::server::Server;
use reddwarf::auth::User;
use reddwarf::auth::authorize::{Authorizers, Mode};
use reddwarf::auth::impersonate::Impersonation;
use reddwarf::auth::pki::Pki;
use reddwarf::auth::tokens::{KeyRing, Settings as TokenSettings, Tokens};
use reddwarf::client::Transport;
use reddwarf::resources::cluster::{Cluster, Settings};
use reddwarf::store::{self, Store};
use reddwarf::{admission, api};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// A server with its own caches on a store.
fn server(store: &Arc<dyn Store>, pki: &Pki, ends: &CancellationToken) -> Transport {
    let authorizer = Arc::new(Authorizers::new(
        store.clone(),
        vec![Mode::Node, Mode::Rbac],
    ));
    let settings = admission::Settings {
        not_ready_seconds: 300,
        unreachable_seconds: 300,
    };
    let mut plugins = admission::chain(&[], &[], &settings).expect("plugins");
    plugins.push(Box::new(admission::grants::Grants(authorizer.clone())));
    let settings = TokenSettings {
        issuers: vec!["https://test".to_owned()],
        audiences: vec!["https://test".to_owned()],
        max_seconds: None,
        extend: true,
        jwks_uri: String::new(),
        bootstrap: false,
    };
    let keys = KeyRing::made_by(|| Err("no tokens here".to_owned()));
    let tokens = Arc::new(Tokens::new(store.clone(), settings, keys, None));
    let server = Arc::new(Server {
        cluster: Arc::new(Cluster::new(store.clone(), Settings::default())),
        authorizer,
        impersonation: Impersonation::default(),
        authentication: Arc::new(Authentication {
            clients: pki.clients().clone(),
            front_proxy: None,
            tokens: tokens.clone(),
            anonymous: false,
        }),
        tokens,
        plugins,
        version: reddwarf::value!({"major": "1", "minor": "37"}),
        kubelets: None,
        node_metrics: None,
        documents: Default::default(),
        metrics: Arc::default(),
        flow: Default::default(),
        tasks: Default::default(),
        ends: ends.clone(),
    });
    tokio::spawn(api::definitions::keep(server.clone(), ends.clone()));
    let begun = server.clone();
    tokio::spawn(async move {
        api::bootstrap::objects_of_a_new_cluster(&begun).await;
        api::own_service::ensure(&begun).await;
    });
    Transport::new(move |request, user| server.clone().handle(request, Ok(user)))
}

fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("an object")
}

/// Repeats a request until it succeeds: a cache of the other server may be behind.
async fn soon<T, F: Future<Output = kube::Result<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) if tokio::time::Instant::now() > end => panic!("{what}: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

#[test]
fn what_one_server_writes_the_other_knows() {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(reddwarf::schema::STACK)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async { tokio::spawn(both()).await.expect("no panic") });
}

async fn both() {
    let dir = tempfile::tempdir().expect("a directory");
    let pki = Pki::open(dir.path(), ["localhost"]).expect("keys");
    let (store, ends) = (store::memory(), CancellationToken::new());
    let transports = [server(&store, &pki, &ends), server(&store, &pki, &ends)];
    let admin =
        |number: usize| transports[number].client(User::new("admin", &["system:masters"]), "test");
    let (one, other) = (admin(0), admin(1));
    objects(&one, &other).await;
    definitions(&one, &other).await;
    let jane = transports[1].client(User::new("jane", &["system:authenticated"]), "test");
    permissions(&one, &jane).await;
    addresses(&[one, other]).await;
    ends.cancel();
}

async fn objects(one: &Client, other: &Client) {
    let [mine, theirs]: [Api<ConfigMap>; 2] =
        [one, other].map(|client| Api::namespaced(client.clone(), "default"));
    let namespaces: Api<Namespace> = Api::all(other.clone());
    soon("the namespace", || async {
        namespaces.get("default").await
    })
    .await;
    let begin = theirs
        .list(&ListParams::default())
        .await
        .expect("a list")
        .metadata
        .resource_version;
    let mut events = theirs
        .watch(&WatchParams::default(), &begin.unwrap_or_default())
        .await
        .expect("a watch")
        .boxed();
    let post = PostParams::default();
    let made = mine
        .create(&post, &object(json!({"metadata": {"name": "a"}})))
        .await
        .expect("made");
    let found = theirs.get("a").await.expect("at once");
    assert_eq!(found.resource_version(), made.resource_version());
    let mut changed = found.clone();
    changed.data = Some([("k".to_owned(), "v".to_owned())].into());
    let changed = theirs
        .replace("a", &post, &changed)
        .await
        .expect("replaced");
    let stale = mine.replace("a", &post, &found).await.expect_err("stale");
    assert!(matches!(stale, kube::Error::Api(status) if status.is_conflict()));
    let refused = mine
        .create(&post, &object(json!({"metadata": {"name": "a"}})))
        .await
        .expect_err("there");
    assert!(matches!(refused, kube::Error::Api(status) if status.is_already_exists()));
    let mut told = Vec::new();
    while told.len() < 2 {
        match events.next().await.expect("more").expect("an event") {
            WatchEvent::Added(map) | WatchEvent::Modified(map) => told.push(map.resource_version()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, [made.resource_version(), changed.resource_version()]);
}

async fn definitions(one: &Client, other: &Client) {
    let all: Api<CustomResourceDefinition> = Api::all(one.clone());
    let definition = object(json!({"metadata": {"name": "beds.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "beds", "kind": "Bed"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
            {"type": "object", "properties": {"spec": {"type": "object", "properties":
                {"size": {"type": "integer", "maximum": 3}}}}}}}]}}));
    all.create(&PostParams::default(), &definition)
        .await
        .expect("defined");
    let theirs: Api<CustomResourceDefinition> = Api::all(other.clone());
    await_condition(theirs, "beds.example.com", conditions::is_crd_established())
        .await
        .expect("established");
    let kind = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("example.com", "v1", "Bed"),
        "beds",
    );
    let [mine, theirs]: [Api<DynamicObject>; 2] =
        [one, other].map(|client| Api::namespaced_with(client.clone(), "default", &kind));
    let bed = |name: &str, size: u32| {
        DynamicObject::new(name, &kind).data(json!({"spec": {"size": size}}))
    };
    let small = bed("small", 1);
    soon("a bed", || async {
        theirs.create(&PostParams::default(), &small).await
    })
    .await;
    soon("the same bed", || async { mine.get("small").await }).await;
    // Both validate with the schema.
    for beds in [&mine, &theirs] {
        let refused = beds
            .create(&PostParams::default(), &bed("large", 4))
            .await
            .expect_err("too large");
        assert!(matches!(refused, kube::Error::Api(status) if status.code == 422));
    }
}

async fn permissions(one: &Client, jane: &Client) {
    let secrets: Api<Secret> = Api::namespaced(jane.clone(), "default");
    let refused = secrets
        .list(&ListParams::default())
        .await
        .expect_err("no right");
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 403));
    let role: ClusterRole = object(json!({"metadata": {"name": "reads"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]}));
    let binding: ClusterRoleBinding = object(json!({"metadata": {"name": "reads"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reads"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]}));
    Api::all(one.clone())
        .create(&PostParams::default(), &role)
        .await
        .expect("a role");
    Api::all(one.clone())
        .create(&PostParams::default(), &binding)
        .await
        .expect("a binding");
    secrets
        .list(&ListParams::default())
        .await
        .expect("the right, at once");
}

/// Both allocate addresses and ports for services at the same time, and never the same.
async fn addresses(clients: &[Client; 2]) {
    let ranges: Api<ServiceCIDR> = Api::all(clients[0].clone());
    soon("the range of addresses", || async {
        ranges.get("kubernetes").await
    })
    .await;
    let services: Vec<Api<Service>> = clients
        .iter()
        .map(|client| Api::namespaced(client.clone(), "default"))
        .collect();
    let made = futures::future::join_all((0..30).map(|number: usize| {
        let services = services[number % 2].clone();
        let service = object(json!({"metadata": {"name": format!("s{number}")},
            "spec": {"type": "NodePort", "ports": [{"port": 80}]}}));
        tokio::spawn(async move { services.create(&PostParams::default(), &service).await })
    }))
    .await;
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for made in made {
        let spec = made
            .expect("no panic")
            .expect("a service")
            .spec
            .expect("a spec");
        assert!(
            addresses.insert(spec.cluster_ip.clone().expect("an address")),
            "{spec:?}"
        );
        let port = spec.ports.expect("ports")[0].node_port;
        assert!(ports.insert(port.expect("a port")), "twice: {port:?}");
    }
    for (number, services) in services.iter().enumerate() {
        for taken in &addresses {
            let service = object(json!({"metadata": {"name": format!("again{number}")},
                "spec": {"clusterIP": taken, "ports": [{"port": 80}]}}));
            let refused = services
                .create(&PostParams::default(), &service)
                .await
                .expect_err("taken");
            assert!(matches!(refused, kube::Error::Api(status) if status.code == 422));
        }
    }
}
