//! Server-side apply: merges the fields that a client applies into an object, and records their ownership. Follows
//! k8s.io/apiserver/pkg/endpoints/handlers/patch.go (applyPatcher) and
//! k8s.io/apimachinery/pkg/util/managedfields/internal.

use super::Target;
use super::owners;
use super::patch::belongs;
use super::write::{Attempt, TRIES, Write};
use crate::api::custom;
use crate::api::negotiate::content_type;
use crate::api::query::FieldValidation;
use crate::api::reply::Reply;
use crate::meta::Status;
use crate::meta::errors::quoted;
use crate::patch::managed::conflict::{self, Conflict};
use crate::patch::managed::typing::Type;
use crate::patch::managed::validate::validate;
use crate::patch::managed::{Managed, Refusal, Set, Writer, walk};
use crate::patch::restore;
use crate::schema::decode::Decoded;
use crate::schema::{Value, json, yaml};

/// The media type of an apply.
const MEDIA_TYPE: &str = "application/apply-patch+yaml";

/// Whether a PATCH is an apply.
pub fn is(headers: &http::HeaderMap) -> bool {
    content_type(headers) == MEDIA_TYPE
}

/// The annotation in which kubectl's client-side apply keeps the last applied configuration.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The maximum total size of annotations, in bytes.
const ANNOTATIONS_MAX: usize = crate::resources::metadata::ANNOTATIONS_MAX;

/// The parsed body of an apply.
pub struct Applied {
    /// The value, or why it cannot be parsed although it begins as an object: that is reported only once the object to
    /// apply it to was found.
    object: Result<Value, String>,
    /// Duplicate members.
    duplicates: Vec<String>,
}

/// Applies a body to the named object, or creates it.
///
/// # Errors
/// 400 for a body of another kind, 409 with every conflict, 500 for a value that does not match the schema, and the
/// errors of any write.
pub async fn apply(write: &mut Write<'_>, bytes: &[u8]) -> Result<Reply, Status> {
    let target = write.target;
    let main = target.info.subresource.is_empty();
    let key = target.resource.key(target.namespace(), &target.info.name);
    let applied = Applied::read(bytes)?;
    target.check_key(&target.info.name)?;
    let missing = || main && target.cluster.store.head(&key).is_none();
    let mut warned = Vec::new();
    let mut result = Err(Status::modified(target.about(&target.info.name)));
    for _ in 0..TRIES {
        if missing() {
            let object = applied.made(write, None, &mut warned)?;
            readable_version(&object.value)?;
            let sent = applied.object.as_ref();
            let sent = sent.map_or(Value::Null, |said| said.at("metadata").clone());
            match write.try_create(object, Some(sent)).await {
                Ok(Attempt::Made(reply)) => result = Ok(*reply),
                Ok(Attempt::Taken(_) | Attempt::Lost(_)) => continue,
                Err(status) => result = Err(status),
            }
        } else {
            result = write
                .rewrite(200, |write, old| {
                    applied.made(write, Some(old), &mut warned)
                })
                .await;
            if matches!(&result, Err(status) if status.code == 404) && missing() {
                continue;
            }
        }
        break;
    }
    write.warnings.append(&mut warned);
    result
}

/// Rejects an invalid resourceVersion: upstream parses it even if the object does not exist.
///
/// # Errors
/// 500 with Go's text.
fn readable_version(object: &Value) -> Result<(), Status> {
    let said = object.at("metadata").str("resourceVersion");
    match said.parse::<u64>() {
        Err(_) if !said.is_empty() => Err(Status::unclassified(format!(
            "strconv.ParseUint: parsing {}: invalid syntax",
            quoted(said)
        ))),
        _ => Ok(()),
    }
}

impl Applied {
    /// Parses a body.
    ///
    /// # Errors
    /// 400 `error encoding patch: yaml: line 1: did not find expected node content` for a body that does not even begin
    /// as JSON.
    pub fn read(bytes: &[u8]) -> Result<Applied, Status> {
        match yaml::parse(bytes) {
            Ok(parsed) => Ok(Applied {
                object: Ok(parsed.value),
                duplicates: parsed.duplicates,
            }),
            Err(why) if bytes.trim_ascii_start().starts_with(b"{") => Ok(Applied {
                object: Err(format!(
                    "error decoding patch: error converting YAML to JSON: {why}"
                )),
                duplicates: Vec::new(),
            }),
            Err(why) => Err(Status::bad_request(format!("error encoding patch: {why}"))),
        }
    }

    /// The body as an object of a kind.
    ///
    /// # Errors
    /// 400 for a body that is malformed, not an object, or of another kind.
    pub fn object(&self, api_version: &str, kind: &str) -> Result<&Value, Status> {
        static NOTHING: Value = Value::Null;
        let said = match &self.object {
            Err(why) => return Err(Status::bad_request(why.clone())),
            Ok(Value::Null) => &NOTHING,
            Ok(said @ Value::Object(_)) => said,
            Ok(other) => {
                return Err(Status::bad_request(format!(
                    "error decoding patch: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                    other.type_name()
                )));
            }
        };
        if said.str("apiVersion") == api_version && said.str("kind") == kind {
            return Ok(said);
        }
        Err(Status::bad_request(format!(
            "invalid object type: {}",
            shown_kind(said)
        )))
    }

    /// The merged object with its managedFields, in the request's version.
    fn made(
        &self,
        write: &Write<'_>,
        old: Option<Value>,
        warned: &mut Vec<String>,
    ) -> Result<Decoded, Status> {
        let target = write.target;
        let resource = &target.resource;
        let said = self.object(
            &resource.api_version(&target.version().name),
            &resource.kind,
        )?;
        let creates = old.is_none();
        let nothing = || owners::nothing(resource, target.version());
        let ground = Ground {
            nothing: &nothing,
            decode: &|new| decoded(new, target, said),
            custom: resource.is_custom(),
            force: write.options.force,
        };
        let mut live = old.unwrap_or_else(nothing);
        let list = owners::take(&mut live);
        let managed = read_managed(&list)?;
        let (mut laid, managed) = owners::writer(write, |writer| {
            lay(writer, &ground, said, live, managed, creates)
        })?;
        let new = &mut laid.value;
        (resource.rules.convert)(new).map_err(|why| {
            Status::unclassified(format!(
                "failed to convert to unversioned ({}): {why}",
                shown(said)
            ))
        })?;
        owners::put(new, managed.write());
        self.check_duplicates(write.options.validation, warned)?;
        let meta = new.at("metadata");
        if creates && !meta.str("uid").is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was found",
                meta.str("uid")
            );
            return Err(Status::conflict(target.about(&target.info.name), &why));
        }
        if creates {
            write.place(new)?;
        }
        belongs(new, &target.info.name, target.namespace())?;
        Ok(laid)
    }

    /// Rejects duplicate members, or warns about them.
    ///
    /// # Errors
    /// 400, if validation is strict.
    pub fn check_duplicates(
        &self,
        validation: FieldValidation,
        warned: &mut Vec<String>,
    ) -> Result<(), Status> {
        match validation {
            FieldValidation::Strict if !self.duplicates.is_empty() => {
                Err(Status::bad_request(format!(
                    "error strict decoding patch: error converting YAML to JSON: yaml: unmarshal errors:\n  {}",
                    self.duplicates.join("\n  ")
                )))
            }
            FieldValidation::Warn => {
                warned.clone_from(&self.duplicates);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The declared kind of an object in Go's notation.
fn shown_kind(object: &Value) -> String {
    let said = object.str("apiVersion");
    if said.matches('/').count() > 1 {
        return "/, Kind=".to_owned();
    }
    let (group, version) = said.split_once('/').unwrap_or(("", said));
    format!("{group}/{version}, Kind={}", object.str("kind"))
}

/// An object in an error message: `NAMESPACE/NAME; GROUP/VERSION, Kind=KIND`.
fn shown(object: &Value) -> String {
    let meta = object.at("metadata");
    format!(
        "{}/{}; {}",
        meta.str("namespace"),
        meta.str("name"),
        shown_kind(object)
    )
}

/// Parses the managedFields of a stored object.
///
/// # Errors
/// 500 for values that no server has written.
pub fn read_managed(list: &Value) -> Result<Managed, Status> {
    Managed::read(list)
        .map_err(|why| Status::unclassified(format!("failed to decode managed fields: {why}")))
}

/// What an apply needs to know about a kind.
pub struct Ground<'a> {
    /// An empty object.
    pub nothing: &'a dyn Fn() -> Value,
    /// Decodes the merged object, with defaults; the error is why that fails.
    pub decode: &'a dyn Fn(Value) -> Result<Decoded, String>,
    /// Whether stored objects may break the schema.
    pub custom: bool,
    /// Whether conflicts are overridden.
    pub force: bool,
}

/// Merges the applied fields into the object, and computes the new ownership.
///
/// # Errors
/// 409 with every conflict; 400 and 500 for values that cannot be applied.
pub fn lay(
    writer: &Writer<'_>,
    ground: &Ground<'_>,
    said: &Value,
    live: Value,
    mut managed: Managed,
    creates: bool,
) -> Result<(Decoded, Managed), Status> {
    let root = Type::root(writer.schema);
    let refuse = |what: &str, object: &Value, why: String| {
        Status::unclassified(format!("failed to {what} ({}){why}", shown(object)))
    };
    if managed.entries.is_empty() && !creates {
        managed = writer.begin(&live, &(ground.nothing)()).map_err(|why| {
            refuse(
                "create manager for existing fields: failed to convert new object",
                &live,
                format!(" to smd typed: {why}"),
            )
        })?;
    }
    if Managed::is_said(said.path(&["metadata", "managedFields"])) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    validate(said, root, false)
        .map_err(|why| refuse("create typed patch object", said, format!(": {why}")))?;
    if ground.custom {
        validate(&live, root, true)
            .map_err(|why| refuse("create typed live object", &live, format!(": {why}")))?;
    }
    let by_kubectl = writer.manager == "kubectl";
    let outcome = match writer.apply(&live, said, managed.clone(), ground.force) {
        Err(Refusal::Conflicts(conflicts)) if by_kubectl => {
            match unsettled(writer, &live, conflicts.clone()) {
                None => Err(Refusal::Conflicts(conflicts)),
                Some(rest) if rest.is_empty() => writer.apply(&live, said, managed, true),
                Some(rest) => Err(Refusal::Conflicts(rest)),
            }
        }
        outcome => outcome,
    };
    let (new, managed) = outcome.map_err(|refusal| match refusal {
        Refusal::Conflicts(conflicts) => conflict::refusal(conflicts),
        Refusal::Other(why) => Status::unclassified(why),
    })?;
    let mut new = match new {
        Some(new) => (ground.decode)(new).map_err(|why| {
            refuse(
                "convert new object",
                said,
                format!(" to proper version: {why}"),
            )
        })?,
        None => live.into(),
    };
    if by_kubectl {
        remember(&mut new.value, said);
    }
    Ok((new, managed))
}

/// Decodes the merged object, with defaults.
fn decoded(new: Value, target: &Target, said: &Value) -> Result<Decoded, String> {
    let version = target.version();
    if target.resource.is_custom() {
        return custom::applied(new, target).map(Decoded::from);
    }
    let mut decoded = restore::restore(new, &version.schema, false, |_| true).map_err(|why| {
        format!(
            "unable to convert unstructured object to {}: {why}",
            shown_kind(said)
        )
    })?;
    (target.resource.rules.defaults)(&mut decoded.value, &target.cx());
    Ok(decoded)
}

/// The annotation of kubectl's client-side apply, if there is one.
fn last_applied(object: &Value) -> Option<&str> {
    object
        .path(&["metadata", "annotations"])
        .at(LAST_APPLIED)
        .as_str()
        .filter(|text| !text.is_empty())
}

/// The conflicts that remain when kubectl migrates from client-side apply: fields in the annotation whose values are
/// unchanged are taken over. None if there is no such annotation.
fn unsettled(writer: &Writer<'_>, live: &Value, conflicts: Vec<Conflict>) -> Option<Vec<Conflict>> {
    let root = Type::root(writer.schema);
    let last = json::parse(last_applied(live)?.as_bytes()).ok()?.value;
    if last.str("apiVersion") != writer.api_version {
        return None;
    }
    validate(live, root, false).ok()?;
    validate(&last, root, false).ok()?;
    let changes = walk::compare(&last, live, root);
    let allowed: Set = walk::fields_of(&last, root)
        .difference(&changes.modified)
        .difference(&changes.added)
        .difference(&changes.removed);
    let rest = conflicts
        .into_iter()
        .map(|conflict| Conflict {
            fields: conflict.fields.difference(&allowed),
            ..conflict
        })
        .filter(|conflict| !conflict.fields.is_empty())
        .collect();
    Some(rest)
}

/// Updates kubectl's annotation, if there is one, as a client-side apply would.
fn remember(new: &mut Value, said: &Value) {
    if last_applied(new).is_none() {
        return;
    }
    let mut said = said.clone();
    if let Some(annotations) = said
        .get_mut("metadata")
        .and_then(|meta| meta.get_mut("annotations"))
    {
        annotations.remove(LAST_APPLIED);
    }
    sort(&mut said);
    let text = json::to_string(&said) + "\n";
    let annotations = new
        .object_mut()
        .object_mut("metadata")
        .object_mut("annotations");
    annotations.insert(LAST_APPLIED, text);
    let size: usize = annotations
        .iter()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if size > ANNOTATIONS_MAX {
        annotations.remove(LAST_APPLIED);
    }
}

/// Sorts members as Go writes maps.
fn sort(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(sort),
        Value::Object(members) => {
            members.iter_mut().for_each(|(_, member)| sort(member));
            members.sort();
        }
        _ => {}
    }
}
