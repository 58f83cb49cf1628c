//! Sends the requests of a scenario to a server.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt as _;
use regex::{Captures, Regex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::file::{Scenario, Step, What};
use super::json::Json;
use super::normal::Normal;
use crate::wire::{Broken, Connection, Login};

/// The user agent of the recorded requests: the default field manager.
const AGENT: &str = "ask/1";
/// How long a request with `@until` is repeated.
const UNTIL: Duration = Duration::from_secs(20);
/// How long to wait for events of a watch.
const EVENTS: Duration = Duration::from_secs(10);

/// Runs scenarios against one server, one after the other.
pub struct Asker {
    login: Login,
    connection: Connection,
}

/// A running scenario.
struct Course<'a> {
    asker: &'a mut Asker,
    variables: HashMap<String, String>,
    watches: HashMap<String, Watch>,
}

struct Watch {
    events: mpsc::Receiver<Json>,
    reader: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Asker {
    /// Sends requests as `login`.
    pub fn new(login: &Login) -> Self {
        Asker {
            login: login.clone(),
            connection: login.connection(),
        }
    }

    /// The normalized responses, one for each compared step. `token` is a word that no other scenario has used.
    pub async fn run(&mut self, scenario: &Scenario, token: &str) -> Result<Vec<Json>, Broken> {
        let ns = format!("ask-{token}");
        self.make_namespace(&ns).await?;
        let variables = [("ns", ns.as_str()), ("x", token)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let mut course = Course {
            asker: self,
            variables,
            watches: HashMap::new(),
        };
        let answers = course.answers(&scenario.steps).await;
        course.watches.clear();
        for path in &scenario.cleanup {
            let request = plain("DELETE", &course.fill(path), r#"{"gracePeriodSeconds":0}"#)?;
            course.asker.connection.ask(request).await?;
        }
        let request = plain("DELETE", &format!("/api/v1/namespaces/{ns}"), "")?;
        self.connection.ask(request).await?;

        let answers = answers?;
        let mut normal = Normal::new(vec![(ns, "NS"), (token.to_owned(), "X")]);
        for (_, answer) in &answers {
            normal.scan(answer, "");
        }
        Ok(answers
            .iter()
            .map(|(step, answer)| {
                let mut value = normal.value(answer, "");
                for expression in &step.ignores {
                    value.ignore(expression);
                }
                if step.only.is_empty() {
                    return value;
                }
                let picked = |expression: &String| {
                    let found = value.pick(expression).cloned();
                    (expression.clone(), found.unwrap_or(Json::Null))
                };
                Json::Map(step.only.iter().map(picked).collect())
            })
            .collect())
    }

    /// Creates a namespace and waits for its default service account.
    async fn make_namespace(&mut self, ns: &str) -> Result<(), Broken> {
        let body =
            format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{ns}"}}}}"#);
        let made = self
            .connection
            .ask(plain("POST", "/api/v1/namespaces", &body)?)
            .await?;
        if made.status != 201 {
            return Err(format!("cannot make namespace {ns}: {made:?}").into());
        }
        let path = format!("/api/v1/namespaces/{ns}/serviceaccounts/default");
        let end = Instant::now() + UNTIL;
        while self.connection.ask(plain("GET", &path, "")?).await?.status != 200 {
            if Instant::now() > end {
                return Err(format!("namespace {ns} gets no default account").into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Course<'_> {
    async fn answers<'s>(&mut self, steps: &'s [Step]) -> Result<Vec<(&'s Step, Json)>, Broken> {
        let mut answers = Vec::new();
        for step in steps {
            sleep(Duration::from_secs_f64(step.sleep)).await;
            let answer = match &step.what {
                What::Events(name, count) => self.events(name, *count).await?,
                What::Watch(name, path) => self.watch(name, path, step).await?,
                What::Request(method, path) => self.ask(method, path, step).await?,
                What::Nothing | What::Cleanup(_) => continue,
            };
            for (name, expression) in &step.captures {
                let found = answer.get("body").and_then(|body| body.pick(expression));
                let value = found.map_or_else(|| "null".to_owned(), Json::to_string);
                self.variables.insert(name.clone(), value);
            }
            if !step.setup {
                answers.push((step, answer));
            }
        }
        Ok(answers)
    }

    /// The text with variables replaced by their values.
    fn fill(&self, text: &str) -> String {
        static NAME: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r"\{([a-zA-Z_]\w*)\}").expect("an expression"));
        NAME.replace_all(text, |found: &Captures<'_>| {
            let known = self.variables.get(&found[1]);
            known.cloned().unwrap_or_else(|| found[0].to_owned())
        })
        .into_owned()
    }

    fn request(&self, method: &str, path: &str, step: &Step) -> Result<Request<Bytes>, Broken> {
        let body = self.fill(&step.body);
        // The HTTP library does not accept these characters; no other client sends them either.
        let path = self.fill(path).replace('<', "%3C").replace('>', "%3E");
        let mut request = Request::builder().method(method).uri(path);
        // Each character is a byte, as when the responses were recorded.
        for (name, value) in &step.headers {
            let bytes: Vec<u8> = self.fill(value).chars().map(latin1).collect();
            request = request.header(name, bytes);
        }
        if let Some((user, groups)) = step.user.split_first() {
            request = request.header("Impersonate-User", self.fill(user));
            for group in groups {
                request = request.header("Impersonate-Group", self.fill(group));
            }
        }
        let mut defaults = vec![("user-agent", AGENT), ("accept", "application/json")];
        if !body.is_empty() {
            defaults.push(("content-type", "application/json"));
        }
        let known = request.headers_ref().cloned().unwrap_or_default();
        for (name, value) in defaults {
            if !known.contains_key(name) {
                request = request.header(name, value);
            }
        }
        Ok(request.body(body.into())?)
    }

    async fn ask(&mut self, method: &str, path: &str, step: &Step) -> Result<Json, Broken> {
        let end = Instant::now() + UNTIL;
        loop {
            let request = self.request(method, path, step)?;
            let answer = self.asker.connection.ask(request).await?;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let body = match text.as_str() {
                "" => Json::Null,
                _ => serde_json::from_str(&text).unwrap_or(Json::Text(text)),
            };
            let status = Json::Number(answer.status.into());
            let met = step.until.as_ref().is_none_or(|(expression, wanted)| {
                let found = match expression.as_str() {
                    "status" => Some(&status),
                    _ => body.pick(expression),
                };
                found.unwrap_or(&Json::Null).to_string() == self.fill(wanted)
            });
            if met || Instant::now() > end {
                return Ok(observed(status, &answer.headers, &step.shown, body));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn watch(&mut self, name: &str, path: &str, step: &Step) -> Result<Json, Broken> {
        let answer = self
            .asker
            .login
            .send(self.request("GET", path, step)?)
            .await?;
        let status = answer.status().as_u16();
        let (tell, events) = mpsc::channel(1000);
        let reader = tokio::spawn(async move {
            let mut body = answer.into_body();
            let mut rest = Vec::new();
            while let Some(Ok(frame)) = body.frame().await {
                rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                // An error is one value, possibly on several lines; an event is one line.
                while status == 200
                    && let Some(end) = rest.iter().position(|byte| *byte == b'\n')
                {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    let Ok(event) = serde_json::from_slice(&line) else {
                        return;
                    };
                    if tell.send(event).await.is_err() {
                        return;
                    }
                }
            }
            if let Ok(refusal) = serde_json::from_slice(&rest) {
                let _ = tell.send(refusal).await;
            }
        });
        self.watches
            .insert(name.to_owned(), Watch { events, reader });
        Ok(Json::Map(vec![
            ("watch".to_owned(), Json::Text(name.to_owned())),
            ("status".to_owned(), Json::Number(status.into())),
        ]))
    }

    async fn events(&mut self, name: &str, count: usize) -> Result<Json, Broken> {
        let watch = self.watches.get_mut(name).ok_or("no such watch")?;
        let end = Instant::now() + EVENTS;
        let mut events = Vec::new();
        while events.len() < count
            && let Ok(Some(event)) = timeout_at(end, watch.events.recv()).await
        {
            events.push(event);
        }
        let missing = count - events.len();
        let mut answer = vec![
            ("watch".to_owned(), Json::Text(name.to_owned())),
            ("events".to_owned(), Json::List(events)),
        ];
        if missing > 0 {
            answer.push(("missing".to_owned(), Json::Number(missing.into())));
        }
        Ok(Json::Map(answer))
    }
}

/// The compared parts of a response: of its headers those of every step, and those that are `shown`.
fn observed(status: Json, headers: &HeaderMap, shown: &[String], body: Json) -> Json {
    let texts = |name: &str| {
        headers
            .get_all(name)
            .iter()
            .map(|value| Json::Text(String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect::<Vec<_>>()
    };
    let kind = texts(header::CONTENT_TYPE.as_str()).into_iter().next();
    let mut answer = vec![
        ("status".to_owned(), status),
        ("type".to_owned(), kind.unwrap_or(Json::Null)),
        ("body".to_owned(), body),
    ];
    let every = [header::WARNING.as_str(), header::ALLOW.as_str()];
    for name in every.into_iter().chain(shown.iter().map(String::as_str)) {
        let values = texts(name);
        if !values.is_empty() {
            answer.push((name.to_owned(), Json::List(values)));
        }
    }
    Json::Map(answer)
}

pub fn plain(method: &str, path: &str, body: &str) -> Result<Request<Bytes>, http::Error> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, AGENT)
        .body(Bytes::copy_from_slice(body.as_bytes()))
}

/// The Latin-1 byte of a character; `?` if there is none.
fn latin1(character: char) -> u8 {
    u8::try_from(character).unwrap_or(b'?')
}
