use super::*;
use crate::resources::{Registry, record};
use crate::schema::Value;
use crate::store::{Change, Expect, Store, memory};
use crate::value;

fn wants<'a>(verb: &'a str, group: &'a str, resource: &'a str, name: &'a str) -> Attributes<'a> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        verb,
        namespace: "ns",
        group,
        resource,
        subresource,
        name,
        ..Attributes::default()
    }
}

#[test]
fn refusals_are_worded_as_upstream_words_them() {
    for (wants, answer) in [
        (
            wants("get", "", "secrets", "s"),
            "no relationship found between node 'n' and this object",
        ),
        (wants("list", "", "secrets", ""), "No Object name found"),
        (
            wants("update", "", "configmaps", "c"),
            "can only read resources of this type",
        ),
        (
            wants("get", "", "configmaps/x", "c"),
            "cannot read subresource",
        ),
        (
            wants("list", "", "persistentvolumes", ""),
            "can only get individual resources of this type",
        ),
        (
            wants("get", "", "persistentvolumes/status", "v"),
            "cannot get subresource",
        ),
        (
            wants("get", "", "persistentvolumeclaims/status", "v"),
            "can only get/update/patch this type",
        ),
        (
            wants("create", "", "serviceaccounts", ""),
            "can only create tokens for individual service accounts",
        ),
        (
            wants("create", "", "serviceaccounts/other", "s"),
            "can only create token subresource of serviceaccount",
        ),
        (
            wants("list", "", "serviceaccounts", ""),
            "can only create tokens for individual service accounts",
        ),
        (
            wants("list", "coordination.k8s.io", "leases", ""),
            "can only get, create, update, patch, or delete a node lease",
        ),
        (
            wants("get", "coordination.k8s.io", "leases", "n"),
            "can only access leases in the \"kube-node-lease\" system namespace",
        ),
        (
            wants("get", "storage.k8s.io", "csinodes", "m"),
            "can only access CSINode with the same name as the requesting node",
        ),
        (
            wants("list", "", "nodes", ""),
            "node 'n' cannot read all nodes, only its own Node object",
        ),
        (
            wants("get", "", "nodes", "m"),
            "node 'n' cannot read 'm', only its own Node object",
        ),
        (
            wants("list", "", "pods", ""),
            "can only list/watch pods with spec.nodeName field selector",
        ),
        (wants("update", "", "pods", "p"), ""),
        (wants("get", "", "namespaces", "ns"), ""),
        (
            wants(
                "delete",
                "certificates.k8s.io",
                "podcertificaterequests",
                "p",
            ),
            "nodes may not delete podcertificaterequests",
        ),
    ] {
        assert_eq!(decide("n", &wants, &|_| false), no(answer), "{wants:?}");
    }
    let lease = Attributes {
        namespace: LEASES,
        ..wants("get", "coordination.k8s.io", "leases", "m")
    };
    assert_eq!(
        decide("n", &lease, &|_| false),
        no("can only access node lease with the same name as the requesting node")
    );
}

#[test]
fn a_node_may_do_what_it_needs_for_itself() {
    let selecting = |field_selector| Attributes {
        field_selector,
        ..wants("watch", "", "pods", "")
    };
    for wants in [
        wants("create", "", "nodes", ""),
        wants("patch", "", "nodes/status", "n"),
        wants("get", "", "nodes", "n"),
        wants("create", "", "pods", ""),
        wants("patch", "", "pods/status", "p"),
        wants("create", "", "pods/eviction", "p"),
        wants("list", "", "services", ""),
        wants("create", "", "events", ""),
        wants("watch", "storage.k8s.io", "csidrivers", ""),
        wants("create", "authorization.k8s.io", "subjectaccessreviews", ""),
        selecting("spec.nodeName=n"),
        selecting("status.phase!=Failed,spec.nodeName=n"),
        Attributes {
            namespace: LEASES,
            ..wants("update", "coordination.k8s.io", "leases", "n")
        },
    ] {
        assert_eq!(decide("n", &wants, &|_| false), yes(), "{wants:?}");
    }
    for other in ["spec.nodeName=m", "spec.nodeName!=n", "", "a,b"] {
        assert!(matches!(
            decide("n", &selecting(other), &|_| false),
            Decision::NoOpinion(_)
        ));
    }
}

#[test]
fn only_members_of_the_group_with_a_nodes_name_are_nodes() {
    assert_eq!(identity(&User::new("system:node:n", &[NODES])), Some("n"));
    assert_eq!(identity(&User::new("system:node:n", &["other"])), None);
    assert_eq!(identity(&User::new("n", &[NODES])), None);
    let nodes = Nodes::default();
    let world = memory().world();
    assert_eq!(
        nodes.decide(
            &world,
            &User::new("system:node:", &[NODES]),
            &wants("get", "", "pods", "p")
        ),
        no("unknown node for user \"system:node:\"")
    );
}

#[test]
fn a_pod_refers_to_all_that_its_containers_and_volumes_name() {
    let pod = value!({
        "metadata": {"name": "p", "namespace": "ns"},
        "spec": {
            "serviceAccountName": "sa",
            "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"envFrom": [{"secretRef": {"name": "s1"}}, {"configMapRef": {"name": "c1"}}]}],
            "containers": [{"env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c2", "key": "k"}}},
                {"name": "C", "value": "v"},
            ]}],
            "ephemeralContainers": [{"envFrom": [{"secretRef": {"name": "s3"}}]}],
            "volumes": [
                {"name": "v1", "secret": {"secretName": "s4"}},
                {"name": "v2", "configMap": {"name": "c3"}},
                {"name": "v3", "projected": {"sources": [{"secret": {"name": "s5"}}, {"configMap": {"name": "c1"}}]}},
                {"name": "v4", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "v5", "ephemeral": {}},
                {"name": "v6", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s6"}}},
                {"name": "v7", "emptyDir": {}},
            ],
            "resourceClaims": [
                {"name": "a", "resourceClaimName": "rc"},
                {"name": "b", "resourceClaimTemplateName": "t"},
                {"name": "c", "resourceClaimTemplateName": "t"},
            ],
        },
        "status": {"resourceClaimStatuses": [{"name": "b", "resourceClaimName": "p-b-1"}]},
    });
    let found: Vec<_> = pod_references(&pod)
        .into_iter()
        .map(|(kind, name)| format!("{kind:?} {name}"))
        .collect();
    assert_eq!(
        found,
        [
            "Secret pull",
            "Secret s1",
            "Secret s2",
            "Secret s3",
            "Secret s4",
            "Secret s5",
            "Secret s6",
            "ConfigMap c1",
            "ConfigMap c2",
            "ConfigMap c3",
            "ServiceAccount sa",
            "Claim claim",
            "Claim p-v5",
            "ResourceClaim p-b-1",
            "ResourceClaim rc",
        ]
    );
}

async fn put(store: &Arc<dyn Store>, group: &str, plural: &str, object: &Value, there: bool) {
    let resource = Registry::builtin().get(group, plural).unwrap();
    let meta = object.at("metadata");
    let key = resource.key(meta.str("namespace"), meta.str("name"));
    let expect = store
        .head(&key)
        .map_or(Expect::Absent, |entry| Expect::Revision(entry.rev));
    store
        .commit(vec![Change {
            resource: resource.prefix.clone(),
            key,
            expect,
            put: there.then(|| record::encode(resource, object)),
            ttl: None,
        }])
        .await
        .unwrap();
}

fn pod(name: &str, node: &str, secret: &str, annotations: Value) -> Value {
    value!({
        "metadata": {"name": name, "namespace": "ns", "annotations": annotations},
        "spec": {
            "nodeName": node,
            "volumes": [
                {"name": "s", "secret": {"secretName": secret}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
            ],
        },
    })
}

#[tokio::test]
async fn relations_follow_the_pods_bound_to_a_node() {
    let store = memory();
    let nodes = Nodes::default();
    let has = |kind, namespace: &str, name: &str| {
        nodes
            .relations(&store.world())
            .has("n", kind, namespace, name)
    };
    put(&store, "", "pods", &pod("p", "", "s", Value::Null), true).await;
    assert!(!has(Reference::Secret, "ns", "s"), "bound to no node");
    put(&store, "", "pods", &pod("p", "n", "s", Value::Null), true).await;
    put(&store, "", "pods", &pod("q", "n", "s", Value::Null), true).await;
    put(
        &store,
        "",
        "pods",
        &pod("r", "m", "other", Value::Null),
        true,
    )
    .await;
    let mirror = value!({"kubernetes.io/config.mirror": "x"});
    put(
        &store,
        "",
        "pods",
        &pod("mirror", "n", "stolen", mirror),
        true,
    )
    .await;
    assert!(has(Reference::Secret, "ns", "s"));
    assert!(has(Reference::Pod, "ns", "p") && has(Reference::Pod, "ns", "mirror"));
    for (kind, namespace, name) in [
        (Reference::Secret, "ns", "other"),
        (Reference::Secret, "ns", "stolen"),
        (Reference::Secret, "elsewhere", "s"),
        (Reference::ConfigMap, "ns", "s"),
        (Reference::Pod, "ns", "r"),
        (Reference::Volume, "", "v"),
    ] {
        assert!(!has(kind, namespace, name), "{kind:?} {namespace}/{name}");
    }

    let volume = value!({
        "metadata": {"name": "v"},
        "spec": {
            "claimRef": {"namespace": "ns", "name": "claim"},
            "csi": {
                "driver": "d",
                "nodeStageSecretRef": {"namespace": "storage", "name": "stage"},
                "controllerPublishSecretRef": {"namespace": "storage", "name": "control"},
            },
        },
    });
    put(&store, "", "persistentvolumes", &volume, true).await;
    assert!(has(Reference::Volume, "", "v") && has(Reference::Claim, "ns", "claim"));
    assert!(has(Reference::Secret, "storage", "stage"));
    assert!(
        !has(Reference::Secret, "storage", "control"),
        "not for nodes"
    );

    let attachment = value!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}});
    put(
        &store,
        "storage.k8s.io",
        "volumeattachments",
        &attachment,
        true,
    )
    .await;
    assert!(has(Reference::Attachment, "", "a"));
    put(
        &store,
        "storage.k8s.io",
        "volumeattachments",
        &attachment,
        false,
    )
    .await;
    assert!(!has(Reference::Attachment, "", "a"));

    put(&store, "", "pods", &pod("p", "n", "s", Value::Null), false).await;
    assert!(
        has(Reference::Secret, "ns", "s"),
        "another pod needs it still"
    );
    put(&store, "", "pods", &pod("q", "n", "s", Value::Null), false).await;
    assert!(!has(Reference::Secret, "ns", "s"));
    assert!(!has(Reference::Secret, "storage", "stage"));
    put(&store, "", "persistentvolumes", &volume, false).await;
    let relations = nodes.relations(&store.world());
    assert!(!relations.has("n", Reference::Volume, "", "v"));
    assert!(relations.has("m", Reference::Pod, "ns", "r"));
}
