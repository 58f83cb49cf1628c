//! Clients with timeouts, for API servers that may be unreachable.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

/// The timeout for the start of a response. Watches respond at once, too.
const ANSWER: Duration = Duration::from_secs(30);
/// The timeout of a silent connection: longer than the longest watch.
const SILENCE: Duration = Duration::from_secs(330);

/// A client that gives up on requests without an answer.
pub(super) fn patient(mut config: kube::Config) -> kube::Result<kube::Client> {
    config.connect_timeout = Some(ANSWER);
    config.write_timeout = Some(ANSWER);
    config.read_timeout = Some(SILENCE);
    let layer = tower::layer::layer_fn(|inner| Answering {
        inner,
        most: ANSWER,
    });
    Ok(kube::client::ClientBuilder::try_from(config)?
        .with_layer(&layer)
        .build())
}

/// A service with a timeout for the start of responses.
#[derive(Clone)]
struct Answering<S> {
    inner: S,
    most: Duration,
}

impl<S, Q> tower::Service<Q> for Answering<S>
where
    S: tower::Service<Q, Error = tower::BoxError>,
    S::Future: Send + 'static,
    S::Response: 'static,
{
    type Response = S::Response;
    type Error = tower::BoxError;
    type Future = BoxFuture<'static, Result<S::Response, tower::BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), tower::BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Q) -> Self::Future {
        let answer = tokio::time::timeout(self.most, self.inner.call(request));
        async move {
            answer
                .await
                .unwrap_or_else(|_| Err("the API server does not answer".into()))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_not_waited_for() {
        use tower::ServiceExt as _;
        let silent = tower::service_fn(|()| std::future::pending::<Result<(), tower::BoxError>>());
        let most = ANSWER;
        let error = Answering {
            inner: silent,
            most,
        }
        .oneshot(())
        .await;
        let error = error.expect_err("silence").to_string();
        assert_eq!(error, "the API server does not answer");
    }
}
