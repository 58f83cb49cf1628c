//! Follows the objects of a resource: first all that exist, then every change. Objects stay text until the consumer
//! decodes them, so that little of this code is compiled anew for each kind. Follows ListAndWatch in
//! k8s.io/client-go/tools/cache/reflector.go.

mod pauses;
mod record;
mod source;
mod text;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use kube::core::Status;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use self::pauses::{Pauses, SHORT};
use self::source::{Source, Watch};
use self::text::Text;
use super::errors::is_not_found;
use crate::meta::names::chance;

pub use self::record::{Told, record};

/// An event about the objects of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<K> {
    /// A list of all objects follows, each as [`Event::Listed`]: at the beginning, and whenever changes may have been
    /// missed.
    Listing,
    /// An object of the list.
    Listed(K),
    /// The list is complete as of this resourceVersion: known objects that are not in it are gone.
    Complete(String),
    /// An object was created or changed.
    Applied(K),
    /// An object was deleted, with its last state.
    Deleted(K),
    /// A bookmark: nothing more happened up to this resourceVersion.
    UpTo(String),
}

impl<K> Event<K> {
    fn map<T, E>(self, turn: impl FnOnce(K) -> Result<T, E>) -> Result<Event<T>, E> {
        Ok(match self {
            Event::Listing => Event::Listing,
            Event::Listed(object) => Event::Listed(turn(object)?),
            Event::Complete(version) => Event::Complete(version),
            Event::Applied(object) => Event::Applied(turn(object)?),
            Event::Deleted(object) => Event::Deleted(turn(object)?),
            Event::UpTo(version) => Event::UpTo(version),
        })
    }
}

/// Why events are interrupted. The follower retries by itself.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The request was rejected, or did not reach the server.
    #[error(transparent)]
    Refused(#[from] kube::Error),
    /// The server ended the watch.
    #[error("the watch was ended: {} ({})", .0.message, .0.reason)]
    Ended(Box<Status>),
    /// The connection broke.
    #[error("reading the watch: {0}")]
    Read(#[from] io::Error),
    /// The server is silent for longer than agreed.
    #[error("the server says nothing any more")]
    Silent(#[from] tokio::time::error::Elapsed),
    /// The watch ended at once without an event.
    #[error("the watch ended at once without an event")]
    Short,
    /// The watch ended before all objects were listed.
    #[error("the watch ended before all objects were listed")]
    Incomplete,
    /// An object cannot be decoded. A changed one is skipped; a list is restarted, as in client-go.
    #[error("what was told cannot be read: {0}")]
    Undecodable(#[from] serde_json::Error),
}

impl Broken {
    /// Whether this is expected in operation: the watch was too far behind, or the resource is gone.
    pub fn is_usual(&self) -> bool {
        match self {
            Broken::Ended(status) => matches!(status.code, 404 | 410),
            Broken::Refused(error) => is_not_found(error) || self.is_expired(),
            _ => false,
        }
    }

    /// Whether the server no longer has the changes since the last resourceVersion.
    fn is_expired(&self) -> bool {
        match self {
            Broken::Ended(status) => status.code == 410,
            Broken::Refused(kube::Error::Api(status)) => status.code == 410,
            _ => false,
        }
    }

    /// Whether the server does not support streamed lists.
    fn lacks_streamed_lists(&self) -> bool {
        matches!(self, Broken::Refused(kube::Error::Api(status)) if status.code == 422)
    }
}

/// Follows the objects of `api` that a field selector selects (all if it is empty), forever: after a failure, which is
/// an item of the stream, it resumes where it was, with growing pauses.
pub fn follow<K>(
    api: Api<K>,
    fields: &str,
) -> Pin<Box<dyn Stream<Item = Result<Event<K>, Broken>> + Send>>
where
    K: Resource + DeserializeOwned + Send + 'static,
{
    let follower = Follower {
        source: Source {
            path: api.resource_url().to_owned(),
            fields: fields.to_owned(),
            client: api.into_client(),
        },
        streams: true,
        at: At::Nowhere,
        pauses: Pauses::default(),
        pause: None,
    };
    Box::pin(stream::unfold(follower, |mut follower| async move {
        let event = match follower.next().await {
            Ok(event) => {
                let is_listed = matches!(event, Event::Listed(_));
                let read = event.map(|text| Ok(serde_json::from_str::<K>(text.get())?));
                match read {
                    // Without this object the list is incomplete, and what a complete list omits is taken to be gone.
                    Err(broken) if is_listed => Err(follower.list_again(broken)),
                    read => read,
                }
            }
            Err(broken) => Err(broken),
        };
        if let Ok(Event::Applied(object) | Event::Deleted(object)) = &event {
            follower.saw(object.meta().resource_version.as_deref());
        }
        Some((event, follower))
    }))
}

/// Watches that a program starts as resources appear. They end when this is dropped.
#[derive(Default)]
pub struct Watches(JoinSet<()>);

impl Watches {
    /// Starts one, which ends by itself when it is no longer needed.
    pub fn spawn(&mut self, watch: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(watch);
    }

    /// Never resolves. Panics if a watch panicked: the program's knowledge would be stale forever, and nobody would
    /// notice. Cancel-safe.
    pub async fn broken(&mut self) -> Infallible {
        while let Some(ended) = self.0.join_next().await {
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
        std::future::pending().await
    }
}

/// A follower of one resource, with objects as text.
struct Follower {
    source: Source,
    /// Whether this server supports streamed lists.
    streams: bool,
    at: At,
    pauses: Pauses,
    /// The pause before the next request.
    pause: Option<Duration>,
}

/// The position of a follower.
enum At {
    /// Nothing is known.
    Nowhere,
    /// Within a paged list.
    Pages(Pages),
    /// Within a watch.
    Watch(Watch),
    /// After this resourceVersion, with all earlier changes reported.
    After(String),
}

struct Pages {
    items: VecDeque<Box<RawValue>>,
    version: String,
    /// The continue token of the next page; None after the last one.
    next: Option<String>,
}

impl Follower {
    /// The next event.
    ///
    /// # Errors
    /// What went wrong; the next call resumes.
    async fn next(&mut self) -> Result<Event<Text>, Broken> {
        if let Some(pause) = self.pause.take() {
            tokio::time::sleep(pause).await;
        }
        match self.advance().await {
            Ok(event) => Ok(event),
            Err(broken) => {
                self.pause = Some(self.pauses.next(Instant::now(), chance()));
                self.at = self.after(&broken);
                Err(broken)
            }
        }
    }

    /// The position from which to resume.
    fn after(&mut self, broken: &Broken) -> At {
        let told = match std::mem::replace(&mut self.at, At::Nowhere) {
            At::Watch(watch) => watch.version,
            At::After(version) => Some(version),
            At::Nowhere | At::Pages(_) => None,
        };
        match told {
            Some(version) if !broken.is_expired() => At::After(version),
            Some(_) => At::Nowhere,
            None => {
                self.streams &= !broken.lacks_streamed_lists();
                At::Nowhere
            }
        }
    }

    /// Restarts the list, after a pause.
    fn list_again(&mut self, broken: Broken) -> Broken {
        self.pause = Some(self.pauses.next(Instant::now(), chance()));
        self.at = At::Nowhere;
        broken
    }

    /// Notes that changes up to a resourceVersion were reported.
    fn saw(&mut self, version: Option<&str>) {
        if let (At::Watch(watch), Some(version)) = (&mut self.at, version)
            && let Some(told) = &mut watch.version
        {
            version.clone_into(told);
        }
    }

    async fn advance(&mut self) -> Result<Event<Text>, Broken> {
        loop {
            match &mut self.at {
                At::Nowhere => {
                    self.at = match self.streams {
                        true => At::Watch(self.source.watch(None).await?),
                        false => At::Pages(self.source.page(None).await?),
                    };
                    return Ok(Event::Listing);
                }
                At::Pages(pages) => {
                    if let Some(object) = pages.items.pop_front() {
                        return Ok(Event::Listed(object.into()));
                    }
                    let Some(next) = pages.next.take() else {
                        let version = std::mem::take(&mut pages.version);
                        self.at = At::After(version.clone());
                        return Ok(Event::Complete(version));
                    };
                    self.at = At::Pages(self.source.page(Some(next)).await?);
                }
                At::Watch(watch) => match timeout_at(watch.over, watch.lines.next()).await? {
                    Some(line) => {
                        watch.silent = false;
                        if let Some(event) = watch.read(line?)? {
                            return Ok(event);
                        }
                    }
                    None => {
                        let version = watch.version.take().ok_or(Broken::Incomplete)?;
                        let short = watch.silent && watch.since.elapsed() < SHORT;
                        self.at = At::After(version);
                        if short {
                            return Err(Broken::Short);
                        }
                    }
                },
                At::After(version) => {
                    let version = version.clone();
                    self.at = At::Watch(self.source.watch(Some(version)).await?);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
