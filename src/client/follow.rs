//! Follows the objects of a resource: first all that exist, then every change. Objects stay text until the consumer
//! decodes them, so that little of this code is compiled anew for each kind. Follows ListAndWatch in
//! k8s.io/client-go/tools/cache/reflector.go.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::time::Duration;

use futures::io::AsyncBufReadExt as _;
use futures::{Stream, StreamExt as _, stream};
use kube::api::{ListParams, WatchParams};
use kube::core::{Request, Status};
use kube::{Api, Client, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::errors::is_not_found;

/// The `timeoutSeconds` of watches.
const LASTS: u32 = 290;
/// The `limit` of list pages.
const PAGE: u32 = 500;
/// A watch that ends sooner without an event counts as broken.
const SHORT: Duration = Duration::from_secs(1);
/// How long a server may take to respond, and to end a watch when its time is over. A connection whose peer vanished
/// silently is only noticed by this.
const PATIENCE: Duration = Duration::from_secs(30);

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
    #[error("the watch ended at once and told nothing")]
    Short,
    /// The watch ended before all objects were listed.
    #[error("the watch ended before all objects were told")]
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

/// A change for a consumer that keeps a record of objects.
pub enum Told<K, I> {
    /// An object was created or changed, or exists.
    There(K),
    /// An object was deleted, with its last state.
    Gone(K),
    /// These are all objects that exist: others are gone.
    Only(HashSet<I>),
    /// All changes up to this resourceVersion were reported; 0 if the server's versions cannot be compared.
    UpTo(u64),
}

/// Turns the events of [`follow`] into changes of a record, including what is missing in lists. `id` identifies an
/// object. Ends with the events, which is never.
pub async fn record<K: Resource, I: Eq + Hash>(
    kind: &str,
    mut events: impl Stream<Item = Result<Event<K>, Broken>> + Unpin,
    id: impl Fn(&K) -> I,
    mut told: impl FnMut(Told<K, I>),
) {
    let up_to = |version: &str| Told::UpTo(version.parse().unwrap_or(0));
    let version_of = |object: &K| {
        let version = object.meta().resource_version.as_deref();
        up_to(version.unwrap_or_default())
    };
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Listing) => listed.clear(),
            // A list is not in the order of changes: only the complete list tells up to which version everything is
            // known.
            Ok(Event::Listed(object)) => {
                listed.insert(id(&object));
                told(Told::There(object));
            }
            Ok(Event::Complete(version)) => {
                told(Told::Only(std::mem::take(&mut listed)));
                told(up_to(&version));
            }
            Ok(Event::Applied(object)) => {
                let version = version_of(&object);
                told(Told::There(object));
                told(version);
            }
            Ok(Event::Deleted(object)) => {
                let version = version_of(&object);
                told(Told::Gone(object));
                told(version);
            }
            Ok(Event::UpTo(version)) => told(up_to(&version)),
            // A warning, because callers that wait for it do nothing meanwhile.
            Err(error) if !error.is_usual() => {
                tracing::warn!(kind, %error, "a watch was interrupted; it resumes");
            }
            Err(error) => tracing::debug!(kind, %error, "a watch was interrupted; it resumes"),
        }
    }
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

/// An object as text: a part of the line of the watch.
#[derive(Debug)]
struct Text {
    line: String,
    object: Range<usize>,
}

impl Text {
    fn get(&self) -> &str {
        &self.line[self.object.clone()]
    }
}

impl From<Box<RawValue>> for Text {
    fn from(object: Box<RawValue>) -> Text {
        let line = String::from(Box::<str>::from(object));
        Text {
            object: 0..line.len(),
            line,
        }
    }
}

/// The type of a watch event in a line, and the range of the object in it. In the usual layout the object is found
/// without parsing it; it is parsed once, when it is decoded.
///
/// # Errors
/// The line is not a watch event.
fn parts(line: &str) -> Result<(Kind, Range<usize>), serde_json::Error> {
    const BETWEEN: &str = "\",\"object\":";
    let written = line.strip_prefix("{\"type\":\"").and_then(|rest| {
        let (kind, rest) = rest.split_once(BETWEEN)?;
        let kind = match kind {
            "ADDED" => Kind::Added,
            "MODIFIED" => Kind::Modified,
            "DELETED" => Kind::Deleted,
            "BOOKMARK" => Kind::Bookmark,
            "ERROR" => Kind::Error,
            _ => return None,
        };
        rest.ends_with("}}")
            .then(|| (kind, line.len() - rest.len()..line.len() - 1))
    });
    if let Some(written) = written {
        return Ok(written);
    }
    let Line { kind, object } = serde_json::from_str(line)?;
    let begins = object.get().as_ptr() as usize - line.as_ptr() as usize;
    Ok((kind, begins..begins + object.get().len()))
}

type Lines = Pin<Box<dyn Stream<Item = io::Result<String>> + Send>>;

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

struct Watch {
    lines: Lines,
    /// The version up to which everything was reported; None during the initial list.
    version: Option<String>,
    since: Instant,
    silent: bool,
    /// When the server should have ended the watch.
    over: Instant,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Debug, Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
enum Kind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: BookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMeta {
    resource_version: String,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Deserialize, Default)]
struct Annotations {
    #[serde(rename = "k8s.io/initial-events-end")]
    initial_events_end: Option<String>,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    items: Option<VecDeque<Box<RawValue>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
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

/// The resource to follow.
struct Source {
    client: Client,
    path: String,
    fields: String,
}

impl Source {
    /// Starts a watch after a resourceVersion, or with a streamed list.
    async fn watch(&self, version: Option<String>) -> Result<Watch, Broken> {
        let params = WatchParams {
            field_selector: self.selector(),
            timeout: Some(LASTS),
            send_initial_events: version.is_none(),
            ..WatchParams::default()
        };
        let request = Request::new(&self.path)
            .watch(&params, version.as_deref().unwrap_or_default())
            .map_err(kube::Error::BuildRequest)?;
        let lines = timeout(PATIENCE, self.client.request_stream(request)).await??;
        let since = Instant::now();
        Ok(Watch {
            lines: Box::pin(lines.lines()),
            version,
            since,
            silent: true,
            over: since + Duration::from_secs(LASTS.into()) + PATIENCE,
        })
    }

    /// Requests a page of the list.
    async fn page(&self, next: Option<String>) -> Result<Pages, Broken> {
        let params = ListParams {
            field_selector: self.selector(),
            limit: Some(PAGE),
            continue_token: next,
            ..ListParams::default()
        };
        let request = Request::new(&self.path)
            .list(&params)
            .map_err(kube::Error::BuildRequest)?;
        let text = timeout(PATIENCE, self.client.request_text(request)).await??;
        let list: List = serde_json::from_str(&text)?;
        Ok(Pages {
            items: list.items.unwrap_or_default(),
            version: list.metadata.resource_version,
            next: list.metadata.next.filter(|next| !next.is_empty()),
        })
    }

    fn selector(&self) -> Option<String> {
        (!self.fields.is_empty()).then(|| self.fields.clone())
    }
}

impl Watch {
    /// The event in a line, if any.
    fn read(&mut self, line: String) -> Result<Option<Event<Text>>, Broken> {
        let (kind, object) = parts(&line)?;
        let text = Text { line, object };
        Ok(match (kind, &mut self.version) {
            (Kind::Added, None) => Some(Event::Listed(text)),
            (Kind::Added | Kind::Modified, _) => Some(Event::Applied(text)),
            (Kind::Deleted, _) => Some(Event::Deleted(text)),
            (Kind::Bookmark, told) => {
                let Bookmark { metadata } = serde_json::from_str(text.get())?;
                match told {
                    Some(told) => {
                        told.clone_from(&metadata.resource_version);
                        Some(Event::UpTo(metadata.resource_version))
                    }
                    None if metadata.annotations.initial_events_end.is_some() => {
                        *told = Some(metadata.resource_version.clone());
                        Some(Event::Complete(metadata.resource_version))
                    }
                    None => None,
                }
            }
            (Kind::Error, _) => return Err(Broken::Ended(serde_json::from_str(text.get())?)),
        })
    }
}

/// Pauses after failures: growing, and reset after a long success. The durations are client-go's.
#[derive(Default)]
struct Pauses {
    next: Duration,
    last: Option<Instant>,
}

impl Pauses {
    const FIRST: Duration = Duration::from_millis(800);
    const LONGEST: Duration = Duration::from_secs(30);
    const GOOD_WHILE: Duration = Duration::from_secs(120);

    /// The pause after a failure at `now`, up to doubled by `chance` (from 0 to 1), so that clients that lost one
    /// server do not all return at the same time.
    fn next(&mut self, now: Instant, chance: f64) -> Duration {
        let recent = |last: Instant| now.duration_since(last) < Self::GOOD_WHILE;
        let pause = match self.last.is_some_and(recent) {
            true => self.next,
            false => Self::FIRST,
        };
        self.last = Some(now);
        self.next = (pause * 2).min(Self::LONGEST);
        pause.mul_f64(1.0 + chance)
    }
}

/// A random number from 0 to 1.
fn chance() -> f64 {
    // Each `RandomState` has new keys.
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests;
