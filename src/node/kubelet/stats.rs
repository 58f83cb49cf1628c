//! What pods use: `stats/summary` and `metrics/resource`.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{Kubelet, zone_name};
use crate::zone::ZoneUsage;

impl Kubelet {
    async fn usages(&self) -> Vec<(Pod, ZoneUsage)> {
        let mut all = Vec::new();
        for (pod, _) in self.pods.list() {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            if let Ok(usage) = self.runtime.usage(&zone_name(&uid)).await {
                all.push((Pod::clone(&pod), usage));
            }
        }
        all
    }

    pub(super) async fn summary(&self) -> Value {
        let now = jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string();
        let shown = |usage: &crate::zone::Usage, time: &str| {
            (
                json!({"time": time, "usageCoreNanoSeconds": usage.cpu}),
                json!({"time": time, "usageBytes": usage.memory, "workingSetBytes": usage.working_set}),
            )
        };
        let (mut pods, mut cpu, mut memory) = (Vec::new(), 0, 0);
        for (pod, usage) in self.usages().await {
            cpu += usage.total.cpu;
            memory += usage.total.working_set;
            let containers: Vec<Value> = usage
                .processes
                .iter()
                .map(|(id, usage)| {
                    let (cpu, memory) = shown(usage, &now);
                    json!({"name": id.name, "startTime": now, "cpu": cpu, "memory": memory})
                })
                .collect();
            let (own_cpu, own_memory) = shown(&usage.total, &now);
            pods.push(json!({
                "podRef": {"name": pod.metadata.name, "namespace": pod.metadata.namespace, "uid": pod.metadata.uid},
                "startTime": pod.metadata.creation_timestamp,
                "containers": containers,
                "cpu": own_cpu, "memory": own_memory,
                "network": {"time": now, "name": "eth0", "rxBytes": usage.network.0, "txBytes": usage.network.1},
                "process_stats": {"process_count": usage.total.pids},
            }));
        }
        json!({
            "node": {
                "nodeName": self.node,
                "cpu": {"time": now, "usageCoreNanoSeconds": cpu},
                "memory": {"time": now, "workingSetBytes": memory},
            },
            "pods": pods,
        })
    }

    pub(super) async fn resource_metrics(&self) -> String {
        let mut text = String::new();
        let usages = self.usages().await;
        let at = jiff::Timestamp::now().as_millisecond();
        for (name, help, kind) in [
            (
                "container_cpu_usage_seconds_total",
                "Cumulative cpu time consumed by the container in core-seconds",
                "counter",
            ),
            (
                "container_memory_working_set_bytes",
                "Current working set of the container in bytes",
                "gauge",
            ),
        ] {
            let _ = writeln!(text, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
            for (pod, usage) in &usages {
                let (namespace, pod) = (&pod.metadata.namespace, &pod.metadata.name);
                let (namespace, pod) = (
                    namespace.as_deref().unwrap_or_default(),
                    pod.as_deref().unwrap_or_default(),
                );
                for (id, usage) in &usage.processes {
                    let labels = format!(
                        "container=\"{}\",namespace=\"{namespace}\",pod=\"{pod}\"",
                        id.name
                    );
                    let value = match kind {
                        "counter" => format!("{}", usage.cpu as f64 / 1e9),
                        _ => usage.working_set.to_string(),
                    };
                    let _ = writeln!(text, "{name}{{{labels}}} {value} {at}");
                }
            }
        }
        text
    }
}
