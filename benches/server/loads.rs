//! The loads: requests to a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::target::{Ask, Client, Failure, Target};

/// The number of pods that exist while lists are requested.
pub const HELD: usize = 10_000;

/// How long events are waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// The result of a load.
pub struct Measure {
    /// Operations per second.
    pub rate: f64,
    /// The server's CPU time for each, in microseconds.
    pub cpu: f64,
}

/// `clients` send `count` requests at the same time; `ask` builds the i-th one.
pub async fn together(
    target: &Target,
    clients: usize,
    count: usize,
    ask: impl Fn(usize) -> Ask + Send + Sync + 'static,
) -> Result<Measure, Failure> {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(target.client().await?);
    }
    let (next, ask) = (Arc::new(AtomicUsize::new(0)), Arc::new(ask));
    let (begun, cpu) = (Instant::now(), target.cpu());
    let mut tasks = JoinSet::new();
    for mut client in connections {
        let (next, ask) = (next.clone(), ask.clone());
        tasks.spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return Ok::<_, Failure>(());
                }
                client.must(ask(i)).await?;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(Measure {
        rate: count as f64 / begun.elapsed().as_secs_f64(),
        cpu: (target.cpu() - cpu) / count as f64,
    })
}

fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

/// A pod as deployments create them: 3.5 KB when stored.
fn pod(name: &str) -> String {
    let environment: Vec<_> = (0..12)
        .map(|i| json!({"name": format!("SETTING_{i}"), "value": format!("a value of some length, {i}")}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "web", "tier": "front", "pod-template-hash": "5d4f8c7b9"},
            "annotations": {"example.com/checksum": "0123456789abcdef0123456789abcdef"},
        },
        "spec": {
            "containers": [{
                "name": "web", "image": "registry.example/web:1.2.3", "env": environment,
                "ports": [{"name": "http", "containerPort": 8080}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 5},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}],
            }],
            "volumes": [{"name": "config", "configMap": {"name": "web"}}],
        }
    })
    .to_string()
}

fn deployment(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{
                    "name": "web", "image": "registry.example/web:1.2.3",
                    "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                    "ports": [{"containerPort": 8080}],
                }]}
            }
        }
    })
}

/// Creates the namespaces of the loads.
pub async fn prepare(target: &Target) -> Result<(), Failure> {
    let mut client = target.client().await?;
    for name in ["bench", "held", "watched"] {
        make_namespace(&mut client, name).await?;
    }
    Ok(())
}

/// Creates a namespace in which pods can be created, if it does not exist.
pub async fn make_namespace(client: &mut Client, name: &str) -> Result<(), Failure> {
    for (path, kind, name) in [
        ("/api/v1/namespaces".to_owned(), "Namespace", name),
        (
            format!("/api/v1/namespaces/{name}/serviceaccounts"),
            "ServiceAccount",
            "default",
        ),
    ] {
        let body = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        let (status, _) = client
            .send(Ask::write(Method::POST, path, body.to_string()))
            .await?;
        if !status.is_success() && status != StatusCode::CONFLICT {
            return Err(format!("cannot make the {kind} {name}: {status}").into());
        }
    }
    Ok(())
}

/// Creates `count` pods with names beginning with `prefix`.
pub async fn create(
    target: &Target,
    clients: usize,
    count: usize,
    namespace: &'static str,
    prefix: &'static str,
) -> Result<Measure, Failure> {
    together(target, clients, count, move |i| {
        Ask::write(Method::POST, pods(namespace), pod(&format!("{prefix}-{i}")))
    })
    .await
}

/// Reads single pods out of many.
pub async fn get(target: &Target, clients: usize, count: usize) -> Result<Measure, Failure> {
    together(target, clients, count, |i| {
        Ask::get(format!("{}/held-{}", pods("held"), i % HELD))
    })
    .await
}

/// Lists all pods.
pub async fn list(target: &Target, gzip: bool, count: usize) -> Result<Measure, Failure> {
    together(target, 1, count, move |_| Ask {
        gzip,
        ..Ask::get(pods("held"))
    })
    .await
}

/// Server-side applies of deployments, each with a different value.
pub async fn apply(target: &Target, clients: usize, count: usize) -> Result<Measure, Failure> {
    together(target, clients, count, |i| {
        let name = format!("applied-{}", i % 64);
        let mut body = deployment(&name);
        body["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = json!(i.to_string());
        let path = format!(
            "/apis/apps/v1/namespaces/bench/deployments/{name}?fieldManager=bench&force=true"
        );
        Ask {
            content_type: "application/apply-patch+yaml",
            ..Ask::write(Method::PATCH, path, body.to_string())
        }
    })
    .await
}

/// Patches of deployments, each with a different value.
pub async fn patch(target: &Target, clients: usize, count: usize) -> Result<Measure, Failure> {
    together(target, clients, count, |i| {
        let path = format!(
            "/apis/apps/v1/namespaces/bench/deployments/applied-{}",
            i % 64
        );
        let change = json!({"spec": {"template": {"spec": {"containers": [{
            "name": "web", "env": [{"name": "B", "value": i.to_string()}]
        }]}}}});
        Ask {
            content_type: "application/strategic-merge-patch+json",
            ..Ask::write(Method::PATCH, path, change.to_string())
        }
    })
    .await
}

const WATCHED: &str = "/api/v1/namespaces/watched/configmaps";

/// Counts the events of a watch until it ends.
async fn count(mut body: Incoming, got: Arc<watch::Sender<usize>>) -> Result<(), Failure> {
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            let events = data.iter().filter(|byte| **byte == b'\n').count();
            got.send_modify(|got| *got += events);
        }
    }
    Err("a watch ended early".into())
}

/// Delivers `writes` to `watchers`: one after another, or as fast as 16 clients can write. Counts delivered events.
pub async fn deliver(
    target: &Target,
    watchers: usize,
    writers: usize,
    writes: usize,
    prefix: &'static str,
) -> Result<Measure, Failure> {
    let mut client = target.client().await?;
    let list = client
        .object(Ask::get(format!("{WATCHED}?limit=1")))
        .await?;
    let now = &list["metadata"]["resourceVersion"];
    let now = now.as_str().ok_or("the list has no resourceVersion")?;
    let got = Arc::new(watch::Sender::new(0));
    let (mut tasks, mut clients) = (JoinSet::new(), Vec::new());
    for _ in 0..watchers {
        // The watch has begun when its response head arrives.
        let mut client = target.client().await?;
        let path = format!("{WATCHED}?watch=true&resourceVersion={now}");
        let (status, body) = client.begin(Ask::get(path)).await?;
        if !status.is_success() {
            return Err(format!("watch: {status}").into());
        }
        clients.push(client);
        tasks.spawn(count(body, got.clone()));
    }
    let (begun, cpu) = (Instant::now(), target.cpu());
    together(target, writers, writes, move |i| {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("{prefix}-{i}")},
            "data": {"a": "x".repeat(500)},
        });
        Ask::write(Method::POST, WATCHED, map.to_string())
    })
    .await?;
    let all = watchers * writes;
    let mut told = got.subscribe();
    tokio::select! {
        told = told.wait_for(|got| *got >= all) => drop(told?),
        Some(ended) = tasks.join_next() => ended??,
        () = tokio::time::sleep(PATIENCE) => {
            return Err(format!("{} events of {all}", *got.borrow()).into());
        }
    }
    Ok(Measure {
        rate: all as f64 / begun.elapsed().as_secs_f64(),
        cpu: (target.cpu() - cpu) / all as f64,
    })
}
