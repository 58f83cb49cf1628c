//! What the metrics of an autoscaler ask for.

use std::sync::Arc;

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus, MetricStatus,
};

use super::Controller;
use super::sources::{Failure, Measured, Round, tolerances};
use super::status::{ACTIVE, set};
use crate::client::informer::Key;
use crate::client::kinds::Pod;
use crate::meta::selector::Selector;

impl Controller {
    /// The number of replicas that all metrics together ask for, and the errors if some failed; their statuses are
    /// added to `list`.
    ///
    /// # Errors
    /// All metrics fail, or some do and the others would scale down.
    pub(super) async fn measure(
        &self,
        key: &Key,
        autoscaler: &HorizontalPodAutoscaler,
        scale: &Scale,
        status: &mut HorizontalPodAutoscalerStatus,
        list: &mut Vec<MetricStatus>,
    ) -> Result<(Measured, Option<String>), String> {
        let (selector, pods) = self.selected(key, autoscaler, scale, status)?;
        let current = scale.spec.as_ref().and_then(|spec| spec.replicas);
        let current = current.unwrap_or(0);
        let metrics = autoscaler.spec.metrics.as_deref().unwrap_or_default();
        let round = Round {
            client: &self.context.client,
            namespace: &key.namespace,
            selector: &selector,
            pods: &pods,
            current,
            tolerances: tolerances(&autoscaler.spec),
        };
        let mut measured: Option<Measured> = None;
        let mut failures = Vec::new();
        for metric in metrics {
            match round.look(metric).await {
                Ok((found, state)) => {
                    list.push(state);
                    if measured
                        .as_ref()
                        .is_none_or(|known| known.replicas == 0 || found.replicas > known.replicas)
                    {
                        measured = Some(found);
                    }
                }
                Err(failure) => {
                    // An empty entry, as upstream has it.
                    list.push(MetricStatus::default());
                    self.warn(autoscaler, failure.reason, failure.told.clone());
                    failures.push(failure);
                }
            }
        }
        let failed = failures.first().map(|first| {
            let (count, all) = (failures.len(), metrics.len());
            let error = &first.error;
            format!("invalid metrics ({count} invalid out of {all}), first error is: {error}")
        });
        let lowers = |measured: &Measured| measured.replicas < current;
        match (measured, failures.first()) {
            (Some(measured), first) if first.is_none() || !lowers(&measured) => {
                let by = &measured.by;
                let message =
                    format!("the HPA was able to successfully calculate a replica count from {by}");
                set(status, ACTIVE, true, "ValidMetricFound", message);
                Ok((measured, failed))
            }
            (_, first) => {
                if let Some(Failure { reason, told, .. }) = first {
                    let message =
                        format!("the HPA was unable to compute the replica count: {told}");
                    set(status, ACTIVE, false, reason, message);
                }
                Err(failed.unwrap_or_else(|| "there are no metrics".to_owned()))
            }
        }
    }

    /// The selector of the scaled workload, and the pods that it selects, which must not belong to another autoscaler.
    fn selected(
        &self,
        key: &Key,
        autoscaler: &HorizontalPodAutoscaler,
        scale: &Scale,
        status: &mut HorizontalPodAutoscalerStatus,
    ) -> Result<(String, Vec<Arc<Pod>>), String> {
        let told = scale.status.as_ref().and_then(|told| told.selector.clone());
        let told = told.unwrap_or_default();
        if told.is_empty() {
            let error = "selector is required".to_owned();
            self.warn(autoscaler, "SelectorRequired", error.clone());
            let message = "the HPA target's scale is missing a selector";
            set(status, ACTIVE, false, "InvalidSelector", message.to_owned());
            return Err(error);
        }
        let selector = Selector::parse(&told).map_err(|why| {
            let error = format!(
                "couldn't convert selector into a corresponding internal selector object: {why}"
            );
            self.warn(autoscaler, "InvalidSelector", error.clone());
            set(status, ACTIVE, false, "InvalidSelector", error.clone());
            error
        })?;
        let pods: Vec<Arc<Pod>> = self
            .pods
            .cache
            .list(&key.namespace)
            .into_iter()
            .map(|(_, pod)| pod)
            .filter(|pod| fits(&selector, pod))
            .collect();
        let mut known = self.known.lock();
        known.entry(key.clone()).or_default().selector = Some(selector);
        let rivals: Vec<String> = known
            .iter()
            .filter(|(other, known)| {
                other.namespace == key.namespace
                    && known
                        .selector
                        .as_ref()
                        .is_some_and(|selector| pods.iter().any(|pod| fits(selector, pod)))
            })
            .map(|(other, _)| format!("{{{} {}}}", other.name, other.namespace))
            .take(2)
            .collect();
        drop(known);
        if rivals.len() > 1 {
            let rivals = rivals.join(" ");
            let error = format!(
                "pods by selector {told} are controlled by more than one HPA (e.g. [{rivals}])"
            );
            self.warn(autoscaler, "AmbiguousSelector", error.clone());
            set(status, ACTIVE, false, "AmbiguousSelector", error.clone());
            return Err(error);
        }
        Ok((told, pods))
    }
}

fn fits(selector: &Selector, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.matches(|key| labels?.get(key).map(String::as_str))
}
