//! Measures the speed and cost of the API server, with a peer in the same run: `hack/bench` starts upstream's server
//! and passes it as `--peer KUBECONFIG --peer-pids PID,...`. Without one only reddwarf is measured. `--only TEXT`
//! selects the loads whose names contain the text; `--cluster --peer-tools DIR` measures a whole cluster instead, using
//! upstream's programs in that directory. CPU is that of the server processes alone, for upstream of both.

mod cluster;
mod loads;
mod target;

use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use loads::{HELD, Measure};
use target::{Ask, Failure, Target};

/// A server of reddwarf that is killed when this value is dropped.
struct Ours {
    child: Child,
    directory: tempfile::TempDir,
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ours {
    /// Starts an empty one.
    fn start(arguments: &[&str]) -> Result<Self, Failure> {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let child = spawn(directory.path(), arguments)?;
        Ok(Ours { child, directory })
    }

    /// Kills it, and starts it again with its data.
    fn restart(&mut self, arguments: &[&str]) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = spawn(self.directory.path(), arguments)?;
        Ok(())
    }
}

fn spawn(directory: &Path, arguments: &[&str]) -> Result<Child, Failure> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reddwarf"));
    command
        .args(arguments)
        .args(["--secure-port", "0", "--data-dir"])
        .arg(directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    Ok(command.spawn()?)
}

/// Waits for a server that was just started; returns it and the time in milliseconds.
async fn opened(ours: &mut Ours) -> Result<(Target, f64), Failure> {
    let begun = Instant::now();
    // It prints a line once it listens and its kubeconfig exists.
    let out = ours
        .child
        .stdout
        .take()
        .ok_or("the server's output is gone")?;
    let mut out = BufReader::new(out);
    if out.read_line(&mut String::new())? == 0 {
        return Err(format!("the server ended at once: {}", ours.child.wait()?).into());
    }
    // It may print more, and needs a reader.
    ours.child.stdout = Some(out.into_inner());
    let kubeconfig = ours.directory.path().join("kubeconfig");
    let target = Target::open("reddwarf", &kubeconfig, vec![ours.child.id()]).await?;
    target.ready().await?;
    Ok((target, begun.elapsed().as_secs_f64() * 1000.0))
}

/// Upstream's server, and its other programs.
struct Peer {
    kubeconfig: PathBuf,
    pids: Vec<u32>,
    tools: PathBuf,
}

impl Peer {
    async fn open(&self) -> Result<Target, Failure> {
        Target::open("upstream", &self.kubeconfig, self.pids.clone()).await
    }
}

struct Arguments {
    only: Option<String>,
    cluster: bool,
    peer: Option<Peer>,
}

fn arguments() -> Result<Arguments, Failure> {
    let (mut only, mut cluster, mut peer) = (None, false, None);
    let (mut pids, mut tools) = (Vec::new(), PathBuf::new());
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        let mut value = || given.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--bench" => {}
            "--only" => only = Some(value()?),
            "--cluster" => cluster = true,
            "--peer-tools" => tools = PathBuf::from(value()?),
            "--peer" => peer = Some(PathBuf::from(value()?)),
            "--peer-pids" => {
                pids = value()?
                    .split(',')
                    .map(str::parse)
                    .collect::<Result<_, _>>()?;
            }
            other => return Err(format!("unknown flag {other}").into()),
        }
    }
    Ok(Arguments {
        only,
        cluster,
        peer: peer.map(|kubeconfig| Peer {
            kubeconfig,
            pids,
            tools,
        }),
    })
}

/// The servers, and the selected loads.
struct Table {
    only: Option<String>,
    targets: Vec<Arc<Target>>,
}

impl Table {
    async fn row<F>(&self, name: &str, load: impl Fn(Arc<Target>) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<Measure, Failure>>,
    {
        if !self.wants(name) {
            return Ok(());
        }
        let mut measures = Vec::new();
        for target in &self.targets {
            measures.push(load(target.clone()).await);
        }
        self.print(name, measures)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }

    /// Prints the result of a load, reddwarf's first.
    fn print(&self, name: &str, measures: Vec<Result<Measure, Failure>>) -> Result<(), Failure> {
        print!("{name:<44}");
        for measure in &measures {
            match measure {
                Ok(measure) => print!(" {:>10.0}/s {:>9.1} us", measure.rate, measure.cpu),
                Err(_) => print!(" {:>24}", "failed"),
            }
        }
        if let [Ok(ours), Ok(peer)] = measures.as_slice() {
            print!(
                "   {:>6.2}x rate, 1/{:.1} CPU",
                ours.rate / peer.rate,
                peer.cpu / ours.cpu
            );
        }
        println!();
        for (measure, name) in measures.iter().zip(["reddwarf", "upstream"]) {
            if let Err(error) = measure {
                println!("  {name}: {error}");
            }
        }
        match measures.into_iter().next() {
            // A failure of the peer is printed; reddwarf must not fail.
            Some(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn memory(&self, when: &str) {
        print!("{when:<44}");
        for target in &self.targets {
            print!(" {:>20.1} MiB", target.memory());
        }
        println!();
    }
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(arguments()?))
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    if arguments.cluster {
        let table = Table {
            only: arguments.only,
            targets: Vec::new(),
        };
        return cluster::rows(&table, arguments.peer.as_ref()).await;
    }
    let plain = ["serve", "--controllers=-*"];
    let mut ours = Ours::start(&plain)?;
    let (target, millis) = opened(&mut ours).await?;
    println!("ready on an empty directory after {millis:.0} ms");
    let mut targets = vec![Arc::new(target)];
    if let Some(peer) = &arguments.peer {
        targets.push(Arc::new(peer.open().await?));
    }
    let table = Table {
        only: arguments.only,
        targets,
    };
    print!("{:<44}", "");
    for target in &table.targets {
        print!(" {:>24}", target.name);
    }
    println!();
    table.memory("memory, idle");
    for target in &table.targets {
        loads::prepare(target).await?;
    }
    table
        .row("create pods, 1 client", |target| async move {
            loads::create(&target, 1, 1_000, "bench", "one").await
        })
        .await?;
    table
        .row("create pods, 64 clients", |target| async move {
            loads::create(&target, 64, 4_000, "bench", "many").await
        })
        .await?;
    // All further loads need them.
    for target in &table.targets {
        loads::create(target, 64, HELD, "held", "held").await?;
    }
    table.memory(&format!("memory with {} pods", HELD + 5_000));
    table
        .row("get a pod, 1 client", |target| async move {
            loads::get(&target, 1, 4_000).await
        })
        .await?;
    table
        .row("get a pod, 64 clients", |target| async move {
            loads::get(&target, 64, 20_000).await
        })
        .await?;
    table
        .row(&format!("list {HELD} pods"), |target| async move {
            loads::list(&target, false, 10).await
        })
        .await?;
    table
        .row(&format!("list {HELD} pods in gzip"), |target| async move {
            loads::list(&target, true, 5).await
        })
        .await?;
    table
        .row("apply a deployment, 16 clients", |target| async move {
            loads::apply(&target, 16, 4_000).await
        })
        .await?;
    table
        .row(
            "patch a deployment (strategic), 16 clients",
            |target| async move { loads::patch(&target, 16, 4_000).await },
        )
        .await?;
    table
        .row(
            "watch: events to 1000 watchers, one by one",
            |target| async move { loads::deliver(&target, 1_000, 1, 100, "alone").await },
        )
        .await?;
    table
        .row(
            "watch: events to 1000 watchers, 16 writers",
            |target| async move { loads::deliver(&target, 1_000, 16, 500, "burst").await },
        )
        .await?;
    table.memory("memory at the end");
    ours.restart(&plain)?;
    serves_again(&mut ours).await
}

/// The time until a server that was killed with all its objects responds again.
async fn serves_again(ours: &mut Ours) -> Result<(), Failure> {
    let (target, millis) = opened(ours).await?;
    let mut client = target.client().await?;
    client
        .must(Ask::get("/api/v1/namespaces/held/pods/held-1"))
        .await?;
    println!("serves its {HELD} pods again {millis:.0} ms after a kill -9");
    println!("memory then {:.1} MiB", target.memory());
    Ok(())
}
