use std::sync::atomic::Ordering;

use super::super::ZoneRuntime as _;
use super::*;
use crate::fakehost::{self, Machine};
use crate::illumos::fake::FakeTools;
use crate::illumos::parse;
use crate::net::illumos::{EtherstubConfig, NetworkConfig};
use crate::storage::{StorageEngine as _, StoragePoolConfig, ZfsStorageEngine};
use crate::zone::{Change, Of, ZoneNetwork, ZoneSpec, ZoneState};

mod sequences;

/// A fake host, and what a test needs of it.
struct Bench {
    machine: Machine,
    tools: Arc<FakeTools>,
    settings: Settings,
    patience: Patience,
    inside: tokio::task::JoinHandle<()>,
    _root: tempfile::TempDir,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.inside.abort();
    }
}

fn patience() -> Patience {
    Patience {
        hello: Duration::from_secs(5),
        change: Duration::from_secs(10),
        again: Duration::from_millis(5),
        look: Duration::from_millis(20),
    }
}

impl Bench {
    async fn new() -> Self {
        Self::with(Duration::from_secs(20), patience()).await
    }

    /// A host whose commands are limited to `limit` while something hangs.
    async fn with(limit: Duration, patience: Patience) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().canonicalize().expect("there");
        let layout = fakehost::Layout {
            mountpoint: Some(path.join("tank").display().to_string()),
            brands: ["lx", "reddwarf"].map(str::to_owned).into(),
            ..fakehost::Layout::default()
        };
        let machine = Machine::create(&path, &layout).expect("a host");
        machine
            .change(|host, _| {
                let filter = host
                    .services
                    .get_mut("svc:/network/ipfilter:default")
                    .expect("there");
                filter.state = "online".into();
                filter.enabled = true;
            })
            .expect("changed");
        let tools = FakeTools::with(machine.clone(), Some(limit));
        let settings = Settings {
            brand: Brand::Lx,
            zones_dataset: "tank/rd/zones".into(),
            zones_directory: path.join("tank/rd/zones"),
            data: path.join("data"),
            sandboxes: Brand::ALL
                .map(|brand| {
                    let name = format!("tank/rd/images/sandbox-{}@ready", brand.name());
                    (brand, name)
                })
                .into(),
            network: NetworkConfig::Etherstub(EtherstubConfig::of_tests(Some("e1000g0"))),
            kernel_version: "5.10.0".into(),
            sandbox_quota: 64 << 20,
        };
        Bench {
            inside: tokio::spawn(fakehost::supervise(machine.clone())),
            machine,
            tools,
            settings,
            patience,
            _root: root,
        }
    }

    fn engine(&self) -> ZfsStorageEngine {
        let config = StoragePoolConfig::derive("tank/rd", None, None, None).expect("fine");
        ZfsStorageEngine::new(self.tools.clone(), config, false).expect("fine")
    }

    /// Starts an agent: the host's setup, then the runtime.
    async fn agent(&self) -> Result<IllumosRuntime, String> {
        let engine = self.engine();
        let text = |error: crate::storage::StorageError| error.to_string();
        engine.prepare().await.map_err(text)?;
        for brand in Brand::ALL {
            let write = move |root: &Path| sandbox::write(root, brand, b"init");
            let name = format!("sandbox-{}", brand.name());
            let made = crate::storage::zfs::sandbox(&engine, &name, write).await;
            made.map_err(text)?;
        }
        if let NetworkConfig::Etherstub(config) = &self.settings.network {
            crate::net::illumos::prepare(self.tools.as_ref(), config).await?;
        }
        let (settings, tools) = (self.settings.clone(), self.tools.clone());
        IllumosRuntime::open(settings, tools, self.patience).await
    }

    /// Creates what a pod's zone needs.
    async fn home(&self, number: u8) -> Result<(), String> {
        let owner = format!("u{number}");
        fs::create_dir_all(self.settings.data.join("pods").join(&owner))
            .map_err(|error| error.to_string())?;
        let made = self.engine().make_home(&owner, None).await;
        made.map(drop).map_err(|error| error.to_string())
    }

    fn ctl(&self, line: &str) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let reply = self.machine.run("ctl", &words, b"");
        assert_eq!(
            reply.code,
            0,
            "{line}: {}",
            String::from_utf8_lossy(&reply.stderr)
        );
    }

    fn ask(&self, tool: &str, line: &str) -> String {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let reply = self.machine.run(tool, &words, b"");
        assert_eq!(
            reply.code,
            0,
            "{tool} {line}: {}",
            String::from_utf8_lossy(&reply.stderr)
        );
        String::from_utf8_lossy(&reply.stdout).into_owned()
    }
}

/// The network of a zone, with a host port.
pub(super) fn network(number: u8) -> ZoneNetwork {
    let address = std::net::Ipv4Addr::new(10, 88, 0, 10 + number);
    ZoneNetwork::Own {
        address: address.into(),
        prefix: 24,
        gateway: std::net::Ipv4Addr::new(10, 88, 0, 1).into(),
        mac: crate::net::mac_address(address),
        link: crate::net::link_name(address.into()),
        ports: vec![crate::zone::HostPort {
            protocol: "TCP".into(),
            host_address: None,
            host: 8000 + u16::from(number),
            zone: 80,
        }],
        bandwidth: None,
    }
}

fn spec(number: u8) -> ZoneSpec {
    ZoneSpec {
        network: network(number),
        brand: (number != 1).then(|| "reddwarf".to_owned()),
        datasets: match number {
            2 => vec![dataset(number)],
            _ => Vec::new(),
        },
        ..crate::zone::tests::zone(&format!("rd-u{number}"))
    }
}

/// The volume that is delegated to the zone.
fn dataset(number: u8) -> String {
    format!("tank/rd/volumes/v{number}/data")
}

async fn brought_up(bench: &Bench, agent: &IllumosRuntime, number: u8) -> Result<(), String> {
    let spec = spec(number);
    bench.home(number).await?;
    if !spec.datasets.is_empty() {
        let (engine, name) = (bench.engine(), format!("v{number}"));
        let delegated = engine.delegate_volume(&name, None).await;
        let delegated = delegated.map_err(|error| error.to_string())?;
        assert_eq!(spec.datasets, [delegated]);
    }
    agent
        .create(&spec)
        .await
        .map_err(|error| error.to_string())?;
    agent
        .boot(&spec.name)
        .await
        .map_err(|error| error.to_string())
}

async fn taken_down(bench: &Bench, agent: &IllumosRuntime, number: u8) -> Result<(), String> {
    let name = spec(number).name;
    agent.halt(&name).await.map_err(|error| error.to_string())?;
    agent
        .delete(&name)
        .await
        .map_err(|error| error.to_string())?;
    let removed = bench.engine().remove_home(&format!("u{number}")).await;
    removed.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_lives_is_found_again_and_leaves_nothing() {
    let bench = Bench::new().await;
    let agent = bench.agent().await.expect("starts");
    let before = bench.ask("zfs", "list -H -o name -r tank");
    let first = bench.tools.count.load(Ordering::SeqCst);
    for _ in 0..2 {
        brought_up(&bench, &agent, 1).await.expect("runs");
    }
    let name = spec(1).name;
    let seen = agent.get(&name).await.expect("seen").expect("there");
    assert_eq!(seen.state, ZoneState::Running);
    let link = crate::net::link_name(std::net::Ipv4Addr::new(10, 88, 0, 11).into());
    let protection = bench.ask(
        "dladm",
        &format!("show-linkprop -c -o value -p protection {link}"),
    );
    for one in ["mac-nospoof", "ip-nospoof", "dhcp-nospoof", "restricted"] {
        assert!(protection.contains(one), "{protection}");
    }
    assert!(
        bench
            .ask("ipnat", "-l")
            .contains("port 8001 -> 10.88.0.11 port 80 tcp")
    );
    // A new agent finds it running and changes nothing.
    drop(agent);
    let agent = bench.agent().await.expect("starts again");
    agent.boot(&name).await.expect("runs already");
    assert_eq!(
        agent.get(&name).await.expect("seen").expect("there").spec,
        spec(1)
    );
    for _ in 0..2 {
        taken_down(&bench, &agent, 1).await.expect("gone");
    }
    println!(
        "{} commands for a zone's life, twice asked, with a second agent's start",
        bench.tools.count.load(Ordering::SeqCst) - first
    );
    assert!(agent.list().await.expect("listed").is_empty());
    assert_eq!(
        bench.ask("zoneadm", "list -cp").lines().count(),
        1,
        "the global one"
    );
    assert_eq!(bench.ask("zfs", "list -H -o name -r tank"), before);
    assert_eq!(
        bench.ask("dladm", "show-vnic -p -o link").trim(),
        "reddwarfgw0"
    );
    assert!(!bench.ask("ipnat", "-l").contains("rdr"));
}

/// A change of a zone's limits.
fn resized(shares: u64) -> Change {
    Change {
        of: Of::Zone,
        limits: Limits {
            cpu_shares: Some(shares * 1024 / 100),
            cpu_millis: Some(shares * 10),
            memory: Some(shares << 20),
            ..Limits::default()
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_change_while_a_zone_runs_and_hold_when_it_boots_again() {
    let bench = Bench::new().await;
    let agent = bench.agent().await.expect("starts");
    let name = spec(1).name;
    let error = agent.limit(&name, &resized(50)).await.expect_err("none");
    assert!(error.is_not_found(), "{error}");
    brought_up(&bench, &agent, 1).await.expect("runs");
    let shown = || {
        let text = bench.ask("prctl", "-P -i zone rd-u1");
        let value = |control: &str| {
            let mut lines = text.lines();
            let line = lines
                .find(|line| line.starts_with(control))
                .unwrap_or_default();
            line.split(' ').nth(2).unwrap_or_default().to_owned()
        };
        ["zone.cpu-cap", "zone.max-physical-memory", "zone.max-swap"].map(value)
    };
    for (shares, expected) in [
        (75, ["75", "78643200", "78643200"]),
        // The minimum swap of zonecfg(8).
        (20, ["20", "20971520", "52428800"]),
    ] {
        agent.limit(&name, &resized(shares)).await.expect("changed");
        assert_eq!(shown(), expected);
        let zone = agent.get(&name).await.expect("seen").expect("there");
        assert_eq!(zone.spec.limits, resized(shares).limits);
    }
    drop(agent);
    let agent = bench.agent().await.expect("starts again");
    agent.halt(&name).await.expect("halted");
    let error = agent.limit(&name, &resized(50)).await.expect_err("halted");
    assert!(matches!(error, ZoneError::State { .. }), "{error}");
    agent.boot(&name).await.expect("boots");
    assert_eq!(shown(), ["20", "20971520", "52428800"]);
    taken_down(&bench, &agent, 1).await.expect("gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zones_that_are_not_ours_are_left_alone_and_reported() {
    let bench = Bench::new().await;
    let file = bench.settings.data.with_extension("theirs");
    let path = bench.settings.zones_directory.join("rd-u1");
    let text = format!(
        "create -b\nset brand=lx\nset zonepath={}\nset ip-type=exclusive\n",
        path.display()
    );
    fs::write(&file, text).expect("written");
    bench.ask("zonecfg", &format!("-z rd-u1 -f {}", file.display()));
    let agent = bench.agent().await.expect("starts");
    assert!(agent.list().await.expect("listed").is_empty());
    assert_eq!(agent.lacks().await.expect("asked").len(), 1);
    let error = brought_up(&bench, &agent, 1).await.expect_err("not ours");
    assert!(error.contains("not ours"), "{error}");
    assert!(
        bench
            .ask("zoneadm", "-z rd-u1 list -p")
            .contains("configured")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_is_a_zones_own_is_nobody_elses_any_more() {
    let bench = Bench::new().await;
    let agent = bench.agent().await.expect("starts");
    let engine = bench.engine();
    brought_up(&bench, &agent, 2).await.expect("runs");
    let shown = |name: &str| {
        let line = format!("get -H -o value {name} {}", dataset(2));
        bench.ask("zfs", &line).trim().to_owned()
    };
    assert_eq!((&*shown("zoned"), &*shown("mountpoint")), ("on", "none"));
    let rows = parse::zones(&bench.ask("zoneadm", "list -p"));
    assert_eq!(rows[0].brand, "reddwarf");
    // A zone of the other brand does not get it, and is not created.
    let wrong = ZoneSpec {
        brand: Some("lx".into()),
        ..spec(2)
    };
    // Its init mounts it, whatever root in an earlier zone did to it.
    let inside = FakeTools::inside(bench.machine.clone(), spec(2).name.as_str());
    for what in [
        "canmount=off",
        "mountpoint=/etc",
        "canmount=noauto",
        // Elsewhere, and not mounted: another mountpoint alone does not mount it.
        "canmount=off mountpoint=/etc",
    ] {
        bench.ctl(&format!("in rd-u2 zfs set {what} {}", dataset(2)));
        let mounted = super::native::mount_datasets(&*inside, &[dataset(2)]).await;
        mounted.expect("mounted");
        assert_eq!(
            (&*shown("mounted"), &*shown("mountpoint")),
            ("yes", "/rd/d/0"),
            "{what}"
        );
    }
    let layout = Layout::of(&wrong, &bench.settings, |_| false);
    let error = layout.expect_err("refused").to_string();
    assert!(error.contains("brand reddwarf only"), "{error}");
    for _ in 0..2 {
        taken_down(&bench, &agent, 2).await.expect("gone");
    }
    // Its content came from a zone: it is mounted nowhere else, except in another zone, and never again in the global
    // zone.
    assert_eq!(shown("zoned"), "on");
    let error = engine.make_volume("v2", None, None).await;
    let error = error.expect_err("refused").to_string();
    assert!(error.contains("delegated"), "{error}");
    brought_up(&bench, &agent, 2).await.expect("runs again");
    taken_down(&bench, &agent, 2).await.expect("gone");
    engine.remove_volume("v2").await.expect("removed");
}

/// As after `beadm activate` of an environment from before the last change of the pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_whose_dataset_is_gone_is_made_new_or_removed() {
    let bench = Bench::new().await;
    let agent = bench.agent().await.expect("starts");
    for boots in [true, false] {
        brought_up(&bench, &agent, 1).await.expect("runs");
        agent.halt(&spec(1).name).await.expect("halted");
        bench.ask("zfs", "destroy -r tank/rd/zones/rd-u1");
        if boots {
            agent.boot(&spec(1).name).await.expect("made new");
            let rows = parse::zones(&bench.ask("zoneadm", "list -p"));
            assert_eq!(rows.len(), 1, "{rows:?}");
        }
        taken_down(&bench, &agent, 1).await.expect("gone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brands_that_are_not_here_are_refused_and_leave_nothing() {
    let mut bench = Bench::new().await;
    let before = bench.ask("zoneadm", "list -cp");
    fs::remove_file(
        bench
            .machine
            .disk()
            .real("/usr/lib/brand/reddwarf/config.xml"),
    )
    .expect("gone");
    bench.settings.sandboxes.remove(&Brand::Lx);
    bench.settings.brand = Brand::Reddwarf;
    let agent = bench.agent().await.expect("starts");
    for (brand, part) in [
        (Some("kvm"), "the brand \"kvm\" is not offered"),
        (Some("lx"), "zones of the brand lx are not offered here"),
        (None, "unknown brand"),
    ] {
        let spec = ZoneSpec {
            brand: brand.map(str::to_owned),
            ..spec(0)
        };
        let error = agent.create(&spec).await.expect_err("refused");
        assert!(matches!(error, ZoneError::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
        agent.delete(&spec.name).await.expect("gone");
    }
    assert_eq!(bench.ask("zoneadm", "list -cp"), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_get_through_with_going_down_is_halted_and_boots_again() {
    let brief = Patience {
        change: Duration::from_millis(100),
        ..patience()
    };
    let bench = Bench::with(Duration::from_secs(20), brief).await;
    let agent = bench.agent().await.expect("starts");
    let name = spec(1).name;
    brought_up(&bench, &agent, 1).await.expect("runs");
    let state = || bench.ask("zoneadm", "-z rd-u1 list -p");
    let fails_to_reboot = || {
        bench.ctl("zone-stuck rd-u1 down");
        let words = ["zone-reboot", "rd-u1"].map(str::to_owned);
        bench.machine.run("ctl", &words, b"");
        assert!(state().contains(":down:"), "{}", state());
    };
    // A busy mount: each boot reports that.
    fails_to_reboot();
    let error = agent.boot(&name).await.expect_err("stuck").to_string();
    assert!(error.contains("unable to unmount"), "{error}");
    // It is released, and nobody uses the zone.
    let mut changes = agent.changes();
    bench.ctl("zone-stuck rd-u1 no");
    while agent.get(&name).await.expect("seen").expect("there").state != ZoneState::Installed {
        changes.recv().await.expect("a change");
    }
    assert!(state().contains(":installed:"), "{}", state());
    agent.boot(&name).await.expect("runs");
    // A boot need not wait for that.
    fails_to_reboot();
    bench.ctl("zone-stuck rd-u1 no");
    agent.boot(&name).await.expect("runs again");
    assert!(state().contains(":running:"), "{}", state());
    taken_down(&bench, &agent, 1).await.expect("gone");
}

/// The commands that the host ran for a zone.
fn commands_of(bench: &Bench, number: u8) -> Vec<String> {
    let link = crate::net::link_name(std::net::Ipv4Addr::new(10, 88, 0, 10 + number).into());
    let lines = bench.machine.log_lines().expect("read").into_iter();
    lines
        .filter(|line| !line["args"].is_null())
        // Helpers are part of a tool.
        .filter(|line| !["zoneadmd", "brand", "ctl"].contains(&line["tool"].as_str().unwrap_or("")))
        .map(|line| format!("{} {}", line["tool"], line["args"]))
        .filter(|line| line.contains(&format!("u{number}")) || line.contains(&link))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zones_do_not_wait_for_one_another_and_cost_what_is_said() {
    let bench = Bench::new().await;
    let agent = bench.agent().await.expect("starts");
    let fault = bench.ask("ctl", "fault -t zoneadm -c install stall");
    let stalled = async {
        brought_up(&bench, &agent, 1)
            .await
            .expect("runs in the end");
        std::time::Instant::now()
    };
    let other = async {
        while !commands_of(&bench, 1)
            .iter()
            .any(|line| line.contains("install"))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        brought_up(&bench, &agent, 2).await.expect("runs");
        taken_down(&bench, &agent, 2).await.expect("gone");
        let over = std::time::Instant::now();
        bench.ctl(&format!("release {}", fault.trim()));
        over
    };
    let (stalled, other) = tokio::join!(stalled, other);
    assert!(other < stalled, "one zone held another up");
    let all = commands_of(&bench, 2);
    assert_eq!(all.len(), COMMANDS, "{all:#?}");
}

/// The number of commands in a zone's life, except for listing all zones or links: those of its plan, and an
/// observation before and after each change of its state.
const COMMANDS: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_rules_that_come_and_go_among_others() {
    use crate::net::services::ServicePort;

    let bench = Bench::new().await;
    let agent = bench.agent().await.expect("starts");
    brought_up(&bench, &agent, 1).await.expect("runs");
    let led_to = |last: u8| {
        vec![ServicePort::web(
            [10, 96, 0, 7],
            &[&format!("10.88.0.{last}:8080")],
        )]
    };
    let rules = || parse::nat_rules(&bench.ask("ipnat", "-l"));
    let led = || {
        let ours = rules()
            .into_iter()
            .filter(|line| line.contains(" 10.96.0.7/32 "));
        let to =
            ours.filter_map(|line| Some(line.split("-> ").nth(1)?.split(' ').next()?.to_owned()));
        to.collect::<Vec<_>>()
    };
    let of_zone = "rdr e1000g0 0.0.0.0/0 port 8001 -> 10.88.0.11 port 80 tcp".to_owned();
    let network = bench.settings.network.rules(None);
    let network: Vec<String> = network.iter().map(|rule| parse::rule(rule)).collect();
    let starts = || async { bench.agent().await.expect("starts again") };
    let router = |agent: &IllumosRuntime| agent.router(Vec::new()).expect("one");
    router(&agent).route(led_to(11).into()).await.expect("led");
    assert_eq!(led(), ["10.88.0.11"]);
    // A new agent knows its own rules, and that the zone runs.
    drop(agent);
    let agent = starts().await;
    assert_eq!(led(), ["10.88.0.11"], "not known yet, and left");
    assert!(rules().contains(&of_zone));
    let again = router(&agent);
    again.route(led_to(12).into()).await.expect("led elsewhere");
    assert_eq!(led(), ["10.88.0.12"]);
    // A tool that dies half-way: new rules come first, so there is always one.
    bench.ctl("fault -t ipnat -w halfway:rule crash");
    let _ = again.route(led_to(13).into()).await;
    assert!(!led().is_empty());
    bench.ctl("forget");
    again
        .route(led_to(13).into())
        .await
        .expect("led after a crash");
    assert_eq!(led(), ["10.88.0.13"]);
    // A refresh of the service drops added rules, which are added again: the network's in order, host ports, services.
    let whole = rules();
    let order = |rules: &[String]| {
        let of_network = rules.iter().filter(|rule| network.contains(rule));
        of_network.cloned().collect::<Vec<_>>()
    };
    assert_eq!(order(&whole), network);
    bench.ask("svcadm", "refresh network/ipfilter");
    assert_eq!(rules(), Vec::<String>::new());
    again
        .route(led_to(13).into())
        .await
        .expect("led after a refresh");
    let sorted = |mut rules: Vec<String>| {
        rules.sort();
        rules
    };
    assert_eq!(sorted(rules()), sorted(whole));
    // A missing rule would be added after another one that takes precedence.
    bench.machine.run(
        "ipnat",
        &["-r", "-f", "-"].map(str::to_owned),
        network[0].as_bytes(),
    );
    again.route(led_to(13).into()).await.expect("led in order");
    assert_eq!(order(&rules()), network);
    // Rules of others stay.
    let theirs = "rdr e1000g0 0.0.0.0/0 port 22 -> 10.88.0.99 port 22 tcp".to_owned();
    bench
        .machine
        .run("ipnat", &["-f", "-"].map(str::to_owned), theirs.as_bytes());
    taken_down(&bench, &agent, 1).await.expect("gone");
    assert!(!rules().contains(&of_zone));
    again.route([].into()).await.expect("nothing is led");
    let mut left = network.clone();
    left.push(theirs);
    assert_eq!(sorted(rules()), sorted(left));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_ipfilter_nothing_is_led_and_zones_go_all_the_same() {
    let bench = Bench::new().await;
    let agent = bench.agent().await.expect("starts");
    brought_up(&bench, &agent, 1).await.expect("runs");
    bench.ask("svcadm", "disable -s network/ipfilter");
    let router = agent.router(Vec::new()).expect("one");
    let refused = router.route([].into()).await.expect_err("no ipfilter");
    assert!(
        refused.contains("I/O error") && refused.contains("svcadm enable"),
        "{refused}"
    );
    // A zone whose host port is taken does not boot, and the error says what to do.
    let error = brought_up(&bench, &agent, 2).await.expect_err("no port");
    assert!(error.contains("svcadm enable"), "{error}");
    taken_down(&bench, &agent, 1).await.expect("gone");
    taken_down(&bench, &agent, 2).await.expect("gone");
    drop(agent);
    let agent = bench.agent().await.expect("starts without it");
    bench.ask("svcadm", "enable -s network/ipfilter");
    let router = agent.router(Vec::new()).expect("one");
    router.route([].into()).await.expect("is there again");
    let rules = parse::nat_rules(&bench.ask("ipnat", "-l"));
    assert_eq!(rules.len(), bench.settings.network.rules(None).len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_zone_left_in_its_root_leads_nowhere_and_is_made_new() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new().await;
    let agent = bench.agent().await.expect("starts");
    let outside = bench.settings.data.with_extension("theirs");
    fs::create_dir(&outside).expect("made");
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o700)).expect("set");
    let shared = bench.settings.data.with_extension("shared");
    fs::write(&shared, "").expect("written");
    let spec = ZoneSpec {
        shares: vec![shared],
        ..spec(1)
    };
    bench.home(1).await.expect("made");
    agent.create(&spec).await.expect("made");
    agent.boot(&spec.name).await.expect("runs");
    let root = bench.settings.zones_directory.join("rd-u1/root");
    assert!(root.join("rd/v/0").is_file());
    // As done by root in the zone: the path that the global zone will write to is a link to one of the global zone's
    // paths.
    let tampered = |root: &Path| {
        fs::rename(root.join("rd"), root.join("rd.old")).expect("moved");
        fs::create_dir(root.join("rd")).expect("made");
        std::os::unix::fs::symlink(&outside, root.join("rd/v")).expect("made");
    };
    let untouched = || {
        let mode = outside.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        assert_eq!(fs::read_dir(&outside).expect("read").count(), 0);
    };
    for created in [true, false] {
        tampered(&root);
        bench.ask("zoneadm", "-z rd-u1 halt");
        if created {
            agent.create(&spec).await.expect("made new");
        }
        agent.boot(&spec.name).await.expect("runs again");
        untouched();
        assert!(root.join("rd/v/0").is_file() && !root.join("rd.old").exists());
    }
    // A boot without the agent is not recorded; even then no link is followed.
    taken_down(&bench, &agent, 1).await.expect("gone");
    bench.home(1).await.expect("made");
    agent.create(&spec).await.expect("made");
    bench.ask("zfs", "set quota=1M tank/rd/zones/rd-u1");
    tampered(&root);
    // There may be no place for the file then, which is reported.
    let _ = agent.create(&spec).await;
    untouched();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_when_a_zone_boots_by_itself() {
    let bench = Bench::new().await;
    let agent = bench.agent().await.expect("starts");
    let lx = ZoneSpec {
        brand: Some("lx".into()),
        ..spec(1)
    };
    bench.home(1).await.expect("made");
    agent.create(&lx).await.expect("made");
    agent.boot(&lx.name).await.expect("runs");
    agent.limit(&lx.name, &resized(75)).await.expect("changed");
    bench.ctl("zone-reboot rd-u1");
    let wish = "zone.cpu-cap privileged 75";
    let shown = || bench.ask("prctl", "-P -n zone.cpu-cap -i zone rd-u1");
    let mut changes = agent.changes();
    while !shown().contains(wish) {
        // The new boot's connection is a change.
        let _ = tokio::time::timeout(Duration::from_millis(20), changes.recv()).await;
    }
    taken_down(&bench, &agent, 1).await.expect("gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_began_by_hand_is_ended_or_gone_on_with() {
    let bench = Bench::new().await;
    let agent = bench.agent().await.expect("starts");
    let name = spec(1).name;
    brought_up(&bench, &agent, 1).await.expect("runs");
    // Shut down by hand while its pod should run; both brands react to it.
    bench.ask("zoneadm", "-z rd-u1 shutdown");
    assert!(
        bench
            .ask("zoneadm", "-z rd-u1 list -p")
            .contains(":installed:")
    );
    agent.boot(&name).await.expect("runs again");
    brought_up(&bench, &agent, 0).await.expect("runs");
    bench.ask("zoneadm", "-z rd-u0 shutdown");
    taken_down(&bench, &agent, 0).await.expect("gone");
    // A maintenance mount that was left.
    agent.halt(&name).await.expect("halted");
    bench.ask("zoneadm", "-z rd-u1 mount");
    agent.boot(&name).await.expect("runs");
    agent.halt(&name).await.expect("halted");
    bench.ask("zoneadm", "-z rd-u1 mount");
    taken_down(&bench, &agent, 1).await.expect("gone");
}
