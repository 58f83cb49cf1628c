//! Resource usage of pods, from the metrics API. Follows
//! k8s.io/kubernetes/pkg/controller/podautoscaler/metrics/client.go.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::api::resource;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, ListParams, ObjectList};
use kube::core::ObjectMeta;
use kube::{Client, Resource};
use serde::Deserialize;

use super::usage::{Sample, Samples};
use crate::client::discovery::lean;
use crate::client::errors::text;
use crate::meta::quantity::Quantity;

/// The usage of a pod.
#[derive(Clone, Debug, Deserialize)]
struct PodMetrics {
    #[serde(default, deserialize_with = "lean")]
    metadata: ObjectMeta,
    timestamp: Timestamp,
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Clone, Debug, Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: std::collections::BTreeMap<String, resource::Quantity>,
}

impl Resource for PodMetrics {
    type DynamicType = ();
    type Scope = kube::core::NamespaceResourceScope;
    fn kind(_: &()) -> std::borrow::Cow<'_, str> {
        "PodMetrics".into()
    }
    fn group(_: &()) -> std::borrow::Cow<'_, str> {
        "metrics.k8s.io".into()
    }
    fn version(_: &()) -> std::borrow::Cow<'_, str> {
        "v1beta1".into()
    }
    fn plural(_: &()) -> std::borrow::Cow<'_, str> {
        "pods".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl PodMetrics {
    /// The usage of a resource by one container, or by all; None if it is not reported.
    fn sample(&self, resource: &str, container: Option<&str>) -> Option<Sample> {
        let mut value = 0;
        let mut found = false;
        for one in &self.containers {
            if container.is_some_and(|container| container != one.name) {
                continue;
            }
            found = true;
            value += Quantity::parse(&one.usage.get(resource)?.0)
                .ok()?
                .milli_value();
        }
        let window: SignedDuration = self.window.parse().ok()?;
        found.then_some(Sample {
            value,
            at: self.timestamp,
            window: Duration::try_from(window).ok()?,
        })
    }
}

/// The usage of a resource by the pods of a namespace that `selector` selects, or by one container of each.
///
/// # Errors
/// Why the usage is unknown, in upstream's words.
pub async fn samples(
    client: &Client,
    namespace: &str,
    selector: &str,
    resource: &str,
    container: Option<&str>,
) -> Result<Samples, String> {
    let api: Api<PodMetrics> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(selector);
    let told = api.list(&params).await;
    let told: ObjectList<PodMetrics> = told.map_err(|error| {
        let why = match &error {
            // No server provides the API.
            kube::Error::Api(status) if status.code == 404 => {
                "the server could not find the requested resource (get pods.metrics.k8s.io)"
                    .to_owned()
            }
            other => text(other),
        };
        format!("unable to fetch metrics from resource metrics API: {why}")
    })?;
    if told.items.is_empty() {
        return Err("no metrics returned from resource metrics API".to_owned());
    }
    let of = |pod: PodMetrics| {
        let sample = pod.sample(resource, container)?;
        Some((pod.metadata.name?, sample))
    };
    Ok(told.items.into_iter().filter_map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn samples_are_sums_of_containers_or_of_one() {
        let pod: PodMetrics = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n"},
            "timestamp": "2026-01-01T00:00:00Z",
            "window": "1m15.5s",
            "containers": [
                {"name": "a", "usage": {"cpu": "250000001n", "memory": "1Ki"}},
                {"name": "b", "usage": {"cpu": "1"}}
            ]
        }))
        .expect("metrics");
        let value = |resource, container| {
            pod.sample(resource, container)
                .map(|sample| (sample.value, sample.window.as_millis()))
        };
        assert_eq!(value("cpu", None), Some((1251, 75_500)));
        assert_eq!(value("cpu", Some("b")), Some((1000, 75_500)));
        assert_eq!(value("memory", Some("a")), Some((1_024_000, 75_500)));
        // If one container does not report it, the sum is unknown.
        assert_eq!(value("memory", None), None);
        assert_eq!(value("cpu", Some("c")), None);
    }
}
