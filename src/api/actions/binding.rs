//! Bindings, which assign a pod to a node. Follows BindingREST of pkg/registry/core/pod/storage/storage.go.

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Call;
use crate::api::reply::Reply;
use crate::api::verbs::store_failure;
use crate::api::verbs::write::invalid_object;
use crate::meta::status::{About, aggregate};
use crate::meta::{At, Errors, Status, names};
use crate::resources::cluster::Cluster;
use crate::resources::{cluster, disruption, forms, record};
use crate::schema::Value;
use crate::store::{Change, Entry, Expect, StoreError};

/// Handles a POST of a Binding.
pub(super) fn bind(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    run(call).boxed()
}

async fn run(mut call: Call<'_>) -> Result<Reply, Status> {
    let asked = call.asked(true, |_| {}).await?;
    let binding = &asked.object;
    let meta = binding.at("metadata");
    let name = meta.str("name").to_owned();
    if !call.target.info.name.is_empty() && name != call.target.info.name {
        return Err(Status::bad_request(
            "name in URL does not match name in Binding object",
        ));
    }
    judge(binding)?;
    call.admit(&asked)?;
    let target = call.target;
    target.check_key(&name)?;
    let about = |kind| About {
        group: "",
        kind,
        name: &name,
    };
    change(&target.cluster, target.namespace(), &name, asked.options.dry_run, |entry, pod| {
        // The collection of bindings treats them as new objects, whose UID clients may not set.
        let uid = match &*target.info.name {
            "" => "",
            _ => meta.str("uid"),
        };
        for (what, said, found) in [
            ("UID", uid, pod.at("metadata").str("uid")),
            ("ResourceVersion", meta.str("resourceVersion"), &*entry.rev.to_string()),
        ] {
            if !said.is_empty() && said != found {
                let why = format!(
                    "Precondition failed: {what} in precondition: {said}, {what} in object meta: {found}"
                );
                let short_key = asked.options.dry_run;
                return Err(invalid_object(about("pods"), &entry.key, short_key, &why));
            }
        }
        disruption::bind(pod, binding, target.now)
            .map_err(|why| Status::conflict(about("pods/binding"), &why))
    })
    .await?;
    Ok(done())
}

/// A success without an object.
pub(super) fn done() -> Reply {
    Reply::Status(Status {
        code: 201,
        ..Status::success(None)
    })
}

/// ValidatePodBinding
fn judge(binding: &Value) -> Result<(), Status> {
    let mut errors = Errors::default();
    let binding = At::root(binding);
    let target = binding.field("target");
    let kind = target.field("kind");
    if !matches!(kind.str(), "" | "Node") {
        errors.not_supported(kind.path, kind.str(), &["Node", "<empty>"]);
    }
    let name = target.field("name");
    if name.required("", &mut errors) && matches!(kind.str(), "" | "Node") {
        name.checked(|name| names::subdomain_name(name, false), &mut errors);
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::unclassified(aggregate(&errors.0)))
}

/// Changes a stored pod without the rules for updates, retrying after concurrent changes. Returns its revision.
///
/// # Errors
/// 404, and the error of `change`.
pub(super) async fn change(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    dry_run: bool,
    mut change: impl FnMut(&Entry, &mut Value) -> Result<(), Status>,
) -> Result<u64, Status> {
    let pods = cluster
        .resource("", "pods")
        .ok_or_else(Status::no_such_resource)?;
    let key = pods.key(namespace, name);
    loop {
        let entry = cluster.store.head(&key).ok_or_else(|| {
            Status::not_found(About {
                group: "",
                kind: "pods",
                name,
            })
        })?;
        let mut pod = cluster::object(&entry);
        change(&entry, &mut pod)?;
        forms::tidy(&mut pod, &pods);
        if dry_run {
            return Ok(entry.rev);
        }
        let put = Change {
            resource: pods.prefix.clone(),
            key: entry.key.clone(),
            expect: Expect::Revision(entry.rev),
            put: Some(record::encode(&pods, &pod)),
            ttl: None,
        };
        match cluster.store.commit(vec![put]).await {
            Ok(committed) => return Ok(committed.rev),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(store_failure(&error)),
        }
    }
}
