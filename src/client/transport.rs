//! Clients that call the API server in this process: a request reaches the router as a value, with an identity that
//! only this transport can set.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};
use http::{HeaderValue, Request, Response, header};
use kube::client::Body;

use crate::auth::User;

type Answer = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, Infallible>;
type Handle = dyn Fn(Request<Body>, User) -> BoxFuture<'static, Response<Answer>> + Send + Sync;

/// Writes an object without decoding the response: decoding a typed pod costs more than encoding it.
///
/// # Errors
/// The request cannot be built, or the API rejects it.
pub async fn write(
    client: &kube::Client,
    request: Result<Request<Vec<u8>>, kube::core::request::Error>,
) -> kube::Result<()> {
    let request = request.map_err(kube::Error::BuildRequest)?;
    client.request_text(request).await.map(drop)
}

/// Like [`write`]; returns the object's resource version, if the response has one.
///
/// # Errors
/// As [`write`].
pub async fn write_for_version(
    client: &kube::Client,
    request: Result<Request<Vec<u8>>, kube::core::request::Error>,
) -> kube::Result<Option<u64>> {
    #[derive(serde::Deserialize)]
    struct Written {
        metadata: Metadata,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        resource_version: String,
    }
    let request = request.map_err(kube::Error::BuildRequest)?;
    let text = client.request_text(request).await?;
    let written = serde_json::from_str::<Written>(&text).ok();
    Ok(written.and_then(|written| written.metadata.resource_version.parse().ok()))
}

/// Makes clients of the API in this process.
#[derive(Clone)]
pub struct Transport(Arc<Handle>);

impl Transport {
    /// A transport over a function that handles a user's requests.
    pub fn new<F>(handle: impl Fn(Request<Body>, User) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Answer>> + Send + 'static,
    {
        Transport(Arc::new(move |request, user| handle(request, user).boxed()))
    }

    /// A client with the identity `user` and the user agent `agent` (also the manager of the fields that it sets).
    ///
    /// Must be called within a runtime.
    pub fn client(&self, user: User, agent: &'static str) -> kube::Client {
        let handle = self.0.clone();
        let service = tower::service_fn(move |mut request: Request<Body>| {
            request
                .headers_mut()
                .insert(header::USER_AGENT, HeaderValue::from_static(agent));
            let answer = handle(request, user.clone());
            async move { Ok::<_, Infallible>(answer.await) }
        });
        kube::Client::new(service, "default")
    }
}
