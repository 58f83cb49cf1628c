//! gRPC health checks of containers. Follows pkg/probe/grpc/grpc.go.

use http_body_util::BodyExt as _;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::probe::{LOOKED_AT, plain};

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

/// Checks by `grpc.health.v1.Health/Check` whether a service is serving.
///
/// # Errors
/// It is not, or the check failed, in upstream's words.
pub(super) async fn serving(host: &str, port: u16, service: &str) -> Result<(), String> {
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
    let _driving = AbortOnDropHandle::new(tokio::spawn(connection));
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
    let collected = http_body_util::Limited::new(response.into_body(), LOOKED_AT)
        .collect()
        .await
        .map_err(|error| wrong(&error))?;
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
    fn long_names_of_services_are_asked_for() {
        assert_eq!(health_request(""), [0, 0, 0, 0, 0]);
        assert_eq!(health_request("ab"), *b"\0\0\0\0\x04\x0a\x02ab");
        let long = "x".repeat(300);
        let message = health_request(&long);
        assert_eq!(message[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(message.len(), 8 + 300);
    }
}
