//! Evaluates the metrics of an autoscaler one by one. Follows the computations for each source in
//! k8s.io/kubernetes/pkg/controller/podautoscaler.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, HPAScalingRules, HorizontalPodAutoscalerSpec, MetricSpec,
    MetricStatus, MetricTarget, MetricValueStatus, ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource;
use k8s_openapi::jiff::Timestamp;

use super::usage::{Goal, Tolerances};
use super::{metrics, usage};
use crate::client::kinds::Pod;
use crate::client::selector;
use crate::meta::quantity::{Form, Quantity};

/// The result of evaluating metrics.
pub struct Measured {
    pub replicas: i32,
    /// The name of the deciding metric.
    pub by: String,
}

/// Why a metric cannot be evaluated.
pub struct Failure {
    /// The reason of its event and of the condition.
    pub reason: &'static str,
    /// The message of these.
    pub told: String,
    /// The error for the sync.
    pub error: String,
}

/// The pods and the autoscaler for which metrics are evaluated.
#[derive(Clone, Copy)]
pub struct Round<'r> {
    pub client: &'r kube::Client,
    pub namespace: &'r str,
    pub selector: &'r str,
    pub pods: &'r [Arc<Pod>],
    pub current: i32,
    pub tolerances: Tolerances,
}

impl Round<'_> {
    /// The number of replicas that one metric asks for, and its status.
    ///
    /// # Errors
    /// [`Failure`] if the metric is not available.
    pub async fn look(&self, metric: &MetricSpec) -> Result<(Measured, MetricStatus), Failure> {
        let (resource, container, target) = match (&metric.resource, &metric.container_resource) {
            (Some(own), _) if metric.type_ == "Resource" => (&own.name, None, &own.target),
            (_, Some(own)) if metric.type_ == "ContainerResource" => {
                (&own.name, Some(own.container.as_str()), &own.target)
            }
            _ => return Err(unserved(metric, self.namespace)),
        };
        let looked = self.resource(target, resource, container).await;
        match looked {
            Ok((measured, value)) => Ok((measured, state_of(metric, value))),
            Err(told) => Err(match container {
                None => Failure {
                    reason: "FailedGetResourceMetric",
                    error: format!("failed to get {resource} resource metric value: {told}"),
                    told,
                },
                Some(container) => Failure {
                    reason: "FailedGetContainerResourceMetric",
                    error: format!("failed to get {container} container metric value: {told}"),
                    told,
                },
            }),
        }
    }

    /// Evaluates a resource metric.
    async fn resource(
        &self,
        target: &MetricTarget,
        resource: &str,
        container: Option<&str>,
    ) -> Result<(Measured, MetricValueStatus), String> {
        let Round {
            client,
            namespace,
            selector,
            pods,
            current,
            tolerances,
        } = *self;
        let average = target.average_value.as_ref();
        let told = match (average, target.average_utilization) {
            (Some(_), _) => "usage",
            (None, Some(_)) => "utilization",
            (None, None) => return Err("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".to_owned()),
        };
        let failed = |why: String| format!("failed to get {resource} {told}: {why}");
        let samples = metrics::samples(client, namespace, selector, resource, container)
            .await
            .map_err(|why| {
                failed(format!(
                    "unable to get metrics for resource {resource}: {why}"
                ))
            })?;
        let goal = match (average, target.average_utilization) {
            (Some(average), _) => {
                let average = Quantity::parse(&average.0);
                Goal::Average(average.map_or(0, |average| average.milli_value()))
            }
            (None, goal) => {
                let requests = match pods.is_empty() {
                    true => BTreeMap::new(),
                    false => usage::requests(pods, container, resource).map_err(failed)?,
                };
                Goal::Utilization(goal.unwrap_or(0), requests)
            }
        };
        let is_cpu = resource == "cpu";
        let now = Timestamp::now();
        let (replicas, used) =
            usage::replicas(current, &goal, samples, pods, is_cpu, tolerances, now)
                .map_err(failed)?;
        let form = match resource {
            "memory" => Form::Binary,
            _ => Form::Decimal,
        };
        let value = MetricValueStatus {
            average_utilization: used.utilization,
            average_value: Some(resource::Quantity(
                Quantity::milli(used.average, form).to_string(),
            )),
            value: None,
        };
        let by = match (average, container) {
            (Some(_), _) => format!("{resource} resource"),
            (None, None) => format!("{resource} resource utilization (percentage of request)"),
            (None, Some(_)) => {
                format!("{resource} container resource utilization (percentage of request)")
            }
        };
        Ok((Measured { replicas, by }, value))
    }
}

/// How far usage may be from the target before the autoscaler acts.
pub fn tolerances(spec: &HorizontalPodAutoscalerSpec) -> Tolerances {
    let mut tolerances = Tolerances::default();
    let read = |amount: Option<&resource::Quantity>| {
        let amount = Quantity::parse(&amount?.0).ok()?;
        Some(amount.milli_value() as f64 / 1000.0)
    };
    if let Some(behavior) = &spec.behavior {
        let of = |rules: Option<&HPAScalingRules>| read(rules?.tolerance.as_ref());
        tolerances.down = of(behavior.scale_down.as_ref()).unwrap_or(tolerances.down);
        tolerances.up = of(behavior.scale_up.as_ref()).unwrap_or(tolerances.up);
    }
    tolerances
}

/// The status of a resource metric.
fn state_of(metric: &MetricSpec, current: MetricValueStatus) -> MetricStatus {
    let mut state = MetricStatus {
        type_: metric.type_.clone(),
        ..MetricStatus::default()
    };
    match (&metric.container_resource, &metric.resource) {
        (Some(own), _) if metric.type_ == "ContainerResource" => {
            state.container_resource = Some(ContainerResourceMetricStatus {
                container: own.container.clone(),
                name: own.name.clone(),
                current,
            });
        }
        (_, Some(own)) => {
            let name = own.name.clone();
            state.resource = Some(ResourceMetricStatus { name, current });
        }
        _ => {}
    }
    state
}

/// Upstream's error for a metric whose server does not exist.
fn unserved(metric: &MetricSpec, namespace: &str) -> Failure {
    const CUSTOM: &str =
        "unable to fetch metrics from custom metrics API: no known available metric versions found";
    if let Some(pods) = &metric.pods {
        let told = format!("unable to get metric {}: {CUSTOM}", pods.metric.name);
        return Failure {
            reason: "FailedGetPodsMetric",
            error: format!("failed to get pods metric value: {told}"),
            told,
        };
    }
    if let Some(object) = &metric.object {
        let (name, of) = (&object.metric.name, &object.described_object);
        let told = format!(
            "unable to get metric {name} on {} {namespace}/{}: {CUSTOM}",
            of.kind, of.name
        );
        return Failure {
            reason: "FailedGetObjectMetric",
            error: format!("failed to get object metric value: {told}"),
            told,
        };
    }
    if let Some(external) = &metric.external {
        let name = &external.metric.name;
        let selector = selector::printed(external.metric.selector.as_ref());
        let told = format!(
            "unable to get external metric {namespace}/{name}/{selector}: unable to fetch metrics from external metrics API: the server could not find the requested resource (get {name}.external.metrics.k8s.io)"
        );
        return Failure {
            reason: "FailedGetExternalMetric",
            error: format!("failed to get {name} external metric value: {told}"),
            told,
        };
    }
    let told = format!("unknown metric source type {:?}", metric.type_);
    Failure {
        reason: "InvalidMetricSourceType",
        error: told.clone(),
        told,
    }
}
