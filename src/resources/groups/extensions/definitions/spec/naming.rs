//! Validation of the names in a definition.

use crate::meta::{At, Errors, names};

/// Validates requested or accepted names.
pub(super) fn names_of(at: At<'_>, errors: &mut Errors) {
    for key in ["plural", "singular"] {
        label(at.field(key), false, errors);
    }
    let (kind, list_kind) = (at.field("kind"), at.field("listKind"));
    label(kind, true, errors);
    label(list_kind, true, errors);
    for name in at.field("shortNames").items() {
        whole_label(name, errors);
    }
    if !kind.str().is_empty() && kind.str() == list_kind.str() {
        errors.invalid(
            list_kind.path,
            list_kind.str(),
            "kind and listKind may not be the same",
        );
    }
    for name in at.field("categories").items() {
        whole_label(name, errors);
    }
}

fn label(at: At<'_>, mixed: bool, errors: &mut Errors) {
    if at.str().is_empty() {
        return;
    }
    if !mixed {
        return whole_label(at, errors);
    }
    let wrong = names::dns1035_label(&at.str().to_lowercase());
    if !wrong.is_empty() {
        errors.invalid(
            at.path,
            at.str(),
            format!(
                "may have mixed case, but should otherwise match: {}",
                wrong.join(",")
            ),
        );
    }
}

fn whole_label(at: At<'_>, errors: &mut Errors) {
    let wrong = names::dns1035_label(at.str());
    if !wrong.is_empty() {
        errors.invalid(at.path, at.str(), wrong.join(","));
    }
}
