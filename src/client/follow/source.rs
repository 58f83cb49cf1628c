//! The requests: watches and pages of a resource.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use futures::io::AsyncBufReadExt as _;
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::Request;
use tokio::time::{Instant, timeout};

use super::pauses::PATIENCE;
use super::text::{Bookmark, Kind, List, Text, parts};
use super::{Broken, Event, Pages};

/// The `timeoutSeconds` of watches.
pub(super) const LASTS: u32 = 290;
/// The `limit` of list pages.
const PAGE: u32 = 500;

type Lines = Pin<Box<dyn Stream<Item = io::Result<String>> + Send>>;

pub(super) struct Watch {
    pub(super) lines: Lines,
    /// The version up to which everything was reported; None during the initial list.
    pub(super) version: Option<String>,
    pub(super) since: Instant,
    pub(super) silent: bool,
    /// When the server should have ended the watch.
    pub(super) over: Instant,
}

/// The resource to follow.
pub(super) struct Source {
    pub(super) client: Client,
    pub(super) path: String,
    pub(super) fields: String,
}

impl Source {
    /// Starts a watch after a resourceVersion, or with a streamed list.
    pub(super) async fn watch(&self, version: Option<String>) -> Result<Watch, Broken> {
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
    pub(super) async fn page(&self, next: Option<String>) -> Result<Pages, Broken> {
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
    pub(super) fn read(&mut self, line: String) -> Result<Option<Event<Text>>, Broken> {
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
