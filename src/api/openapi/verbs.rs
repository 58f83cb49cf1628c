//! What all operations of a verb have in common, as tables.

use super::parameters::{DELETE, DELETE_ALL, LIST, PATCH, Parameter, READ, WRITE};

/// The media types of objects.
pub const OBJECTS: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
/// The media types of a list that may be a watch.
const STREAMS: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
/// The media types of custom resources, in both directions.
pub const CUSTOM_MEDIA: &[&str] = &["application/json", "application/yaml"];

/// The type of a body or response.
#[derive(Clone, Copy)]
pub(super) enum Type {
    /// The type of the resource, or the subresource.
    One,
    /// The list type of the resource.
    List,
    /// The response to a deletion.
    Deleted,
    /// A component with this name.
    Named(&'static str),
}

/// The common parts of all operations of a verb.
pub(super) struct Verb {
    pub(super) name: &'static str,
    pub(super) method: &'static str,
    pub(super) action: &'static str,
    /// The beginning of identifiers.
    pub(super) prefix: &'static str,
    /// The part before the kind.
    pub(super) collection: &'static str,
    /// The part after the kind.
    pub(super) suffix: &'static str,
    /// The beginning of descriptions.
    pub(super) words: &'static str,
    /// Their end.
    pub(super) hint: &'static str,
    pub(super) parameters: &'static [Parameter],
    pub(super) body: Option<Type>,
    pub(super) answer: Type,
    pub(super) produces: &'static [&'static str],
    pub(super) answers: &'static [(u16, &'static str)],
}

const DONE: &[(u16, &str)] = &[(200, "OK")];
const WRITTEN: &[(u16, &str)] = &[(200, "OK"), (201, "Created")];

const fn verb(name: &'static str, method: &'static str, prefix: &'static str) -> Verb {
    Verb {
        name,
        method,
        action: method,
        prefix,
        collection: "",
        suffix: "",
        words: prefix,
        hint: "",
        parameters: &[],
        body: None,
        answer: Type::One,
        produces: OBJECTS,
        answers: DONE,
    }
}

pub(super) const VERBS: [Verb; 9] = [
    Verb {
        action: "list",
        words: "list or watch objects of kind",
        parameters: LIST,
        answer: Type::List,
        produces: STREAMS,
        ..verb("list", "get", "list")
    },
    Verb {
        parameters: WRITE,
        body: Some(Type::One),
        answers: &[(200, "OK"), (201, "Created"), (202, "Accepted")],
        ..verb("create", "post", "create")
    },
    Verb {
        action: "deletecollection",
        collection: "Collection",
        words: "delete collection of",
        parameters: DELETE_ALL,
        body: Some(Type::Named(DELETE_OPTIONS)),
        answer: Type::Named(STATUS),
        ..verb("deletecollection", "delete", "delete")
    },
    verb("get", "get", "read"),
    Verb {
        parameters: WRITE,
        body: Some(Type::One),
        answers: WRITTEN,
        ..verb("update", "put", "replace")
    },
    Verb {
        words: "partially update",
        parameters: PATCH,
        body: Some(Type::Named(PATCH_TYPE)),
        answers: WRITTEN,
        ..verb("patch", "patch", "patch")
    },
    Verb {
        parameters: DELETE,
        body: Some(Type::Named(DELETE_OPTIONS)),
        answer: Type::Deleted,
        answers: &[(200, "OK"), (202, "Accepted")],
        ..verb("delete", "delete", "delete")
    },
    Verb {
        words: "watch changes to an object of kind",
        hint: ". deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item with \
               the 'fieldSelector' parameter.",
        ..watch("watch")
    },
    Verb {
        suffix: "List",
        words: "watch individual changes to a list of",
        hint: ". deprecated: use the 'watch' parameter with a list operation instead.",
        ..watch("watchlist")
    },
];

/// A watch at the old paths.
const fn watch(name: &'static str) -> Verb {
    Verb {
        action: name,
        parameters: LIST,
        answer: Type::Named(WATCH_EVENT),
        produces: STREAMS,
        ..verb(name, "get", "watch")
    }
}

/// The verbs of custom resources.
pub(super) const CUSTOM: [Verb; 7] = {
    let [list, create, delete_all, get, update, patch, delete, ..] = VERBS;
    [
        Verb {
            words: "list objects of kind",
            ..list
        },
        create,
        Verb {
            parameters: LIST,
            body: None,
            ..delete_all
        },
        Verb {
            parameters: READ,
            ..get
        },
        update,
        Verb {
            answers: DONE,
            ..patch
        },
        delete,
    ]
};

/// The component name of the type of patches.
pub const PATCH_TYPE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
