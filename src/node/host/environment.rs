//! Environment variables and field references, as kubelet computes them.

mod downward;
mod expand;
mod file;
mod services;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, ObjectFieldSelector, Pod, ResourceFieldSelector, Secret,
};

use self::downward::shown;
use super::{Host, text, uid};
use crate::meta::quantity::Quantity;
use crate::node::supplies::Lack;
use crate::zone::{ZoneNetwork, ZoneSpec};

pub use self::expand::expand;

impl Host {
    /// The value of a field of the pod.
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
            _ => self.addresses.first().unwrap_or_default(),
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
            "status.hostIP" => self.addresses.first().unwrap_or_default(),
            "status.hostIPs" => self.addresses.all().join(","),
            "status.podIP" | "status.podIPs" => address(),
            other => return Err(format!("unsupported fieldPath: {other}")),
        })
    }

    /// A container's request or limit for a resource, in units of the divisor, rounded up.
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
        // A container without a limit may use what its pod may use, or what the node has.
        let capacity = || {
            let whole = spec.and_then(|spec| spec.resources.as_ref()?.limits.as_ref()?.get(name));
            let whole = whole.filter(|_| matches!(name, "cpu" | "memory"));
            let node = self.allocatable.get(name).cloned();
            whole
                .map(|whole| whole.0.clone())
                .or(node)
                .unwrap_or_else(|| "0".to_owned())
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

    /// The environment variables of a container, in order.
    pub(super) async fn environment(
        &self,
        pod: &Pod,
        container: &Container,
        zone: &ZoneSpec,
    ) -> Result<Vec<(String, String)>, Lack> {
        let wrong = |message: String| Lack::new("CreateContainerConfigError", message);
        let mut result: Vec<(String, String)> = Vec::new();
        let set = |result: &mut Vec<(String, String)>, name: String, value: String| match result
            .iter_mut()
            .find(|(known, _)| *known == name)
        {
            Some(known) => known.1 = value,
            None => result.push((name, value)),
        };
        for (name, value) in self.services(pod).await? {
            set(&mut result, name, value);
        }
        for source in container.env_from.iter().flatten() {
            let prefix = source.prefix.clone().unwrap_or_default();
            let values: BTreeMap<String, String> = if let Some(of) = &source.config_map_ref {
                match self
                    .object::<ConfigMap>(pod, &of.name)
                    .await
                    .map_err(|error| wrong(error.to_string()))?
                {
                    Some(map) => map.data.clone().unwrap_or_default(),
                    None if of.optional == Some(true) => continue,
                    None => return Err(wrong(format!("configmap {:?} not found", of.name))),
                }
            } else if let Some(of) = &source.secret_ref {
                match self
                    .object::<Secret>(pod, &of.name)
                    .await
                    .map_err(|error| wrong(error.to_string()))?
                {
                    Some(secret) => secret
                        .data
                        .iter()
                        .flatten()
                        .map(|(key, value)| {
                            (key.clone(), String::from_utf8_lossy(&value.0).into_owned())
                        })
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
                .variable(pod, container, zone, variable, &result)
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
            let map = self
                .object::<ConfigMap>(pod, &of.name)
                .await
                .map_err(|error| wrong(error.to_string()))?;
            let optional = of.optional == Some(true);
            let Some(map) = map else {
                return match optional {
                    true => Ok(None),
                    false => Err(wrong(format!("configmap {:?} not found", of.name))),
                };
            };
            return match map.data.as_ref().and_then(|data| data.get(&of.key)) {
                Some(value) => Ok(Some(value.clone())),
                None if optional => Ok(None),
                None => Err(wrong(format!(
                    "couldn't find key {} in ConfigMap {namespace}/{}",
                    of.key, of.name
                ))),
            };
        }
        if let Some(of) = &from.secret_key_ref {
            let secret = self
                .object::<Secret>(pod, &of.name)
                .await
                .map_err(|error| wrong(error.to_string()))?;
            let optional = of.optional == Some(true);
            let Some(secret) = secret else {
                return match optional {
                    true => Ok(None),
                    false => Err(wrong(format!("secret {:?} not found", of.name))),
                };
            };
            return match secret.data.as_ref().and_then(|data| data.get(&of.key)) {
                Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
                None if optional => Ok(None),
                None => Err(wrong(format!(
                    "couldn't find key {} in Secret {namespace}/{}",
                    of.key, of.name
                ))),
            };
        }
        if let Some(of) = &from.file_key_ref {
            return self.of_file(pod, of).await.map_err(wrong);
        }
        Err(wrong(format!(
            "environment variable {:?} has a source that this node does not know",
            variable.name
        )))
    }
}

#[cfg(test)]
mod tests;
