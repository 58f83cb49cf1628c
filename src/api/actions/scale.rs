//! The scale subresource: a Scale shows and changes the number of replicas of an object. Field ownership of the number
//! is kept in the object's managedFields. Follows pkg/registry/apps/deployment/storage/storage.go and
//! k8s.io/apiextensions-apiserver/pkg/registry/customresource/etcd.go.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Call;
use crate::api::negotiate::Shape;
use crate::api::query::{FieldValidation, WriteOptions};
use crate::api::read::{self, Expected};
use crate::api::reply::Reply;
use crate::api::request_info::Info;
use crate::api::table;
use crate::api::verbs::apply::{self, Applied, Ground};
use crate::api::verbs::{Target, get, owners, patch};
use crate::meta::status::About;
use crate::meta::{At, Errors, Status, time};
use crate::patch::managed::scale::{SCALE_VERSION, to_parent, to_scale};
use crate::patch::managed::{Filter, Managed, OneVersion, Writer};
use crate::patch::{Patch, restore};
use crate::resources::scale::Scale;
use crate::resources::{Resource, forms};
use crate::schema::{Value, builtin, decode};

/// Stands for missing replicas: clients cannot set so low a number.
const ABSENT: i64 = i32::MIN as i64;
const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";
const EXPECTED: Expected<'static> = Expected {
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
};

/// Handles a request for `/scale`.
pub fn answer(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    run(call).boxed()
}

async fn run(mut call: Call<'_>) -> Result<Reply, Status> {
    let scale = Scale::served(call.target.version()).ok_or_else(Status::no_such_resource)?;
    let (shape, custom) = (call.accepted.shape, call.target.resource.is_custom());
    let shown = match call.target.info.verb.as_str() {
        "get" => read(&call, &scale).await?,
        "update" => update(&mut call, &scale).await?,
        _ => change_by_patch(&mut call, &scale).await?,
    };
    Ok(match shape {
        Shape::Table { beta } => Reply::Object(200, as_table(&shown, custom, beta)),
        _ => Reply::Object(200, shown),
    })
}

async fn read(call: &Call<'_>, scale: &Scale) -> Result<Value, Status> {
    let target = call.target;
    let Reply::Entry(_, entry) = get::get(target).await? else {
        return Err(Status::internal("a read answered something else"));
    };
    let object = forms::versioned(&entry, entry.rev, &target.resource, target.version());
    let (shown, there) = of(scale, &object)?;
    if there || !target.resource.is_custom() {
        return Ok(shown);
    }
    Err(Status::internal(&format!(
        "the spec replicas field \"{}\" does not exist",
        scale.spec_replicas.text
    )))
}

/// The Scale of an object, and whether the object has a number of replicas.
fn of(scale: &Scale, object: &Value) -> Result<(Value, bool), Status> {
    let (mut shown, there) = scale.of(object).map_err(Status::unclassified)?;
    decode::tidy(&mut shown, builtin::named(SCALE));
    Ok((shown, there))
}

async fn update(call: &mut Call<'_>, scale: &Scale) -> Result<Value, Status> {
    let options = call.options("UpdateOptions")?;
    let custom = call.target.resource.is_custom();
    let mut wanted = call.object(&options).map_err(|refusal| match refusal.code {
        // Upstream's decoder for custom resources does not know the type Scale, and says so in its error.
        400 if custom => Status::bad_request(
            "no kind is registered for the type v1.Scale in scheme \"pkg/runtime/scheme.go:111\"",
        ),
        _ => refusal,
    })?;
    let target = call.target;
    patch::belongs(&mut wanted, &target.info.name, target.namespace())?;
    change(call, scale, &options, |old, managed, by| {
        Ok(by.updated(&old, wanted.clone(), managed))
    })
    .await
}

async fn change_by_patch(call: &mut Call<'_>, scale: &Scale) -> Result<Value, Status> {
    let kind = patch::kind(&call.parts.headers, &call.target.resource)?;
    let options = call.patch_options(kind.is_none())?;
    let Some(kind) = kind else {
        let applied = Applied::read(&call.body)?;
        let mut told = Vec::new();
        let custom = call.target.resource.is_custom();
        let shown = change(call, scale, &options, |old, managed, by| {
            let said = applied.object(SCALE_VERSION, "Scale")?;
            let outcome = by.applied(old, managed, said, custom)?;
            applied.check_duplicates(options.validation, &mut told)?;
            Ok(outcome)
        })
        .await;
        call.warnings.extend(told);
        return shown;
    };
    let patch = Patch::read(kind, &call.body)?;
    let schema = builtin::named(SCALE);
    let checked = options.validation != FieldValidation::Ignore;
    let mut told = Vec::new();
    let shown = change(call, scale, &options, |old, managed, by| {
        let mut whole = old.clone();
        owners::put(&mut whole, managed.write());
        let patched = patch.apply(
            &whole,
            schema,
            |outcome| read::patched(outcome, EXPECTED),
            checked,
        )?;
        told.clear();
        read::judge(patched.strict, options.validation, &mut told)
            .map_err(|why| patch.refused(&whole, schema, why))?;
        Ok(by.updated(&old, patched.value, managed))
    })
    .await?;
    call.warnings.extend(told);
    Ok(shown)
}

/// The writer of a Scale.
struct By<'a> {
    options: &'a WriteOptions,
    versions: OneVersion<'a>,
    now: String,
}

impl By<'_> {
    fn writer(&self) -> Writer<'_> {
        Writer {
            versions: &self.versions,
            api_version: SCALE_VERSION,
            schema: builtin::named(SCALE),
            filter: &Filter::All,
            filter_elsewhere: &Filter::All,
            manager: &self.options.manager,
            subresource: "scale",
            now: &self.now,
        }
    }

    /// The new Scale and its managedFields after a write other than an apply.
    fn updated(&self, old: &Value, mut new: Value, managed: Managed) -> (Value, Managed) {
        owners::take(&mut new);
        // Only one version, which always matches its schema: this does not fail.
        let managed = self
            .writer()
            .update(old, &new, managed.clone(), false)
            .unwrap_or(managed);
        (new, managed)
    }

    /// The new Scale and its managedFields after an apply.
    fn applied(
        &self,
        old: Value,
        managed: Managed,
        said: &Value,
        custom: bool,
    ) -> Result<(Value, Managed), Status> {
        let schema = builtin::named(SCALE);
        // Upstream converts the result of an apply to a version of the custom resource.
        let refusal = format!("request to convert CR to an invalid group/version: {SCALE_VERSION}");
        if custom && managed.entries.is_empty() {
            return Err(Status::unclassified(format!(
                "failed to create manager for existing fields: failed to convert live object (/; {SCALE_VERSION}, Kind=Scale) to proper version: {refusal}"
            )));
        }
        let nothing = || {
            let mut scale = crate::value!({"kind": "Scale", "apiVersion": SCALE_VERSION});
            decode::tidy(&mut scale, schema);
            scale
        };
        let decode = |new: Value| {
            if custom {
                return Err(refusal.clone());
            }
            restore::restore(new, schema, false, |_| true).map_err(|why| {
                format!(
                    "unable to convert unstructured object to {SCALE_VERSION}, Kind=Scale: {why}"
                )
            })
        };
        let ground = Ground {
            nothing: &nothing,
            decode: &decode,
            custom: false,
            force: self.options.force,
        };
        let (laid, managed) = apply::lay(&self.writer(), &ground, said, old, managed, false)?;
        Ok((laid.value, managed))
    }
}

/// Updates the object so that its Scale and managedFields become what `wanted` returns.
async fn change(
    call: &mut Call<'_>,
    scale: &Scale,
    options: &WriteOptions,
    mut wanted: impl FnMut(Value, Managed, &By<'_>) -> Result<(Value, Managed), Status>,
) -> Result<Value, Status> {
    // The object itself is written, with the rules for its kind.
    let target = Target {
        info: Arc::new(Info {
            subresource: String::new(),
            ..(*call.target.info).clone()
        }),
        ..call.target.clone()
    };
    let by = By {
        options,
        versions: OneVersion(SCALE_VERSION, builtin::named(SCALE)),
        now: time::print(target.now),
    };
    let api_version = target.resource.api_version(&target.version().name);
    let places = |said: &str| place(&target.resource, said, scale);
    let mut write = call.server.write(&target, options);
    write.asked = Some("scale");
    let reply = write
        .rewrite(200, |write, mut object| {
            let parent = apply::read_managed(&owners::take(&mut object))?;
            let (mut live, there) = of(scale, &object)?;
            if !there && target.resource.is_custom() {
                live.object_mut()
                    .object_mut("spec")
                    .insert("replicas", ABSENT);
            }
            let (mut new, managed) = wanted(live, to_scale(&parent, &places), &by)?;
            patch::belongs(&mut new, &target.info.name, target.namespace())?;
            let replicas = new.at("spec").int("replicas");
            let uid = new.at("metadata").str("uid");
            let found = object.at("metadata").str("uid");
            let updates = target.info.verb == "update";
            if updates && !uid.is_empty() && uid != found {
                return Err(write.wrong_uid(uid, found));
            }
            if target.resource.is_custom() {
                if replicas == ABSENT {
                    return Err(Status::bad_request(format!(
                        "the spec replicas field \"{}\" cannot be empty",
                        scale.spec_replicas.text
                    )));
                }
            } else {
                judge(&new, &target)?;
                if !uid.is_empty() && uid != found {
                    return Err(other_uid(&target, uid, found));
                }
            }
            scale
                .spec_replicas
                .set(&mut object, replicas)
                .map_err(Status::unclassified)?;
            let meta = object.object_mut().object_mut("metadata");
            match new.at("metadata").get("resourceVersion") {
                Some(version) => drop(meta.insert("resourceVersion", version)),
                None if target.resource.is_custom() => {}
                None => drop(meta.remove("resourceVersion")),
            }
            owners::put(
                &mut object,
                to_parent(&parent, managed, &api_version, &places),
            );
            Ok(object)
        })
        .await;
    let warnings = std::mem::take(&mut write.warnings);
    call.warnings.extend(warnings);
    let object = match reply? {
        Reply::Entry(_, entry) => {
            forms::versioned(&entry, entry.rev, &target.resource, target.version())
        }
        Reply::Object(_, object) => object,
        _ => return Err(Status::internal("a write answered something else")),
    };
    of(scale, &object)
        .map(|(shown, _)| shown)
        .map_err(|status| Status::bad_request(status.message))
}

/// The path of the replicas field in a version of the resource.
fn place<'a>(resource: &'a Resource, api_version: &str, asked: &'a Scale) -> Option<Vec<&'a str>> {
    let (group, name) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let version = resource.version(name).filter(|_| group == resource.group)?;
    Some(match &version.custom {
        None => asked.spec_replicas.path(),
        Some(served) => served
            .scale
            .as_ref()
            .map(|scale| scale.spec_replicas.path())
            .unwrap_or_default(),
    })
}

/// Validates the Scale of a built-in kind.
fn judge(scale: &Value, target: &Target) -> Result<(), Status> {
    let mut errors = Errors::default();
    let spec = At::root(scale);
    let spec = spec.field("spec");
    spec.field("replicas").non_negative(&mut errors);
    if errors.is_empty() {
        return Ok(());
    }
    let about = About {
        group: "autoscaling",
        kind: "Scale",
        name: &target.info.name,
    };
    Err(Status::invalid(about, &errors))
}

/// The error for a patch with a uid other than the object's.
fn other_uid(target: &Target, asked: &str, found: &str) -> Status {
    let kind = format!("{}/scale", target.resource.plural);
    let about = About {
        group: &target.resource.group,
        kind: &kind,
        name: &target.info.name,
    };
    Status::conflict(
        about,
        &format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {found}"),
    )
}

/// The table of a Scale: upstream prints those of custom resources and of built-in kinds differently.
fn as_table(scale: &Value, custom: bool, beta: bool) -> Value {
    let replicas = |part: &str| scale.at(part).int("replicas").into();
    let now = crate::meta::time::now();
    let cells = vec![
        scale.at("metadata").str("name").into(),
        replicas("spec"),
        replicas("status"),
        crate::meta::table::age(scale, now),
    ];
    let (name, age) = if custom {
        ("name", "date")
    } else {
        ("", "string")
    };
    let columns = [
        ("Name", "string", name),
        ("Desired", "integer", ""),
        ("Available", "integer", ""),
        ("Age", age, ""),
    ];
    table::single(scale, &columns, cells, beta)
}
