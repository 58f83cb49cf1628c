//! HTTP requests to containers, for probes and hooks. Follows pkg/probe/http/{http,request}.go.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::HTTPHeader;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::probe::{LOOKED_AT, plain};
use crate::dial;

/// How many redirects are followed.
const REDIRECTIONS: usize = 10;
/// The error for a server that does not speak TLS.
pub(super) const PLAIN_ANSWER: &str = "http: server gave HTTP response to HTTPS client";

/// The target of an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub tls: bool,
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// The path, with the query.
    pub path: String,
}

impl Target {
    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// The target of a redirect to the same host, which is followed.
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

    /// Sends a request and returns the head of the response. Redirects within the host are followed; one that leads
    /// elsewhere is returned as the response.
    ///
    /// # Errors
    /// The request failed; in upstream's words.
    pub async fn get(
        &self,
        headers: &[HTTPHeader],
        agent: &str,
    ) -> Result<Response<Incoming>, String> {
        let mut target = self.clone();
        for _ in 0..REDIRECTIONS {
            let asked = target.ask(headers, agent).await;
            let answer = asked.map_err(|error| format!("Get \"{target}\": {error}"))?;
            let location = answer.headers().get(header::LOCATION);
            let location = location.and_then(|value| value.to_str().ok());
            match target.redirected(answer.status().as_u16(), location) {
                Some(next) => target = next,
                None => return Ok(answer),
            }
        }
        Err(format!(
            "Get \"{target}\": stopped after {REDIRECTIONS} redirects"
        ))
    }

    async fn ask(&self, headers: &[HTTPHeader], agent: &str) -> Result<Response<Incoming>, String> {
        let mut request = Request::get(escaped(&self.path))
            .body(Empty::<bytes::Bytes>::new())
            .map_err(|error| error.to_string())?;
        *request.headers_mut() = sent(headers, &self.authority(), agent)?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| {
            let error = plain(&error);
            format!("dial tcp {}: connect: {error}", self.authority())
        })?;
        if !self.tls {
            return dial::ask(stream, request).await.map_err(worded);
        }
        let tls = dial::trusting().map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(std::sync::Arc::new(tls.with_no_client_auth()));
        let name = rustls::pki_types::ServerName::try_from(self.host.clone())
            .map_err(|error| error.to_string())?;
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|error| match is_plain(&error) {
            true => PLAIN_ANSWER.to_owned(),
            false => error.to_string(),
        })?;
        dial::ask(stream, request).await.map_err(worded)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(to, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// Whether a server responded without TLS.
fn is_plain(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(inner, Some(rustls::Error::InvalidMessage(_)))
}

/// The part of a response's body that is looked at.
///
/// # Errors
/// It broke off before that.
pub(super) async fn body(answer: Response<Incoming>) -> Result<String, String> {
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while text.len() < LOOKED_AT
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(worded)?;
        text.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    }
    text.truncate(LOOKED_AT);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A path as it is sent: without fragment, with invalid characters escaped.
fn escaped(path: &str) -> String {
    let path = path.split('#').next().unwrap_or_default();
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                out.push_str(&format!("%{byte:02X}"));
            }
            0x21..=0x7e => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The headers of a request: the configured ones, and default ones.
fn sent(wanted: &[HTTPHeader], authority: &str, agent: &str) -> Result<HeaderMap, String> {
    let mut fields = HeaderMap::new();
    for HTTPHeader { name, value } in wanted {
        let key = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("net/http: invalid header field name {name:?}"))?;
        let value = HeaderValue::from_str(value)
            .map_err(|_| format!("net/http: invalid header field value for {name:?}"))?;
        // Framing headers cannot be configured.
        let framing = [
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::TRAILER,
        ];
        let again = key == header::HOST && fields.contains_key(header::HOST);
        if !framing.contains(&key) && !again {
            fields.append(key, value);
        }
    }
    for (name, value) in [
        (header::HOST, authority),
        (header::USER_AGENT, agent),
        (header::ACCEPT, "*/*"),
        (header::CONNECTION, "close"),
    ] {
        match fields.get(&name) {
            None => {
                let value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
                fields.insert(name, value);
            }
            // An empty value suppresses the default header.
            Some(said) if said.is_empty() && name != header::HOST => {
                fields.remove(&name);
            }
            Some(_) => {}
        }
    }
    Ok(fields)
}

/// The message for an invalid response.
fn worded(error: hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    if error.is_parse() {
        return format!(
            "net/http: HTTP/1.x transport connection broken: malformed HTTP response: {error}"
        );
    }
    error.to_string()
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
    fn paths_and_fields_are_sent_such_that_they_frame_nothing() {
        assert_eq!(
            escaped("/a b?c=\r\n\u{e4}%20#d"),
            "/a%20b?c=%0D%0A%C3%A4%20"
        );
        let one = |name: &str, value: &str| HTTPHeader {
            name: name.into(),
            value: value.into(),
        };
        let fields = |wanted: &[HTTPHeader]| {
            let fields = sent(wanted, "10.0.0.5:80", "probe/1")?;
            let mut fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
                .collect();
            fields.sort();
            Ok::<_, String>(fields.join(" "))
        };
        let plain = "accept=*/* connection=close host=10.0.0.5:80 user-agent=probe/1";
        assert_eq!(fields(&[]).unwrap(), plain);
        let odd = [
            one("Content-Length", "5"),
            one("transfer-encoding", "chunked"),
        ];
        assert_eq!(fields(&odd).unwrap(), plain);
        let own = [
            one("Host", "a"),
            one("host", "b"),
            one("Accept", ""),
            one("x", "1"),
            one("x", "2"),
        ];
        let sent = "connection=close host=a user-agent=probe/1 x=1 x=2";
        assert_eq!(fields(&own).unwrap(), sent);
        let error = fields(&[one("X", "a\r\nY: b")]).unwrap_err();
        assert_eq!(error, "net/http: invalid header field value for \"X\"");
    }

    /// The result of a request to a server that sends `answer` and closes.
    async fn asked(answer: &'static str) -> Result<(u16, String), String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let target = Target {
            tls: false,
            host: "127.0.0.1".into(),
            port,
            path: "/".into(),
        };
        let answer = target.get(&[], "probe/1").await;
        let answer = answer.map_err(|error| error.replace(&port.to_string(), "PORT"))?;
        served.await.unwrap();
        let status = answer.status().as_u16();
        Ok((status, body(answer).await?))
    }

    #[tokio::test]
    async fn answers_are_read_as_far_as_they_go() {
        let whole = "HTTP/1.0 200\r\n\r\nwell";
        assert_eq!(asked(whole).await.unwrap(), (200, "well".to_owned()));
        let elsewhere =
            "HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 2\r\n\r\nno";
        assert_eq!(asked(elsewhere).await.unwrap(), (302, "no".to_owned()));
        assert_eq!(
            asked("").await.unwrap_err(),
            "Get \"http://127.0.0.1:PORT/\": EOF"
        );
        let other = asked("SSH-2.0-x\r\n").await.unwrap_err();
        assert!(other.contains("malformed HTTP response"), "{other}");
        let broken = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nwell";
        assert!(asked(broken).await.is_err());
    }
}
