//! A measured server: sending requests to it, and the resources used by its processes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use kube::client::ConfigExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::net::TcpStream;

/// Why a measurement failed.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A server.
pub struct Target {
    /// Its name in the table.
    pub name: &'static str,
    /// Its processes.
    pub pids: Vec<u32>,
    address: String,
    host: rustls::pki_types::ServerName<'static>,
    tls: Arc<rustls::ClientConfig>,
}

impl Target {
    /// The server of a kubeconfig with client certificates.
    pub async fn open(
        name: &'static str,
        kubeconfig: &Path,
        pids: Vec<u32>,
    ) -> Result<Self, Failure> {
        let file = Kubeconfig::read_from(kubeconfig)?;
        let config =
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let uri = config.cluster_url.clone();
        let host = uri.host().ok_or("the kubeconfig names no server")?;
        Ok(Target {
            name,
            pids,
            address: format!("{host}:{}", uri.port_u16().unwrap_or(443)),
            host: rustls::pki_types::ServerName::try_from(host.to_owned())?,
            tls: Arc::new(config.rustls_client_config()?),
        })
    }

    /// Adds a process to measure.
    pub fn with(mut self, pid: u32) -> Self {
        self.pids.push(pid);
        self
    }

    /// A client with its own connection.
    pub async fn client(&self) -> Result<Client, Failure> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
        let stream = connector.connect(self.host.clone(), stream).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client {
            sender,
            host: self.address.clone(),
        })
    }

    /// Waits until the server is ready.
    pub async fn ready(&self) -> Result<(), Failure> {
        for _ in 0..6000 {
            if let Ok(mut client) = self.client().await
                && let Ok((StatusCode::OK, _)) = client.send(Ask::get("/readyz")).await
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(format!("{} is not ready after 30 seconds", self.name).into())
    }

    /// The CPU time of its processes, in microseconds.
    pub fn cpu(&self) -> f64 {
        // Clock ticks are hundredths of a second on every Linux.
        self.pids.iter().map(|pid| ticks(*pid)).sum::<u64>() as f64 * 10_000.0
    }

    /// The resident memory of its processes, in MiB.
    pub fn memory(&self) -> f64 {
        self.pids.iter().map(|pid| resident(*pid)).sum::<u64>() as f64 / 1024.0
    }
}

/// User and system time of a process, in clock ticks; 0 if it is gone. See proc_pid_stat(5).
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let times = fields.split(' ').skip(11).take(2);
    times.filter_map(|time| time.parse::<u64>().ok()).sum()
}

/// The resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// A request.
#[derive(Clone)]
pub struct Ask {
    pub method: Method,
    pub path: String,
    pub content_type: &'static str,
    pub gzip: bool,
    pub body: Bytes,
}

impl Ask {
    pub fn get(path: impl Into<String>) -> Self {
        Ask {
            method: Method::GET,
            path: path.into(),
            content_type: "application/json",
            gzip: false,
            body: Bytes::new(),
        }
    }

    pub fn write(method: Method, path: impl Into<String>, body: String) -> Self {
        Ask {
            method,
            body: body.into(),
            ..Ask::get(path)
        }
    }
}

/// A connection to a server.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    /// Sends a request; the body of the response is not read yet.
    pub async fn begin(&mut self, ask: Ask) -> Result<(StatusCode, Incoming), Failure> {
        let mut request = Request::builder()
            .method(ask.method)
            .uri(ask.path)
            .header("Host", &self.host)
            .header("Accept", "application/json")
            .header("Content-Type", ask.content_type)
            .header("User-Agent", "bench");
        if ask.gzip {
            request = request.header("Accept-Encoding", "gzip");
        }
        self.sender.ready().await?;
        let answer = self
            .sender
            .send_request(request.body(Full::new(ask.body))?)
            .await?;
        let (head, body) = answer.into_parts();
        Ok((head.status, body))
    }

    /// Sends a request, and returns the length of the response.
    pub async fn send(&mut self, ask: Ask) -> Result<(StatusCode, usize), Failure> {
        let (status, mut body) = self.begin(ask).await?;
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok((status, length))
    }

    /// Requests an object.
    pub async fn object(&mut self, ask: Ask) -> Result<serde_json::Value, Failure> {
        let (_, body) = self.begin(ask).await?;
        Ok(serde_json::from_slice(&body.collect().await?.to_bytes())?)
    }

    /// Sends a request that must succeed.
    pub async fn must(&mut self, ask: Ask) -> Result<usize, Failure> {
        let what = format!("{} {}", ask.method, ask.path);
        match self.send(ask).await? {
            (status, length) if status.is_success() => Ok(length),
            (status, _) => Err(format!("{what}: {status}").into()),
        }
    }
}
