//! A whole cluster with many pods: the time until all are bound, and until all run. For each load a new server of
//! reddwarf is started. Upstream's API server gets its own scheduler, and kwok for its nodes, and must not contain
//! objects of another load.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;

use super::loads::{self, Measure};
use super::target::{Ask, Client, Failure, Target};
use super::{Ours, Peer, Table, opened};

const PODS: usize = 10_000;
/// Nodes to which pods are only bound.
const NODES: usize = 5_000;
/// Nodes on which pods run.
const SIMULATED: usize = 1_000;
/// How long a load may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// A program that is killed when this value is dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures both loads.
pub async fn rows(table: &Table, peer: Option<&Peer>) -> Result<(), Failure> {
    let name = format!("{PODS} pending pods on {NODES} nodes, bound");
    if table.wants(&name) {
        let mut measures = vec![bind_ours().await];
        if let Some(peer) = peer {
            measures.push(bind_theirs(peer).await);
        }
        table.print(&name, measures)?;
    }
    let name = format!("{PODS} pods to Running on {SIMULATED} nodes");
    if table.wants(&name) {
        let mut measures = vec![run_ours().await];
        if let Some(peer) = peer {
            measures.push(run_theirs(peer).await);
        }
        table.print(&name, measures)?;
    }
    Ok(())
}

async fn bind_ours() -> Result<Measure, Failure> {
    let mut ours = Ours::start(&["serve", "--controllers=-*"])?;
    let (target, _) = opened(&mut ours).await?;
    load(&target).await?;
    ours.restart(&["serve", "--controllers=scheduler"])?;
    let begun = Instant::now();
    let (target, _) = opened(&mut ours).await?;
    seen(&target, "spec.nodeName!=", PODS).await?;
    Ok(Measure {
        rate: PODS as f64 / begun.elapsed().as_secs_f64(),
        cpu: target.cpu() / PODS as f64,
    })
}

async fn bind_theirs(peer: &Peer) -> Result<Measure, Failure> {
    let target = peer.open().await?;
    load(&target).await?;
    let (begun, before) = (Instant::now(), target.cpu());
    let scheduler = scheduler(peer)?;
    let target = target.with(scheduler.0.id());
    seen(&target, "spec.nodeName!=", PODS).await?;
    Ok(Measure {
        rate: PODS as f64 / begun.elapsed().as_secs_f64(),
        cpu: (target.cpu() - before) / PODS as f64,
    })
}

async fn run_ours() -> Result<Measure, Failure> {
    let nodes = SIMULATED.to_string();
    let mut ours = Ours::start(&["agent", "--simulated-nodes", &nodes, "--kubelet-port", "0"])?;
    let (target, _) = opened(&mut ours).await?;
    run(&target).await
}

async fn run_theirs(peer: &Peer) -> Result<Measure, Failure> {
    let target = peer.open().await?;
    let nodes = loads::together(&target, 16, SIMULATED, |i| {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {
            "name": format!("simulated-{i}"),
            "labels": {"kubernetes.io/hostname": format!("simulated-{i}")},
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        }});
        Ask::write(Method::POST, "/api/v1/nodes", node.to_string())
    });
    nodes.await?;
    open_up(&target, "simulated", SIMULATED).await?;
    let scheduler = scheduler(peer)?;
    let mut kwok = Command::new(peer.tools.join("kwok"));
    kwok.args([
        "--manage-all-nodes",
        "--node-lease-duration-seconds",
        "40",
        "--kubeconfig",
    ])
    .arg(&peer.kubeconfig);
    for stage in std::fs::read_dir(peer.tools.join("stages"))? {
        kwok.arg("--config").arg(stage?.path());
    }
    let kwok = Program(quiet(&mut kwok)?);
    run(&target.with(scheduler.0.id()).with(kwok.0.id())).await
}

/// Creates pods on ready nodes, and waits until all run.
async fn run(target: &Target) -> Result<Measure, Failure> {
    let mut client = target.client().await?;
    let begun = Instant::now();
    while ready_nodes(&mut client).await? < SIMULATED {
        if begun.elapsed() > PATIENCE {
            return Err("the nodes do not get ready".into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    loads::make_namespace(&mut client, "bench").await?;
    let (begun, cpu) = (Instant::now(), target.cpu());
    tokio::try_join!(
        loads::create(target, 64, PODS, "bench", "running"),
        seen(target, "status.phase=Running", PODS),
    )?;
    Ok(Measure {
        rate: PODS as f64 / begun.elapsed().as_secs_f64(),
        cpu: (target.cpu() - cpu) / PODS as f64,
    })
}

async fn ready_nodes(client: &mut Client) -> Result<usize, Failure> {
    let list = client.object(Ask::get("/api/v1/nodes")).await?;
    let is_ready = |node: &&serde_json::Value| {
        let conditions = node["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let nodes = list["items"].as_array();
    Ok(nodes.into_iter().flatten().filter(is_ready).count())
}

/// Creates nodes, and pods that wait for a node.
async fn load(target: &Target) -> Result<(), Failure> {
    let mut client = target.client().await?;
    loads::make_namespace(&mut client, "bench").await?;
    let nodes = loads::together(target, 16, NODES, |i| {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("node-{i}"), "labels": {
                "kubernetes.io/hostname": format!("node-{i}"),
                "topology.kubernetes.io/zone": format!("zone-{}", i % 3),
            }},
            "status": {
                "allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"},
                "capacity": {"cpu": "4", "memory": "32Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        Ask::write(Method::POST, "/api/v1/nodes", node.to_string())
    });
    nodes.await?;
    open_up(target, "node", NODES).await?;
    loads::create(target, 64, PODS, "bench", "pending").await?;
    Ok(())
}

/// Removes the taint that new nodes have until a controller has seen that they are ready.
async fn open_up(target: &Target, prefix: &'static str, count: usize) -> Result<(), Failure> {
    loads::together(target, 16, count, move |i| Ask {
        content_type: "application/merge-patch+json",
        ..Ask::write(
            Method::PATCH,
            format!("/api/v1/nodes/{prefix}-{i}"),
            r#"{"spec":{"taints":null}}"#.to_owned(),
        )
    })
    .await?;
    Ok(())
}

/// Waits until this many pods match a field selector. A server may end a watch that cannot keep up: those that match by
/// then are counted, and watched from there.
async fn seen(target: &Target, selector: &str, count: usize) -> Result<(), Failure> {
    let mut client = target.client().await?;
    let selector = selector.replace('=', "%3D").replace('!', "%21");
    let path = format!("/api/v1/pods?fieldSelector={selector}");
    let mut got = 0;
    let watch = async {
        loop {
            let list = client.object(Ask::get(path.clone())).await?;
            got = list["items"].as_array().map_or(0, Vec::len);
            let version = list["metadata"]["resourceVersion"].as_str();
            let version = version.ok_or("a list without a version")?;
            let path = format!("{path}&watch=true&resourceVersion={version}");
            if got >= count || arrived(&mut client, path, &mut got, count).await? {
                return Ok::<(), Failure>(());
            }
        }
    };
    match tokio::time::timeout(PATIENCE, watch).await {
        Ok(ended) => ended,
        Err(_) => Err(format!("{got} of {count} pods are where they should be").into()),
    }
}

/// Adds the objects that begin to match in a watch to `got`, until there are as many as wanted (true) or the server ends
/// the watch (false).
async fn arrived(
    client: &mut Client,
    path: String,
    got: &mut usize,
    wanted: usize,
) -> Result<bool, Failure> {
    const ADDED: &[u8] = br#"{"type":"ADDED""#;
    let (status, mut body) = client.begin(Ask::get(path)).await?;
    if !status.is_success() {
        return Err(format!("watch: {status}").into());
    }
    let (mut line_begins, mut line) = (true, Vec::new());
    while let Some(frame) = body.frame().await {
        for byte in frame?.data_ref().into_iter().flatten() {
            if *byte == b'\n' {
                line_begins = true;
                line.clear();
            } else if line_begins {
                line.push(*byte);
                if line.len() == ADDED.len() {
                    *got += usize::from(line == ADDED);
                    line_begins = false;
                }
            }
        }
        if *got >= wanted {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Starts upstream's scheduler, without a limit on its requests.
fn scheduler(peer: &Peer) -> Result<Program, Failure> {
    let kubeconfig = peer.kubeconfig.display();
    let configuration = peer.kubeconfig.with_file_name("scheduler.yaml");
    std::fs::write(
        &configuration,
        format!(
            "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
             leaderElection: {{leaderElect: false}}\n\
             clientConnection: {{kubeconfig: {kubeconfig:?}, qps: 10000, burst: 10000}}\n"
        ),
    )?;
    let mut command = Command::new(peer.tools.join("kube-scheduler"));
    command
        .args(["--secure-port", "0", "--config"])
        .arg(configuration);
    Ok(Program(quiet(&mut command)?))
}

fn quiet(command: &mut Command) -> std::io::Result<Child> {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}
