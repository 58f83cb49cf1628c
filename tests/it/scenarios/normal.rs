//! Normalizes responses: values that differ from run to run are replaced.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::json::Json;

fn regex(text: &str) -> Regex {
    Regex::new(text).expect("an expression")
}

static TIME: LazyLock<Regex> =
    LazyLock::new(|| regex(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"));
static UID: LazyLock<Regex> =
    LazyLock::new(|| regex(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"));
static ACCESS: LazyLock<Regex> =
    LazyLock::new(|| regex(r"\bkube-api-access-[bcdfghjklmnpqrstvwxz2456789]{5}\b"));
static REVISION: LazyLock<Regex> =
    LazyLock::new(|| regex(r"\b(resource version: |resourceVersion[ =:]+)\d+"));
static ADDRESS: LazyLock<Regex> = LazyLock::new(|| regex(r"^[0-9a-f]+[.:]"));

/// Values seen in the responses of one scenario.
pub struct Normal {
    /// Names generated for the scenario, and their replacements.
    names: Vec<(String, &'static str)>,
    uids: HashMap<String, String>,
    addresses: HashMap<String, String>,
    ports: HashMap<String, String>,
    /// resourceVersions are replaced by their ranks, so that their order counts.
    versions: BTreeSet<u64>,
    /// Suffixes added to generateName.
    generated: BTreeSet<String>,
}

impl Normal {
    /// An empty state.
    pub fn new(names: Vec<(String, &'static str)>) -> Self {
        Normal {
            names,
            uids: HashMap::new(),
            addresses: HashMap::new(),
            ports: HashMap::new(),
            versions: BTreeSet::new(),
            generated: BTreeSet::new(),
        }
    }

    /// Collects versions and generated names in a response; `key` is the name of the member.
    pub fn scan(&mut self, value: &Json, key: &str) {
        match value {
            Json::Map(members) => {
                for (name, value) in members {
                    self.scan(value, name);
                }
                if let (Some(Json::Text(prefix)), Some(Json::Text(name))) =
                    (value.get("generateName"), value.get("name"))
                    && !prefix.is_empty()
                    && let Some(suffix) = name.strip_prefix(prefix.as_str())
                    && !suffix.is_empty()
                {
                    self.generated.insert(suffix.to_owned());
                }
            }
            Json::List(items) => {
                for item in items {
                    self.scan(item, key);
                }
            }
            Json::Text(text) if key == "resourceVersion" => self.versions.extend(revision(text)),
            _ => {}
        }
    }

    /// The normalized response.
    pub fn value(&mut self, value: &Json, key: &str) -> Json {
        match value {
            Json::Map(members) => Json::Map(
                members
                    .iter()
                    .map(|(name, value)| (self.text(name, ""), self.value(value, name)))
                    .collect(),
            ),
            Json::List(items) => {
                Json::List(items.iter().map(|item| self.value(item, key)).collect())
            }
            Json::Text(text) => Json::Text(self.text(text, key)),
            Json::Number(number)
                if matches!(key, "nodePort" | "healthCheckNodePort")
                    && number.as_u64() != Some(0) =>
            {
                Json::Text(numbered(&mut self.ports, "PORT", &number.to_string()))
            }
            other => other.clone(),
        }
    }

    fn text(&mut self, text: &str, key: &str) -> String {
        if key == "resourceVersion"
            && let Some(revision) = revision(text)
        {
            let rank = self.versions.iter().position(|known| *known == revision);
            return rank.map_or_else(|| "RV?".to_owned(), |rank| format!("RV{}", rank + 1));
        }
        if key == "continue" && !text.is_empty() {
            return "CONTINUE".to_owned();
        }
        if matches!(key, "clusterIP" | "clusterIPs") && ADDRESS.is_match(text) {
            return numbered(&mut self.addresses, "IP", text);
        }
        let mut text = text.to_owned();
        for (name, mark) in &self.names {
            text = text.replace(name, mark);
        }
        let text = ACCESS.replace_all(&text, "kube-api-access-*****");
        let uids = &mut self.uids;
        let text = UID.replace_all(&text, |found: &Captures<'_>| {
            numbered(uids, "UID", &found[0])
        });
        let mut text = TIME
            .replace_all(&text, |found: &Captures<'_>| match found.get(1) {
                None => "TIME".to_owned(),
                Some(fraction) => format!("TIME.{}", fraction.len() - 1),
            })
            .into_owned();
        for suffix in &self.generated {
            if let Some(start) = text.strip_suffix(suffix.as_str()) {
                text = format!("{start}*****");
            } else if suffix.len() >= 5 {
                text = text.replace(suffix.as_str(), "*****");
            }
        }
        if matches!(key, "message" | "reason") {
            text = REVISION.replace_all(&text, "${1}N").into_owned();
        }
        text
    }
}

/// The resourceVersion of an object or list.
fn revision(text: &str) -> Option<u64> {
    text.parse().ok().filter(|revision| *revision != 0)
}

/// The replacement of a value: the same for equal values, numbered by first occurrence.
fn numbered(known: &mut HashMap<String, String>, kind: &str, value: &str) -> String {
    let next = format!("{kind}{}", known.len() + 1);
    known.entry(value.to_owned()).or_insert(next).clone()
}

/// The differences between two normalized responses, one per line.
pub fn differences(want: &Json, got: &Json, path: &str, out: &mut Vec<String>) {
    match (want, got) {
        (Json::Map(wants), Json::Map(gots)) => {
            for (name, value) in wants {
                match got.get(name) {
                    Some(got) => differences(value, got, &format!("{path}.{name}"), out),
                    None => out.push(format!("{path}.{name}: missing, want {}", short(value))),
                }
            }
            for (name, value) in gots {
                if want.get(name).is_none() {
                    out.push(format!("{path}.{name}: unexpected {}", short(value)));
                }
            }
        }
        (Json::List(wants), Json::List(gots)) => {
            if wants.len() != gots.len() {
                let (want, got) = (wants.len(), gots.len());
                out.push(format!("{path}: want {want} items, got {got}"));
            }
            for (index, (want, got)) in wants.iter().zip(gots).enumerate() {
                differences(want, got, &format!("{path}[{index}]"), out);
            }
        }
        (Json::Number(want), Json::Number(got)) if want.as_f64() == got.as_f64() => {}
        _ if want == got => {}
        _ => out.push(format!("{path}: want {}, got {}", short(want), short(got))),
    }
}

fn short(value: &Json) -> String {
    let text = value.source();
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
