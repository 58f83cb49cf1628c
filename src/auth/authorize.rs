//! Authorization: runs the authorizers in order, and words denials like upstream. Follows k8s.io/apiserver
//! pkg/authorization/union and pkg/endpoints/handlers/responsewriters/errors.go.

use std::sync::Arc;

use super::node::{Nodes, identity};
use super::rbac::{Rbac, Rule};
use super::{Attributes, Authorizer, Decision, MASTERS, User};
use crate::meta::Status;
use crate::meta::errors::quoted;
use crate::meta::status::{About, aggregate};
use crate::store::{Store, World};

/// An authorization mode of `--authorization-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Authorizes nodes by what their pods need.
    Node,
    /// Authorizes by roles.
    Rbac,
    /// Allows everything.
    AlwaysAllow,
    /// Denies everything.
    AlwaysDeny,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mode::Node => "Node",
            Mode::Rbac => "RBAC",
            Mode::AlwaysAllow => "AlwaysAllow",
            Mode::AlwaysDeny => "AlwaysDeny",
        })
    }
}

impl std::str::FromStr for Mode {
    type Err = String;

    /// Parses a mode of `--authorization-mode`.
    fn from_str(name: &str) -> Result<Mode, String> {
        Ok(match name {
            "Node" => Mode::Node,
            "RBAC" => Mode::Rbac,
            "AlwaysAllow" => Mode::AlwaysAllow,
            "AlwaysDeny" => Mode::AlwaysDeny,
            "ABAC" | "Webhook" => {
                return Err(format!(
                    "authorization by {name} is not implemented; use Node, RBAC, AlwaysAllow or AlwaysDeny"
                ));
            }
            _ => {
                return Err(format!(
                    "{} is not a valid mode; use Node, RBAC, AlwaysAllow or AlwaysDeny",
                    quoted(name)
                ));
            }
        })
    }
}

/// The authorizers of a server. Members of system:masters may do everything; for other users the first authorizer with
/// an opinion decides.
pub struct Authorizers {
    store: Arc<dyn Store>,
    modes: Vec<Mode>,
    /// Roles and bindings.
    pub rbac: Rbac,
    /// What the pods of each node need.
    pub nodes: Nodes,
}

impl Authorizers {
    /// Authorizers that use the objects in `store`.
    pub fn new(store: Arc<dyn Store>, modes: Vec<Mode>) -> Self {
        Authorizers {
            store,
            modes,
            rbac: Rbac::default(),
            nodes: Nodes::default(),
        }
    }

    /// The durable snapshot on which decisions are based.
    pub fn world(&self) -> Arc<World> {
        self.store.world()
    }

    /// The modes, in order.
    pub fn modes(&self) -> &[Mode] {
        &self.modes
    }
}

/// The rules that a user has in a namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// In the order of the bindings.
    pub rules: Vec<Rule>,
    /// The user may be allowed more than the rules say.
    pub incomplete: bool,
    /// Why rules could not be determined; empty if all could.
    pub error: String,
}

impl Authorizers {
    /// The rules that apply to `user` in `namespace`.
    pub fn rules(&self, user: &User, namespace: &str) -> Rules {
        let mut found = Rules::default();
        let mut errors = Vec::new();
        for mode in &self.modes {
            match mode {
                Mode::Node => {
                    if identity(user).is_some_and(|node| !node.is_empty()) {
                        found.incomplete = true;
                        errors.push("node authorizer does not support user rule resolution".into());
                    }
                }
                Mode::Rbac => {
                    let (rules, missing) = self.rbac.policy(&self.world()).rules(user, namespace);
                    found.rules.extend(rules);
                    errors.extend(missing.iter().map(ToString::to_string));
                }
                Mode::AlwaysAllow => {
                    found.rules.push(Rule::new(&["*"], &["*"], &["*"]));
                    found.rules.push(Rule {
                        urls: vec!["*".into()],
                        ..Rule::new(&["*"], &[], &[])
                    });
                }
                Mode::AlwaysDeny => {}
            }
        }
        if !errors.is_empty() {
            found.error = aggregate(&errors);
        }
        found
    }
}

impl Authorizer for Authorizers {
    fn authorize(&self, user: &User, wants: &Attributes<'_>) -> Decision {
        if user.in_group(MASTERS) {
            return Decision::Allow(String::new());
        }
        let world = self.store.world();
        let mut reasons = Vec::new();
        for mode in &self.modes {
            let (name, decision) = match mode {
                Mode::Node => ("node", self.nodes.decide(&world, user, wants)),
                Mode::Rbac => ("rbac", self.rbac.policy(&world).decide(user, wants)),
                Mode::AlwaysAllow => ("alwaysallow", Decision::Allow(String::new())),
                Mode::AlwaysDeny => (
                    "alwaysdeny",
                    Decision::NoOpinion("Everything is forbidden.".into()),
                ),
            };
            match decision {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(format!("{name}: {reason}")),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }
}

/// The 403 for a request that is not allowed, with a reason (may be empty).
pub fn forbidden(user: &User, wants: &Attributes<'_>, reason: &str) -> Status {
    let who = quoted(&user.name);
    let verb = wants.verb;
    let mut message = if let Some(path) = wants.path {
        format!("User {who} cannot {verb} path {}", quoted(path))
    } else {
        let mut resource = wants.resource.to_owned();
        if !wants.subresource.is_empty() {
            resource.push('/');
            resource.push_str(wants.subresource);
        }
        let place = if wants.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {}", quoted(wants.namespace))
        };
        format!(
            "User {who} cannot {verb} resource {} in API group {} {place}",
            quoted(&resource),
            quoted(wants.group)
        )
    };
    // So that browsers do not render the text as HTML.
    if message.contains(['&', '<', '>']) {
        message = message
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
    }
    if !reason.is_empty() {
        message.push_str(": ");
        message.push_str(reason);
    }
    let about = if wants.is_resource() {
        About {
            group: wants.group,
            kind: wants.resource,
            name: wants.name,
        }
    } else {
        About {
            group: "",
            kind: "",
            name: "",
        }
    };
    Status::forbidden(about, &message)
}

/// Authorizes a request.
///
/// # Errors
/// 403 in upstream's words.
pub fn check(
    authorizer: &dyn Authorizer,
    user: &User,
    wants: &Attributes<'_>,
) -> Result<(), Status> {
    match authorizer.authorize(user, wants) {
        Decision::Allow(_) => Ok(()),
        Decision::NoOpinion(reason) | Decision::Deny(reason) => {
            Err(forbidden(user, wants, &reason))
        }
    }
}
