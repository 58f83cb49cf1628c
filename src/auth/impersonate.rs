//! Impersonation: `Impersonate-User`, `-Group`, `-Uid` and `-Extra-KEY`. Constrained modes are tried before the legacy
//! one: the node of the service account's pod, any node, a service account, or another user. Each requires two
//! permissions (to impersonate the user, and to make this request as such a user). Follows
//! k8s.io/apiserver/pkg/endpoints/filters/impersonation.

mod wanted;

use std::collections::HashMap;

use compact_str::CompactString;
use parking_lot::Mutex;

use self::wanted::GROUP;
use super::authorize::forbidden;
use super::{
    ANONYMOUS, AUTHENTICATED, Attributes, Authorizer, Decision, MASTERS, UNAUTHENTICATED, User,
    accounts, node,
};
use crate::meta::errors::quoted;
use crate::meta::status::aggregate;
use crate::meta::{Errors, Path, Status, names};

pub(crate) use self::wanted::unescaped;
pub use self::wanted::wanted;

/// With at least so many values, permission for all values is checked first.
const MANY: usize = 4;
/// For how many impersonators the last mode is remembered.
const REMEMBERED: usize = 10_000;

/// A mode of impersonation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    AssociatedNode,
    AnyNode,
    ServiceAccount,
    UserInfo,
    Old,
}

const WAYS: [Way; 5] = [
    Way::AssociatedNode,
    Way::AnyNode,
    Way::ServiceAccount,
    Way::UserInfo,
    Way::Old,
];

impl Way {
    fn mode(self) -> &'static str {
        match self {
            Way::AssociatedNode => "associated-node",
            Way::AnyNode => "arbitrary-node",
            Way::ServiceAccount => "serviceaccount",
            Way::UserInfo => "user-info",
            Way::Old => "",
        }
    }

    /// Whether the mode applies to the wanted user.
    fn leads_to(self, wanted: &User, asking: &User) -> bool {
        let name_alone =
            wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let node = node_name(&wanted.name);
        match self {
            Way::AssociatedNode => {
                name_alone
                    && node.is_some_and(|node| {
                        accounts::split(&asking.name).is_some()
                            && asking.extra(accounts::NODE_NAME) == [CompactString::from(node)]
                    })
            }
            Way::AnyNode => name_alone && node.is_some(),
            Way::ServiceAccount => name_alone && accounts::split(&wanted.name).is_some(),
            Way::UserInfo => node.is_none() && accounts::split(&wanted.name).is_none(),
            Way::Old => true,
        }
    }
}

/// The node name in a user name.
fn node_name(user: &str) -> Option<&str> {
    user.strip_prefix(node::PREFIX)
        .filter(|name| names::subdomain_name(name, false).is_empty())
}

/// Authorizes impersonation.
#[derive(Default)]
pub struct Impersonation {
    /// Per impersonator, the mode that succeeded last. It is tried first, so that its error is the one reported.
    last: Mutex<HashMap<CompactString, Way>>,
}

impl Impersonation {
    /// The user as whom `asking` makes the request `wants`, if it may impersonate `wanted`.
    ///
    /// # Errors
    /// 403 with the error of the first mode tried.
    pub fn become_user(
        &self,
        authorizer: &dyn Authorizer,
        asking: &User,
        wants: &Attributes<'_>,
        wanted: &User,
    ) -> Result<User, Status> {
        let last = self.last.lock().get(&asking.name).copied();
        let mut refusal = None;
        let others = WAYS.into_iter().filter(|way| Some(*way) != last);
        for way in last.into_iter().chain(others) {
            if !way.leads_to(wanted, asking) {
                continue;
            }
            let attempt = Attempt {
                authorizer,
                asking,
                way,
            };
            match attempt.run(wants, wanted) {
                Ok(user) => {
                    if Some(way) != last {
                        let mut last = self.last.lock();
                        if last.len() >= REMEMBERED {
                            last.clear();
                        }
                        last.insert(asking.name.clone(), way);
                    }
                    return Ok(user);
                }
                Err(status) => drop(refusal.get_or_insert(status)),
            }
        }
        Err(refusal.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
    }
}

struct Attempt<'a> {
    authorizer: &'a dyn Authorizer,
    asking: &'a User,
    way: Way,
}

impl Attempt<'_> {
    fn narrow(&self) -> bool {
        self.way != Way::Old
    }

    fn verb(&self) -> String {
        match self.way {
            Way::Old => "impersonate".into(),
            way => format!("impersonate:{}", way.mode()),
        }
    }

    fn check(&self, wants: &Attributes<'_>) -> Result<(), Status> {
        // The node was checked already: this permission is for whichever node the pod runs on.
        let decision = if self.way == Way::AssociatedNode {
            let keys = self
                .asking
                .extra
                .iter()
                .map(|(key, _)| key.clone())
                .collect();
            let asking = User {
                extra: vec![(
                    "authentication.kubernetes.io/associated-node-keys".into(),
                    keys,
                )],
                ..self.asking.clone()
            };
            self.authorizer.authorize(&asking, wants)
        } else {
            self.authorizer.authorize(self.asking, wants)
        };
        match decision {
            Decision::Allow(_) => Ok(()),
            Decision::NoOpinion(reason) | Decision::Deny(reason) => {
                Err(forbidden(self.asking, wants, &reason))
            }
        }
    }

    fn run(&self, wants: &Attributes<'_>, wanted: &User) -> Result<User, Status> {
        if self.narrow() {
            let verb = format!("impersonate-on:{}:{}", self.way.mode(), wants.verb);
            self.check(&Attributes {
                verb: &verb,
                ..wants.clone()
            })?;
        }
        let verb = self.verb();
        let mut user = wanted.clone();
        self.name(&verb, wanted, &mut user)?;
        if !wanted.uid.is_empty() {
            self.check(&part(&verb, GROUP, "uids", &wanted.uid))?;
        }
        self.groups(&verb, &wanted.groups)?;
        self.extra(&verb, &wanted.extra)?;
        let add = if user.name == ANONYMOUS {
            Some(UNAUTHENTICATED)
        } else {
            (!user.in_group(UNAUTHENTICATED)).then_some(AUTHENTICATED)
        };
        if let Some(group) = add.filter(|group| !user.in_group(group)) {
            user.groups.push(group.into());
        }
        Ok(user)
    }

    fn group(&self) -> &'static str {
        if self.narrow() { GROUP } else { "" }
    }

    fn name(&self, verb: &str, wanted: &User, user: &mut User) -> Result<(), Status> {
        let mut wants = part(verb, self.group(), "users", &wanted.name);
        if self.narrow()
            && let Some(node) = node_name(&wanted.name)
        {
            wants.resource = "nodes";
            wants.name = if self.way == Way::AssociatedNode {
                "*"
            } else {
                node
            };
            user.groups = vec![node::NODES.into()];
        }
        if let Some((namespace, name)) = accounts::split(&wanted.name) {
            wants.resource = "serviceaccounts";
            wants.namespace = namespace;
            wants.name = name;
            if wanted.groups.is_empty() {
                user.groups = accounts::groups(namespace).to_vec();
            }
        }
        self.check(&wants)
    }

    fn groups(&self, verb: &str, groups: &[CompactString]) -> Result<(), Status> {
        let mut wants = part(verb, self.group(), "groups", "");
        if self.narrow() {
            let refuse = |wants: &Attributes<'_>, why| Err(forbidden(self.asking, wants, why));
            if groups.iter().any(|group| group.is_empty()) {
                return refuse(
                    &wants,
                    "impersonating the empty string group is not allowed",
                );
            }
            if groups.iter().any(|group| group == MASTERS) {
                wants.name = MASTERS;
                return refuse(
                    &wants,
                    "impersonating the system:masters group is not allowed",
                );
            }
            if groups.len() >= MANY {
                wants.name = "*";
                if self.check(&wants).is_ok() {
                    return Ok(());
                }
            }
        }
        groups.iter().try_for_each(|group| {
            self.check(&Attributes {
                name: group,
                ..wants.clone()
            })
        })
    }

    fn extra(
        &self,
        verb: &str,
        extra: &[(CompactString, Vec<CompactString>)],
    ) -> Result<(), Status> {
        let wants = part(verb, GROUP, "userextras", "");
        if self.narrow() {
            if let Some(why) = extra
                .iter()
                .find_map(|(key, values)| bad_extra(key, values))
            {
                return Err(forbidden(self.asking, &wants, &why));
            }
            let count: usize = extra.iter().map(|(_, values)| values.len()).sum();
            if extra.len().max(count) >= MANY {
                let all = Attributes {
                    subresource: "*",
                    name: "*",
                    ..wants.clone()
                };
                if self.check(&all).is_ok() {
                    return Ok(());
                }
            }
        }
        for (key, values) in extra {
            for value in values {
                self.check(&Attributes {
                    subresource: key,
                    name: value,
                    ..wants.clone()
                })?;
            }
        }
        Ok(())
    }
}

/// What is wrong with an extra, in constrained modes.
fn bad_extra(key: &str, values: &[CompactString]) -> Option<String> {
    let what = if key.is_empty() {
        "the empty string key in extra is not allowed".into()
    } else if let Some(why) = not_a_domain_prefixed_path(key) {
        format!("an invalid key in extra is not allowed: {why}")
    } else if key.to_lowercase() != key {
        format!(
            "a non-lowercase key in extra is not allowed: {}",
            quoted(key)
        )
    } else if values.is_empty() {
        "empty values in extra is not allowed".into()
    } else if values.iter().any(|value| value.is_empty()) {
        "the empty string value in extra is not allowed".into()
    } else {
        return None;
    };
    Some(format!("impersonating {what}"))
}

fn part<'a>(verb: &'a str, group: &'a str, resource: &'a str, name: &'a str) -> Attributes<'a> {
    Attributes {
        verb,
        group,
        version: "v1",
        resource,
        name,
        ..Attributes::default()
    }
}

/// Why a path that should begin with a domain (`example.com/project`) is invalid.
fn not_a_domain_prefixed_path(key: &str) -> Option<String> {
    let mut errors = Errors::default();
    let at = Path::ROOT.field("extra.key");
    match key.split_once('/') {
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            for why in names::dns1123_subdomain(host) {
                errors.invalid(at, host, why);
            }
            for why in names::http_path(path) {
                errors.invalid(at, path, why);
            }
        }
        _ => errors.invalid(
            at,
            key,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        ),
    }
    (!errors.is_empty()).then(|| aggregate(&errors.0))
}

#[cfg(test)]
mod tests;
