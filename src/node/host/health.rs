//! gRPC health checks of containers. Follows pkg/probe/grpc/grpc.go.

use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::probe::{LOOKED_AT, plain};
use crate::meta::url::path_unescape;

/// `HealthCheckRequest{service = 1}` as a gRPC message: uncompressed, with a length of four bytes.
fn health_request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        // A varint: seven bits per byte, the lowest first; all but the last have the high bit set.
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

/// The names of gRPC's codes, as its Go library prints them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

fn failed(error: &dyn std::fmt::Display) -> String {
    format!("error: health rpc probe failed: {error}")
}

/// What a response says: its code, its message and, with the code 0, the body.
///
/// # Errors
/// The service is not serving, or was not asked, in upstream's words.
fn verdict(code: Option<&str>, message: &str, body: &[u8]) -> Result<(), String> {
    match code.map(str::parse::<usize>) {
        None | Some(Ok(0)) => {}
        Some(Ok(12)) => {
            return Err(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
            ));
        }
        Some(code) => {
            let name = code.ok().and_then(|code| CODES.get(code).copied());
            let name = name.unwrap_or("Unknown");
            return Err(failed(&format_args!(
                "rpc error: code = {name} desc = {message}"
            )));
        }
    }
    // HealthCheckResponse{status = 1}, after a flag and the length; 0 is left out.
    let status = match body.get(5..) {
        None | Some([]) => "UNKNOWN",
        Some([0x08, 1, ..]) => return Ok(()),
        Some([0x08, 2, ..]) => "NOT_SERVING",
        Some([0x08, 3, ..]) => "SERVICE_UNKNOWN",
        Some([0x08, other, ..]) => return Err(unhealthy(&other.to_string())),
        Some(_) => "UNKNOWN",
    };
    Err(unhealthy(status))
}

fn unhealthy(status: &str) -> String {
    format!("service unhealthy (responded with {status:?})")
}

/// Checks by `grpc.health.v1.Health/Check` within a time whether a service is serving.
///
/// # Errors
/// It is not, or the check failed, in upstream's words.
pub(super) async fn serving(
    host: &str,
    port: u16,
    service: &str,
    timeout: Duration,
) -> Result<(), String> {
    let (end, seconds) = (Instant::now() + timeout, timeout.as_secs());
    let address = format!("{host}:{port}");
    let connected = timeout_at(end, TcpStream::connect((host, port))).await;
    let stream = connected
        .map_err(|_| {
            format!(
                "timeout: failed to connect service {address:?} within {seconds}s: context deadline exceeded"
            )
        })?
        .map_err(|error| {
            format!(
                "error: failed to connect service at {address:?}: {}",
                plain(&error)
            )
        })?;
    let checked = timeout_at(end, check(stream, &address, service)).await;
    checked.unwrap_or_else(|_| {
        Err(format!(
            "timeout: health rpc did not complete within {seconds}s"
        ))
    })
}

/// Checks a service over a connection to `address`.
async fn check(stream: TcpStream, address: &str, service: &str) -> Result<(), String> {
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .map_err(|error| failed(&error))?;
    let _driving = AbortOnDropHandle::new(tokio::spawn(connection));
    let body = health_request(service);
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(http_body_util::Full::new(bytes::Bytes::from(body)))
        .map_err(|error| failed(&error))?;
    let response = sender.send_request(request).await;
    let response = response.map_err(|error| failed(&error))?;
    let (head, body) = response.into_parts();
    let body = http_body_util::Limited::new(body, LOOKED_AT)
        .collect()
        .await;
    let collected = body.map_err(|error| failed(&error))?;
    // A response without a body has them in its head.
    let trailers = collected.trailers();
    let field = |name: &str| {
        let value = head.headers.get(name);
        let value = value.or_else(|| trailers?.get(name));
        value.and_then(|value| value.to_str().ok())
    };
    let message = field("grpc-message").unwrap_or_default();
    let message = path_unescape(message).unwrap_or_else(|_| message.to_owned());
    let code = field("grpc-status").map(str::to_owned);
    verdict(code.as_deref(), &message, &collected.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_of_services_are_asked_for() {
        assert_eq!(health_request(""), [0, 0, 0, 0, 0]);
        assert_eq!(health_request("ab"), *b"\0\0\0\0\x04\x0a\x02ab");
        let long = "x".repeat(300);
        let message = health_request(&long);
        assert_eq!(message[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(message.len(), 8 + 300);
    }

    #[test]
    fn a_service_says_how_it_is() {
        let unhealthy =
            |status: &str| Err(format!("service unhealthy (responded with \"{status}\")"));
        let failed = |why: &str| {
            Err(format!(
                "error: health rpc probe failed: rpc error: code = {why}"
            ))
        };
        for (code, message, body, expected) in [
            (Some("0"), "", &b"\0\0\0\0\x02\x08\x01"[..], Ok(())),
            (None, "", b"\0\0\0\0\x02\x08\x01", Ok(())),
            (Some("0"), "", b"\0\0\0\0\x02\x08\x02", unhealthy("NOT_SERVING")),
            (Some("0"), "", b"\0\0\0\0\x02\x08\x03", unhealthy("SERVICE_UNKNOWN")),
            (Some("0"), "", b"\0\0\0\0\0", unhealthy("UNKNOWN")),
            (Some("5"), "unknown service", b"", failed("NotFound desc = unknown service")),
            (Some("99"), "", b"", failed("Unknown desc = ")),
            (
                Some("12"),
                "no such method",
                b"",
                Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): no such method".to_owned()),
            ),
        ] {
            assert_eq!(verdict(code, message, body), expected, "{code:?} {body:?}");
        }
    }
}
