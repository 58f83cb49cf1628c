//! Lists: selectors, pages of one consistent snapshot, resourceVersionMatch.

mod options;
mod selection;
mod token;

use std::sync::Arc;
use std::time::Duration;

use self::token::Token;
use super::{Target, store_failure, too_large};
use crate::api::reply::{List, Reply};
use crate::meta::Status;
use crate::meta::errors::quoted;
use crate::meta::strconv::parse_uint;
use crate::resources::forms;
use crate::store::{Entry, Interest, Revision};

pub use self::options::ListOptions;
pub use self::selection::Selection;

/// How long upstream waits for a future resourceVersion.
const PATIENCE: Duration = Duration::from_secs(3);

/// Waits until a revision exists, for at most three seconds; returns the newest otherwise.
pub async fn until(target: &Target, asked: Revision) -> Result<(), Revision> {
    let store = &target.cluster.store;
    if store.world().rev() >= asked {
        return Ok(());
    }
    // The revision may belong to any resource.
    let interest = Interest {
        resource: "".into(),
        keys: "".into(),
        exact: false,
        field: None,
    };
    let wait = async {
        let mut cursor = store.clone().watch(interest, store.world().rev()).ok()?;
        while store.world().rev() < asked {
            cursor.changed().await;
            let _ = cursor.next(1).await;
        }
        Some(())
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(Some(())) => Ok(()),
        _ => Err(store.world().rev()),
    }
}

/// The revision at which a list is read.
enum Moment {
    Newest,
    NotOlderThan(Revision),
    Exact(Revision),
}

/// Handles a list.
///
/// # Errors
/// 400 and 422 for options, 410 for an expired revision, 504 for a future one.
pub async fn list(target: &Target) -> Result<Reply, Status> {
    read(target, false).await
}

/// The list of objects that a DELETE of a collection deletes: it is read in pages, so that a resourceVersion is the
/// exact revision.
///
/// # Errors
/// As [`list`].
pub(super) async fn to_delete(target: &Target) -> Result<Reply, Status> {
    read(target, true).await
}

async fn read(target: &Target, pages: bool) -> Result<Reply, Status> {
    let query = &target.query;
    let ListOptions {
        selection,
        mut limit,
        ..
    } = ListOptions::read(target, false)?;
    let version = query.get("resourceVersion").unwrap_or_default();
    let token = query
        .get("continue")
        .filter(|token| !token.is_empty())
        .map(Token::read)
        .transpose()?;
    if token.is_some() && !matches!(version, "" | "0") {
        return Err(Status::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    let number = if version.is_empty() {
        0
    } else {
        parse_uint(version).map_err(|error| {
            Status::bad_request(format!(
                "invalid resource version: resourceVersion: Invalid value: {}: {error}",
                quoted(version)
            ))
        })?
    };
    let moment = match (
        &token,
        query.get("resourceVersionMatch").unwrap_or_default(),
    ) {
        (Some(token), _) => Revision::try_from(token.rev).map_or(Moment::Newest, Moment::Exact),
        (None, "Exact") => Moment::Exact(number),
        (None, "NotOlderThan") if number == 0 => {
            limit = 0;
            Moment::Newest
        }
        (None, "NotOlderThan") => Moment::NotOlderThan(number),
        (None, _) if version.is_empty() => Moment::Newest,
        (None, _) if number == 0 => {
            limit = 0;
            Moment::Newest
        }
        (None, _) if limit > 0 || pages => Moment::Exact(number),
        (None, _) => Moment::NotOlderThan(number),
    };
    let keys = target.resource.keys(target.namespace());
    let from = token
        .as_ref()
        .map(|token| format!("{keys}{}\0", token.start))
        .unwrap_or_default();
    let store = &target.cluster.store;
    let asked = match moment {
        Moment::Exact(rev) | Moment::NotOlderThan(rev) => rev,
        Moment::Newest => 0,
    };
    until(target, asked)
        .await
        .map_err(|current| too_large(asked, current))?;
    let shown = |entry: &Arc<Entry>| forms::shown(&target.resource, target.version(), entry);
    let matches =
        |entry: &Entry| selection.is_everything() || selection.matches(&target.resource, entry);
    let world = store.world();
    let exact = match moment {
        Moment::Exact(rev) if rev != world.rev() => Some(rev),
        _ => None,
    };
    let selected = |entry: &Arc<Entry>| Some(shown(entry)).filter(|entry| matches(entry));
    // The number of remaining objects is only known if everything is selected.
    let counts = selection.is_everything();
    let (rev, (entries, rest)) = match exact {
        None => {
            let mut range = world.range(&target.resource.prefix, &keys, &from);
            (world.rev(), page(&mut range, limit, counts, selected))
        }
        Some(rev) => {
            let range = store
                .range_at(&target.resource.prefix, &keys, &from, 0, rev)
                .await
                .map_err(|error| match &token {
                    Some(token) => expired(token),
                    None => store_failure(&error),
                })?;
            let mut range = range.entries.iter();
            (rev, page(&mut range, limit, counts, selected))
        }
    };
    let (mut next, mut remaining) = (String::new(), None);
    // A list of a single name has no next page, which is known only for a name in a namespace.
    let one = selection.name().is_some()
        && (!target.resource.namespaced || !target.namespace().is_empty());
    if rest > 0 && !one {
        let last = entries
            .last()
            .map(|entry| {
                entry
                    .key
                    .strip_prefix(&*keys)
                    .unwrap_or(&entry.key)
                    .to_owned()
            })
            .unwrap_or_default();
        next = Token {
            rev: i64::try_from(rev).unwrap_or(i64::MAX),
            start: last,
        }
        .write();
        remaining = counts.then_some(rest);
    }
    Ok(Reply::List(List {
        rev,
        entries,
        next,
        remaining,
    }))
}

/// The first `limit` selected entries (all if it is zero), and how many entries follow the last of them, selected or
/// not; at most one unless `counts`.
fn page(
    entries: &mut dyn Iterator<Item = &Arc<Entry>>,
    limit: usize,
    counts: bool,
    selected: impl Fn(&Arc<Entry>) -> Option<Arc<Entry>>,
) -> (Vec<Arc<Entry>>, usize) {
    let mut page = Vec::new();
    while limit == 0 || page.len() < limit {
        let Some(entry) = entries.next() else {
            break;
        };
        page.extend(selected(entry));
    }
    let rest = match counts {
        true => entries.count(),
        false => entries.take(1).count(),
    };
    (page, rest)
}

/// 410 for an expired page, with a token that continues at the newest state.
fn expired(token: &Token) -> Status {
    Status::failure(
        410,
        "Expired",
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    )
    .continuing(Token { rev: -1, start: token.start.clone() }.write())
}
