//! Maintains the service `kubernetes`, through which pods find this server, and the address range of services. Follows
//! k8s.io/kubernetes/pkg/controlplane/controller/{kubernetesservice,defaultservicecidr} and
//! pkg/controlplane/reconcilers.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::own_client::{Ask, apply, post, put};
use super::server::Server;
use crate::meta::time;
use crate::resources::upkeep;
use crate::schema::Value;
use crate::value;

/// How often the service is checked, as upstream.
const PERIOD: Duration = Duration::from_secs(10);
/// How often addresses and node ports are compared with services, in periods.
const REPAIRS: u32 = 18;
const RANGE_MANAGER: &str = "kubernetes-service-cidr-controller";
const NAME: &str = "kubernetes";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// The name of the task.
pub const TASK: &str = "service kubernetes";

/// Maintains the service, and repairs allocations of addresses and ports, until `ends` is cancelled.
pub async fn keep(server: Arc<Server>, ends: CancellationToken) {
    let mut periods = tokio::time::interval(PERIOD);
    periods.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for turn in 0u32.. {
        tokio::select! {
            _ = periods.tick() => {}
            () = ends.cancelled() => return,
        }
        ensure(&server).await;
        if turn % REPAIRS == 0 {
            upkeep::repair_allocations(&server.cluster).await;
        }
    }
}

/// Creates missing objects, and corrects wrong ones.
pub async fn ensure(server: &Arc<Server>) {
    range(server).await;
    service(server).await;
    endpoints(server).await;
}

/// Sends a request for one of these objects; a conflict is another server's success.
async fn write(server: &Arc<Server>, ask: Ask<'_>) {
    let failed = "the service kubernetes cannot be kept";
    ask.write(server, &[StatusCode::CONFLICT], failed).await;
}

async fn range(server: &Arc<Server>) {
    let settings = &server.cluster.settings;
    let ranges = settings.service_ranges.iter();
    let ranges = Value::Array(ranges.map(|range| range.to_string().into()).collect());
    let stored = || {
        server
            .cluster
            .get("networking.k8s.io", "servicecidrs", "", NAME)
    };
    if stored().is_none() {
        let made = value!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": NAME},
            "spec": {"cidrs": (&ranges)}
        });
        write(server, post(RANGES, &made)).await;
    }
    let Some(mut stored) = stored() else { return };
    if stored.at("metadata").get("deletionTimestamp").is_some() {
        return;
    }
    let had = stored.at("spec").list("cidrs").to_vec();
    let asked = ranges.as_array().unwrap_or(&[]);
    if had != asked {
        // Changing from one IP family to both is allowed; any other change is only logged.
        if had.len() == 1 && asked.len() == 2 && asked.first() == had.first() {
            Arc::make_mut(&mut stored).set("spec", value!({"cidrs": ranges}));
            write(server, put(&format!("{RANGES}/{NAME}"), &stored)).await;
        } else {
            tracing::warn!(
                stored = %crate::schema::json::to_string(stored.at("spec").at("cidrs")),
                "the ServiceCIDR kubernetes differs from --service-cluster-ip-range"
            );
        }
        return;
    }
    let mut conditions = stored.at("status").list("conditions").iter();
    let ready = conditions.find(|condition| condition.str("type") == "Ready");
    if ready.is_none_or(|ready| ready.str("status") == "Unknown") {
        let now = time::print(time::now());
        let applied = value!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": NAME},
            "status": {"conditions": [{
                "type": "Ready",
                "status": "True",
                "lastTransitionTime": now,
                "message": "Kubernetes default Service CIDR is ready"
            }]}
        });
        let path = format!("{RANGES}/{NAME}/status");
        let failed = "the ServiceCIDR kubernetes cannot be marked as ready";
        let ask = apply(&path, &applied).managed_by(RANGE_MANAGER);
        ask.write(server, &[], failed).await;
    }
}

async fn service(server: &Arc<Server>) {
    let settings = &server.cluster.settings;
    let Some(range) = settings.service_ranges.first() else {
        return;
    };
    let ports = value!([{
        "name": "https",
        "protocol": "TCP",
        "port": 443,
        "targetPort": (settings.secure_port)
    }]);
    match server.cluster.get("", "services", "default", NAME) {
        None => {
            let made = value!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {
                    "name": NAME,
                    "namespace": "default",
                    "labels": {"provider": "kubernetes", "component": "apiserver"}
                },
                "spec": {
                    "ports": ports,
                    "clusterIP": (range.first_host().to_string()),
                    "ipFamilyPolicy": "SingleStack",
                    "sessionAffinity": "None",
                    "type": "ClusterIP"
                }
            });
            write(server, post(SERVICES, &made)).await;
        }
        Some(mut service) => {
            let spec = service.at("spec");
            if spec.at("ports") == &ports && spec.str("type") == "ClusterIP" {
                return;
            }
            if let Some(spec) = Arc::make_mut(&mut service).get_mut("spec") {
                spec.set("ports", ports);
                spec.set("type", "ClusterIP");
            }
            write(server, put(&format!("{SERVICES}/{NAME}"), &service)).await;
        }
    }
}

/// Sets the endpoints of the service to this server, unless only this machine can reach it.
async fn endpoints(server: &Arc<Server>) {
    let settings = &server.cluster.settings;
    let address = settings.advertise_address;
    if address.is_loopback() || address.is_unspecified() {
        return;
    }
    let (ip, port) = (address.to_string(), settings.secure_port);
    let ports = value!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let endpoints = value!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": NAME,
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}
        },
        "subsets": [{"addresses": [{"ip": (ip.as_str())}], "ports": (&ports)}]
    });
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let slice = value!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": NAME,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": NAME}
        },
        "addressType": family,
        "endpoints": [{"addresses": [(ip.as_str())], "conditions": {"ready": true}}],
        "ports": (&ports)
    });
    for (group, plural, path, wanted, members) in [
        ("", "endpoints", ENDPOINTS, endpoints, &["subsets"][..]),
        (
            "discovery.k8s.io",
            "endpointslices",
            SLICES,
            slice,
            &["endpoints", "ports"],
        ),
    ] {
        let stored = server.cluster.get(group, plural, "default", NAME);
        let leads_here =
            |stored: &Value| members.iter().all(|key| stored.at(key) == wanted.at(key));
        match stored {
            None => write(server, post(path, &wanted)).await,
            Some(stored) if leads_here(&stored) => {}
            Some(mut stored) => {
                let new = Arc::make_mut(&mut stored);
                members.iter().for_each(|key| new.set(key, wanted.at(key)));
                write(server, put(&format!("{path}/{NAME}"), &stored)).await;
            }
        }
    }
}
