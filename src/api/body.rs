//! Reads the body of a request; and the body of a long-running response.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt as _, Limited};

use super::BoxError;
use super::read::MAX_BODY;
use super::reply::Body;
use crate::meta::Status;

/// How long a client may take to send a body: as long as a whole request may take upstream.
const BODY: Duration = Duration::from_secs(60);

/// Reads the body of a request.
///
/// # Errors
/// 413 if it is too large, 504 if it takes too long, 400 if it breaks off.
pub(super) async fn collect<B>(body: B) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    tokio::time::timeout(BODY, Limited::new(body, MAX_BODY).collect())
        .await
        .map_err(|_| {
            let message = "Timeout: request did not complete within the allotted timeout";
            Status::failure(504, "Timeout", message)
        })?
        .map(http_body_util::Collected::to_bytes)
        .map_err(|error| {
            if error
                .downcast_ref::<http_body_util::LengthLimitError>()
                .is_some()
            {
                Status::failure(
                    413,
                    "RequestEntityTooLarge",
                    format!("Request entity too large: limit is {MAX_BODY}"),
                )
            } else {
                Status::bad_request(format!("unable to read the body of the request: {error}"))
            }
        })
}

/// The body of a response that holds a value until it is dropped.
pub(super) fn until_dropped<T: Send + Unpin + 'static>(body: Body, kept: T) -> Body {
    Keeping { body, _kept: kept }.boxed_unsync()
}

struct Keeping<T> {
    body: Body,
    _kept: T,
}

impl<T: Unpin> http_body::Body for Keeping<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let never = futures::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>();
        let refused = collect(http_body_util::StreamBody::new(never)).await;
        assert_eq!(refused.map_err(|status| status.code), Err(504));
    }
}
