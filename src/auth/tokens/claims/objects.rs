//! The objects that a token names, which must still exist.

use super::{Bound, Reference};
use crate::auth::{User, accounts};
use crate::meta::errors::quoted;
use crate::meta::time;
use crate::resources::cluster::object;
use crate::schema::Value;
use crate::store::{Revision, World};

/// The objects checked for a token, with their revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(Vec<(&'static str, String, Revision)>);

impl Seen {
    /// Whether all of them are unchanged.
    pub fn still(&self, world: &World) -> bool {
        self.0.iter().all(|(resource, key, rev)| {
            world
                .get(resource, key)
                .is_some_and(|entry| entry.rev == *rev)
        })
    }

    pub(super) fn look(
        &mut self,
        world: &World,
        resource: &'static str,
        namespace: &str,
        name: &str,
    ) -> Option<Value> {
        let key = match namespace {
            "" => format!("{resource}{name}"),
            namespace => format!("{resource}{namespace}/{name}"),
        };
        let entry = world.get(resource, &key)?;
        let value = object(entry);
        // Whether a terminating object still counts depends on the time: check it again.
        let ends = value.at("metadata").get("deletionTimestamp").is_some();
        self.0
            .push((resource, key, if ends { 0 } else { entry.rev }));
        Some(value)
    }
}

pub(super) const ACCOUNTS: &str = "/registry/serviceaccounts/";

const PODS: &str = "/registry/pods/";

pub(super) const SECRETS: &str = "/registry/secrets/";

const NODES: &str = "/registry/minions/";

/// Why a token is rejected, as reported by a TokenReview.
pub(super) type Refusal = String;

/// Whether an object's deletion was requested at `before` or earlier.
fn deleted_before(object: &Value, before: i64) -> bool {
    let meta = object.at("metadata");
    meta.get("deletionTimestamp")
        .and_then(Value::as_str)
        .is_some_and(|at| time::parse(at).is_ok_and(|at| at < before))
}

pub(super) fn user_of(namespace: &str, account: &Reference) -> User {
    User {
        name: accounts::user_name(namespace, &account.name),
        uid: account.uid.clone(),
        groups: accounts::groups(namespace).to_vec(),
        extra: Vec::new(),
    }
}

pub(super) fn not_found(resource: &str, name: &str) -> Refusal {
    format!("{resource} {} not found", quoted(name))
}

pub(super) struct Look<'a> {
    pub(super) world: &'a World,
    pub(super) namespace: &'a str,
    pub(super) before: i64,
}

impl Look<'_> {
    pub(super) fn account(&self, account: &Reference, seen: &mut Seen) -> Result<User, Refusal> {
        let found = seen
            .look(self.world, ACCOUNTS, self.namespace, &account.name)
            .ok_or_else(|| not_found("serviceaccounts", &account.name))?;
        let uid = found.at("metadata").str("uid");
        if uid != account.uid {
            return Err(format!(
                "service account UID ({uid}) does not match claim ({})",
                account.uid
            ));
        }
        if deleted_before(&found, self.before) {
            return Err(format!(
                "service account {}/{} has been deleted",
                self.namespace, account.name
            ));
        }
        Ok(user_of(self.namespace, account))
    }

    pub(super) fn bound(
        &self,
        bound: &Bound,
        user: &mut User,
        seen: &mut Seen,
    ) -> Result<(), Refusal> {
        if let Some(secret) = &bound.secret {
            self.still(SECRETS, "secret", self.namespace, secret, seen)?;
        }
        if let Some(pod) = &bound.pod {
            self.still(PODS, "pod", self.namespace, pod, seen)?;
            user.set_extra(accounts::POD_NAME, vec![pod.name.clone()]);
            user.set_extra(accounts::POD_UID, vec![pod.uid.clone()]);
        }
        if let Some(node) = &bound.node {
            // A pod's node is only informative: the pod's existence is enough.
            if bound.pod.is_none() {
                self.still(NODES, "node", "", node, seen)?;
            }
            user.set_extra(accounts::NODE_NAME, vec![node.name.clone()]);
            if !node.uid.is_empty() {
                user.set_extra(accounts::NODE_UID, vec![node.uid.clone()]);
            }
        }
        Ok(())
    }

    /// Whether an object to which a token is bound still exists.
    fn still(
        &self,
        resource: &'static str,
        kind: &str,
        namespace: &str,
        wanted: &Reference,
        seen: &mut Seen,
    ) -> Result<(), Refusal> {
        let gone = || "service account token has been invalidated".to_owned();
        let found = seen
            .look(self.world, resource, namespace, &wanted.name)
            .ok_or_else(gone)?;
        let uid = found.at("metadata").str("uid");
        if uid != wanted.uid {
            return Err(format!(
                "{kind} UID ({uid}) does not match service account {kind} ref claim ({})",
                wanted.uid
            ));
        }
        if deleted_before(&found, self.before) {
            return Err(gone());
        }
        Ok(())
    }
}
