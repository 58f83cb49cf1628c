//! Probes and hooks: exec through the supervisor, HTTP, TCP and gRPC from this host.

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, ExecAction, HTTPGetAction, HTTPHeader, LifecycleHandler, Probe,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::environment::expand;
use super::health::serving;
use super::http::{PLAIN_ANSWER, Target, body};
use super::{Host, zone_name};
use crate::node::supplies::{HookFailure, Outcome};
use crate::zone::{ExecSpec, ProcessId, ZoneError, ZoneNetwork, ZoneSpec};

/// How much of a response or of a command's output is used, in bytes.
pub(super) const LOOKED_AT: usize = 10 * 1024;

fn port(of: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match of {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => name.parse().ok().or_else(|| {
            container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_deref() == Some(name))
                .map(|port| port.container_port)
        }),
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("could not find port {of:?} of container {}", container.name))
}

impl Host {
    fn address(&self, zone: &ZoneSpec) -> String {
        match &zone.network {
            ZoneNetwork::Own { address, .. } => address.to_string(),
            ZoneNetwork::Host => self.addresses.first().unwrap_or_else(|| "127.0.0.1".into()),
        }
    }

    pub(super) async fn ask(
        &self,
        container: &Container,
        id: &ProcessId,
        zone: &ZoneSpec,
        probe: &Probe,
    ) -> Outcome {
        let timeout = Duration::from_secs(probe.timeout_seconds.unwrap_or(1).max(1) as u64);
        if let Some(exec) = &probe.exec {
            let command = probe_command(exec, container);
            let shown = command.join(" ");
            let run = self.run(id, zone, command);
            return match tokio::time::timeout(timeout, run).await {
                Err(_) => Outcome::Failure(format!(
                    "command timed out: \"{shown}\" timed out after {}s",
                    timeout.as_secs()
                )),
                Ok(Err(error)) => Outcome::Error(error),
                Ok(Ok((0, _))) => Outcome::Success,
                Ok(Ok((_, output))) => Outcome::Failure(output),
            };
        }
        if let Some(get) = &probe.http_get {
            let target = match self.target(get, container, zone) {
                Ok(target) => target,
                Err(error) => return Outcome::Error(error),
            };
            let headers = get.http_headers.as_deref().unwrap_or_default();
            return by_http(&target, headers, timeout).await;
        }
        if let Some(tcp) = &probe.tcp_socket {
            let host = tcp
                .host
                .clone()
                .filter(|host| !host.is_empty())
                .unwrap_or_else(|| self.address(zone));
            let port = match port(&tcp.port, container) {
                Ok(port) => port,
                Err(error) => return Outcome::Error(error),
            };
            return match tokio::time::timeout(timeout, TcpStream::connect((host.as_str(), port)))
                .await
            {
                Err(_) => Outcome::Failure(format!("dial tcp {host}:{port}: i/o timeout")),
                Ok(Err(error)) => Outcome::Failure(format!(
                    "dial tcp {host}:{port}: connect: {}",
                    plain(&error)
                )),
                Ok(Ok(_)) => Outcome::Success,
            };
        }
        if let Some(grpc) = &probe.grpc {
            let host = self.address(zone);
            let port = grpc.port as u16;
            let service = grpc.service.clone().unwrap_or_default();
            return match serving(&host, port, &service, timeout).await {
                Err(error) => Outcome::Failure(error),
                Ok(()) => Outcome::Success,
            };
        }
        Outcome::Error("missing probe handler".into())
    }

    /// Runs a command beside a process; returns its exit code and output.
    async fn run(
        &self,
        id: &ProcessId,
        zone: &ZoneSpec,
        command: Vec<String>,
    ) -> Result<(i32, String), String> {
        let exec = ExecSpec {
            command,
            stdout: true,
            stderr: true,
            ends_with_session: true,
            ..ExecSpec::default()
        };
        let mut session = match self.runtime.exec(&zone.name, id, &exec).await {
            Ok(session) => session,
            // It could not be run, which is no result, as with other runtimes.
            Err(ZoneError::Start { reason }) => return Err(reason),
            Err(error) => return Err(error.to_string()),
        };
        let read = |from: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>| async move {
            let mut text = Vec::new();
            if let Some(from) = from {
                let mut from = from.take(LOOKED_AT as u64);
                let _ = from.read_to_end(&mut text).await;
                let _ = tokio::io::copy(&mut from.into_inner(), &mut tokio::io::sink()).await;
            }
            text
        };
        let (out, err) = tokio::join!(read(session.stdout.take()), read(session.stderr.take()));
        let ending = session.ended.await.map_err(|error| error.to_string())?;
        let ending = ending.map_err(|error| error.to_string())?;
        let output = String::from_utf8_lossy(&[out, err].concat()).into_owned();
        Ok((ending.code, output))
    }

    fn target(
        &self,
        get: &HTTPGetAction,
        container: &Container,
        zone: &ZoneSpec,
    ) -> Result<Target, String> {
        let named = get.host.clone().filter(|host| !host.is_empty());
        let path = get.path.as_deref().unwrap_or("/");
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Target {
            tls: get.scheme.as_deref() == Some("HTTPS"),
            host: named.unwrap_or_else(|| self.address(zone)),
            port: port(&get.port, container)?,
            path: format!("{slash}{path}"),
        })
    }

    pub(super) async fn run_hook(
        &self,
        container: &Container,
        id: &ProcessId,
        zone: &ZoneSpec,
        hook: &LifecycleHandler,
    ) -> Result<(), HookFailure> {
        if let Some(exec) = &hook.exec {
            let command = exec.command.clone().unwrap_or_default();
            return match self.run(id, zone, command.clone()).await? {
                (0, _) => Ok(()),
                (code, output) => Err(HookFailure {
                    error: format!(
                        "command '{}' exited with {code}: {output}",
                        command.join(" ")
                    ),
                    output,
                }),
            };
        }
        if let Some(get) = &hook.http_get {
            // Sending the request is enough; the response does not matter.
            let mut target = self.target(get, container, zone)?;
            let headers = get.http_headers.as_deref().unwrap_or_default();
            let asked = match target.get(headers, "kube-lifecycle/1.37").await {
                Err(error) if error.ends_with(PLAIN_ANSWER) => {
                    target.tls = false;
                    // Unprotected, nobody is told a secret.
                    let plain = headers.iter().filter(|header| !is_secret(header)).cloned();
                    let plain: Vec<_> = plain.collect();
                    target.get(&plain, "kube-lifecycle/1.37").await
                }
                asked => asked,
            };
            return asked.map(drop).map_err(HookFailure::from);
        }
        if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
        }
        Ok(())
    }

    /// The name of a pod's zone.
    pub fn zone_of(uid: &str) -> crate::zone::ZoneName {
        zone_name(uid)
    }
}

/// Whether a header must not be sent over HTTP if HTTPS was asked for.
fn is_secret(header: &HTTPHeader) -> bool {
    header.name.eq_ignore_ascii_case("authorization")
}

/// The command of a probe, in which the container's variables with literal values are replaced; others are empty. Follows
/// `ExpandContainerCommandOnlyStatic` of pkg/kubelet/container/helpers.go.
fn probe_command(exec: &ExecAction, container: &Container) -> Vec<String> {
    let known = |name: &str| {
        let mut all = container.env.iter().flatten().rev();
        let found = all.find(|one| one.name == name)?;
        Some(found.value.clone().unwrap_or_default())
    };
    let command = exec.command.iter().flatten();
    command.map(|word| expand(word, &known)).collect()
}

/// The result of an HTTP probe with a timeout.
async fn by_http(target: &Target, headers: &[HTTPHeader], timeout: Duration) -> Outcome {
    let end = Instant::now() + timeout;
    let late = |when| {
        let why = "context deadline exceeded (Client.Timeout";
        format!("Get \"{target}\": {why} {when})")
    };
    let answer = match timeout_at(end, target.get(headers, "kube-probe/1.37")).await {
        Err(_) => return Outcome::Failure(late("exceeded while awaiting headers")),
        Ok(Err(error)) => return Outcome::Failure(error),
        Ok(Ok(answer)) => answer,
    };
    let status = answer.status();
    let body = match timeout_at(end, body(answer)).await {
        Err(_) => return Outcome::Failure(late("or context cancellation while reading body")),
        Ok(Err(error)) => return Outcome::Failure(error),
        Ok(Ok(body)) => body,
    };
    match status.as_u16() {
        200..300 => Outcome::Success,
        300..400 => Outcome::Warning(format!("Probe terminated redirects, Response body: {body}")),
        // The body may be confidential: it is not put into an event.
        status => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
    }
}

/// The system's error message, without Rust's error number.
pub(super) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_probe_knows_the_literal_variables_of_its_container() {
        let container = json!({"name": "c", "env": [{"name": "PORT", "value": "1"}, {"name": "PORT", "value": "8080"},
            {"name": "SECRET", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]});
        let container = serde_json::from_value(container).expect("a container");
        for (word, expected) in [
            (
                "http://localhost:$(PORT)/healthz",
                "http://localhost:8080/healthz",
            ),
            ("$$(PORT)", "$(PORT)"),
            ("a$(SECRET)b", "ab"),
            ("$(OTHER)", "$(OTHER)"),
            ("$PORT", "$PORT"),
        ] {
            let exec = ExecAction {
                command: Some(vec!["wget".into(), word.into()]),
            };
            assert_eq!(probe_command(&exec, &container), ["wget", expected]);
        }
    }

    #[test]
    fn a_hook_tells_no_secret_in_the_clear() {
        for (name, expected) in [
            ("AUTHORIZATION", true),
            ("Authorization", true),
            ("X-Auth", false),
        ] {
            let header = HTTPHeader {
                name: name.into(),
                value: "v".into(),
            };
            assert_eq!(is_secret(&header), expected, "{name}");
        }
    }
}
