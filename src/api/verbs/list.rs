//! Lists: selectors, pages of one consistent snapshot, resourceVersionMatch.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;

use super::{Target, store_failure, too_large};
use crate::api::query::{Listing, Query};
use crate::api::reply::{List, Reply};
use crate::meta::selector::{Op, Selector, Term};
use crate::meta::status::About;
use crate::meta::strconv::parse_uint;
use crate::meta::{Errors, Path, Status, errors::quoted};
use crate::resources::{Resource, SelectorError, Version, forms, record};
use crate::schema::{Value, byte_text, json};
use crate::store::{Entry, Interest, Revision};

/// How long upstream waits for a future resourceVersion.
const PATIENCE: Duration = Duration::from_secs(3);

/// The selectors of a list or watch.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// By labels.
    pub labels: Selector,
    /// By fields other than name and namespace.
    pub fields: Selector,
    /// `metadata.name` terms.
    pub names: Selector,
    /// Whether any field selector was given.
    pub by_field: bool,
}

impl Selection {
    /// The selection that two selectors make of a resource.
    ///
    /// # Errors
    /// 400 with upstream's text for fields that cannot be selected.
    fn of(
        labels: Selector,
        all: Selector,
        resource: &Resource,
        version: &Version,
    ) -> Result<Selection, Status> {
        let by_field = !all.is_empty();
        let (mut fields, mut names) = (Vec::new(), Vec::new());
        for mut term in all.0 {
            match term.key.as_str() {
                "metadata.name" => names.push(term),
                "metadata.namespace" if selects_namespace(resource) => names.push(term),
                key if version.selects(resource, key) => {
                    if let Some(name) = resource.rules.selection.field_called(key) {
                        term.key = name.into();
                    }
                    fields.push(term);
                }
                key => return Err(Status::bad_request(unknown_field(resource, version, key))),
            }
        }
        Ok(Selection {
            labels,
            fields: Selector(fields),
            names: Selector(names),
            by_field,
        })
    }

    /// Narrows it to the name in the path.
    ///
    /// # Errors
    /// 400 if there is a field selector for anything other than that name.
    pub fn only(&mut self, name: &str) -> Result<(), Status> {
        if self.by_field {
            return match self.name() == Some(name) {
                true => Ok(()),
                false => Err(Status::bad_request(
                    "fieldSelector metadata.name doesn't match requested name",
                )),
            };
        }
        self.names.0.push(Term {
            key: "metadata.name".into(),
            op: Op::Equals,
            values: vec![name.into()],
        });
        self.by_field = true;
        Ok(())
    }

    /// Whether an entry is selected.
    pub fn matches(&self, resource: &Resource, entry: &Entry) -> bool {
        if !self.names.is_empty() {
            let (namespace, name) = resource.split_key(&entry.key);
            if !self.names.matches(|key| {
                Some(if key == "metadata.name" {
                    name
                } else {
                    namespace
                })
            }) {
                return false;
            }
        }
        self.labels.matches_pairs(&entry.record.labels)
            && self.fields.matches_pairs(&entry.record.fields)
    }

    /// Whether an object is selected that is not stored and has no selectable field except its name.
    pub fn matches_object(&self, object: &Value) -> bool {
        let meta = object.at("metadata");
        self.names.matches(|key| {
            Some(match key {
                "metadata.name" => meta.str("name"),
                _ => meta.str("namespace"),
            })
        }) && self.labels.matches_pairs(&record::labels(object))
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && !self.by_field
    }

    /// The single name that is selected, if there is one.
    pub fn name(&self) -> Option<&str> {
        self.names.exact("metadata.name")
    }
}

fn selects_namespace(resource: &Resource) -> bool {
    match resource.is_custom() {
        true => resource.namespaced,
        false => resource.rules.selection.by_namespace,
    }
}

fn unknown_field(resource: &Resource, version: &Version, key: &str) -> String {
    let rules = &resource.rules;
    let own = !rules.selection.fields.is_empty() || resource.is_custom();
    match rules.selection.refusal {
        SelectorError::WithKind => format!(
            "field label not supported for {}, Kind={}: {key}",
            resource.api_version(&version.name),
            resource.kind
        ),
        SelectorError::NotForKind => {
            format!(
                "field label {} not supported for {}",
                quoted(key),
                resource.kind
            )
        }
        SelectorError::Usual if !own => format!(
            "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            quoted(key)
        ),
        _ => format!("field label not supported: {key}"),
    }
}

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

/// A continue token: where the next page begins, and the revision of all pages (-1 for the newest).
struct Token {
    rev: i64,
    start: String,
}

impl Token {
    fn write(&self) -> String {
        let mut start = self.start.clone();
        start.push('\0');
        let text = format!(
            "{{\"v\":\"meta.k8s.io/v1\",\"rv\":{},\"start\":{}}}",
            self.rev,
            json::to_string(&Value::from(start))
        );
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    }

    fn read(text: &str) -> Result<Token, Status> {
        let bad = |why: String| {
            Status::bad_request(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        };
        let bytes = byte_text::decode_unpadded(text)
            .map_err(|at| bad(format!("illegal base64 data at input byte {at}")))?;
        let value = json::parse(&bytes)
            .map_err(|error| bad(error.to_string()))?
            .value;
        if !matches!(value, Value::Object(_) | Value::Null) {
            return Err(bad(format!(
                "json: cannot unmarshal {} into Go value of type storage.continueToken",
                value.type_name()
            )));
        }
        if value.str("v") != "meta.k8s.io/v1" {
            return Err(bad(format!(
                "server does not recognize this encoded version {}",
                value.str("v")
            )));
        }
        let (rev, start) = (value.int("rv"), value.str("start"));
        if rev == 0 {
            return Err(bad(
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)".to_owned(),
            ));
        }
        if start.is_empty() {
            return Err(bad(
                "encoded start key empty (version meta.k8s.io/v1)".to_owned()
            ));
        }
        let key = start.strip_prefix('/').unwrap_or(start);
        if !key.is_empty() && key.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(bad(start.to_owned()));
        }
        Ok(Token {
            rev,
            start: start.trim_end_matches('\0').to_owned(),
        })
    }
}

/// The revision at which a list is read.
enum Moment {
    Newest,
    NotOlderThan(Revision),
    Exact(Revision),
}

/// The options of a list, a watch or the deletion of a collection.
pub struct ListOptions {
    /// What is selected.
    pub selection: Selection,
    /// `timeoutSeconds`
    pub timeout: Option<i64>,
    /// `limit`; 0 if negative.
    pub limit: usize,
}

impl ListOptions {
    /// Reads them from a query.
    ///
    /// # Errors
    /// As [`Query::listing`], 422 for invalid combinations, and 400 for fields that cannot be selected: these are
    /// checked last.
    pub fn read(target: &Target, watch: bool) -> Result<ListOptions, Status> {
        let Listing {
            timeout,
            limit,
            labels,
            fields,
        } = target.query.listing()?;
        validate(&target.query, watch)?;
        Ok(ListOptions {
            selection: Selection::of(labels, fields, &target.resource, target.version())?,
            timeout,
            limit,
        })
    }
}

/// Rejects invalid combinations of options. Follows k8s.io/apimachinery/pkg/apis/meta/internalversion/validation.
fn validate(query: &Query, watch: bool) -> Result<(), Status> {
    const NEWER: &str = "NotOlderThan";
    let mut errors = Errors::default();
    let text = |name: &str| query.get(name).unwrap_or_default();
    let (matching, version) = (text("resourceVersionMatch"), text("resourceVersion"));
    let continues = !text("continue").is_empty();
    let initial = query.get("sendInitialEvents").is_some();
    let path = Path::ROOT.field("resourceVersionMatch");
    let not_continued = "resourceVersionMatch is forbidden when continue is provided";
    if watch {
        // A watch from version 0 sends initial events even without this option.
        let from_start = !initial && matching.is_empty() && matches!(version, "" | "0");
        let (initial, matching) = match from_start {
            true => (true, NEWER),
            false => (initial, matching),
        };
        if initial && matching != NEWER {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.forbidden(path, why);
        }
        if !initial && !matching.is_empty() {
            let why =
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.forbidden(path, why);
        }
        if !matching.is_empty() && matching != NEWER {
            errors.not_supported(path, matching, &[NEWER]);
        }
        if !matching.is_empty() && continues {
            errors.forbidden(path, not_continued);
        }
    } else {
        if !matching.is_empty() {
            if version.is_empty() {
                errors.forbidden(
                    path,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                );
            }
            if continues {
                errors.forbidden(path, not_continued);
            }
            if !matches!(matching, "Exact" | NEWER) {
                errors.not_supported(path, matching, &["Exact", NEWER, ""]);
            }
            if matching == "Exact" && version == "0" {
                errors.forbidden(
                    path,
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                );
            }
        }
        if initial {
            errors.forbidden(
                Path::ROOT.field("sendInitialEvents"),
                "sendInitialEvents is forbidden for list",
            );
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid(
            About {
                group: "meta.k8s.io",
                kind: "ListOptions",
                name: "",
            },
            &errors,
        ))
    }
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
