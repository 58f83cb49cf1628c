//! Services as nodes see them: where their traffic is to go.

use std::sync::Arc;

use k8s_openapi::api::{core, discovery};

use crate::controllers::informer::{Informer, Informers};

crate::slim!(
    /// A service.
    Service of core::v1::Service {
        /// What it is to be.
        spec: core::v1::ServiceSpec,
    }
);

crate::slim!(
    /// Some of the places that a service leads to.
    EndpointSlice of discovery::v1::EndpointSlice {
        /// `IPv4`, `IPv6`, `FQDN`
        address_type: String,
        /// The places.
        endpoints: Vec<discovery::v1::Endpoint>,
        /// The ports that all of them have.
        ports: Option<Vec<discovery::v1::EndpointPort>>,
    }
);

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
    pub fn of(informers: &Arc<Informers>) -> Services {
        Services {
            services: informers.of(),
            slices: informers.of(),
        }
    }
}
