//! Resource usage of the node and its pods: `stats/summary` and `metrics/resource`. Follows
//! pkg/kubelet/metrics/collectors/resource_metrics.go and k8s.io/kubelet/pkg/apis/stats/v1alpha1.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{Kubelet, zone_name};
use crate::meta::prometheus::Families;
use crate::node::supplies::HostUsage;
use crate::zone::{ProcessId, Usage, ZoneState, ZoneUsage};

/// A pod and its usage.
struct Used {
    pod: Arc<Pod>,
    usage: ZoneUsage,
    started: BTreeMap<ProcessId, Timestamp>,
}

fn print(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Kubelet {
    async fn usages(&self) -> Vec<Used> {
        let mut all = Vec::new();
        for (pod, _) in self.pods.known() {
            let name = zone_name(pod.metadata.uid.as_deref().unwrap_or_default());
            let Ok(usage) = self.runtime.usage(&name).await else {
                continue;
            };
            let zone = self.runtime.get(&name).await.ok().flatten();
            let started = zone.into_iter().flat_map(|zone| zone.processes);
            let started = started.map(|process| (process.id, process.started));
            all.push(Used {
                usage: self.supplies.usage(&pod, usage),
                started: started.collect(),
                pod,
            });
        }
        all.sort_by(|a, b| {
            let key = |used: &Used| {
                let metadata = &used.pod.metadata;
                (metadata.namespace.clone(), metadata.name.clone())
            };
            key(a).cmp(&key(b))
        });
        all
    }

    /// The node's usage: the host's, or the sum of its pods if there is no host or it cannot be measured.
    async fn node_usage(&self, pods: &[Used]) -> (Timestamp, Usage, Option<HostUsage>) {
        match self.supplies.host().await {
            Some(host) if host.memory.capacity > 0 => {
                let usage = Usage {
                    cpu: host.cpu,
                    memory: host.memory.used(),
                    working_set: host.memory.used(),
                    pids: host.pids.used(),
                };
                (host.at, usage, Some(host))
            }
            host => {
                let mut sum = Usage {
                    cpu: self.supplies.spent(),
                    ..Usage::default()
                };
                for used in pods {
                    sum.cpu += used.usage.total.cpu;
                    sum.memory += used.usage.total.memory;
                    sum.working_set += used.usage.total.working_set;
                    sum.pids += used.usage.total.pids;
                }
                (Timestamp::now(), sum, host)
            }
        }
    }

    pub(super) async fn summary(&self) -> Value {
        let used = self.usages().await;
        let (at, node, host) = self.node_usage(&used).await;
        let shown = |usage: &Usage, at: Timestamp| {
            let time = print(at);
            (
                json!({"time": time, "usageCoreNanoSeconds": usage.cpu}),
                json!({"time": time, "usageBytes": usage.memory, "workingSetBytes": usage.working_set}),
            )
        };
        let pods: Vec<Value> = used
            .iter()
            .map(|Used { pod, usage, started }| {
                let containers: Vec<Value> = usage
                    .processes
                    .iter()
                    .map(|(id, own)| {
                        let (cpu, memory) = shown(own, usage.at);
                        let started = started.get(id).copied().map(print);
                        json!({"name": id.name, "startTime": started, "cpu": cpu, "memory": memory})
                    })
                    .collect();
                let (cpu, memory) = shown(&usage.total, usage.at);
                json!({
                    "podRef": {"name": pod.metadata.name, "namespace": pod.metadata.namespace, "uid": pod.metadata.uid},
                    "startTime": pod.metadata.creation_timestamp,
                    "containers": containers,
                    "cpu": cpu, "memory": memory,
                    "network": {"time": print(usage.at), "name": "eth0", "rxBytes": usage.network.0, "txBytes": usage.network.1},
                    "process_stats": {"process_count": usage.total.pids},
                })
            })
            .collect();
        let (cpu, memory) = shown(&node, at);
        let mut whole = json!({"nodeName": self.node, "cpu": cpu, "memory": memory});
        if let Some(host) = host {
            let time = print(host.at);
            if host.memory.capacity > 0 {
                whole["memory"]["availableBytes"] = json!(host.memory.available);
            }
            let disk = json!({
                "time": time,
                "availableBytes": host.disk.available, "capacityBytes": host.disk.capacity,
                "usedBytes": host.disk.used(),
                "inodesFree": host.inodes.available, "inodes": host.inodes.capacity,
                "inodesUsed": host.inodes.used(),
            });
            whole["fs"] = disk.clone();
            whole["runtime"] = json!({"imageFs": disk.clone(), "containerFs": disk});
            if host.pids.capacity > 0 {
                whole["rlimit"] = json!({"time": time, "maxpid": host.pids.capacity, "curproc": host.pids.used()});
            }
        }
        json!({"node": whole, "pods": pods})
    }

    pub(super) async fn resource_metrics(&self) -> String {
        let used = self.usages().await;
        let (at, node, _) = self.node_usage(&used).await;
        text(at, &node, &used)
    }

    /// The agent's own `/metrics`. Follows pkg/kubelet/metrics/metrics.go.
    pub(super) async fn own_metrics(&self) -> String {
        let zones = self.runtime.list().await.unwrap_or_default();
        let processes = zones.iter().flat_map(|zone| &zone.processes);
        let (ended, running): (Vec<_>, Vec<_>) =
            processes.partition(|process| process.ended.is_some());
        let booted = zones.iter().filter(|zone| zone.state == ZoneState::Running);
        let states = [("exited", ended.len()), ("running", running.len())];
        let states = states.map(|(state, count)| {
            let labels = format!("container_state=\"{state}\"");
            (labels, count.to_string(), None)
        });
        exposition([
            (
                "kubelet_node_name",
                "[ALPHA] The node's name. The count is always 1.",
                "gauge",
                vec![(format!("node=\"{}\"", self.node), "1".into(), None)],
            ),
            (
                "kubelet_running_containers",
                "[ALPHA] Number of containers currently running",
                "gauge",
                states.into(),
            ),
            (
                "kubelet_running_pods",
                "[ALPHA] Number of pods that have a running pod sandbox",
                "gauge",
                vec![(String::new(), booted.count().to_string(), None)],
            ),
        ])
    }
}

/// A value, and when it was measured.
type Sample = (String, Option<Timestamp>);

/// A metric: its name, help text, type, and samples.
type Metric<'a> = (
    &'static str,
    &'static str,
    &'static str,
    Vec<(String, String, Option<Timestamp>)>,
);

/// The metrics in Prometheus' text format, sorted by name.
fn text(at: Timestamp, node: &Usage, pods: &[Used]) -> String {
    let seconds = |nanos: u64| format!("{}", nanos as f64 / 1e9);
    let of_pod = |used: &Used| {
        let metadata = &used.pod.metadata;
        format!(
            "namespace=\"{}\",pod=\"{}\"",
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default()
        )
    };
    let containers = |value: &dyn Fn(&Used, &ProcessId, &Usage) -> Option<Sample>| {
        let mut lines = Vec::new();
        for used in pods {
            for (id, usage) in &used.usage.processes {
                if let Some((value, at)) = value(used, id, usage) {
                    let labels = format!("container=\"{}\",{}", id.name, of_pod(used));
                    lines.push((labels, value, at));
                }
            }
        }
        lines
    };
    let per_pod = |value: &dyn Fn(&Usage) -> String| {
        let line = |used: &Used| (of_pod(used), value(&used.usage.total), Some(used.usage.at));
        pods.iter().map(line).collect::<Vec<_>>()
    };
    let started = |used: &Used, id: &ProcessId, _: &Usage| {
        let at = used.started.get(id)?;
        Some((format!("{}", at.as_microsecond() as f64 / 1e6), None))
    };
    let metrics: [Metric<'_>; 8] = [
        (
            "container_cpu_usage_seconds_total",
            "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
            "counter",
            containers(&|used, _, usage| Some((seconds(usage.cpu), Some(used.usage.at)))),
        ),
        (
            "container_memory_working_set_bytes",
            "[STABLE] Current working set of the container in bytes",
            "gauge",
            containers(&|used, _, usage| {
                Some((usage.working_set.to_string(), Some(used.usage.at)))
            }),
        ),
        (
            "container_start_time_seconds",
            "[STABLE] Start time of the container since unix epoch in seconds",
            "gauge",
            containers(&started),
        ),
        (
            "node_cpu_usage_seconds_total",
            "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
            "counter",
            vec![(String::new(), seconds(node.cpu), Some(at))],
        ),
        (
            "node_memory_working_set_bytes",
            "[STABLE] Current working set of the node in bytes",
            "gauge",
            vec![(String::new(), node.working_set.to_string(), Some(at))],
        ),
        (
            "pod_cpu_usage_seconds_total",
            "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
            "counter",
            per_pod(&|usage| seconds(usage.cpu)),
        ),
        (
            "pod_memory_working_set_bytes",
            "[STABLE] Current working set of the pod in bytes",
            "gauge",
            per_pod(&|usage| usage.working_set.to_string()),
        ),
        (
            "resource_scrape_error",
            "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
            "gauge",
            vec![(String::new(), "0".into(), None)],
        ),
    ];
    exposition(metrics)
}

/// Metrics in Prometheus' text format.
fn exposition<'a>(metrics: impl IntoIterator<Item = Metric<'a>>) -> String {
    let mut out = Families::default();
    for (name, help, kind, lines) in metrics {
        if lines.is_empty() {
            continue;
        }
        let mut family = out.begin(name, kind, help);
        for (labels, value, at) in lines {
            match at {
                Some(at) => family.measured(labels, value, at.as_millisecond()),
                None => family.series(labels, value),
            };
        }
    }
    out.into_text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_told_as_scrapers_read_them() {
        let mut pod = Pod::default();
        pod.metadata.name = Some("p".into());
        pod.metadata.namespace = Some("ns".into());
        let at = |second| Timestamp::from_second(second).expect("a time");
        let id = ProcessId {
            name: "c".into(),
            generation: 3,
        };
        let usage = Usage {
            cpu: 1_500_000_000,
            memory: 9,
            working_set: 7,
            pids: 1,
        };
        let used = Used {
            pod: Arc::new(pod),
            usage: ZoneUsage {
                at: at(20),
                total: usage.clone(),
                processes: [(id.clone(), usage.clone())].into(),
                network: (0, 0),
            },
            started: [(id, at(10))].into(),
        };
        let text = text(at(21), &usage, &[used]);
        for line in [
            "# TYPE container_cpu_usage_seconds_total counter",
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"ns\",pod=\"p\"} 1.5 20000",
            "container_memory_working_set_bytes{container=\"c\",namespace=\"ns\",pod=\"p\"} 7 20000",
            "container_start_time_seconds{container=\"c\",namespace=\"ns\",pod=\"p\"} 10",
            "node_cpu_usage_seconds_total 1.5 21000",
            "pod_memory_working_set_bytes{namespace=\"ns\",pod=\"p\"} 7 20000",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in {text}");
        }
    }
}
