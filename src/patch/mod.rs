//! The kinds of patch: JSON patch, merge patch, strategic merge patch, and server-side apply. All are pure functions
//! of values. Follows k8s.io/apiserver/pkg/endpoints/handlers/patch.go for order and texts of refusals.

pub(crate) mod go;
pub mod json_patch;
pub mod managed;
pub mod merge;
pub mod restore;
pub mod strategic;

use crate::meta::status::About;
use crate::meta::{Errors, Path, Status};
use crate::schema::decode::Decoded;
use crate::schema::emptied::Emptied;
use crate::schema::{Object, Schema, Value, json};

/// What a patch's body is, by its media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
}

impl Kind {
    /// The kind with this media type (case counts, parameters already cut off).
    pub fn of(media_type: &str) -> Option<Kind> {
        Some(match media_type {
            "application/json-patch+json" => Kind::Json,
            "application/merge-patch+json" => Kind::Merge,
            "application/strategic-merge-patch+json" => Kind::Strategic,
            _ => return None,
        })
    }
}

/// Why a patch was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is no patch: 400 BadRequest.
    #[error("{0}")]
    Malformed(String),
    /// More operations than a JSON patch may have: 413 RequestEntityTooLarge.
    #[error(
        "The allowed maximum operations in a JSON patch is {max}, got {0}",
        max = json_patch::MAX_OPERATIONS
    )]
    TooManyOperations(usize),
    /// An operation does not apply to the object: 422 Invalid, with a text that does not say which. This text does.
    #[error("{0}")]
    Inapplicable(String),
    /// What upstream did not classify: 500 without a reason.
    #[error("{0}")]
    Unclassified(String),
    /// The patched object is no object of its kind: 422 Invalid about the field `patch`.
    #[error("{why}")]
    Undecodable {
        /// The patched object or the patch, as the refusal shows it.
        shown: String,
        /// The decoder's text.
        why: String,
    },
}

impl From<PatchError> for Status {
    fn from(error: PatchError) -> Status {
        let text = error.to_string();
        match error {
            PatchError::Malformed(_) => Status::bad_request(text),
            PatchError::TooManyOperations(_) => Status::failure(
                413,
                "RequestEntityTooLarge",
                format!("Request entity too large: {text}"),
            ),
            PatchError::Inapplicable(_) => Status::failure(
                422,
                "Invalid",
                "the server rejected our request due to an error in our request",
            )
            .with_details(crate::schema::Object::new()),
            PatchError::Unclassified(_) => Status::unclassified(text),
            PatchError::Undecodable { shown, why } => {
                let mut errors = Errors::default();
                errors.invalid(Path::ROOT.field("patch"), shown, why);
                let nothing = About {
                    group: "",
                    kind: "",
                    name: "",
                };
                Status::invalid(nothing, &errors)
            }
        }
    }
}

/// A patch as read, not yet looked into: its shape is judged when it meets an object, as upstream does.
#[derive(Clone, Debug)]
pub struct Patch {
    kind: Kind,
    body: Value,
    duplicates: Vec<String>,
    /// A number that no `float64` holds: valid JSON, but nothing that can be decoded.
    undecodable: Option<String>,
}

/// A patched object.
#[derive(Clone, Debug, Default)]
pub struct Patched {
    /// In canonical form.
    pub value: Value,
    /// What strict decoding refuses and lenient decoding warns of, in upstream's order: `unknown field "spec.x"`.
    pub strict: Vec<String>,
    /// What it says is empty, which canonical form does not show.
    pub emptied: Vec<Emptied>,
}

impl Patch {
    /// Reads the body of a patch.
    ///
    /// # Errors
    /// 400 `invalid JSON patch`.
    pub fn read(kind: Kind, body: &[u8]) -> Result<Patch, PatchError> {
        match json::parse(body) {
            Ok(parsed) => Ok(Patch {
                kind,
                body: parsed.value,
                duplicates: parsed.duplicates,
                undecodable: None,
            }),
            Err(error) if error.message.starts_with("json: cannot unmarshal number") => Ok(Patch {
                kind,
                body: Value::Null,
                duplicates: Vec::new(),
                undecodable: Some(error.message),
            }),
            Err(_) => Err(PatchError::Malformed("invalid JSON patch".to_owned())),
        }
    }

    /// The body.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// The object that this makes of `live`, both in the version of the request.
    ///
    /// `schema` is the schema of that version (a strategic patch looks up in it how fields merge). `decode` turns
    /// the outcome of a JSON or merge patch into canonical form, as it would a body. `checked` is whether unknown
    /// and duplicate fields are to be told (`fieldValidation` other than Ignore), which also decides what is said
    /// about a body of the wrong type.
    ///
    /// # Errors
    /// [`PatchError`], at the first thing that is wrong.
    pub fn apply(
        &self,
        live: &Value,
        schema: &Schema,
        decode: impl FnOnce(Value) -> Result<Decoded, String>,
        checked: bool,
    ) -> Result<Patched, PatchError> {
        let mut strict = self.strict(checked)?;
        let (decoded, shown) = match self.kind {
            Kind::Strategic => {
                let mut patch = self.body.clone();
                let mut patched = strategic::merge(live, &mut patch, schema)?;
                managed::keep_reset(&mut patched);
                (
                    restore::restore(patched, schema, checked, |member| self.says(member)),
                    Shown::Patch(patch),
                )
            }
            _ => (decode(self.document(live)?), Shown::Outcome),
        };
        match decoded {
            Ok(decoded) => {
                if checked {
                    strict.extend(
                        decoded
                            .unknown
                            .iter()
                            .map(|path| format!("unknown field \"{path}\"")),
                    );
                }
                Ok(Patched {
                    value: decoded.value,
                    strict,
                    emptied: decoded.emptied,
                })
            }
            Err(why) => Err(match shown {
                Shown::Patch(patch) => PatchError::Undecodable {
                    shown: go::printed(&patch),
                    why,
                },
                Shown::Outcome => self.refused(live, schema, why),
            }),
        }
    }

    /// The refusal of the object that this makes of `live`, for a reason such as
    /// `strict decoding error: unknown field "spec.x"`.
    pub fn refused(&self, live: &Value, schema: &Schema, why: impl Into<String>) -> PatchError {
        let shown = match self.kind {
            Kind::Strategic => {
                let mut patch = self.body.clone();
                strategic::merge(live, &mut patch, schema).map(|_| go::printed(&patch))
            }
            kind => self.document(live).map(|mut document| {
                if kind == Kind::Json {
                    json_patch::sort_touched(&mut document, &self.body);
                }
                json::to_string(&document)
            }),
        };
        match shown {
            Ok(shown) => PatchError::Undecodable {
                shown,
                why: why.into(),
            },
            Err(error) => error,
        }
    }

    /// The patched document of a JSON or merge patch, before it is decoded.
    fn document(&self, live: &Value) -> Result<Value, PatchError> {
        match self.kind {
            Kind::Json => json_patch::apply(live, &self.body),
            _ => merge::apply(live, &self.body),
        }
    }

    /// Whether a strategic patch may have changed this member of an object: it names it, or says of itself how it is meant.
    fn says(&self, member: &str) -> bool {
        let mut names = self.body.as_object().into_iter().flat_map(Object::keys);
        names.any(|name| name == member || name.starts_with('$'))
    }

    /// Judges the body's shape; returns what strict decoding of the body itself refuses.
    fn strict(&self, checked: bool) -> Result<Vec<String>, PatchError> {
        let prefix = match self.kind {
            Kind::Strategic => "",
            _ => "error decoding patch: ",
        };
        if let Some(error) = &self.undecodable {
            return Err(PatchError::Malformed(format!("{prefix}{error}")));
        }
        match self.kind {
            Kind::Json => {
                if !checked {
                    return Ok(Vec::new());
                }
                json_patch::check(&self.body, &self.duplicates)
                    .map_err(|why| PatchError::Malformed(format!("{prefix}{why}")))
            }
            Kind::Merge if !checked => Ok(Vec::new()),
            _ => match &self.body {
                Value::Object(_) | Value::Null => Ok(if checked {
                    self.duplicates
                        .iter()
                        .map(|path| format!("duplicate field \"{path}\""))
                        .collect()
                } else {
                    Vec::new()
                }),
                other => Err(PatchError::Malformed(format!(
                    "{prefix}json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                    other.type_name()
                ))),
            },
        }
    }
}

/// What the refusal of an undecodable outcome shows.
enum Shown {
    /// The patch, as a Go map.
    Patch(Value),
    /// The outcome, as JSON.
    Outcome,
}

#[cfg(test)]
mod tests;
