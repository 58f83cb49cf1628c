//! Services as nodes see them: where their traffic goes.

mod health;
pub mod place;
pub mod plan;
pub mod proxy;
pub mod readiness;

use k8s_openapi::api::{core, discovery};
use serde::{Deserialize as _, Deserializer};

use crate::client::informer::{Informer, Informers};

crate::slim!(
    /// A service.
    Service of core::v1::Service {
        /// Its spec.
        spec: core::v1::ServiceSpec,
        /// Its status.
        status: Balanced,
    }
);

/// What load balancers told of a service. The rest of its status is not read: whoever writes there what cannot be read, such
/// as a condition without a time, must not keep nodes from seeing all other services.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Balanced {
    load_balancer: core::v1::LoadBalancerStatus,
}

impl Service {
    /// The load balancer addresses in mode `VIP`, whose traffic arrives with its original destination.
    fn balancer_ips(&self) -> impl Iterator<Item = &String> {
        let ingress = self.status.load_balancer.ingress.as_ref();
        let as_sent = |mode: &Option<String>| mode.as_deref().is_none_or(|mode| mode == "VIP");
        ingress
            .into_iter()
            .flatten()
            .filter(move |ingress| as_sent(&ingress.ip_mode))
            .filter_map(|ingress| ingress.ip.as_ref())
    }
}

crate::slim!(
    /// Some of the endpoints of a service.
    EndpointSlice of discovery::v1::EndpointSlice {
        /// `IPv4`, `IPv6`, `FQDN`
        address_type: String,
        /// The endpoints.
        #[serde(deserialize_with = "none_is_empty")]
        endpoints: Vec<discovery::v1::Endpoint>,
        /// The ports of all these endpoints.
        ports: Option<Vec<discovery::v1::EndpointPort>>,
    }
);

/// Reads a missing list of endpoints, which is `null`, as empty.
fn none_is_empty<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<discovery::v1::Endpoint>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The caches of the cluster's services. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// All services.
    pub services: Informer<Service>,
    /// All endpoint slices; the label `kubernetes.io/service-name` names the service.
    pub slices: Informer<EndpointSlice>,
}

impl Services {
    /// The caches of both, which may still be empty: wait for `synced` of each.
    pub fn of(informers: &Informers) -> Services {
        Services {
            services: informers.of(),
            slices: informers.of(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_without_a_time_hides_no_service() {
        let text = r#"{"metadata": {"name": "s"}, "spec": {"ports": []}, "status": {
            "conditions": [{"type": "T", "status": "True", "reason": "", "message": "", "lastTransitionTime": null}],
            "loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}}"#;
        let service: Service = serde_json::from_str(text).expect("a service");
        assert!(service.balancer_ips().eq(["192.0.2.9"].iter()));
        for status in ["{}", r#"{"loadBalancer": {}}"#] {
            let text = format!(r#"{{"metadata": {{"name": "s"}}, "status": {status}}}"#);
            let service: Service = serde_json::from_str(&text).expect("a service");
            assert_eq!(service.balancer_ips().count(), 0, "{status}");
        }
    }

    #[test]
    fn slices_without_places_are_read() {
        for text in [
            r#"{"metadata": {"name": "s"}, "addressType": "IPv4"}"#,
            r#"{"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": null, "ports": null}"#,
        ] {
            let slice: EndpointSlice = serde_json::from_str(text).expect("a slice");
            assert!(slice.endpoints.is_empty(), "{text}");
        }
    }
}
