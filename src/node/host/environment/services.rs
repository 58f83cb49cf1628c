//! Variables that tell of services.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, ServiceSpec};

use super::super::{Host, text};
use crate::client::informer::Key;
use crate::node::services::Service;
use crate::node::supplies::Lack;

impl Host {
    /// Variables of services: those of the pod's namespace if it wants them, and always `kubernetes`.
    pub(super) async fn services(&self, pod: &Pod) -> Result<Vec<(String, String)>, Lack> {
        let synced = tokio::time::timeout(PATIENCE, self.services.synced()).await;
        if synced.is_err() {
            return Err(Lack::new(
                "CreateContainerConfigError",
                "services have not yet been read at least once, cannot construct envvars",
            ));
        }
        let wanted = pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false);
        let namespace = text(pod.metadata.namespace.as_ref());
        let own = if wanted {
            self.services.list(namespace)
        } else {
            Vec::new()
        };
        let api = self.services.get("default", "kubernetes");
        Ok(services(own, api)
            .iter()
            .flat_map(|(name, one)| service_variables(name, &one.spec))
            .collect())
    }
}

/// How long to wait for the initial list of services.
const PATIENCE: Duration = Duration::from_secs(5);

/// The services for a pod's environment: those of its namespace that have an address, and the API server's.
pub(super) fn services(
    own: Vec<(Key, Arc<Service>)>,
    api: Option<Arc<Service>>,
) -> BTreeMap<String, Arc<Service>> {
    let own = own
        .into_iter()
        .map(|(key, one)| (key.name.to_string(), one));
    let api = api.map(|one| ("kubernetes".to_owned(), one));
    let has_address = |one: &Service| {
        let address = one.spec.cluster_ip.as_deref();
        !matches!(address, None | Some("" | "None"))
    };
    let all = api.into_iter().chain(own);
    all.filter(|(_, one)| has_address(one)).collect()
}

/// The variables for a service, including those of Docker links.
pub(super) fn service_variables(name: &str, spec: &ServiceSpec) -> Vec<(String, String)> {
    let address = text(spec.cluster_ip.as_ref());
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else {
        return Vec::new();
    };
    let upper = |name: &str| name.to_uppercase().replace('-', "_");
    let name = upper(name);
    let mut variables = vec![
        (format!("{name}_SERVICE_HOST"), address.to_owned()),
        (format!("{name}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            variables.push((
                format!("{name}_SERVICE_PORT_{}", upper(port_name)),
                port.port.to_string(),
            ));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        let url = format!("{}://{address}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            variables.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{}_{protocol}", port.port);
        variables.push((prefix.clone(), url));
        variables.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        variables.push((format!("{prefix}_PORT"), port.port.to_string()));
        variables.push((format!("{prefix}_ADDR"), address.to_owned()));
    }
    variables
}
