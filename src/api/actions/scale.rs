//! The scale subresource of custom resources: a Scale that shows, and changes, what the definition's paths lead to.
//! Follows k8s.io/apiextensions-apiserver/pkg/registry/customresource/etcd.go.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Call;
use crate::api::info::Info;
use crate::api::negotiate::Shape;
use crate::api::query::FieldValidation;
use crate::api::reply::Reply;
use crate::api::table;
use crate::api::verbs::{Target, get, patch};
use crate::meta::Status;
use crate::patch::Patch;
use crate::resources::custom::scale::Scale;
use crate::resources::forms;
use crate::schema::{Value, builtin, decode};

/// Stands for replicas that are not there yet: nobody can ask for so few.
const ABSENT: i64 = i32::MIN as i64;
const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";

/// Answers a request for `/scale` of a custom resource.
pub fn answer(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    run(call).boxed()
}

async fn run(mut call: Call<'_>) -> Result<Reply, Status> {
    let scale = call
        .target
        .version()
        .custom
        .as_ref()
        .and_then(|served| served.scale.clone())
        .ok_or_else(Status::no_such_resource)?;
    let shape = call.accepted.shape;
    let shown = match call.target.info.verb.as_str() {
        "get" => read(&call, &scale).await?,
        "update" => {
            let options = call.options("UpdateOptions")?;
            let wanted = call.object(&options)?;
            let name = &call.target.info.name;
            match wanted.at("metadata").str("name") {
                said if said == name => {}
                said => {
                    return Err(Status::bad_request(format!(
                        "the name of the object ({said}) does not match the name on the URL ({name})"
                    )));
                }
            }
            change(&mut call, &scale, &options, |_| Ok(wanted.clone())).await?
        }
        _ => {
            let kind = patch::kind(&call.parts.headers, &call.target.resource)?;
            let options = call.options("PatchOptions")?;
            let patch = Patch::read(kind, &call.body)?;
            let schema = builtin::named(SCALE);
            let checked = options.validation != FieldValidation::Ignore;
            let strict = options.validation == FieldValidation::Strict;
            let mut told = Vec::new();
            let shown = change(&mut call, &scale, &options, |old| {
                let patched = patch.apply(
                    old,
                    schema,
                    |outcome| decode::decode(outcome, schema, "v1.Scale"),
                    checked,
                )?;
                if strict && !patched.strict.is_empty() {
                    let why = format!("strict decoding error: {}", patched.strict.join(", "));
                    return Err(patch.refused(old, schema, why).into());
                }
                told = patched.strict;
                Ok(patched.value)
            })
            .await?;
            call.warnings.extend(told);
            shown
        }
    };
    Ok(match shape {
        Shape::Table { beta } => Reply::Object(200, as_table(&shown, beta)),
        _ => Reply::Object(200, shown),
    })
}

async fn read(call: &Call<'_>, scale: &Scale) -> Result<Value, Status> {
    let target = call.target;
    let Reply::Entry(_, entry) = get::get(target).await? else {
        return Err(Status::internal("a read answered something else"));
    };
    let object = forms::versioned(&entry, entry.rev, &target.resource, target.version());
    match of(scale, &object)? {
        (shown, true) => Ok(shown),
        (_, false) => Err(Status::internal(&format!(
            "the spec replicas field \"{}\" does not exist",
            scale.spec_replicas.text
        ))),
    }
}

/// The Scale of an object, and whether it says how many replicas are wanted.
fn of(scale: &Scale, object: &Value) -> Result<(Value, bool), Status> {
    let (mut shown, there) = scale.of(object).map_err(Status::unclassified)?;
    decode::tidy(&mut shown, builtin::named(SCALE));
    Ok((shown, there))
}

/// Changes the object so that its Scale is what `wanted` makes of the old one.
async fn change(
    call: &mut Call<'_>,
    scale: &Scale,
    options: &crate::api::query::WriteOptions,
    mut wanted: impl FnMut(&Value) -> Result<Value, Status>,
) -> Result<Value, Status> {
    // The write is one of the object itself, by the rules of the object itself.
    let target = Target {
        info: Arc::new(Info {
            subresource: String::new(),
            ..(*call.target.info).clone()
        }),
        ..call.target.clone()
    };
    let mut write = call.server.write(&target, options);
    let reply = write
        .update(200, |old| {
            let (mut live, there) = of(scale, old)?;
            if !there {
                live.object_mut()
                    .object_mut("spec")
                    .insert("replicas", ABSENT);
            }
            let new = wanted(&live)?;
            let replicas = new.at("spec").int("replicas");
            if replicas == ABSENT {
                return Err(Status::bad_request(format!(
                    "the spec replicas field \"{}\" cannot be empty",
                    scale.spec_replicas.text
                )));
            }
            let mut object = old.clone();
            scale
                .spec_replicas
                .set(&mut object, replicas)
                .map_err(Status::unclassified)?;
            if let Some(version) = new.at("metadata").get("resourceVersion") {
                object
                    .object_mut()
                    .object_mut("metadata")
                    .insert("resourceVersion", version);
            }
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

/// The table of a Scale.
fn as_table(scale: &Value, beta: bool) -> Value {
    let replicas = |part: &str| scale.at(part).int("replicas").into();
    let now = crate::meta::time::now();
    let cells = vec![
        scale.at("metadata").str("name").into(),
        replicas("spec"),
        replicas("status"),
        crate::meta::table::age(scale, now),
    ];
    let columns = [
        ("Name", "string", "name"),
        ("Desired", "integer", ""),
        ("Available", "integer", ""),
        ("Age", "date", ""),
    ];
    table::single(scale, &columns, cells, beta)
}
