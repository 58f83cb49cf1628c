//! Probes and hooks: by exec through the supervisor, by HTTP, TCP and gRPC from this host.

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, HTTPGetAction, HTTPHeader, LifecycleHandler, Pod, Probe,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Host, zone_name};
use crate::node::supplies::Outcome;
use crate::zone::{ExecSpec, ProcessId, ZoneNetwork, ZoneSpec};

/// The most of an answer that is looked at, in bytes.
const ANSWER: u64 = 10 * 1024;

/// How many redirections are followed.
const REDIRECTIONS: usize = 10;
/// What is told of a server that does not answer by TLS.
const PLAIN_ANSWER: &str = "http: server gave HTTP response to HTTPS client";

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

/// What a server answered.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    location: Option<String>,
}

impl Answer {
    /// Reads the head of an answer.
    fn read(head: &str) -> Option<Self> {
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/")?;
        let status = status.split(' ').nth(1)?.get(..3)?.parse().ok()?;
        let mut fields = lines.take_while(|line| !line.is_empty());
        let location = fields.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let value = value.trim().to_owned();
            name.eq_ignore_ascii_case("location").then_some(value)
        });
        Some(Answer { status, location })
    }
}

/// What is asked for by HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    tls: bool,
    /// A name or an address, of version 6 without brackets.
    host: String,
    port: u16,
    /// With the query.
    path: String,
}

impl Target {
    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Where an answer leads that is to be followed: to the same host.
    fn redirected(&self, status: u16, location: Option<&str>) -> Option<Self> {
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        let location = location?.split('#').next()?;
        let (tls, rest) = match location.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, Some(rest)),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, Some(rest)),
            Some((scheme, _)) if !scheme.contains(['/', '?']) => return None,
            _ => (self.tls, location.strip_prefix("//")),
        };
        if let Some(rest) = rest {
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let authority: http::uri::Authority = authority.parse().ok()?;
            let host = authority.host().trim_matches(['[', ']']).to_owned();
            let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
            let slash = if path.starts_with('/') { "" } else { "/" };
            let path = format!("{slash}{path}");
            let same = host.eq_ignore_ascii_case(&self.host);
            return same.then_some(Target {
                tls,
                host,
                port,
                path,
            });
        }
        let here = self.path.split('?').next().unwrap_or_default();
        let path = match location.chars().next() {
            Some('/') => location.to_owned(),
            Some('?') => format!("{here}{location}"),
            _ => {
                let above = here.rfind('/').map_or("", |at| &here[..at]);
                format!("{above}/{location}")
            }
        };
        Some(Target {
            path,
            ..self.clone()
        })
    }

    /// Asks what is there.
    async fn ask(&self, headers: &[HTTPHeader], agent: &str) -> Result<Answer, String> {
        let broken = |error: &dyn std::fmt::Display| format!("Get \"{self}\": {error}");
        let at = (self.host.as_str(), self.port);
        let stream = TcpStream::connect(at).await.map_err(|error| {
            let error = plain(&error);
            broken(&format!("dial tcp {}: connect: {error}", self.authority()))
        })?;
        let mut request = format!("GET {} HTTP/1.1\r\n", self.path);
        let has = |name: &str| {
            let mut names = headers.iter().map(|header| &header.name);
            names.any(|known| known.eq_ignore_ascii_case(name))
        };
        for (name, value) in [
            ("Host", self.authority().as_str()),
            ("User-Agent", agent),
            ("Accept", "*/*"),
            ("Connection", "close"),
        ] {
            if !has(name) {
                request.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        for header in headers {
            request.push_str(&format!("{}: {}\r\n", header.name, header.value));
        }
        request.push_str("\r\n");
        let head = match self.tls {
            true => {
                let connector = tokio_rustls::TlsConnector::from(trusting());
                let name = rustls::pki_types::ServerName::try_from(self.host.clone())
                    .map_err(|error| error.to_string())?;
                let stream = connector.connect(name, stream).await;
                let stream = stream.map_err(|error| match is_plain(&error) {
                    true => broken(&PLAIN_ANSWER),
                    false => broken(&error),
                })?;
                exchange(stream, &request).await
            }
            false => exchange(stream, &request).await,
        };
        let head = head.map_err(|error| broken(&error))?;
        Answer::read(&head).ok_or_else(|| {
            broken(&"net/http: HTTP/1.x transport connection broken: malformed HTTP response")
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(to, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// Whether a server did not answer by TLS.
fn is_plain(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(inner, Some(rustls::Error::InvalidMessage(_)))
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
            return match tokio::time::timeout(
                timeout,
                self.get(get, container, zone, "kube-probe/1.37"),
            )
            .await
            {
                Err(_) => Outcome::Failure(format!(
                    "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                    self.target(get, container, zone)
                        .map_or_else(|error| error, |target| target.to_string())
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
            ends_with_session: true,
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

    /// Asks and gives the status. Redirections within the same host are followed, as upstream's are; of others the status
    /// is what counts.
    async fn get(
        &self,
        get: &HTTPGetAction,
        container: &Container,
        zone: &ZoneSpec,
        agent: &str,
    ) -> Result<u16, String> {
        let mut target = self.target(get, container, zone)?;
        let headers = get.http_headers.as_deref().unwrap_or_default();
        for _ in 0..REDIRECTIONS {
            let answer = target.ask(headers, agent).await?;
            match target.redirected(answer.status, answer.location.as_deref()) {
                Some(next) => target = next,
                None => return Ok(answer.status),
            }
        }
        Err(format!(
            "Get \"{target}\": stopped after {REDIRECTIONS} redirects"
        ))
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
            // That it was asked is all: what it answers is its own affair.
            let asked = self.get(get, container, zone, "kube-lifecycle/1.37").await;
            return match asked {
                Err(error) if error.ends_with(PLAIN_ANSWER) => {
                    let plain = HTTPGetAction {
                        scheme: Some("HTTP".into()),
                        ..get.clone()
                    };
                    let asked = self.get(&plain, container, zone, "kube-lifecycle/1.37");
                    asked.await.map(drop)
                }
                asked => asked.map(drop),
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
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
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

/// `HealthCheckRequest{service = 1}` as a gRPC message: not compressed, four bytes of length.
fn health_request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        // Seven bits a byte, the lowest first; all but the last have the eighth.
        let mut left = service.len();
        while left >= 0x80 {
            message.push(left as u8 | 0x80);
            left >>= 7;
        }
        message.push(left as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut body = vec![0];
    body.extend_from_slice(&(message.len() as u32).to_be_bytes());
    body.extend_from_slice(&message);
    body
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
    let body = health_request(service);
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
    let collected = http_body_util::Limited::new(response.into_body(), ANSWER as usize)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_within_a_host_are_followed() {
        let from = Target {
            tls: false,
            host: "10.0.0.5".into(),
            port: 8080,
            path: "/a/b?q".into(),
        };
        for (status, location, to) in [
            (302, Some("/healthz"), Some("http://10.0.0.5:8080/healthz")),
            (301, Some("c#d"), Some("http://10.0.0.5:8080/a/c")),
            (308, Some("?r"), Some("http://10.0.0.5:8080/a/b?r")),
            (
                307,
                Some("https://10.0.0.5?x"),
                Some("https://10.0.0.5:443/?x"),
            ),
            (303, Some("//10.0.0.5:81/x"), Some("http://10.0.0.5:81/x")),
            (302, Some("http://10.0.0.6:8080/"), None),
            (302, Some("ftp://10.0.0.5/"), None),
            (302, None, None),
            (200, Some("/healthz"), None),
            (304, Some("/healthz"), None),
        ] {
            let next = from.redirected(status, location);
            let next = next.map(|next| next.to_string());
            assert_eq!(next.as_deref(), to, "{status} {location:?}");
        }
    }

    #[test]
    fn the_head_of_an_answer_is_read() {
        let read = |head| Answer::read(head).map(|answer| (answer.status, answer.location));
        let head = "HTTP/1.1 302 Found\r\nServer: x\r\nlocation:  /y \r\n\r\nLocation: /z";
        assert_eq!(read(head), Some((302, Some("/y".to_owned()))));
        assert_eq!(read("HTTP/1.0 200\r\n\r\n"), Some((200, None)));
        assert_eq!(read("SSH-2.0-x\r\n"), None);
    }

    #[test]
    fn long_names_of_services_are_asked_for() {
        assert_eq!(health_request(""), [0, 0, 0, 0, 0]);
        assert_eq!(health_request("ab"), *b"\0\0\0\0\x04\x0a\x02ab");
        let long = "x".repeat(300);
        let message = health_request(&long);
        assert_eq!(message[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(message.len(), 8 + 300);
    }
}
