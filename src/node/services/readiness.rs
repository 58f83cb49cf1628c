//! The health check of the node's service proxy for load balancers (`/healthz`, `/livez`): whether changes are applied
//! in time. Follows k8s.io/kubernetes/pkg/proxy/healthcheck/proxy_health.go.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Response, StatusCode, header};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::health::{Body, listen};
use super::place::Place;
use crate::node::failing::Attempts;

/// How long a change may wait: twice kube-proxy's `syncPeriod`.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause before a port in use by another program is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// The health of a service proxy. Clones share it.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Clone, Copy, Default)]
struct State {
    /// When everything was last applied.
    updated: Option<Timestamp>,
    /// Since when a change is waiting.
    waits: Option<Instant>,
}

impl Readiness {
    /// A change has to be applied.
    pub(super) fn queued(&self) {
        self.0.lock().waits.get_or_insert_with(Instant::now);
    }

    /// All changes were applied.
    pub(super) fn updated(&self) {
        *self.0.lock() = State {
            updated: Some(Timestamp::now()),
            waits: None,
        };
    }
}

/// Serves a port until `ends` is cancelled; nothing if it is 0.
pub async fn serve(
    port: u16,
    readiness: Readiness,
    place: watch::Receiver<Place>,
    ends: CancellationToken,
) {
    let served = async {
        if port == 0 {
            return std::future::pending().await;
        }
        let what = format!("load balancers are not told of this node at port {port}");
        let mut attempts = Attempts::new(what);
        let listener = loop {
            let bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
            attempts.note(&bound);
            match bound {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        };
        let answers = move |method: &Method, path: &str| {
            let state = *readiness.0.lock();
            let eligible = place.borrow().is_eligible;
            answer(
                (method, path),
                state,
                eligible,
                (Timestamp::now(), Instant::now()),
            )
        };
        listen(listener, answers).await;
    };
    tokio::select! {
        () = served => {}
        () = ends.cancelled() => {}
    }
}

/// The response at this time of the clock and of the monotonic clock.
fn answer(
    (method, path): (&Method, &str),
    state: State,
    is_eligible: bool,
    (clock, now): (Timestamp, Instant),
) -> Response<Body> {
    let asks_node = match path {
        "/healthz" => true,
        "/livez" => false,
        _ => {
            let mut response = Response::new(Body::from("404 page not found\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, plain);
            return response;
        }
    };
    let is_late = |since: Instant| now.saturating_duration_since(since) >= PATIENCE;
    // A proxy that has not begun is not late.
    let is_healthy = state.updated.is_none() || !state.waits.is_some_and(is_late);
    let is_good = is_healthy && (is_eligible || !asks_node);
    // An old time of the last update is not shown while it is healthy, because it looks like a problem.
    let last = if is_good { Some(clock) } else { state.updated };
    let time =
        |at: Option<Timestamp>| at.map_or("0001-01-01T00:00:00Z".to_owned(), |at| at.to_string());
    let mut body = serde_json::Map::new();
    body.insert("lastUpdated".into(), time(last).into());
    body.insert("currentTime".into(), time(Some(clock)).into());
    if asks_node {
        body.insert("nodeEligible".into(), is_eligible.into());
    }
    body.insert("healthy".into(), is_healthy.into());
    if let Some(updated) = state.updated {
        let ipv4 = serde_json::json!({"lastUpdated": time(Some(updated)), "healthy": is_healthy});
        body.insert("status".into(), serde_json::json!({"IPv4": ipv4}));
    }
    let text = match *method {
        Method::HEAD => String::new(),
        _ => serde_json::Value::Object(body).to_string(),
    };
    let mut response = Response::new(Body::from(text));
    if !is_good {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        let value = header::HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_node_is_to_be_asked_as_long_as_services_are_carried_out() {
        let (clock, now) = (
            Timestamp::from_second(1_000).expect("a time"),
            Instant::now(),
        );
        let updated = Timestamp::from_second(900).ok();
        let waits = |seconds| now.checked_sub(Duration::from_secs(seconds));
        let (fresh, old) = ("1970-01-01T00:16:40Z", "1970-01-01T00:15:00Z");
        for (what, path, updated, waits, eligible, status, last, told) in [
            ("it begins", "/healthz", None, None, true, 200, fresh, true),
            (
                "it begins, with much to do",
                "/healthz",
                None,
                waits(99),
                true,
                200,
                fresh,
                true,
            ),
            (
                "nothing to do",
                "/healthz",
                updated,
                None,
                true,
                200,
                fresh,
                true,
            ),
            (
                "something to do",
                "/healthz",
                updated,
                waits(59),
                true,
                200,
                fresh,
                true,
            ),
            (
                "it is late",
                "/healthz",
                updated,
                waits(60),
                true,
                503,
                old,
                false,
            ),
            (
                "it is late",
                "/livez",
                updated,
                waits(60),
                true,
                503,
                old,
                false,
            ),
            (
                "the node goes",
                "/healthz",
                updated,
                None,
                false,
                503,
                old,
                true,
            ),
            (
                "the node goes",
                "/livez",
                updated,
                None,
                false,
                200,
                fresh,
                true,
            ),
        ] {
            let state = State { updated, waits };
            let response = answer((&Method::GET, path), state, eligible, (clock, now));
            assert_eq!(response.status(), status, "{what} {path}");
            let body = response
                .into_body()
                .collect()
                .await
                .expect("a body")
                .to_bytes();
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(body["lastUpdated"], last, "{what} {path}");
            assert_eq!(body["healthy"], told, "{what} {path}");
            assert_eq!(
                body["nodeEligible"].as_bool(),
                (path == "/healthz").then_some(eligible)
            );
            assert_eq!(
                body["status"]["IPv4"]["healthy"].as_bool(),
                updated.map(|_| told)
            );
        }
        let other = answer((&Method::GET, "/"), State::default(), true, (clock, now));
        assert_eq!(other.status(), 404);
    }
}
