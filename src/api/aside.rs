//! Requests that carry much are decided aside.
//!
//! Most decisions take well below a millisecond, so requests are answered on the runtime's own threads, of which there
//! are as many as processors. What a request can cost grows with what it carries, though, and a decision is not
//! interrupted: a few of the largest ones could hold every thread, and with them leases, watches, health, the controllers
//! and the node in the same process. So the threads that poll such a request leave the runtime for as long as that takes
//! (others take their place), and no more of these are polled at once than there are processors: at least half of the
//! processor time is left for everything else.

use std::pin::pin;
use std::sync::Arc;
use std::task::ready;

use futures::future::Either;
use http::{HeaderMap, Request};
use http_body::Body;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio_util::sync::PollSemaphore;

/// A body from which a request counts as large, in bytes: no object of the usual kinds is so large, and what costs a
/// megabyte of the worst input seconds costs this much milliseconds.
const BODY: u64 = 128 << 10;
/// The same for its head: several times what clients with long tokens send.
const HEAD: usize = 16 << 10;

/// Where large requests are decided.
#[derive(Clone, Debug)]
pub struct Aside(Arc<Semaphore>);

impl Default for Aside {
    /// With a turn for each processor.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Aside(Arc::new(Semaphore::new(processors)))
    }
}

impl Aside {
    /// `answer`, in turns if it answers a request that [`is_large`].
    ///
    /// It must not wait for another large request within the same task, which might need the turn that it has.
    pub fn answer<F: Future>(
        &self,
        is_large: bool,
        answer: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        if !is_large {
            return Either::Left(answer);
        }
        let aside = self.clone();
        Either::Right(Box::pin(async move { aside.in_turns(answer).await }))
    }

    async fn in_turns<F: Future>(&self, answer: F) -> F::Output {
        if Handle::current().runtime_flavor() != RuntimeFlavor::MultiThread {
            return answer.await;
        }
        let mut answer = pin!(answer);
        let mut turns = PollSemaphore::new(self.0.clone());
        std::future::poll_fn(|cx| {
            // A turn lasts until the answer has to wait for something, such as the body: it cannot be held by waiting.
            let _turn = ready!(turns.poll_acquire(cx));
            tokio::task::block_in_place(|| answer.as_mut().poll(cx))
        })
        .await
    }
}

/// Whether a request carries, or may carry, so much that its decision may take long.
pub fn is_large<B: Body>(request: &Request<B>) -> bool {
    let body = request.body().size_hint().exact();
    body.is_none_or(|length| length > BODY)
        || request
            .uri()
            .path_and_query()
            .map_or(0, |path| path.as_str().len())
            > HEAD
        || length(request.headers()) > HEAD
}

fn length(headers: &HeaderMap) -> usize {
    let each = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    each.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::{Full, StreamBody};
    use std::sync::mpsc;

    #[test]
    fn a_request_is_large_by_its_body_its_path_or_its_headers() {
        let of = |body: usize, query: usize, header: usize| {
            let request = Request::builder()
                .uri(format!("/api/v1/pods?{}", "q".repeat(query)))
                .header("accept", "a".repeat(header))
                .body(Full::new(Bytes::from(vec![0; body])));
            is_large(&request.unwrap())
        };
        assert!(!of(0, 0, 0) && !of(128 << 10, 8 << 10, 8 << 10));
        assert!(of((128 << 10) + 1, 0, 0) && of(0, 16 << 10, 0) && of(0, 0, 16 << 10));
        let stream =
            futures::stream::empty::<Result<http_body::Frame<Bytes>, std::convert::Infallible>>();
        assert!(
            is_large(&Request::new(StreamBody::new(stream))),
            "of unknown length"
        );
    }

    /// More decisions than there are threads or turns, each of which ends only when the test lets it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn slow_decisions_stop_no_other_request() {
        let aside = Aside(Arc::new(Semaphore::new(2)));
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let (ends, slow): (Vec<_>, Vec<_>) = (0..5)
            .map(|_| {
                let (end, ended) = mpsc::channel::<()>();
                let (aside, begun) = (aside.clone(), begun.clone());
                let decides = async move {
                    begun.send(()).unwrap();
                    ended.recv().unwrap();
                };
                (
                    end,
                    tokio::spawn(async move { aside.answer(true, decides).await }),
                )
            })
            .unzip();
        begins.recv().await.unwrap();
        begins.recv().await.unwrap();
        // Two of them hold a thread each: this task still gets one.
        let other = tokio::spawn(async { tokio::task::yield_now().await });
        other.await.unwrap();
        assert!(begins.try_recv().is_err(), "the others wait for their turn");
        ends.iter().for_each(|end| end.send(()).unwrap());
        for slow in slow {
            slow.await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn an_answer_that_waits_has_no_turn() {
        let aside = Aside(Arc::new(Semaphore::new(1)));
        let (sent, body) = tokio::sync::oneshot::channel();
        let waits = tokio::spawn({
            let aside = aside.clone();
            async move { aside.answer(true, body).await }
        });
        assert_eq!(aside.answer(true, async { 1 }).await, 1);
        sent.send(2).unwrap();
        assert_eq!(waits.await.unwrap(), Ok(2));
    }
}
