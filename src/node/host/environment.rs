//! Environment variables and what fields of a pod say, as kubelet computes them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, ObjectFieldSelector, Pod, ResourceFieldSelector, Secret, Service,
};
use kube::api::{Api, ListParams};

use super::{Host, text, uid};
use crate::meta::quantity::Quantity;
use crate::node::supplies::Lack;
use crate::zone::{ZoneNetwork, ZoneSpec};

/// `$(NAME)` replaced by the variable's value; `$$` is one `$`, and what is not known stays as it is.
pub fn expand(given: &str, known: &dyn Fn(&str) -> Option<String>) -> String {
    let mut whole = String::with_capacity(given.len());
    let mut rest = given;
    while let Some(at) = rest.find('$') {
        whole.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            whole.push('$');
            rest = after;
        } else if let Some(inner) = after.strip_prefix('(') {
            match inner.find(')') {
                Some(end) => {
                    let name = &inner[..end];
                    match known(name) {
                        Some(value) => whole.push_str(&value),
                        None => {
                            whole.push_str("$(");
                            whole.push_str(name);
                            whole.push(')');
                        }
                    }
                    rest = &inner[end + 1..];
                }
                None => {
                    whole.push_str("$(");
                    rest = inner;
                }
            }
        } else {
            whole.push('$');
            rest = after;
        }
    }
    whole.push_str(rest);
    whole
}

/// A map as downward API files show it: `key="value"` lines.
fn shown(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", quoted(value)))
        .collect();
    lines.join("\n")
}

/// A text in double quotes, as Go's `%q` prints it.
fn quoted(value: &str) -> String {
    let mut whole = String::from('"');
    for c in value.chars() {
        match c {
            '"' => whole.push_str("\\\""),
            '\\' => whole.push_str("\\\\"),
            '\n' => whole.push_str("\\n"),
            '\t' => whole.push_str("\\t"),
            '\r' => whole.push_str("\\r"),
            c if c.is_control() => whole.push_str(&format!("\\u{:04x}", c as u32)),
            c => whole.push(c),
        }
    }
    whole.push('"');
    whole
}

impl Host {
    /// What a field of the pod says.
    pub(super) fn field(
        &self,
        pod: &Pod,
        zone: Option<&ZoneSpec>,
        of: &ObjectFieldSelector,
    ) -> Result<String, String> {
        let metadata = &pod.metadata;
        let spec = pod.spec.as_ref();
        let keyed = |prefix: &str, map: Option<&BTreeMap<String, String>>| {
            let key = of
                .field_path
                .strip_prefix(prefix)?
                .strip_prefix("['")?
                .strip_suffix("']")?;
            Some(
                map.and_then(|map| map.get(key))
                    .cloned()
                    .unwrap_or_default(),
            )
        };
        if let Some(value) = keyed("metadata.annotations", metadata.annotations.as_ref()) {
            return Ok(value);
        }
        if let Some(value) = keyed("metadata.labels", metadata.labels.as_ref()) {
            return Ok(value);
        }
        let address = || match zone.map(|zone| &zone.network) {
            Some(ZoneNetwork::Own { address, .. }) => address.to_string(),
            _ => self.host_ips.first().cloned().unwrap_or_default(),
        };
        Ok(match of.field_path.as_str() {
            "metadata.annotations" => shown(metadata.annotations.as_ref()),
            "metadata.labels" => shown(metadata.labels.as_ref()),
            "metadata.name" => text(metadata.name.as_ref()).to_owned(),
            "metadata.namespace" => text(metadata.namespace.as_ref()).to_owned(),
            "metadata.uid" => uid(pod).to_owned(),
            "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())).to_owned(),
            "spec.serviceAccountName" => {
                text(spec.and_then(|spec| spec.service_account_name.as_ref())).to_owned()
            }
            "status.hostIP" => self.host_ips.first().cloned().unwrap_or_default(),
            "status.hostIPs" => self.host_ips.join(","),
            "status.podIP" | "status.podIPs" => address(),
            other => return Err(format!("unsupported fieldPath: {other}")),
        })
    }

    /// What a container may use of a resource, in units of the divisor, rounded up.
    pub(super) fn resource(
        &self,
        pod: &Pod,
        own: Option<&Container>,
        of: &ResourceFieldSelector,
    ) -> Result<String, String> {
        let spec = pod.spec.as_ref();
        let container = match of.container_name.as_deref().filter(|name| !name.is_empty()) {
            None => own,
            Some(name) => spec.and_then(|spec| {
                let init = spec.init_containers.iter().flatten();
                spec.containers
                    .iter()
                    .chain(init)
                    .find(|one| one.name == name)
            }),
        };
        let container = container.ok_or_else(|| "container not found".to_owned())?;
        let (kind, name) = of
            .resource
            .split_once('.')
            .ok_or_else(|| format!("unsupported container resource : {}", of.resource))?;
        let listed = |kind: &str| {
            let resources = container.resources.as_ref()?;
            let map = match kind {
                "limits" => resources.limits.as_ref(),
                _ => resources.requests.as_ref(),
            }?;
            map.get(name).map(|quantity| quantity.0.clone())
        };
        let capacity = || match name {
            // A container without a limit may use what the node has.
            "cpu" => std::thread::available_parallelism()
                .map_or(1, usize::from)
                .to_string(),
            "memory" => crate::node::register::host_capacity(&self.data)
                .remove("memory")
                .unwrap_or_default(),
            _ => "0".to_owned(),
        };
        let value = match kind {
            "limits" => listed("limits").unwrap_or_else(capacity),
            _ => listed("requests").unwrap_or_else(|| "0".to_owned()),
        };
        let parse =
            |text: &str| Quantity::parse(text).map_err(|_| format!("bad quantity {text:?}"));
        let value = parse(&value)?;
        let divisor = of
            .divisor
            .as_ref()
            .map(|divisor| divisor.0.as_str())
            .filter(|divisor| *divisor != "0" && !divisor.is_empty())
            .unwrap_or("1");
        let divisor = parse(divisor)?;
        let (top, bottom) = match name {
            "cpu" => (value.milli_value(), divisor.milli_value()),
            _ => (value.value(), divisor.value()),
        };
        let bottom = bottom.max(1);
        Ok((top / bottom + i64::from(top % bottom > 0)).to_string())
    }

    /// The variables of a container that the pod gives it, in order.
    pub(super) async fn environment(
        &self,
        pod: &Pod,
        container: &Container,
        zone: &ZoneSpec,
    ) -> Result<Vec<(String, String)>, Lack> {
        let namespace = text(pod.metadata.namespace.as_ref());
        let wrong = |message: String| Lack::new("CreateContainerConfigError", message);
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let mut result: Vec<(String, String)> = Vec::new();
        let set = |result: &mut Vec<(String, String)>, name: String, value: String| match result
            .iter_mut()
            .find(|(known, _)| *known == name)
        {
            Some(known) => known.1 = value,
            None => result.push((name, value)),
        };
        for (name, value) in self.services(pod).await {
            set(&mut result, name, value);
        }
        for source in container.env_from.iter().flatten() {
            let prefix = source.prefix.clone().unwrap_or_default();
            let values: BTreeMap<String, String> = if let Some(of) = &source.config_map_ref {
                match maps
                    .get_opt(&of.name)
                    .await
                    .map_err(|error| wrong(error.to_string()))?
                {
                    Some(map) => map.data.unwrap_or_default(),
                    None if of.optional == Some(true) => continue,
                    None => return Err(wrong(format!("configmap {:?} not found", of.name))),
                }
            } else if let Some(of) = &source.secret_ref {
                match secrets
                    .get_opt(&of.name)
                    .await
                    .map_err(|error| wrong(error.to_string()))?
                {
                    Some(secret) => secret
                        .data
                        .unwrap_or_default()
                        .into_iter()
                        .map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned()))
                        .collect(),
                    None if of.optional == Some(true) => continue,
                    None => return Err(wrong(format!("secret {:?} not found", of.name))),
                }
            } else {
                continue;
            };
            for (key, value) in values {
                set(&mut result, format!("{prefix}{key}"), value);
            }
        }
        for variable in container.env.iter().flatten() {
            let value = self
                .variable(pod, container, zone, variable, &result, (&maps, &secrets))
                .await?;
            if let Some(value) = value {
                set(&mut result, variable.name.clone(), value);
            }
        }
        Ok(result)
    }

    async fn variable(
        &self,
        pod: &Pod,
        container: &Container,
        zone: &ZoneSpec,
        variable: &EnvVar,
        before: &[(String, String)],
        (maps, secrets): (&Api<ConfigMap>, &Api<Secret>),
    ) -> Result<Option<String>, Lack> {
        let wrong = |message: String| Lack::new("CreateContainerConfigError", message);
        let namespace = text(pod.metadata.namespace.as_ref());
        let Some(from) = &variable.value_from else {
            let known = |name: &str| {
                before
                    .iter()
                    .find(|(known, _)| known == name)
                    .map(|(_, value)| value.clone())
            };
            return Ok(Some(expand(text(variable.value.as_ref()), &known)));
        };
        if let Some(of) = &from.field_ref {
            return self.field(pod, Some(zone), of).map(Some).map_err(wrong);
        }
        if let Some(of) = &from.resource_field_ref {
            return self
                .resource(pod, Some(container), of)
                .map(Some)
                .map_err(wrong);
        }
        if let Some(of) = &from.config_map_key_ref {
            let map = maps
                .get_opt(&of.name)
                .await
                .map_err(|error| wrong(error.to_string()))?;
            let optional = of.optional == Some(true);
            let Some(map) = map else {
                return match optional {
                    true => Ok(None),
                    false => Err(wrong(format!("configmap {:?} not found", of.name))),
                };
            };
            return match map.data.and_then(|mut data| data.remove(&of.key)) {
                Some(value) => Ok(Some(value)),
                None if optional => Ok(None),
                None => Err(wrong(format!(
                    "couldn't find key {} in ConfigMap {namespace}/{}",
                    of.key, of.name
                ))),
            };
        }
        if let Some(of) = &from.secret_key_ref {
            let secret = secrets
                .get_opt(&of.name)
                .await
                .map_err(|error| wrong(error.to_string()))?;
            let optional = of.optional == Some(true);
            let Some(secret) = secret else {
                return match optional {
                    true => Ok(None),
                    false => Err(wrong(format!("secret {:?} not found", of.name))),
                };
            };
            return match secret.data.and_then(|mut data| data.remove(&of.key)) {
                Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
                None if optional => Ok(None),
                None => Err(wrong(format!(
                    "couldn't find key {} in Secret {namespace}/{}",
                    of.key, of.name
                ))),
            };
        }
        Ok(None)
    }

    /// Variables of services: those of the pod's namespace if it wants them, and always `kubernetes`.
    async fn services(&self, pod: &Pod) -> Vec<(String, String)> {
        let namespace = text(pod.metadata.namespace.as_ref());
        let wanted = pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false);
        let list = |namespace: &str| {
            let api: Api<Service> = Api::namespaced(self.client.clone(), namespace);
            async move {
                api.list(&ListParams::default())
                    .await
                    .map(|list| list.items)
                    .unwrap_or_default()
            }
        };
        let mut services = Vec::new();
        if namespace != "default" || !wanted {
            let all = list("default").await;
            services.extend(
                all.into_iter()
                    .filter(|one| one.metadata.name.as_deref() == Some("kubernetes")),
            );
        }
        if wanted {
            services.extend(list(namespace).await);
        }
        services.iter().flat_map(service_variables).collect()
    }
}

/// The variables that tell of a service: those of Docker's links too.
fn service_variables(service: &Service) -> Vec<(String, String)> {
    let spec = service.spec.clone().unwrap_or_default();
    let address = text(spec.cluster_ip.as_ref());
    let ports = spec.ports.unwrap_or_default();
    let (Some(first), false) = (ports.first(), matches!(address, "" | "None")) else {
        return Vec::new();
    };
    let upper = |name: &str| name.to_uppercase().replace('-', "_");
    let name = upper(text(service.metadata.name.as_ref()));
    let mut variables = vec![
        (format!("{name}_SERVICE_HOST"), address.to_owned()),
        (format!("{name}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in &ports {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_as_in_upstream() {
        let known = |name: &str| (name == "A").then(|| "1".to_owned());
        for (given, expected) in [
            ("$(A)", "1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("$(A", "$(A"),
            ("$A-$", "$A-$"),
            ("x$(A)y$(A)", "x1y1"),
            ("$()", "$()"),
        ] {
            assert_eq!(expand(given, &known), expected, "{given}");
        }
    }

    #[test]
    fn services_are_told_by_variables() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "my-db"},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]},
        }))
        .expect("a service");
        let variables: Vec<String> = service_variables(&service)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            variables,
            [
                "MY_DB_SERVICE_HOST=10.0.0.1",
                "MY_DB_SERVICE_PORT=5432",
                "MY_DB_SERVICE_PORT_SQL=5432",
                "MY_DB_PORT=tcp://10.0.0.1:5432",
                "MY_DB_PORT_5432_TCP=tcp://10.0.0.1:5432",
                "MY_DB_PORT_5432_TCP_PROTO=tcp",
                "MY_DB_PORT_5432_TCP_PORT=5432",
                "MY_DB_PORT_5432_TCP_ADDR=10.0.0.1",
            ]
        );
    }
}
