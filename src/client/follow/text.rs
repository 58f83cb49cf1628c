//! What the API server sends: lines of watches, pages of lists, and their parts that are read here.

use std::collections::VecDeque;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

/// An object as text: a part of the line of the watch.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) line: String,
    pub(super) object: Range<usize>,
}

impl Text {
    pub(super) fn get(&self) -> &str {
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
pub(super) fn parts(line: &str) -> Result<(Kind, Range<usize>), serde_json::Error> {
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

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Debug, Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Kind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

#[derive(Deserialize)]
pub(super) struct Bookmark {
    pub(super) metadata: BookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BookmarkMeta {
    pub(super) resource_version: String,
    #[serde(default)]
    pub(super) annotations: Annotations,
}

#[derive(Deserialize, Default)]
pub(super) struct Annotations {
    #[serde(rename = "k8s.io/initial-events-end")]
    pub(super) initial_events_end: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct List {
    pub(super) metadata: ListMeta,
    pub(super) items: Option<VecDeque<Box<RawValue>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMeta {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) next: Option<String>,
}
