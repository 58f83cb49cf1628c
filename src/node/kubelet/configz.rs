//! The configuration of a node, as its own API tells it: `configz`. Only what this agent acts by is told, under kubelet's
//! names (k8s.io/kubelet/config/v1beta1); what kubelet has besides is absent, not told as its default.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::idle::IDLE;
use super::reviews;
use crate::node::host::{HIGH, LOW, MINIMUM_AGE, TOLD};
use crate::node::machine::MAXIMUM;
use crate::node::{pressure, register};
use crate::zone::supervisor::{LOG_FILES, LOG_SIZE};

/// What differs from agent to agent.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The port of the node's own API, if it has one.
    pub port: Option<u16>,
    /// `maxPods`.
    pub pods: i32,
    /// When pods are evicted: signals and limits.
    pub eviction: BTreeMap<String, String>,
    /// Patterns of sysctls that pods may set besides the safe ones.
    pub sysctls: Vec<String>,
    /// The name servers of pods.
    pub cluster_dns: Vec<IpAddr>,
    /// The DNS domain of the cluster.
    pub cluster_domain: String,
    /// The directory of logs, where it is one for all pods.
    pub logs: Option<PathBuf>,
    /// How a node that joined another host's API server vouches for itself and judges others; None where both are in one
    /// process.
    pub joined: Option<JoinedBy>,
}

/// What a node that joined does about certificates.
#[derive(Clone, Debug, Default)]
pub struct JoinedBy {
    /// Whether the client certificate is renewed.
    pub rotates_client: bool,
    /// Whether a serving certificate is asked for.
    pub rotates_serving: bool,
    /// The file with the authorities of clients, if one was given.
    pub client_ca: Option<PathBuf>,
}

impl Settings {
    /// The document.
    pub fn told(&self) -> Value {
        let duration = |of: Duration| Value::from(go_duration(of));
        let mut config = json!({
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "authentication": {"x509": {}, "webhook": {}, "anonymous": {"enabled": false}},
            "authorization": {"webhook": {}},
            "clusterDomain": self.cluster_domain,
            "crashLoopBackOff": {"maxContainerRestartPeriod": duration(MAXIMUM.unsigned_abs())},
            "enableDebuggingHandlers": true,
            "evictionPressureTransitionPeriod": duration(pressure::TRANSITION.unsigned_abs()),
            "failSwapOn": false,
            "imageGCHighThresholdPercent": HIGH,
            "imageGCLowThresholdPercent": LOW,
            "imageMinimumGCAge": duration(MINIMUM_AGE.unsigned_abs()),
            "localStorageCapacityIsolation": true,
            "maxPods": self.pods,
            "nodeLeaseDurationSeconds": register::LEASE_SECONDS,
            "nodeStatusMaxImages": TOLD,
            "nodeStatusReportFrequency": duration(register::REPORT),
            "nodeStatusUpdateFrequency": duration(register::HEARTBEAT),
            "registerNode": true,
            "seccompDefault": false,
            "streamingConnectionIdleTimeout": duration(IDLE),
        });
        let mut set = |key: &str, value: Value| {
            let is_empty = value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(serde_json::Map::is_empty);
            if !value.is_null() && !is_empty {
                config[key] = value;
            }
        };
        set("evictionHard", json!(self.eviction));
        set("allowedUnsafeSysctls", json!(self.sysctls));
        set("clusterDNS", json!(self.cluster_dns));
        if let Some(port) = self.port {
            set("enableServer", true.into());
            set("address", "0.0.0.0".into());
            set("port", port.into());
            set(
                "containerLogMaxSize",
                format!("{}Mi", LOG_SIZE >> 20).into(),
            );
            set("containerLogMaxFiles", LOG_FILES.into());
        }
        if let Some(logs) = &self.logs {
            set("podLogsDir", logs.display().to_string().into());
        }
        if let Some(joined) = &self.joined {
            let file = joined
                .client_ca
                .as_ref()
                .map(|path| path.display().to_string());
            let file = file.map_or(json!({}), |file| json!({"clientCAFile": file}));
            set("rotateCertificates", joined.rotates_client.into());
            set("serverTLSBootstrap", joined.rotates_serving.into());
            set(
                "authentication",
                json!({
                    "x509": file,
                    "webhook": {"enabled": true, "cacheTTL": duration(reviews::TOKEN)},
                    "anonymous": {"enabled": false},
                }),
            );
            set(
                "authorization",
                json!({
                    "mode": "Webhook",
                    "webhook": {
                        "cacheAuthorizedTTL": duration(reviews::ALLOWED),
                        "cacheUnauthorizedTTL": duration(reviews::REFUSED),
                    },
                }),
            );
        }
        json!({"kubeletconfig": config})
    }
}

/// Whole seconds as Go writes them: `1h0m0s`, `2m0s`, `10s`.
fn go_duration(of: Duration) -> String {
    let (hours, minutes, seconds) = (
        of.as_secs() / 3600,
        of.as_secs() / 60 % 60,
        of.as_secs() % 60,
    );
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_go() {
        for (seconds, expected) in [
            (0, "0s"),
            (10, "10s"),
            (300, "5m0s"),
            (3_600, "1h0m0s"),
            (4 * 3_600 + 61, "4h1m1s"),
        ] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn what_is_told_is_what_was_given_and_nothing_else() {
        let thresholds: pressure::Thresholds = "memory.available<100Mi,nodefs.available<10%"
            .parse()
            .expect("thresholds");
        let mut settings = Settings {
            port: Some(10250),
            pods: 250,
            eviction: thresholds.limits(),
            cluster_dns: vec![[10, 244, 0, 1].into()],
            cluster_domain: "cluster.local".into(),
            ..Settings::default()
        };
        let told = settings.told();
        let config = &told["kubeletconfig"];
        for (key, expected) in [
            ("kind", json!("KubeletConfiguration")),
            ("apiVersion", json!("kubelet.config.k8s.io/v1beta1")),
            ("port", json!(10250)),
            ("maxPods", json!(250)),
            (
                "evictionHard",
                json!({"memory.available": "100Mi", "nodefs.available": "10%"}),
            ),
            ("clusterDNS", json!(["10.244.0.1"])),
            ("streamingConnectionIdleTimeout", json!("4h0m0s")),
            ("nodeStatusUpdateFrequency", json!("10s")),
            ("imageGCHighThresholdPercent", json!(85)),
        ] {
            assert_eq!(config[key], expected, "{key}");
        }
        for key in [
            "allowedUnsafeSysctls",
            "podLogsDir",
            "rotateCertificates",
            "cpuManagerPolicy",
        ] {
            assert!(config.get(key).is_none(), "{key}");
        }
        settings.joined = Some(JoinedBy {
            rotates_client: true,
            ..JoinedBy::default()
        });
        settings.logs = Some("/data/logs".into());
        let told = settings.told();
        let config = &told["kubeletconfig"];
        assert_eq!(config["rotateCertificates"], json!(true));
        assert_eq!(config["serverTLSBootstrap"], json!(false));
        assert_eq!(config["authorization"]["mode"], "Webhook");
        assert_eq!(config["containerLogMaxFiles"], json!(5));
        assert_eq!(config["podLogsDir"], "/data/logs");
    }
}
