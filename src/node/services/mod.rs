//! Services as nodes see them: where their traffic is to go.

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
        /// What it is to be.
        spec: core::v1::ServiceSpec,
        /// What it is.
        status: core::v1::ServiceStatus,
    }
);

impl Service {
    /// The addresses of load balancers by which traffic comes as it was sent.
    fn balancer_ips(&self) -> impl Iterator<Item = &String> {
        let balancer = self.status.load_balancer.as_ref();
        let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
        let as_sent = |mode: &Option<String>| mode.as_deref().is_none_or(|mode| mode == "VIP");
        ingress
            .into_iter()
            .flatten()
            .filter(move |ingress| as_sent(&ingress.ip_mode))
            .filter_map(|ingress| ingress.ip.as_ref())
    }
}

crate::slim!(
    /// Some of the places that a service leads to.
    EndpointSlice of discovery::v1::EndpointSlice {
        /// `IPv4`, `IPv6`, `FQDN`
        address_type: String,
        /// The places.
        #[serde(deserialize_with = "none_is_empty")]
        endpoints: Vec<discovery::v1::Endpoint>,
        /// The ports that all of them have.
        ports: Option<Vec<discovery::v1::EndpointPort>>,
    }
);

/// Reads the places of a slice without any, which are `null`.
fn none_is_empty<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<discovery::v1::Endpoint>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// What is known of the cluster's services. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// All services.
    pub services: Informer<Service>,
    /// All slices of them; the label `kubernetes.io/service-name` says whose.
    pub slices: Informer<EndpointSlice>,
}

impl Services {
    /// The caches of both, which may be empty yet: `synced` of each tells.
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
