//! What a list or watch selects.

use crate::meta::Status;
use crate::meta::errors::quoted;
use crate::meta::selector::{Op, Selector, Term};
use crate::resources::{Resource, SelectorError, Version, record};
use crate::schema::Value;
use crate::store::Entry;

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
    pub(super) fn of(
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
