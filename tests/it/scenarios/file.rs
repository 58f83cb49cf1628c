//! Parses scenario files; tests/scenarios/README.md describes their format.

/// A scenario: a sequence of related requests.
pub struct Scenario {
    pub title: String,
    pub steps: Vec<Step>,
    /// Paths to delete at the end.
    pub cleanup: Vec<String>,
}

/// A request, or the next events of a watch.
#[derive(Default)]
pub struct Step {
    pub what: What,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// Names of variables, and the parts of the response to store in them.
    pub captures: Vec<(String, String)>,
    /// Parts of the response that are not compared.
    pub ignores: Vec<String>,
    /// The only parts that are compared; everything if empty.
    pub only: Vec<String>,
    /// Response headers that are compared in addition to those of every step.
    pub shown: Vec<String>,
    /// Repeat until this part of the response has this value.
    pub until: Option<(String, String)>,
    /// A user and groups to act as.
    pub user: Vec<String>,
    /// Seconds to wait before the request.
    pub sleep: f64,
    /// Whether the response is not compared at all.
    pub setup: bool,
}

/// What a step does.
#[derive(Default)]
pub enum What {
    /// No request line was parsed yet.
    #[default]
    Nothing,
    /// A method and a path.
    Request(String, String),
    /// Starts a watch with this name, at this path.
    Watch(String, String),
    /// The next events of a watch.
    Events(String, usize),
    /// A path to delete at the end.
    Cleanup(String),
}

/// Parses a file.
pub fn parse(text: &str) -> Vec<Scenario> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    for part in format!("\n{text}").split("\n## ").skip(1) {
        let (title, rest) = part.split_once('\n').unwrap_or((part, ""));
        let title = title.trim().to_owned();
        assert!(
            scenarios.iter().all(|known| known.title != title),
            "the title {title:?} stands twice"
        );
        let mut scenario = Scenario {
            title,
            steps: Vec::new(),
            cleanup: Vec::new(),
        };
        for chunk in steps(rest) {
            let step = step(&chunk).unwrap_or_else(|what| panic!("{}: {what}", scenario.title));
            match step.what {
                What::Cleanup(path) => scenario.cleanup.push(path),
                _ => scenario.steps.push(step),
            }
        }
        scenarios.push(scenario);
    }
    scenarios
}

/// The lines of each step.
fn steps(text: &str) -> Vec<Vec<&str>> {
    let mut chunks = vec![Vec::new()];
    for line in text.split('\n') {
        if line.starts_with("###") {
            chunks.push(Vec::new());
        } else if let Some(last) = chunks.last_mut() {
            last.push(line);
        }
    }
    chunks.retain(|chunk| {
        chunk
            .iter()
            .any(|line| !line.trim().is_empty() && !line.starts_with('#'))
    });
    chunks
}

fn step(lines: &[&str]) -> Result<Step, String> {
    let mut step = Step::default();
    let mut watch = None;
    let mut lines = lines.iter();
    for line in lines.by_ref() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(directive) = line.strip_prefix('@') {
            let (word, rest) = halves(directive);
            let owned = |(one, other): (&str, &str)| (one.to_owned(), other.to_owned());
            match word {
                "capture" => step.captures.push(owned(halves(rest))),
                "ignore" => step.ignores.extend(words(rest)),
                "only" => step.only.extend(words(rest)),
                "headers" => step.shown.extend(words(rest)),
                "watch" => watch = Some(rest.to_owned()),
                "events" => {
                    let (name, count) = halves(rest);
                    let count = count.parse().map_err(|_| format!("no number: {rest}"))?;
                    step.what = What::Events(name.to_owned(), count);
                }
                "until" => step.until = Some(owned(halves(rest))),
                "as" => step.user = words(rest).collect(),
                "sleep" => step.sleep = rest.parse().map_err(|_| format!("no number: {rest}"))?,
                "setup" => step.setup = true,
                _ => return Err(format!("unknown directive @{word}")),
            }
            continue;
        }
        let (method, path) = halves(line);
        step.what = match (method, watch.take()) {
            ("CLEANUP", _) => What::Cleanup(path.to_owned()),
            ("WATCH" | "GET", Some(name)) => What::Watch(name, path.to_owned()),
            ("GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" | "HEAD", None) => {
                What::Request(method.to_owned(), path.to_owned())
            }
            _ => return Err(format!("not a request line: {line:?}")),
        };
        break;
    }
    for line in lines.by_ref() {
        if line.trim().is_empty() {
            break;
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| format!("not a header: {line:?}"))?;
        step.headers
            .push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let body: Vec<&str> = lines.copied().collect();
    step.body = body.join("\n").trim_matches('\n').to_owned();
    match step.what {
        What::Nothing => Err("a step without a request".to_owned()),
        _ => Ok(step),
    }
}

/// The text before and after the first space.
fn halves(text: &str) -> (&str, &str) {
    let (one, other) = text.split_once(' ').unwrap_or((text, ""));
    (one, other.trim())
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace().map(str::to_owned)
}
