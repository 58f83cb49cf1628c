//! A host joins with the printed command line, and outlives the token and the certificate.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use reddwarf::auth::pki::Pair;
use tempfile::TempDir;

use crate::server::{BINARY, Server};

/// Timeout for every wait.
const PATIENCE: Duration = Duration::from_secs(60);
/// The binding with which requests of tokens are approved automatically.
const BY_RULE: &str = "kubeadm:node-autoapprove-bootstrap";

/// Repeats `ask` until it returns something.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, asked).await;
    waited.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// The agent of a simulated node. It is killed when this value is dropped.
struct Agent {
    child: Child,
    dir: TempDir,
}

impl Agent {
    fn start(dir: TempDir, join: &[String]) -> Agent {
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let child = Command::new(BINARY)
            .args([
                "agent",
                "--runtime=simulated",
                "--node-name=n",
                "--data-dir",
            ])
            .arg(dir.path())
            .args(join)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        Agent { child, dir }
    }

    fn certificate(&self) -> Option<Pair> {
        let path = self.dir.path().join("pki/kubelet-client-current.pem");
        let text = std::fs::read_to_string(path).ok()?;
        // The file is replaced atomically, so it is always complete.
        Some(Pair::read(&text, &text).expect("a certificate and its key"))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Kills it, like a power cut.
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn again(mut self, join: &[String]) -> Agent {
        self.kill();
        let unused = tempfile::tempdir().expect("a directory");
        let dir = std::mem::replace(&mut self.dir, unused);
        Agent::start(dir, join)
    }

    /// Waits for its end; returns the exit code and what it printed.
    async fn refused(mut self) -> (Option<i32>, String) {
        let status = until("the agent ends", async || self.child.try_wait().ok()?).await;
        (status.code(), self.log())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the agent's log\n{}", self.log());
        }
    }
}

/// The arguments in the command line printed by `token create`.
fn line(server: &Server) -> Vec<String> {
    let output = Command::new(BINARY)
        .args(["token", "create", "--server", &server.url(), "--kubeconfig"])
        .arg(server.path().join("kubeconfig"))
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    let words = said.trim().strip_prefix("reddwarf agent ");
    let words = words.unwrap_or_else(|| panic!("no line: {said} {error}"));
    words.split(' ').map(str::to_owned).collect()
}

async fn renewed(client: &kube::Client) -> Option<Timestamp> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    Some(leases.get("n").await.ok()?.spec?.renew_time?.0)
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

#[tokio::test]
async fn a_node_outlives_its_certificates() {
    let server = Server::in_memory(&["--cluster-signing-duration=5s"]);
    let client = server.client().await;
    let join = line(&server);
    let agent = Agent::start(directory(), &join);
    let first = until("a certificate", async || agent.certificate()).await;
    assert_eq!(first.subject.name, "system:node:n");
    let after = first.not_after;
    until(
        "the node is renewed after its first certificate",
        async || {
            let renewed = renewed(&client).await?;
            (renewed.as_second() > after + 1).then_some(())
        },
    )
    .await;
    let now = agent.certificate().expect("a certificate");
    assert!(now.not_after > after);

    // The token has been deleted, and is not needed. The stored certificate may have expired when the agent starts
    // again.
    let mut stale = agent;
    stale.kill();
    let ended = stale.certificate().expect("a certificate").not_after;
    until("the certificate ends", async || {
        (Timestamp::now().as_second() > ended).then_some(())
    })
    .await;
    let agent = stale.again(&join);
    until("the node comes again", async || {
        let renewed = renewed(&client).await?;
        (renewed.as_second() > ended).then_some(())
    })
    .await;
    drop(agent);
}

#[tokio::test]
async fn a_request_is_waited_for_and_found_again() {
    let server = Server::in_memory(&[]);
    let client = server.client().await;
    let join = line(&server);
    let rules: Api<ClusterRoleBinding> = Api::all(client.clone());
    let gone = rules.delete(BY_RULE, &DeleteParams::default()).await;
    gone.expect("deleted");
    // Deleted objects are not created again.
    line(&server);
    assert!(rules.get_opt(BY_RULE).await.expect("an answer").is_none());

    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let pending = async || {
        let all = requests.list(&ListParams::default()).await.ok()?.items;
        let name = all.first()?.metadata.name.clone()?;
        assert_eq!(
            all.len(),
            1,
            "each start finds the request of the one before"
        );
        Some(name)
    };
    let agent = Agent::start(directory(), &join);
    let name = until("a request", pending).await;
    assert!(name.starts_with("node-csr-"), "{name}");
    let agent = agent.again(&join);
    until("it waits", async || {
        let told = format!("kubectl certificate approve {name}");
        agent.log().contains(&told).then_some(())
    })
    .await;
    assert_eq!(until("the request", pending).await, name);
    assert!(
        agent.certificate().is_none(),
        "nothing is kept before it is there"
    );

    // A denied request leads to an error with advice.
    let condition = |kind: &str| {
        serde_json::json!({"status": {"conditions": [
            {"type": kind, "status": "True", "reason": "Test", "message": "so it is"}
        ]}})
    };
    let judge = async |kind: &str, name: &str| {
        let patch = Patch::Merge(condition(kind));
        let params = PatchParams::default();
        let judged = requests.patch_subresource("approval", name, &params, &patch);
        judged.await.expect("judged");
    };
    judge("Denied", &name).await;
    let mut agent = agent;
    until("it ends", async || agent.child.try_wait().ok()?).await;
    let told = format!("was denied (Test: so it is); to ask again: kubectl delete csr {name}");
    assert!(agent.log().contains(&told), "{}", agent.log());
    let deleted = requests.delete(&name, &DeleteParams::default()).await;
    deleted.expect("deleted");

    let agent = agent.again(&join);
    let name = until("another request", pending).await;
    judge("Approved", &name).await;
    until("the node", async || renewed(&client).await).await;
    let before = renewed(&client).await.expect("a lease");

    // Once it has joined, it does not need the bootstrap credentials.
    let kubeconfig = agent.dir.path().join("kubelet.conf").display().to_string();
    let agent = agent.again(&["--kubeconfig".to_owned(), kubeconfig]);
    until("the node comes again", async || {
        let now = renewed(&client).await?;
        (now > before).then_some(())
    })
    .await;
    drop(agent);
}

#[tokio::test]
async fn a_node_lets_go_of_its_volumes() {
    let server = Server::in_memory(&[]);
    let client = server.client().await;
    let agent = Agent::start(directory(), &line(&server));
    until("the node", async || renewed(&client).await).await;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let make = async |name: &str, host: &str| {
        let volume = serde_json::json!({
            "metadata": {"name": name, "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer"]},
            "spec": {
                "capacity": {"storage": "1Ki"}, "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Delete",
                "csi": {"driver": "reddwarf.io", "volumeHandle": name},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]}},
            },
        });
        let volume = serde_json::from_value(volume).expect("a volume");
        let made = volumes.create(&Default::default(), &volume).await;
        made.expect("made");
    };
    make("own", "n").await;
    let deleted = volumes.delete("own", &DeleteParams::default()).await;
    deleted.expect("deleted");
    until("the node releases its volume", async || {
        let found = volumes.get_opt("own").await.ok()?;
        found.is_none().then_some(())
    })
    .await;
    // It may not touch those of others.
    let nodes: Api<Node> = Api::all(client);
    let another =
        serde_json::json!({"metadata": {"name": "m", "labels": {"kubernetes.io/hostname": "m"}}});
    let another = serde_json::from_value(another).expect("a node");
    let made = nodes.create(&Default::default(), &another).await;
    made.expect("made");
    make("other", "m").await;
    let path = agent.dir.path().join("kubelet.conf");
    let config = kube::config::Kubeconfig::read_from(path).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await;
    let node = kube::Client::try_from(config.expect("usable")).expect("a client");
    let volumes: Api<PersistentVolume> = Api::all(node);
    let mut volume = volumes.get("other").await.expect("seen");
    (volume.metadata.finalizers, volume.metadata.resource_version) = (None, None);
    let replaced = volumes.replace("other", &Default::default(), &volume).await;
    let error = replaced.expect_err("refused").to_string();
    assert!(error.contains("can only remove the finalizer"), "{error}");
}

#[tokio::test]
async fn a_stranger_is_not_trusted() {
    let (server, other) = (Server::in_memory(&[]), Server::in_memory(&[]));
    let (mut join, others) = (line(&server), line(&other));
    let at = |words: &[String], flag: &str| -> usize {
        1 + words.iter().position(|word| word == flag).expect("a flag")
    };
    let mut wrong = join.clone();
    let (ours, theirs) = (at(&join, "--ca-cert-hash"), at(&others, "--ca-cert-hash"));
    wrong[ours].clone_from(&others[theirs]);
    let (code, log) = Agent::start(directory(), &wrong).refused().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("somebody pretends to be it"), "{log}");

    let token = at(&join, "--token");
    join[token] = "abcdef.0123456789abcdef".to_owned();
    let (code, log) = Agent::start(directory(), &join).refused().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("does not take the token"), "{log}");
}
