//! How fast the API server is and what it costs, beside a peer in the same run: `hack/bench` starts upstream's and
//! passes it as `--peer KUBECONFIG --peer-pids PID,...`. Without one only ours is measured. `--only TEXT` keeps the
//! loads whose names hold the text. CPU is that of the servers' processes alone, of both for upstream's two.

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

/// A server of ours that ends with this value.
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

const PORT: &str = "17443";

fn start(directory: &Path) -> Result<Child, Failure> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reddwarf"));
    command
        .args([
            "serve",
            "--controllers=-*",
            "--secure-port",
            PORT,
            "--data-dir",
        ])
        .arg(directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    Ok(command.spawn()?)
}

/// Waits for a server of ours that was just started; returns it and how many milliseconds it took.
async fn opened(directory: &Path, child: &mut Child) -> Result<(Target, f64), Failure> {
    let begun = Instant::now();
    // It says so once it listens and its kubeconfig is there.
    let out = child.stdout.take().ok_or("the server's output is gone")?;
    BufReader::new(out).read_line(&mut String::new())?;
    let kubeconfig = directory.join("kubeconfig");
    let target = Target::open("reddwarf", &kubeconfig, vec![child.id()]).await?;
    target.ready().await?;
    Ok((target, begun.elapsed().as_secs_f64() * 1000.0))
}

struct Arguments {
    only: Option<String>,
    peer: Option<(PathBuf, Vec<u32>)>,
}

fn arguments() -> Result<Arguments, Failure> {
    let (mut only, mut peer, mut pids) = (None, None, Vec::new());
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        let mut value = || given.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--bench" => {}
            "--only" => only = Some(value()?),
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
        peer: peer.map(|path| (path, pids)),
    })
}

/// The servers and what is measured of them.
struct Table {
    only: Option<String>,
    targets: Vec<Arc<Target>>,
}

impl Table {
    async fn row<F>(&self, name: &str, load: impl Fn(Arc<Target>) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<Measure, Failure>>,
    {
        if self.only.as_ref().is_some_and(|only| !name.contains(only)) {
            return Ok(());
        }
        let mut measures = Vec::new();
        for target in &self.targets {
            measures.push(load(target.clone()).await);
        }
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
        for (measure, target) in measures.iter().zip(&self.targets) {
            if let Err(error) = measure {
                println!("  {}: {error}", target.name);
            }
        }
        match measures.into_iter().next() {
            // What the peer cannot do is told; ours must do all.
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
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let child = start(directory.path())?;
    let mut ours = Ours { child, directory };
    let path = ours.directory.path().to_owned();
    let (target, millis) = opened(&path, &mut ours.child).await?;
    println!("ready on an empty directory after {millis:.0} ms");
    let mut targets = vec![Arc::new(target)];
    if let Some((path, pids)) = arguments.peer {
        targets.push(Arc::new(Target::open("upstream", &path, pids).await?));
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
    // All that follows needs them.
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
    restart(&mut ours, &path).await
}

/// How soon a server answers that was killed while it held everything.
async fn restart(ours: &mut Ours, path: &Path) -> Result<(), Failure> {
    ours.child.kill()?;
    ours.child.wait()?;
    ours.child = start(path)?;
    let (target, millis) = opened(path, &mut ours.child).await?;
    let mut client = target.client().await?;
    client
        .must(Ask::get("/api/v1/namespaces/held/pods/held-1"))
        .await?;
    println!("serves its {HELD} pods again {millis:.0} ms after a kill -9");
    println!("memory then {:.1} MiB", target.memory());
    Ok(())
}
