//! The options of a list.

use super::super::Target;
use super::selection::Selection;
use crate::api::query::{Listing, Query};
use crate::meta::status::About;
use crate::meta::{Errors, Path, Status};

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
