//! A client whose credentials can be replaced while others use it. Follows
//! k8s.io/kubernetes/pkg/kubelet/certificate/transport.go.
//!
//! Upstream closes all connections when there is a new certificate. Here new requests use new connections, and requests
//! on old ones end by themselves: watches have a timeout of some minutes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::Request;
use kube::client::Body;

/// The current client of an API server. Clones share it.
#[derive(Clone)]
pub struct Changing(Arc<ArcSwap<kube::Client>>);

impl Changing {
    /// Starts with `client`.
    pub fn new(client: kube::Client) -> Self {
        Changing(Arc::new(ArcSwap::from_pointee(client)))
    }

    /// Uses `client` for new requests.
    pub fn replace(&self, client: kube::Client) {
        self.0.store(Arc::new(client));
    }

    /// A client that always uses the current one.
    ///
    /// Must be called within a runtime.
    pub fn client(&self) -> kube::Client {
        let current = self.0.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let client = current.load_full();
            async move { client.send(request).await }
        });
        kube::Client::new(service, "default")
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;

    use super::*;

    fn answering(text: &'static str) -> kube::Client {
        let service = tower::service_fn(move |_: Request<Body>| async move {
            Ok::<_, Infallible>(Response::new(Body::from(text.as_bytes().to_vec())))
        });
        kube::Client::new(service, "default")
    }

    async fn asked(client: &kube::Client) -> String {
        let request = Request::get("/version")
            .body(Vec::new())
            .expect("a request");
        client.request_text(request).await.expect("an answer")
    }

    #[tokio::test]
    async fn requests_go_by_the_client_of_the_moment() {
        let changing = Changing::new(answering("one"));
        let (client, clone) = (changing.client(), changing.client());
        assert_eq!(asked(&client).await, "one");
        changing.replace(answering("two"));
        assert_eq!(asked(&client).await, "two");
        assert_eq!(asked(&clone).await, "two");
    }
}
