//! Evictions: deletions of pods that respect disruption budgets. Follows pkg/registry/core/pod/storage/eviction.go.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Call;
use super::binding::{change, done};
use crate::api::query::WriteOptions;
use crate::api::reply::Reply;
use crate::api::request_info::Info;
use crate::api::server::Server;
use crate::api::verbs::Target;
use crate::api::verbs::delete::DeleteOptions;
use crate::api::verbs::write::Write;
use crate::meta::status::About;
use crate::meta::{Errors, Path, Status};
use crate::resources::disruption::{self, Stage};
use crate::resources::{cluster, owners};
use crate::schema::Value;

/// Handles a POST of an Eviction.
pub(super) fn evict(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    run(call).boxed()
}

async fn run(mut call: Call<'_>) -> Result<Reply, Status> {
    call.also = "policy/v1beta1";
    let asked = call.asked(false, |_| {}).await?;
    let name = call.target.info.name.clone();
    if asked.object.at("metadata").str("name") != name {
        return Err(Status::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let said = asked.object.at("deleteOptions");
    refuse_unsafe(said, &name)?;
    let said_dry = said.list("dryRun");
    if asked.options.dry_run && !said_dry.is_empty() && said_dry != [Value::from("All")] {
        let said: Vec<&str> = said_dry.iter().filter_map(Value::as_str).collect();
        return Err(Status::unclassified(format!(
            "Non-matching dry-run options in request and content: [All] and [{}]",
            said.join(" ")
        )));
    }
    call.admit(&asked)?;
    let eviction = Eviction {
        server: call.server,
        target: call.target,
        said: asked.object.at("deleteOptions").clone(),
        dry_run: asked.options.dry_run || !said_dry.is_empty(),
        // The server itself updates the status of budgets.
        options: WriteOptions {
            manager: owners::SERVER.to_owned(),
            ..WriteOptions::default()
        },
    };
    eviction.run().await?;
    Ok(done())
}

fn refuse_unsafe(said: &Value, name: &str) -> Result<(), Status> {
    const UNSAFE: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";
    if !said.bool(UNSAFE) {
        return Ok(());
    }
    let mut errors = Errors::default();
    errors.invalid(
        Path::ROOT.field("deleteOptions").field(UNSAFE),
        true,
        "can not be set for pod eviction, try after removing the option",
    );
    let about = About {
        group: "policy",
        kind: "Eviction",
        name,
    };
    Err(Status::invalid(about, &errors))
}

struct Eviction<'a> {
    server: &'a Server,
    target: &'a Target,
    /// DeleteOptions, or null.
    said: Value,
    dry_run: bool,
    options: WriteOptions,
}

impl Eviction<'_> {
    async fn run(&self) -> Result<(), Status> {
        let target = self.target;
        let (namespace, name) = (target.namespace(), target.info.name.as_str());
        target.check_key(name)?;
        let key = target.resource.key(namespace, name);
        let (pod, rev) = loop {
            let entry = target
                .cluster
                .store
                .head(&key)
                .ok_or_else(|| Status::not_found(target.about(name)))?;
            let pod = cluster::object(&entry);
            let guard = match disruption::stage(&pod) {
                Stage::Running => break (pod, entry.rev),
                Stage::Pending => Some(entry.rev),
                Stage::Ended => None,
            };
            match self.delete(guard).await {
                // The pod may be running by now: look again.
                Err(refusal)
                    if refusal.code == 409
                        && target
                            .cluster
                            .store
                            .head(&key)
                            .is_none_or(|now| now.rev != entry.rev) => {}
                done => return done,
            }
        };
        let budgets = disruption::budgets(&target.cluster, namespace, &pod);
        let budget = match budgets.as_slice() {
            [] => return self.delete(None).await,
            [budget] => budget,
            _ => {
                return Err(Status::unclassified(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        };
        let budget_name = budget.at("metadata").str("name");
        if !disruption::spares(budget, &pod) {
            self.count(budget_name).await?;
            return self.delete(None).await;
        }
        match self.delete(Some(rev)).await {
            Err(refusal)
                if refusal.code == 409 && self.precondition("resourceVersion").is_none() =>
            {
                Err(disruption::unsettled(budget_name))
            }
            done => done,
        }
    }

    fn precondition(&self, name: &str) -> Option<String> {
        let said = self.said.at("preconditions").at(name);
        said.as_str().map(str::to_owned)
    }

    /// Records the disruption in a budget's status.
    async fn count(&self, budget: &str) -> Result<(), Status> {
        let target = self.target;
        let budgets = target
            .cluster
            .resource("policy", "poddisruptionbudgets")
            .ok_or_else(Status::no_such_resource)?;
        let version = budgets
            .versions
            .iter()
            .position(|version| version.name == "v1");
        let target = Target {
            info: Arc::new(Info {
                verb: "update".to_owned(),
                group: "policy".to_owned(),
                resource: "poddisruptionbudgets".to_owned(),
                subresource: "status".to_owned(),
                name: budget.to_owned(),
                ..(*target.info).clone()
            }),
            version: version.unwrap_or_default(),
            resource: budgets,
            ..target.clone()
        };
        let mut options = self.options.clone();
        options.dry_run = self.dry_run;
        let mut write = Write {
            plugins: &[],
            ..self.server.write(&target, &options)
        };
        let counted = write.update(200, |old| {
            let mut new = old.clone();
            disruption::count(&mut new, &self.target.info.name, target.now, self.dry_run)?;
            Ok(new)
        });
        counted.await.map(drop)
    }

    /// Sets the pod's `DisruptionTarget` condition and deletes it; `guard` is the revision it must have.
    async fn delete(&self, guard: Option<u64>) -> Result<(), Status> {
        let target = self.target;
        let mut options = DeleteOptions {
            uid: self.precondition("uid"),
            resource_version: self
                .precondition("resourceVersion")
                .or(guard.map(|rev| rev.to_string())),
            ..DeleteOptions::default()
        };
        if !self.dry_run {
            let (namespace, name) = (target.namespace(), target.info.name.as_str());
            let marked = change(&target.cluster, namespace, name, false, |entry, pod| {
                options.check(target, entry, pod.at("metadata").str("uid"))?;
                disruption::mark_evicted(pod, target.now);
                Ok(())
            });
            let rev = marked.await?;
            options.resource_version = options.resource_version.map(|_| rev.to_string());
        }
        let said = DeleteOptions::read(Some(&self.said), &target.query)?;
        let options = DeleteOptions {
            uid: options.uid,
            resource_version: options.resource_version,
            dry_run: self.dry_run,
            ..said
        };
        let mut write = Write {
            plugins: &[],
            ..self.server.write(target, &self.options)
        };
        write.delete(&options).await.map(drop)
    }
}
