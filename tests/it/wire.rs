//! A client that sends requests exactly as given: no retries, no headers except `Host`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why there was no response.
pub type Broken = Box<dyn std::error::Error + Send + Sync>;

/// Timeout for the head of a response, and for the whole response if it is not a stream.
const PATIENCE: Duration = Duration::from_secs(40);

/// The address of a server, its authority, and the client's credentials.
#[derive(Clone)]
pub struct Login {
    address: String,
    tls: Arc<rustls::ClientConfig>,
    token: Option<HeaderValue>,
}

/// A complete response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Login {
    /// A client with `token`, or the administrator with the files in a server's `pki` directory.
    pub fn of(address: &str, pki: &Path, token: Option<&str>) -> Login {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(pki.join("ca.crt")).expect("an authority");
        roots.add(ca).expect("an authority");
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .expect("a verifier");
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_webpki_verifier(verifier);
        let tls = if token.is_some() {
            tls.with_no_client_auth()
        } else {
            let chain =
                CertificateDer::from_pem_file(pki.join("admin.crt")).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(pki.join("admin.key")).expect("a key");
            tls.with_client_auth_cert(vec![chain], key)
                .expect("the two belong together")
        };
        Login {
            address: address.to_owned(),
            tls: Arc::new(tls),
            token: token.map(|token| format!("Bearer {token}").parse().expect("a token")),
        }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A raw connection.
    pub async fn stream(&self) -> Result<TlsStream<TcpStream>, Broken> {
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        let name = ServerName::try_from(host.to_owned())?;
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        Ok(TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await?)
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, Broken> {
        let (sender, connection) = http1::handshake(TokioIo::new(self.stream().await?)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Sends a request on a new connection; the body of the response is not read yet.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Incoming>, Broken> {
        let mut sender = self.open().await?;
        let answer = sender.send_request(self.addressed(request));
        Ok(tokio::time::timeout(PATIENCE, answer).await??)
    }

    /// A connection for successive requests.
    pub fn connection(&self) -> Connection {
        Connection {
            login: self.clone(),
            sender: None,
        }
    }

    fn addressed(&self, request: Request<Bytes>) -> Request<Full<Bytes>> {
        let mut request = request.map(Full::new);
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(&self.address).expect("an address");
        headers.insert(header::HOST, host);
        if let Some(token) = &self.token {
            headers
                .entry(header::AUTHORIZATION)
                .or_insert(token.clone());
        }
        request
    }
}

/// A connection that is reopened when the server has closed it.
pub struct Connection {
    login: Login,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// Sends a request and reads the complete response.
    pub async fn ask(&mut self, request: Request<Bytes>) -> Result<Answer, Broken> {
        tokio::time::timeout(PATIENCE, self.ask_patiently(request)).await?
    }

    async fn ask_patiently(&mut self, request: Request<Bytes>) -> Result<Answer, Broken> {
        let mut sender = match self.sender.take() {
            Some(sender) => sender,
            None => self.login.open().await?,
        };
        if sender.ready().await.is_err() {
            sender = self.login.open().await?;
        }
        let answer = sender.send_request(self.login.addressed(request)).await?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        self.sender = Some(sender);
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }
}
