//! This server's own objects in kube-system: the CAs that it trusts, since when it tracks legacy tokens, and its lease.
//! Follows k8s.io/kubernetes
//! pkg/controlplane/controller/{clusterauthenticationtrust,legacytokentracking,apiserverleasegc} and
//! k8s.io/component-helpers/apimachinery/lease.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::own_client::{self, delete, post};
use super::server::Server;
use crate::meta::{names, time};
use crate::schema::{Object, Value, json};
use crate::value;

/// How often the lease is renewed, as upstream, and the other records are looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// How long a lease is valid without renewal, in seconds.
const LEASE_SECONDS: i64 = 3600;
const MANAGER: &str = crate::resources::owners::SERVER;
const SYSTEM: &str = "kube-system";
const TRUST: &str = "extension-apiserver-authentication";
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const IDENTITY: &str = "apiserver.kubernetes.io/identity";

/// The name of the task.
pub const TASK: &str = "records of this server";

/// The objects of a server.
pub struct Records {
    trust: Object,
    host: String,
    lease: String,
    holder: String,
}

impl Records {
    /// The objects of the server on `host`; `trust` is the data of the config map with the trusted CAs.
    pub fn new(host: &str, trust: Object) -> Self {
        // Each part is preceded by its length.
        let mut named = Vec::new();
        for part in [host, MANAGER] {
            let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
            named.extend_from_slice(&length.to_be_bytes());
            named.extend_from_slice(part.as_bytes());
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, &named);
        let lease = format!("apiserver-{}", base32(&digest.as_ref()[..16]));
        Records {
            trust,
            host: host.to_owned(),
            holder: format!("{lease}_{}", names::new_uid()),
            lease,
        }
    }

    /// Writes missing objects.
    pub async fn ensure(&self, server: &Arc<Server>) {
        self.trust(server).await;
        self.tracking(server).await;
        self.renew(server).await;
        self.clean(server).await;
    }

    /// Renews the lease, and restores deleted objects, until `ends` is cancelled.
    pub async fn keep(&self, server: Arc<Server>, ends: CancellationToken) {
        let begin = tokio::time::Instant::now() + PERIOD;
        let mut periods = tokio::time::interval_at(begin, PERIOD);
        periods.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = periods.tick() => self.ensure(&server).await,
                () = ends.cancelled() => return,
            }
        }
    }

    async fn trust(&self, server: &Arc<Server>) {
        let stored = server.cluster.get("", "configmaps", SYSTEM, TRUST);
        let had = stored.as_ref().map_or(&Value::Null, |map| map.at("data"));
        let data = joined(had, &self.trust);
        if had == &data {
            return;
        }
        put(
            server,
            "api/v1",
            "configmaps",
            stored,
            value!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": TRUST, "namespace": SYSTEM},
                "data": data
            }),
        )
        .await;
    }

    async fn tracking(&self, server: &Arc<Server>) {
        let stored = server.cluster.get("", "configmaps", SYSTEM, TRACKING);
        if stored.is_some() {
            return;
        }
        let now = time::print(time::now());
        let today = now.split('T').next().unwrap_or_default();
        put(
            server,
            "api/v1",
            "configmaps",
            None,
            value!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": TRACKING, "namespace": SYSTEM},
                "data": {"since": today}
            }),
        )
        .await;
    }

    async fn renew(&self, server: &Arc<Server>) {
        let stored = server
            .cluster
            .get("coordination.k8s.io", "leases", SYSTEM, &self.lease);
        let now = jiff::Timestamp::now();
        put(server, "apis/coordination.k8s.io/v1", "leases", stored, value!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": (self.lease.as_str()),
                "namespace": SYSTEM,
                "labels": {
                    "apiserver.kubernetes.io/identity": MANAGER,
                    "kubernetes.io/hostname": (self.host.as_str())
                }
            },
            "spec": {
                "holderIdentity": (self.holder.as_str()),
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": (time::print_micro(now.as_second(), i64::from(now.subsec_nanosecond())))
            }
        }))
        .await;
    }

    /// Deletes the leases of servers that have been gone for long.
    async fn clean(&self, server: &Arc<Server>) {
        let leases = server.cluster.list("coordination.k8s.io", "leases", SYSTEM);
        for lease in leases.iter().filter(|lease| expired(lease, time::now())) {
            let name = lease.at("metadata").str("name");
            let path = format!("/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/{name}");
            // Another server may have deleted it.
            let failed = "the lease of a server that is gone cannot be deleted";
            let tolerate = [StatusCode::NOT_FOUND, StatusCode::CONFLICT];
            delete(&path).write(server, &tolerate, failed).await;
        }
    }
}

/// Creates an object, or updates data and spec of the stored one. A conflict is another server's success.
async fn put(
    server: &Arc<Server>,
    version: &str,
    plural: &str,
    stored: Option<Arc<Value>>,
    wanted: Value,
) {
    let name = wanted.at("metadata").str("name").to_owned();
    let path = format!("/{version}/namespaces/{SYSTEM}/{plural}");
    let failed = "what this server says of itself cannot be written";
    let tolerate = [StatusCode::CONFLICT];
    match stored {
        None => post(&path, &wanted).write(server, &tolerate, failed).await,
        Some(mut stored) => {
            for key in ["data", "spec"] {
                if wanted.get(key).is_some() {
                    Arc::make_mut(&mut stored).set(key, wanted.at(key));
                }
            }
            let path = format!("{path}/{name}");
            own_client::put(&path, &stored)
                .write(server, &tolerate, failed)
                .await
        }
    };
}

/// Whether a lease belongs to a server that has not renewed it in time.
fn expired(lease: &Value, now: i64) -> bool {
    let spec = lease.at("spec");
    let renewed = time::parts(spec.str("renewTime")).map(|(seconds, _)| seconds);
    lease.at("metadata").at("labels").str(IDENTITY) == MANAGER
        && renewed.is_none_or(|renewed| renewed + spec.int("leaseDurationSeconds") < now)
}

/// Merges the trust of several servers: CAs are concatenated, header names are joined in one list.
fn joined(had: &Value, own: &Object) -> Value {
    let mut data = had.as_object().cloned().unwrap_or_default();
    for (key, value) in own.iter() {
        let (Value::String(value), before) = (value, had.str(key)) else {
            continue;
        };
        let both = if before.is_empty() {
            value.to_string()
        } else if key.ends_with("-file") {
            match before.contains(value.trim()) {
                true => continue,
                false => format!("{}\n{value}", before.trim_end()),
            }
        } else {
            let read = |text: &str| json::parse(text.as_bytes()).map(|parsed| parsed.value);
            let (Ok(Value::Array(mut all)), Ok(Value::Array(more))) = (read(before), read(value))
            else {
                continue;
            };
            for one in more {
                if !all.contains(&one) {
                    all.push(one);
                }
            }
            json::to_string(&Value::Array(all))
        };
        data.insert(key.clone(), both);
    }
    data.into()
}

/// RFC 4648 base32 in lower case, without padding.
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    for chunk in bytes.chunks(5) {
        let mut group = [0; 8];
        group[3..3 + chunk.len()].copy_from_slice(chunk);
        let bits = u64::from_be_bytes(group);
        for i in 0..(chunk.len() * 8).div_ceil(5) {
            let letter = (bits >> (35 - 5 * i)) & 31;
            text.push(LETTERS[letter as usize].into());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_named_after_its_host() {
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
        assert_eq!(
            Records::new("vm", Object::new()).lease,
            "apiserver-wlv32tlttr4jl3gtroqexyxapa"
        );
    }

    #[test]
    fn servers_join_what_they_believe() {
        let own = value!({"client-ca-file": "B\n", "requestheader-allowed-names": "[\"b\"]"});
        let own = own.as_object().cloned().unwrap_or_default();
        for (had, joint) in [
            (Value::Null, Value::from(own.clone())),
            (
                value!({"client-ca-file": "A\n", "requestheader-allowed-names": "[\"a\"]", "other": "x"}),
                value!({"client-ca-file": "A\nB\n", "requestheader-allowed-names": "[\"a\",\"b\"]", "other": "x"}),
            ),
            (
                value!({"client-ca-file": "A\nB\n", "requestheader-allowed-names": "[\"b\",\"a\"]"}),
                value!({"client-ca-file": "A\nB\n", "requestheader-allowed-names": "[\"b\",\"a\"]"}),
            ),
        ] {
            assert_eq!(joined(&had, &own), joint);
        }
    }

    #[test]
    fn only_leases_of_servers_that_are_gone_expire() {
        let lease = |label: &str, renewed: &str| {
            value!({
                "metadata": {"labels": {"apiserver.kubernetes.io/identity": label}},
                "spec": {"leaseDurationSeconds": 60, "renewTime": renewed}
            })
        };
        let now = time::parse("2026-01-01T00:02:00Z").unwrap();
        assert!(expired(&lease(MANAGER, "2026-01-01T00:00:00.000000Z"), now));
        assert!(!expired(
            &lease(MANAGER, "2026-01-01T00:01:30.000000Z"),
            now
        ));
        assert!(!expired(
            &lease("another", "2026-01-01T00:00:00.000000Z"),
            now
        ));
    }
}
