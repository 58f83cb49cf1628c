//! Finds the flow schema of a request, and its flow within the schema: a pure function of user, request and schemas.
//! Follows k8s.io/apiserver/pkg/util/flowcontrol/rule.go and `startRequest` in apf_controller.go.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::api::request_info::Info;
use crate::auth::{User, accounts};
use crate::schema::Value;

/// The wildcard: matches every name.
const ALL: &str = "*";

/// A parsed FlowSchema.
#[derive(Debug)]
pub struct Schema {
    /// Its name.
    pub name: Arc<str>,
    /// Its UID; empty if the object is not stored.
    pub uid: Arc<str>,
    /// The name of its priority level.
    pub level: Arc<str>,
    precedence: i64,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

/// Which attribute of a request distinguishes the flows of a schema.
#[derive(Clone, Copy, Debug)]
enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

/// The subject of a rule. `None` matches every name.
#[derive(Debug)]
enum Subject {
    User(Option<Box<str>>),
    Group(Option<Box<str>>),
    Account {
        namespace: Box<str>,
        name: Option<Box<str>>,
    },
    /// Matches nobody: an unknown kind, or a subject without the field of its kind.
    Nobody,
}

/// A list of names, or the wildcard.
#[derive(Debug)]
enum Names {
    All,
    These(Vec<Box<str>>),
}

#[derive(Debug)]
struct ResourceRule {
    verbs: Names,
    groups: Names,
    resources: Names,
    namespaces: Names,
    cluster: bool,
}

#[derive(Debug)]
struct PathRule {
    verbs: Names,
    paths: Vec<Path>,
}

#[derive(Debug)]
enum Path {
    All,
    /// This path and everything below it.
    At {
        whole: Box<str>,
        below: Box<str>,
    },
}

impl Schema {
    /// Parses a stored FlowSchema.
    pub fn of(object: &Value) -> Schema {
        let (meta, spec) = (object.at("metadata"), object.at("spec"));
        Schema {
            name: meta.str("name").into(),
            uid: meta.str("uid").into(),
            level: spec.at("priorityLevelConfiguration").str("name").into(),
            precedence: spec.int("matchingPrecedence"),
            distinguisher: match spec.at("distinguisherMethod").str("type") {
                "ByUser" => Distinguisher::User,
                "ByNamespace" => Distinguisher::Namespace,
                _ => Distinguisher::Nothing,
            },
            rules: spec.list("rules").iter().map(Rule::of).collect(),
        }
    }

    /// The matching order: by precedence, then by name.
    pub fn order(&self, other: &Schema) -> Ordering {
        (self.precedence, &self.name).cmp(&(other.precedence, &other.name))
    }

    /// Whether the schema matches a request of `user` for `info`.
    pub fn matches(&self, user: &User, info: &Info) -> bool {
        self.rules.iter().any(|rule| rule.matches(user, info))
    }

    /// The flow distinguisher of the request within the schema.
    pub fn distinguisher<'a>(&self, user: &'a User, info: &'a Info) -> &'a str {
        match self.distinguisher {
            Distinguisher::Nothing => "",
            Distinguisher::User => &user.name,
            Distinguisher::Namespace => &info.namespace,
        }
    }
}

impl Rule {
    fn of(rule: &Value) -> Rule {
        let paths = |rule: &Value| PathRule {
            verbs: Names::of(rule, "verbs"),
            paths: rule
                .list("nonResourceURLs")
                .iter()
                .map(|path| Path::of(path.as_str().unwrap_or_default()))
                .collect(),
        };
        Rule {
            subjects: rule.list("subjects").iter().map(Subject::of).collect(),
            resources: rule
                .list("resourceRules")
                .iter()
                .map(ResourceRule::of)
                .collect(),
            paths: rule.list("nonResourceRules").iter().map(paths).collect(),
        }
    }

    fn matches(&self, user: &User, info: &Info) -> bool {
        self.subjects.iter().any(|subject| subject.is(user))
            && match info.is_resource {
                true => self.resources.iter().any(|rule| rule.matches(info)),
                false => self.paths.iter().any(|rule| rule.matches(info)),
            }
    }
}

impl Subject {
    fn of(subject: &Value) -> Subject {
        let name = |of: &Value| match of.str("name") {
            ALL => None,
            name => Some(name.into()),
        };
        match (
            subject.str("kind"),
            subject.get("user"),
            subject.get("group"),
            subject.get("serviceAccount"),
        ) {
            ("User", Some(user), _, _) => Subject::User(name(user)),
            ("Group", _, Some(group), _) => Subject::Group(name(group)),
            ("ServiceAccount", _, _, Some(account)) => Subject::Account {
                namespace: account.str("namespace").into(),
                name: name(account),
            },
            _ => Subject::Nobody,
        }
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Subject::User(None) | Subject::Group(None) => true,
            Subject::User(Some(name)) => user.name == **name,
            Subject::Group(Some(name)) => user.in_group(name),
            Subject::Account { namespace, name } => accounts::name_in(&user.name, namespace)
                .is_some_and(|is| name.as_ref().is_none_or(|name| is == &**name)),
            Subject::Nobody => false,
        }
    }
}

impl Names {
    /// Parses a list of strings. `*` is the wildcard only as the sole item.
    fn of(rule: &Value, key: &str) -> Names {
        let names = rule.list(key).iter();
        let names: Vec<Box<str>> = names
            .map(|name| name.as_str().unwrap_or_default().into())
            .collect();
        match names.as_slice() {
            [one] if &**one == ALL => Names::All,
            _ => Names::These(names),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.any(|known| known == name)
    }

    fn any(&self, is: impl Fn(&str) -> bool) -> bool {
        match self {
            Names::All => true,
            Names::These(names) => names.iter().any(|name| is(name)),
        }
    }
}

impl ResourceRule {
    fn of(rule: &Value) -> ResourceRule {
        ResourceRule {
            verbs: Names::of(rule, "verbs"),
            groups: Names::of(rule, "apiGroups"),
            resources: Names::of(rule, "resources"),
            namespaces: Names::of(rule, "namespaces"),
            cluster: rule.bool("clusterScope"),
        }
    }

    fn matches(&self, info: &Info) -> bool {
        let is_asked = |name: &str| {
            let rest = name.strip_prefix(info.resource.as_str());
            match info.subresource.is_empty() {
                true => rest == Some(""),
                false => {
                    rest.and_then(|rest| rest.strip_prefix('/')) == Some(info.subresource.as_str())
                }
            }
        };
        self.verbs.has(&info.verb)
            && self.resources.any(is_asked)
            && self.groups.has(&info.group)
            && match info.namespace.is_empty() {
                true => self.cluster,
                false => self.namespaces.has(&info.namespace),
            }
    }
}

impl PathRule {
    fn matches(&self, info: &Info) -> bool {
        self.verbs.has(&info.verb)
            && self.paths.iter().any(|path| match path {
                Path::All => true,
                Path::At { whole, below } => {
                    info.path == **whole || info.path.starts_with(&**below)
                }
            })
    }
}

impl Path {
    fn of(path: &str) -> Path {
        if path == ALL {
            return Path::All;
        }
        let below = path.strip_suffix('*').unwrap_or(path);
        let slash = if below.ends_with('/') { "" } else { "/" };
        Path::At {
            whole: path.into(),
            below: format!("{below}{slash}").into(),
        }
    }
}

#[cfg(test)]
mod tests;
