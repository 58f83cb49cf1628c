//! Policy rules: what a rule allows, and whether it covers another. Follows k8s.io/kubernetes
//! pkg/apis/rbac/v1/evaluation_helpers.go and k8s.io/component-helpers/auth/rbac/validation.

use std::collections::{HashMap, HashSet};

use compact_str::CompactString;

use crate::auth::Attributes;
use crate::meta::errors::quoted;
use crate::schema::{Object, Value};

type Texts = Vec<CompactString>;

/// A PolicyRule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// `get`; `*` for all.
    pub verbs: Texts,
    /// The empty text for core; `*` for all.
    pub groups: Texts,
    /// `pods`, `pods/log`, `*/scale`; `*` for all.
    pub resources: Texts,
    /// Names of objects; empty for all objects.
    pub names: Texts,
    /// `/healthz`, `/logs/*`; `*` for all.
    pub urls: Texts,
}

const ALL: &str = "*";

impl Rule {
    /// Reads a rule in canonical form.
    pub fn of(rule: &Value) -> Rule {
        let texts = |key: &str| {
            rule.list(key)
                .iter()
                .filter_map(Value::as_str)
                .map(CompactString::from)
                .collect()
        };
        Rule {
            verbs: texts("verbs"),
            groups: texts("apiGroups"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            urls: texts("nonResourceURLs"),
        }
    }

    /// The rules of a role in canonical form.
    pub fn all(role: &Value) -> Vec<Rule> {
        role.list("rules").iter().map(Rule::of).collect()
    }

    /// A rule that allows `verbs` on `resources` of `groups`.
    pub fn new(verbs: &[&str], groups: &[&str], resources: &[&str]) -> Rule {
        let texts = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| CompactString::from(*text))
                .collect()
        };
        Rule {
            verbs: texts(verbs),
            groups: texts(groups),
            resources: texts(resources),
            ..Rule::default()
        }
    }

    /// Whether the rule allows a request.
    pub fn allows(&self, wants: &Attributes<'_>) -> bool {
        if !has_or_all(&self.verbs, wants.verb) {
            return false;
        }
        if let Some(path) = wants.path {
            return self.urls.iter().any(|url| {
                url == ALL || url == path || prefix(url).is_some_and(|p| path.starts_with(p))
            });
        }
        has_or_all(&self.groups, wants.group)
            && self
                .resources
                .iter()
                .any(|resource| names_resource(resource, wants.resource, wants.subresource))
            && (self.names.is_empty() || has(&self.names, wants.name))
    }

    /// The number of rules that [`Rule::break_down`] returns.
    fn parts(&self) -> usize {
        let all = [&self.groups, &self.resources, &self.verbs];
        let all = all.map(|texts| texts.len()).into_iter();
        let all = all.fold(self.names.len().max(1), usize::saturating_mul);
        all.saturating_add(self.urls.len().saturating_mul(self.verbs.len()))
    }

    /// This rule split into rules with one verb, one group and one resource (and at most one name), or one verb and
    /// one URL.
    pub fn break_down(&self) -> Vec<Rule> {
        let mut parts = Vec::new();
        let one = |text: &CompactString| vec![text.clone()];
        for group in &self.groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let part = Rule {
                        verbs: one(verb),
                        groups: one(group),
                        resources: one(resource),
                        ..Rule::default()
                    };
                    if self.names.is_empty() {
                        parts.push(part);
                        continue;
                    }
                    parts.extend(self.names.iter().map(|name| Rule {
                        names: one(name),
                        ..part.clone()
                    }));
                }
            }
        }
        for url in &self.urls {
            parts.extend(self.verbs.iter().map(|verb| Rule {
                verbs: one(verb),
                urls: one(url),
                ..Rule::default()
            }));
        }
        parts
    }

    /// The rule in one line, as shown in errors.
    pub fn compact(&self) -> String {
        let parts: Vec<String> = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.urls),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ]
        .into_iter()
        .filter(|(_, texts)| !texts.is_empty())
        .map(|(name, texts)| format!("{name}:{}", go_list(texts)))
        .collect();
        format!("{{{}}}", parts.join(", "))
    }

    /// The rule as a JSON object.
    pub fn to_value(&self) -> Value {
        let mut rule = Object::new();
        let list = |texts: &Texts| texts.iter().map(Value::from).collect::<Vec<_>>();
        rule.insert("verbs", list(&self.verbs));
        for (key, texts) in [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.urls),
        ] {
            if !texts.is_empty() {
                rule.insert(key, list(texts));
            }
        }
        Value::Object(rule)
    }
}

/// Limit for the number of parts into which rules of a request are split: the lengths of their lists multiply.
const MAX_PARTS: usize = 100_000;

/// A rule that is asked many times whether it covers others: its lists may be as long as a request.
struct Held<'a> {
    verbs: HashSet<&'a str>,
    groups: HashSet<&'a str>,
    resources: HashSet<&'a str>,
    /// The subresources that it allows of any resource.
    subresources: HashSet<&'a str>,
    names: HashSet<&'a str>,
    urls: HashSet<&'a str>,
    /// The beginnings of URLs.
    prefixes: Vec<&'a str>,
}

impl<'a> Held<'a> {
    fn of(rule: &'a Rule) -> Self {
        fn set(texts: &Texts) -> HashSet<&str> {
            texts.iter().map(CompactString::as_str).collect()
        }
        let any = rule
            .resources
            .iter()
            .filter_map(|own| own.strip_prefix("*/"));
        Held {
            verbs: set(&rule.verbs),
            groups: set(&rule.groups),
            resources: set(&rule.resources),
            subresources: any.collect(),
            names: set(&rule.names),
            urls: set(&rule.urls),
            prefixes: prefixes(rule.urls.iter().filter_map(|url| prefix(url))),
        }
    }

    /// Whether this rule allows everything that `wanted` allows.
    fn covers(&self, wanted: &Rule) -> bool {
        let all = |own: &HashSet<&str>, wanted: &Texts| {
            own.contains(ALL) || wanted.iter().all(|text| own.contains(text.as_str()))
        };
        let resource = |wanted: &CompactString| {
            let of_any = wanted.split_once('/');
            self.resources.contains(wanted.as_str())
                || of_any.is_some_and(|(_, subresource)| self.subresources.contains(subresource))
        };
        let url = |wanted: &CompactString| {
            self.urls.contains(wanted.as_str()) || begins_with_any(&self.prefixes, wanted)
        };
        let name = |name: &CompactString| self.names.contains(name.as_str());
        all(&self.verbs, &wanted.verbs)
            && all(&self.groups, &wanted.groups)
            && (self.resources.contains(ALL) || wanted.resources.iter().all(resource))
            && (self.names.is_empty()
                || (!wanted.names.is_empty() && wanted.names.iter().all(name)))
            && wanted.urls.iter().all(url)
    }
}

/// Sorts prefixes, without those that begin with another of them.
fn prefixes<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all: Vec<&str> = all.collect();
    all.sort_unstable();
    all.dedup_by(|longer, shorter| longer.starts_with(*shorter));
    all
}

/// Whether a text begins with one of [`prefixes`]: it can only be the last one that does not sort behind the text.
fn begins_with_any(prefixes: &[&str], text: &str) -> bool {
    let behind = prefixes.partition_point(|prefix| *prefix <= text);
    behind > 0 && text.starts_with(prefixes[behind - 1])
}

/// What `wanted` allows beyond `held`, split into parts; a rule with very many parts that no single held rule covers is
/// returned as a whole.
pub fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let held: Vec<Held<'_>> = held.iter().map(Held::of).collect();
    let mut left = MAX_PARTS;
    let mut missing = Vec::new();
    for rule in wanted {
        if held.iter().any(|own| own.covers(rule)) {
            continue;
        }
        match left.checked_sub(rule.parts()) {
            None => missing.push(rule.clone()),
            Some(rest) => {
                left = rest;
                let parts = rule.break_down().into_iter();
                missing.extend(parts.filter(|part| !held.iter().any(|own| own.covers(part))));
            }
        }
    }
    missing
}

/// Missing permissions as listed in errors: verbs of the same resource joined, one line each, sorted, without
/// duplicates.
pub fn describe(missing: Vec<Rule>) -> Vec<String> {
    // Those for URLs are listed individually.
    let (mut told, of_resources): (Vec<Rule>, Vec<Rule>) =
        missing.into_iter().partition(|rule| !rule.urls.is_empty());
    let mut joined: HashMap<Rule, Texts> = HashMap::new();
    for mut rule in of_resources {
        let verbs = std::mem::take(&mut rule.verbs);
        joined.entry(rule).or_default().extend(verbs);
    }
    told.extend(
        joined
            .into_iter()
            .map(|(rule, verbs)| Rule { verbs, ..rule }),
    );
    let mut lines: Vec<String> = told.iter().map(Rule::compact).collect();
    lines.sort();
    lines.dedup();
    lines
}

/// A list of texts as printed by Go's `%q`: `["a" "b"]`.
pub fn go_list<T: AsRef<str>>(texts: &[T]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quoted(text.as_ref())).collect();
    format!("[{}]", quoted.join(" "))
}

fn has(texts: &Texts, wanted: &str) -> bool {
    texts.iter().any(|text| text == wanted)
}

fn has_or_all(texts: &Texts, wanted: &str) -> bool {
    texts.iter().any(|text| text == ALL || text == wanted)
}

/// The prefix of a URL that ends in stars.
fn prefix(url: &str) -> Option<&str> {
    url.ends_with('*').then(|| url.trim_end_matches('*'))
}

/// Whether a rule's resource (`pods/log`, `*/scale`, `*`) matches that of a request.
fn names_resource(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    let of = rule.strip_suffix(subresource);
    of.and_then(|of| of.strip_suffix('/'))
        .is_some_and(|of| of == ALL || of == resource)
}

#[cfg(test)]
mod tests;
