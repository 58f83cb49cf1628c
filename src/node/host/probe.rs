//! Probes and hooks: by exec through the supervisor, by HTTP, TCP and gRPC from this host.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Host, zone_name};
use crate::node::supplies::Outcome;
use crate::zone::{ExecSpec, ProcessId, ZoneNetwork, ZoneSpec};

/// The most of an answer that is looked at, in bytes.
const ANSWER: u64 = 10 * 1024;

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
            ZoneNetwork::Host => self
                .host_ips
                .first()
                .cloned()
                .unwrap_or_else(|| "127.0.0.1".into()),
        }
    }

    pub(super) async fn ask(
        &self,
        _: &Pod,
        container: &Container,
        id: &ProcessId,
        zone: &ZoneSpec,
        probe: &Probe,
    ) -> Outcome {
        let timeout = Duration::from_secs(probe.timeout_seconds.unwrap_or(1).max(1) as u64);
        if let Some(exec) = &probe.exec {
            let command = exec.command.clone().unwrap_or_default();
            let run = self.run(id, zone, command);
            return match tokio::time::timeout(timeout, run).await {
                Err(_) => Outcome::Failure(format!(
                    "command timed out: \"{}\" timed out after {}s",
                    exec.command.clone().unwrap_or_default().join(" "),
                    timeout.as_secs()
                )),
                Ok(Err(error)) => Outcome::Error(error),
                Ok(Ok((0, _))) => Outcome::Success,
                Ok(Ok((_, output))) => Outcome::Failure(output),
            };
        }
        if let Some(get) = &probe.http_get {
            return match tokio::time::timeout(timeout, self.get(get, container, zone)).await {
                Err(_) => Outcome::Failure(format!(
                    "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                    self.url(get, container, zone).unwrap_or_default()
                )),
                Ok(Err(error)) => Outcome::Failure(error),
                Ok(Ok(status)) if (200..400).contains(&status) => Outcome::Success,
                Ok(Ok(status)) => {
                    Outcome::Failure(format!("HTTP probe failed with statuscode: {status}"))
                }
            };
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
            return match tokio::time::timeout(timeout, serving(&host, port, &service)).await {
                Err(_) => Outcome::Failure(format!(
                    "timeout: failed to connect service \"{host}:{port}\" within {}s: context deadline exceeded",
                    timeout.as_secs()
                )),
                Ok(Err(error)) => Outcome::Failure(error),
                Ok(Ok(())) => Outcome::Success,
            };
        }
        Outcome::Error("missing probe handler".into())
    }

    /// Runs a command beside a process; its status and output.
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
            ..ExecSpec::default()
        };
        let mut session = match self.runtime.exec(&zone.name, id, &exec).await {
            Ok(session) => session,
            // A command that is not there is an answer: the container has no health to show.
            Err(crate::zone::ZoneError::Start { reason }) => return Ok((126, reason)),
            Err(error) => return Err(error.to_string()),
        };
        let read = |from: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>| async move {
            let mut text = Vec::new();
            if let Some(from) = from {
                let mut from = from.take(ANSWER);
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

    fn url(
        &self,
        get: &HTTPGetAction,
        container: &Container,
        zone: &ZoneSpec,
    ) -> Result<String, String> {
        let host = get
            .host
            .clone()
            .filter(|host| !host.is_empty())
            .unwrap_or_else(|| self.address(zone));
        let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
        let path = get.path.as_deref().unwrap_or("/");
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(format!(
            "{scheme}://{host}:{}{slash}{path}",
            port(&get.port, container)?
        ))
    }

    /// Asks and gives the status. Follows no redirects: a status of one is a success, as of upstream.
    async fn get(
        &self,
        get: &HTTPGetAction,
        container: &Container,
        zone: &ZoneSpec,
    ) -> Result<u16, String> {
        let url = self.url(get, container, zone)?;
        let host = get
            .host
            .clone()
            .filter(|host| !host.is_empty())
            .unwrap_or_else(|| self.address(zone));
        let port = port(&get.port, container)?;
        let told = |error: &std::io::Error| {
            format!(
                "Get \"{url}\": dial tcp {host}:{port}: connect: {}",
                plain(error)
            )
        };
        let stream = TcpStream::connect((host.as_str(), port))
            .await
            .map_err(|error| told(&error))?;
        let path = get.path.as_deref().unwrap_or("/");
        let slash = if path.starts_with('/') { "" } else { "/" };
        let mut request = format!("GET {slash}{path} HTTP/1.1\r\n");
        let headers: Vec<_> = get.http_headers.iter().flatten().collect();
        let has = |name: &str| {
            headers
                .iter()
                .any(|header| header.name.eq_ignore_ascii_case(name))
        };
        for (name, value) in [
            ("Host", format!("{host}:{port}").as_str()),
            ("User-Agent", "kube-probe/1.37"),
            ("Accept", "*/*"),
            ("Connection", "close"),
        ] {
            if !has(name) {
                request.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        for header in &headers {
            request.push_str(&format!("{}: {}\r\n", header.name, header.value));
        }
        request.push_str("\r\n");
        let broken = |error: std::io::Error| format!("Get \"{url}\": {error}");
        let head = match get.scheme.as_deref() {
            Some("HTTPS") => {
                let connector = tokio_rustls::TlsConnector::from(trusting());
                let name = rustls::pki_types::ServerName::try_from(host.clone())
                    .map_err(|error| error.to_string())?;
                let stream = connector.connect(name, stream).await.map_err(broken)?;
                exchange(stream, &request).await.map_err(broken)?
            }
            _ => exchange(stream, &request).await.map_err(broken)?,
        };
        let status = head
            .strip_prefix("HTTP/")
            .and_then(|rest| rest.split(' ').nth(1))
            .and_then(|code| code.get(..3)?.parse().ok());
        status.ok_or_else(|| format!("Get \"{url}\": net/http: HTTP/1.x transport connection broken: malformed HTTP response"))
    }

    pub(super) async fn run_hook(
        &self,
        container: &Container,
        id: &ProcessId,
        zone: &ZoneSpec,
        hook: &LifecycleHandler,
    ) -> Result<(), String> {
        if let Some(exec) = &hook.exec {
            let command = exec.command.clone().unwrap_or_default();
            return match self.run(id, zone, command.clone()).await? {
                (0, _) => Ok(()),
                (code, output) => Err(format!(
                    "command '{}' exited with {code}: {output}",
                    command.join(" ")
                )),
            };
        }
        if let Some(get) = &hook.http_get {
            return match self.get(get, container, zone).await? {
                status if (200..400).contains(&status) => Ok(()),
                status => Err(format!("the server answered {status}")),
            };
        }
        if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
        }
        Ok(())
    }

    /// The name of the zone that a pod has.
    pub fn zone_of(uid: &str) -> crate::zone::ZoneName {
        zone_name(uid)
    }
}

/// The error as the system words it, without Rust's number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

async fn exchange<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut stream: S,
    request: &str,
) -> std::io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    let mut limited = stream.take(ANSWER);
    let mut buffer = [0; 1024];
    while !head.windows(2).any(|two| two == b"\r\n") {
        match limited.read(&mut buffer).await? {
            0 => break,
            count => head.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A TLS client that asks for no identity: probes ask whether somebody answers, not who.
fn trusting() -> std::sync::Arc<rustls::ClientConfig> {
    #[derive(Debug)]
    struct Anybody;
    impl rustls::client::danger::ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            rustls::crypto::ring::default_provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider offers the default versions")
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(Anybody))
        .with_no_client_auth();
    std::sync::Arc::new(config)
}

/// Asks `grpc.health.v1.Health/Check` whether a service is serving.
async fn serving(host: &str, port: u16, service: &str) -> Result<(), String> {
    use http_body_util::BodyExt as _;
    let wrong = |error: &dyn std::fmt::Display| format!("error: health rpc failed: {error}");
    let stream = TcpStream::connect((host, port)).await.map_err(|error| {
        format!(
            "error: failed to connect service at {host:?}: {}",
            plain(&error)
        )
    })?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .map_err(|error| wrong(&error))?;
    let driving = tokio::spawn(connection);
    // HealthCheckRequest{service = 1}, in a gRPC message: not compressed, four bytes of length.
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        message.push(
            u8::try_from(service.len()).map_err(|_| "the service's name is too long".to_owned())?,
        );
        message.extend_from_slice(service.as_bytes());
    }
    let mut body = vec![0];
    body.extend_from_slice(&(message.len() as u32).to_be_bytes());
    body.extend_from_slice(&message);
    let request = http::Request::post(format!("http://{host}:{port}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(http_body_util::Full::new(bytes::Bytes::from(body)))
        .map_err(|error| wrong(&error))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| wrong(&error))?;
    let early = response.headers().get("grpc-status").cloned();
    let collected = response
        .into_body()
        .collect()
        .await
        .map_err(|error| wrong(&error))?;
    driving.abort();
    let status = early.or_else(|| {
        collected
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status").cloned())
    });
    match status.as_ref().map(|status| status.as_bytes()) {
        Some(b"0") | None => {}
        Some(code) => {
            return Err(wrong(&format!(
                "rpc error: code = {}",
                String::from_utf8_lossy(code)
            )));
        }
    }
    // HealthCheckResponse{status = 1}: SERVING is 1.
    match collected.to_bytes().get(5..) {
        Some([0x08, 1, ..]) => Ok(()),
        _ => Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned()),
    }
}
