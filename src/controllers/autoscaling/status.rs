//! The conditions of an autoscaler. Follows k8s.io/kubernetes/pkg/controller/podautoscaler/horizontal.go.

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// Whether the scale could be read and written.
pub const ABLE: &str = "AbleToScale";
/// Whether a number of replicas could be computed from metrics.
pub const ACTIVE: &str = "ScalingActive";
/// Whether the number that metrics ask for is out of bounds.
pub const LIMITED: &str = "ScalingLimited";
/// Whether the autoscaler scaled to zero.
pub const ZERO: &str = "ScaledToZero";

/// Sets a condition; its transition time changes only with its status.
pub fn set(
    status: &mut HorizontalPodAutoscalerStatus,
    kind: &str,
    holds: bool,
    reason: &str,
    message: String,
) {
    let state = if holds { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let at = match conditions.iter().position(|known| known.type_ == kind) {
        Some(at) => at,
        None => {
            conditions.push(HorizontalPodAutoscalerCondition {
                type_: kind.to_owned(),
                ..Default::default()
            });
            conditions.len() - 1
        }
    };
    let condition = &mut conditions[at];
    if condition.status != state {
        condition.last_transition_time = Some(Time(Timestamp::now()));
    }
    condition.status = state.to_owned();
    condition.reason = Some(reason.to_owned());
    condition.message = Some(message);
}

/// Whether a condition is true.
pub fn holds(status: &HorizontalPodAutoscalerStatus, kind: &str) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == kind && condition.status == "True")
}
