//! The kinds of patch: JSON patch, merge patch, strategic merge patch, and server-side apply. All are pure functions
//! of values. Follows k8s.io/apiserver/pkg/endpoints/handlers/patch.go in the order and texts of errors.

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

/// The kind of a patch, from its media type.
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
    /// The kind with this media type (case-sensitive, without parameters).
    pub fn of(media_type: &str) -> Option<Kind> {
        Some(match media_type {
            "application/json-patch+json" => Kind::Json,
            "application/merge-patch+json" => Kind::Merge,
            "application/strategic-merge-patch+json" => Kind::Strategic,
            _ => return None,
        })
    }
}

/// Why a patch was rejected.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PatchError {
    /// The body is not a patch: 400 BadRequest.
    #[error("{0}")]
    Malformed(String),
    /// More operations than allowed in a JSON patch: 413 RequestEntityTooLarge.
    #[error(
        "The allowed maximum operations in a JSON patch is {max}, got {0}",
        max = json_patch::MAX_OPERATIONS
    )]
    TooManyOperations(usize),
    /// An operation does not apply to the object: 422 Invalid, whose text does not say which. This text does.
    #[error("{0}")]
    Inapplicable(String),
    /// An error that upstream did not classify: 500 without a reason.
    #[error("{0}")]
    Unclassified(String),
    /// The result is not a valid object of its kind: 422 Invalid for the field `patch`.
    #[error("{why}")]
    Undecodable {
        /// The patched object or the patch, as shown in the error.
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

/// A parsed patch whose structure is not yet checked: like upstream, it is checked when applied to an object.
#[derive(Clone, Debug)]
pub struct Patch {
    kind: Kind,
    body: Value,
    duplicates: Vec<String>,
    /// The error for a number that does not fit a `float64`: valid JSON, but it cannot be decoded.
    undecodable: Option<String>,
}

/// A patched object.
#[derive(Clone, Debug, Default)]
pub struct Patched {
    /// In canonical form.
    pub value: Value,
    /// Errors in strict decoding that are warnings otherwise, in upstream's order: `unknown field "spec.x"`.
    pub strict: Vec<String>,
    /// Fields set to an empty value, which canonical form does not show.
    pub emptied: Vec<Emptied>,
}

impl Patch {
    /// Parses the body of a patch.
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

    /// Applies this to `live`, both in the version of the request.
    ///
    /// `schema` is the schema of that version (a strategic merge patch finds in it how fields merge). `decode` brings
    /// the result of a JSON or merge patch into canonical form, like a request body. `checked` says whether to report
    /// unknown and duplicate fields (`fieldValidation` other than Ignore), which also affects the error for a body of
    /// the wrong type.
    ///
    /// # Errors
    /// [`PatchError`] for the first problem.
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

    /// The error that rejects the result of this patch on `live`, for a reason such as
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

    /// Whether a strategic merge patch may have changed this member of an object: it sets it, or has directives.
    fn says(&self, member: &str) -> bool {
        let mut names = self.body.as_object().into_iter().flat_map(Object::keys);
        names.any(|name| name == member || name.starts_with('$'))
    }

    /// Checks the body's structure; returns the errors of strict decoding of the body itself.
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

/// What the error for an undecodable result shows.
enum Shown {
    /// The patch, as a Go map.
    Patch(Value),
    /// The result, as JSON.
    Outcome,
}

#[cfg(test)]
mod tests;
