//! Sends recorded requests to reddwarf and compares the responses with upstream's: tests/scenarios/README.md.
//!
//! `SCENARIO=REGEX cargo test --test it TOPIC` runs the scenarios of a topic whose titles match.

mod ask;
mod file;
mod json;
mod normal;

use std::collections::{BTreeSet, HashMap};
use std::io::Read as _;
use std::path::Path;

use regex::Regex;

use crate::server::Server;
use crate::wire::Login;
use ask::Asker;
use file::{Scenario, What};
use json::Json;

/// The controllers that ran during the recording.
const CONTROLLERS: &str = "--controllers=serviceaccount-controller,namespace-controller,\
    garbage-collector-controller,root-ca-certificate-publisher-controller,clusterrole-aggregation-controller";

/// Features that are not implemented: scenarios that use them are left out.
const ABSENT: &str = r#"x-kubernetes-validations|validatingadmissionpolic|"Webhook""#;
/// Features without effect, although their objects are served: admission scenarios that use them are left out.
const IDLE: &str = r"mutatingadmissionpolic|webhookconfigurations";

/// How many servers share the scenarios of a topic, because some scenarios wait.
const LANES: usize = 2;

/// The most differences shown for a scenario.
const SHOWN: usize = 12;

macro_rules! topics {
    ($($topic:ident)*) => {
        const TOPICS: &[&str] = &[$(stringify!($topic)),*];
        $(
            #[tokio::test]
            async fn $topic() {
                topic(stringify!($topic)).await;
            }
        )*
    };
}

topics! {
    admission apply authorization bearer configuration crds custom_resources errors lists negotiation networking
    objects patches pods storage subresources watches workloads
}

#[test]
fn every_file_is_asked_and_every_known_difference_is_of_one() {
    let files: BTreeSet<String> = std::fs::read_dir(directory())
        .expect("the directory of scenarios")
        .filter_map(|entry| {
            let name = entry.expect("an entry").file_name();
            let name = name.to_str()?.strip_suffix(".http")?.replace('-', "_");
            Some(name)
        })
        .collect();
    assert_eq!(
        files,
        TOPICS.iter().map(|&topic| topic.to_owned()).collect()
    );
    for (topic, title) in known_differences() {
        let known = scenarios(&topic).iter().any(|one| one.title == title);
        assert!(known, "known-differences: no scenario {topic}: {title}");
    }
}

async fn topic(topic: &str) {
    let topic = topic.replace('_', "-");
    let kept = std::env::var("SCENARIO").unwrap_or_default();
    let kept = Regex::new(&kept).expect("SCENARIO is a regular expression");
    let absent = match topic.as_str() {
        "admission" => format!("{ABSENT}|{IDLE}"),
        _ => ABSENT.to_owned(),
    };
    let absent = Regex::new(&absent).expect("an expression");
    let mut lanes: Vec<Vec<Scenario>> = (0..LANES).map(|_| Vec::new()).collect();
    let all = scenarios(&topic).into_iter().filter(|scenario| {
        kept.is_match(&scenario.title)
            && !scenario.steps.iter().any(|step| match &step.what {
                What::Request(_, path) | What::Watch(_, path) => {
                    absent.is_match(path) || absent.is_match(&step.body)
                }
                _ => false,
            })
    });
    for (index, scenario) in all.enumerate() {
        lanes[index % LANES].push(scenario);
    }
    let recorded = recorded(&topic);
    let found = futures::future::join_all(lanes.iter().map(|lane| ask(&topic, lane, &recorded)));
    let found: Vec<Vec<String>> = found.await.into_iter().flatten().collect();
    let known: BTreeSet<String> = known_differences()
        .into_iter()
        .filter(|(of, _)| *of == topic)
        .map(|(_, title)| title)
        .collect();
    let mut report = Vec::new();
    for (scenario, mut differences) in lanes.into_iter().flatten().zip(found) {
        let title = &scenario.title;
        match (differences.is_empty(), known.contains(title)) {
            (true, true) => report.push(format!(
                "{title}: answered as upstream now: take it out of known-differences and docs/compatibility.md"
            )),
            (false, false) => {
                let more = differences.len().saturating_sub(SHOWN);
                differences.truncate(SHOWN);
                report.push(format!("{title}\n    {}", differences.join("\n    ")));
                if more > 0 {
                    report.push(format!("    and {more} more"));
                }
            }
            _ => {}
        }
    }
    assert!(report.is_empty(), "{topic}:\n{}", report.join("\n"));
}

/// The differences between the responses and the recorded ones, by scenario.
async fn ask(
    topic: &str,
    scenarios: &[Scenario],
    recorded: &HashMap<String, Vec<Json>>,
) -> Vec<Vec<String>> {
    if scenarios.is_empty() {
        return Vec::new();
    }
    let server = Server::in_memory(&[CONTROLLERS]);
    let login = match topic {
        "bearer" => by_token(&server).await,
        _ => server.admin(),
    };
    let mut asker = Asker::new(&login);
    let mut out = Vec::new();
    for (index, scenario) in scenarios.iter().enumerate() {
        // Has the same length as the recorded ones, because some responses contain lengths. YAML must not parse it as a
        // number.
        let token = format!("a{index:06x}f");
        let mut found = Vec::new();
        match asker.run(scenario, &token).await {
            Err(error) => found.push(error.to_string()),
            Ok(got) => {
                let want = recorded.get(&scenario.title).map_or(&[][..], |steps| steps);
                if want.len() != got.len() {
                    found.push(format!("want {} answers, got {}", want.len(), got.len()));
                }
                for (number, (want, got)) in want.iter().zip(&got).enumerate() {
                    let step = format!("step {} ", number + 1);
                    normal::differences(want, got, &step, &mut found);
                }
            }
        }
        out.push(found);
    }
    out
}

/// An administrator authenticated by a service account token.
async fn by_token(server: &Server) -> Login {
    let mut connection = server.admin().connection();
    let accounts = "/api/v1/namespaces/kube-system/serviceaccounts";
    let mut token = String::new();
    for (path, body) in [
        (accounts.to_owned(), r#"{"metadata":{"name":"ask"}}"#),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings".to_owned(),
            r#"{"metadata":{"name":"ask"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole",
            "name":"cluster-admin"},"subjects":[{"kind":"ServiceAccount","name":"ask","namespace":"kube-system"}]}"#,
        ),
        (format!("{accounts}/ask/token"), r#"{"spec":{}}"#),
    ] {
        let request = ask::plain("POST", &path, body).expect("a request");
        let answer = connection.ask(request).await.expect("an answer");
        assert_eq!(answer.status, 201, "{answer:?}");
        let body: Json = serde_json::from_slice(&answer.body).expect("JSON");
        token = body.pick(".status.token").map_or(token, Json::to_string);
    }
    server.bearer(&token)
}

/// A request of a scenario, with variables replaced.
pub struct Asked {
    pub method: String,
    pub path: String,
    pub content_type: String,
    pub body: String,
}

/// The requests of all scenarios.
pub fn requests() -> Vec<Asked> {
    let variable = Regex::new(r"\{([a-zA-Z_]\w*)\}").expect("an expression");
    let fill = |text: &str| {
        let text = text.replace("{ns}", "default").replace("{x}", "x");
        variable.replace_all(&text, "1").into_owned()
    };
    let all = TOPICS
        .iter()
        .flat_map(|topic| scenarios(&topic.replace('_', "-")));
    let steps = all.flat_map(|scenario| scenario.steps);
    steps
        .filter_map(|step| {
            let What::Request(method, path) = &step.what else {
                return None;
            };
            let mut headers = step.headers.iter();
            let content_type = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
            Some(Asked {
                method: method.clone(),
                path: fill(path),
                content_type: content_type
                    .map_or("application/json", |(_, value)| value)
                    .to_owned(),
                body: fill(&step.body),
            })
        })
        .collect()
}

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios"))
}

fn scenarios(topic: &str) -> Vec<Scenario> {
    let path = directory().join(format!("{topic}.http"));
    file::parse(&std::fs::read_to_string(path).expect("a file of scenarios"))
}

/// Upstream's responses by title, one per step.
fn recorded(topic: &str) -> HashMap<String, Vec<Json>> {
    let path = directory().join(format!("{topic}.json.gz"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).expect("recorded answers"))
        .read_to_string(&mut text)
        .expect("recorded answers");
    let mut all: HashMap<String, Vec<Json>> = serde_json::from_str(&text).expect("JSON");
    for answer in all.values_mut().flatten() {
        if let Json::Map(members) = answer {
            members.retain(|(name, _)| name != "request");
        }
    }
    all
}

/// Topics and titles of the scenarios with known differences.
fn known_differences() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(directory().join("known-differences")).expect("the list");
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (topic, title) = line.split_once(": ").expect("TOPIC: TITLE");
            (topic.to_owned(), title.to_owned())
        })
        .collect()
}
