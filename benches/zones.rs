//! The cost of pods as zones: how many commands of the host a pod's life takes, and whether pods wait for one another.
//!
//! The host is a fake one in this process, and each of its tools is made to take a tenth of a second, as if real tools
//! took that long: a driver that handled zones one after another would need twenty times as long for twenty of them.
//! Otherwise the clock stands still, so the times are those of the driver, independent of the fake host and this
//! machine.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use reddwarf::fakehost::{Layout, Machine, supervise};
use reddwarf::illumos::{Command, Failure, Output, Tools};
use reddwarf::net::illumos::{EtherstubConfig, NetworkConfig, prepare};
use reddwarf::net::{link_name, mac_address};
use reddwarf::storage::{StorageEngine as _, StoragePoolConfig, ZfsStorageEngine, zfs};
use reddwarf::zone::illumos::{Brand, IllumosRuntime, Patience, Settings, sandbox};
use reddwarf::zone::{ZoneName, ZoneNetwork, ZoneRuntime as _, ZoneSpec};
use tokio::time::Instant;

/// The duration of a tool.
const TOOL: Duration = Duration::from_millis(100);
/// The number of pods at once.
const MANY: u8 = 20;

/// Tools of a fake host with this duration.
struct Slow {
    machine: Machine,
    count: AtomicUsize,
    takes: Duration,
}

impl Tools for Slow {
    fn run<'a>(&'a self, command: &'a Command) -> BoxFuture<'a, Result<Output, Failure>> {
        async move {
            self.count.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(self.takes).await;
            let (machine, tool) = (self.machine.clone(), command.tool.name());
            let arguments = command.arguments.clone();
            let input = command.input.clone().unwrap_or_default();
            let run = move || machine.run(tool, &arguments, input.as_bytes());
            let reply = tokio::task::spawn_blocking(run).await.expect("it ends");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (stdout, stderr) = (text(&reply.stdout), text(&reply.stderr));
            match reply.code {
                0 => Ok(Output { stdout, stderr }),
                code => Err(Failure::of(command, code, &stdout, &stderr)),
            }
        }
        .boxed()
    }

    fn settle<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        std::future::ready(Ok(())).boxed()
    }
}

/// An agent's host.
struct Host {
    tools: Arc<Slow>,
    engine: ZfsStorageEngine,
    runtime: IllumosRuntime,
    data: std::path::PathBuf,
}

impl Host {
    async fn new(root: &Path, takes: Duration) -> Self {
        let mountpoint = Some(root.join("tank").display().to_string());
        let layout = Layout {
            mountpoint,
            brands: ["lx", "reddwarf"].map(str::to_owned).into(),
            ..Layout::default()
        };
        let machine = Machine::create(root, &layout).expect("a host");
        tokio::spawn(supervise(machine.clone()));
        let tools = Arc::new(Slow {
            machine,
            count: AtomicUsize::new(0),
            takes: Duration::ZERO,
        });
        let config = StoragePoolConfig::derive("tank/rd", None, None, None).expect("fine");
        let engine = ZfsStorageEngine::new(tools.clone(), config.clone(), false).expect("fine");
        engine.prepare().await.expect("made");
        let network = EtherstubConfig {
            etherstub: "reddwarf0".into(),
            gateway: Ipv4Addr::new(10, 88, 0, 1),
            prefix_len: 24,
            cidr: "10.88.0.0/24".into(),
            external: None,
        };
        prepare(tools.as_ref(), &network).await.expect("made");
        let mut sandboxes = std::collections::BTreeMap::new();
        for brand in Brand::ALL {
            let write = move |root: &Path| sandbox::write(root, brand, b"init");
            let name = sandbox::name(brand, b"init");
            let made = zfs::sandbox(&engine, &name, write).await.expect("made");
            sandboxes.insert(brand, made);
        }
        let tools = Arc::new(Slow {
            machine: tools.machine.clone(),
            count: AtomicUsize::new(0),
            takes,
        });
        let data = root.join("data");
        let settings = Settings {
            brand: Brand::Lx,
            zones_dataset: config.zones.clone(),
            zones_directory: root.join(&config.zones),
            data: data.clone(),
            sandboxes,
            network: NetworkConfig::Etherstub(network),
            kernel_version: "5.10.0".into(),
            sandbox_quota: 64 << 20,
        };
        // Periodic looks at all zones do not belong to a pod.
        let patience = Patience {
            look: Duration::from_secs(3600),
            ..Patience::default()
        };
        let runtime = IllumosRuntime::open(settings, tools.clone(), patience);
        let engine = ZfsStorageEngine::new(tools.clone(), config, false).expect("fine");
        Host {
            runtime: runtime.await.expect("opened"),
            tools,
            engine,
            data,
        }
    }

    /// The life of a pod's zone, from creation to removal.
    async fn life(&self, number: u8, brand: Brand) {
        let address = Ipv4Addr::new(10, 88, 0, 10 + number);
        let owner = format!("u{number}");
        let network = ZoneNetwork::Own {
            address: address.into(),
            prefix: 24,
            gateway: Ipv4Addr::new(10, 88, 0, 1).into(),
            mac: mac_address(address),
            link: link_name(address.into()),
            ports: Vec::new(),
            bandwidth: None,
        };
        let name = ZoneName::new(&format!("rd-{owner}")).expect("legal");
        let spec = ZoneSpec {
            brand: Some(brand.name().into()),
            ..ZoneSpec::new(name.clone(), network)
        };
        std::fs::create_dir_all(self.data.join("pods").join(&owner)).expect("made");
        self.engine.make_home(&owner, None).await.expect("made");
        self.runtime.create(&spec).await.expect("created");
        self.runtime.boot(&name).await.expect("booted");
        self.runtime.halt(&name).await.expect("halted");
        self.runtime.delete(&name).await.expect("deleted");
        self.engine.remove_home(&owner).await.expect("removed");
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    for brand in Brand::ALL {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().canonicalize().expect("there");
        let host = Host::new(&path, TOOL).await;
        let before = host.tools.count.load(Ordering::Relaxed);
        let begun = Instant::now();
        host.life(0, brand).await;
        let alone = begun.elapsed();
        let commands = host.tools.count.load(Ordering::Relaxed) - before;
        let begun = Instant::now();
        futures::future::join_all((1..=MANY).map(|number| host.life(number, brand))).await;
        let together = begun.elapsed();
        println!(
            "a pod as a {} zone, with tools that take {} ms: {commands} commands from nothing to nothing, {:.2} s alone, {:.2} s for {MANY} at once ({:.2} times as long)",
            brand.name(),
            TOOL.as_millis(),
            alone.as_secs_f64(),
            together.as_secs_f64(),
            together.as_secs_f64() / alone.as_secs_f64(),
        );
    }
}
