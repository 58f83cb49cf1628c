//! Random sequences of events for zones, agents and their host.

use super::*;

/// A small random generator: a seed gives the same sequence on every platform.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % sides
    }
}

/// An agent that can be killed: all its work runs on its own runtime, which ends with it.
struct Agent {
    host: IllumosRuntime,
    runtime: tokio::runtime::Runtime,
}

impl Agent {
    async fn start(bench: &Arc<Bench>) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let bench = bench.clone();
        let host = runtime.spawn(async move { bench.agent().await }).await;
        match host.map_err(|error| error.to_string())? {
            Ok(host) => Ok(Agent { host, runtime }),
            Err(error) => {
                gone(runtime).await;
                Err(error)
            }
        }
    }

    /// Brings a zone up or down.
    fn change(
        &self,
        bench: &Arc<Bench>,
        number: u8,
        up: bool,
    ) -> tokio::task::JoinHandle<Result<(), String>> {
        let (bench, host) = (bench.clone(), self.host.clone());
        self.runtime.spawn(async move {
            match up {
                true => brought_up(&bench, &host, number).await,
                false => taken_down(&bench, &host, number).await,
            }
        })
    }

    /// Kills it, and waits for its running file operations. Its tools continue.
    async fn kill(self) {
        drop(self.host);
        gone(self.runtime).await;
    }
}

/// Ends a runtime after its running file operations.
async fn gone(runtime: tokio::runtime::Runtime) {
    let over =
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(60)));
    over.await.expect("it ends");
}

/// Ends everything that runs on a host that goes down.
async fn goes_down(bench: &Bench, agent: Option<Agent>) {
    if let Some(agent) = agent {
        agent.kill().await;
    }
    bench.tools.end().await;
    for number in 0..3 {
        let words = ["zone-stuck", &format!("rd-u{number}"), "no"].map(str::to_owned);
        bench.machine.run("ctl", &words, b"");
    }
    bench.machine.idle();
}

async fn sequence(seed: u64) {
    // Only what hangs takes long here.
    let limit = Duration::from_secs(2);
    let bench = Bench::with(
        limit,
        Patience {
            change: limit,
            ..patience()
        },
    )
    .await;
    let bench = Arc::new(bench);
    // An event for a zone that may not exist, or not run.
    let happens = |line: String| {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        bench.machine.run("ctl", &words, b"");
    };
    let mut dice = Dice(seed);
    let mut wanted = [false; 3];
    let mut sizes: [Option<Change>; 3] = Default::default();
    let mut agent = Some(Agent::start(&bench).await.expect("starts"));
    for _ in 0..12 {
        match dice.roll(12) {
            0 => {
                // A command fails, is killed, or loses its caller.
                let tool = ["zoneadm", "zonecfg", "zfs", "dladm", "ipnat"][dice.roll(5) as usize];
                let when = ["before", "halfway", "after"][dice.roll(3) as usize];
                let what = ["fail broken 1", "crash", "orphan", "stall"][dice.roll(4) as usize];
                let nth = dice.roll(4) + 1;
                bench.ctl(&format!("fault -t {tool} -n {nth} -w {when} {what}"));
            }
            up @ (1 | 2) => {
                // The agent is killed during an operation.
                let (number, up) = (dice.roll(3) as u8, up == 1);
                wanted[usize::from(number)] = up;
                if let Some(agent) = agent.take() {
                    let limit = Duration::from_millis(dice.roll(60));
                    let change = agent.change(&bench, number, up);
                    let _ = tokio::time::timeout(limit, change).await;
                    agent.kill().await;
                }
            }
            4 => {
                // Nobody waits for it, because it may hang.
                let words = ["zone-reboot".to_owned(), format!("rd-u{}", dice.roll(3))];
                bench.machine.start("ctl", &words, b"");
            }
            5 => {
                let at = ["shutting_down", "down", "no", "no"][dice.roll(4) as usize];
                happens(format!("zone-stuck rd-u{} {at}", dice.roll(3)));
            }
            6 => {
                // The host comes up without the pool, which is imported after the agent has asked for it.
                goes_down(&bench, agent.take()).await;
                bench.ctl("forget");
                bench.ctl("pool tank late");
                bench.ctl("reboot");
                let error = Agent::start(&bench).await.err();
                let error = error.unwrap_or_else(|| panic!("seed {seed}: no pool, no agent"));
                assert!(error.contains("tank"), "seed {seed}: {error}");
                bench.ctl("pool tank online");
                bench.ask("zpool", "import tank");
            }
            3 => {
                goes_down(&bench, agent.take()).await;
                bench.ctl("reboot");
            }
            7 => {
                // A zone is resized, if it runs; the agent may be killed meanwhile.
                let number = dice.roll(3) as u8;
                let change = resized(30 + dice.roll(100));
                if let Some(running) = agent.take() {
                    let (host, name, wish) =
                        (running.host.clone(), spec(number).name, change.clone());
                    let done = running
                        .runtime
                        .spawn(async move { host.limit(&name, &wish).await });
                    let limit = Duration::from_millis(dice.roll(30));
                    match tokio::time::timeout(limit, done).await {
                        Ok(_) => agent = Some(running),
                        Err(_) => running.kill().await,
                    }
                }
                sizes[usize::from(number)] = Some(change);
            }
            _ => {
                let number = dice.roll(3);
                let up = dice.roll(2) == 0;
                wanted[number as usize] = up;
                if agent.is_none() {
                    agent = Agent::start(&bench).await.ok();
                }
                if let Some(agent) = &agent {
                    let _ = agent.change(&bench, number as u8, up).await.expect("ends");
                }
            }
        }
    }
    bench.ctl("forget");
    for number in 0..3 {
        happens(format!("zone-stuck rd-u{number} no"));
    }
    bench.machine.idle();
    if let Some(agent) = agent.take() {
        agent.kill().await;
    }
    let agent = Agent::start(&bench)
        .await
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    for (number, up) in wanted.iter().enumerate() {
        // As the pod machine does: an incomplete zone is removed and created again.
        let number = number as u8;
        let mut last = Ok(());
        for _ in 0..3 {
            let state = agent
                .host
                .get(&spec(number).name)
                .await
                .expect("seen")
                .map(|zone| zone.state);
            if state == Some(ZoneState::Incomplete) || !up {
                last = agent.change(&bench, number, false).await.expect("ends");
            }
            if *up && last.is_ok() {
                last = agent.change(&bench, number, true).await.expect("ends");
            }
            if last.is_ok() {
                break;
            }
        }
        last.unwrap_or_else(|error| panic!("seed {seed}: zone {number}: {error}"));
        // As the pod machine does, too: limits that differ are changed again.
        if let Some(change) = sizes[usize::from(number)].as_ref().filter(|_| *up) {
            let name = spec(number).name;
            let (host, wish) = (agent.host.clone(), change.clone());
            let done = agent
                .runtime
                .spawn(async move { host.limit(&name, &wish).await });
            let done = done.await.expect("ends");
            done.unwrap_or_else(|error| panic!("seed {seed}: zone {number}: {error}"));
            let text = bench.ask(
                "prctl",
                &format!("-P -n zone.max-physical-memory -i zone rd-u{number}"),
            );
            let memory = change.limits.memory.expect("some");
            assert!(text.contains(&format!(" {memory} ")), "seed {seed}: {text}");
        }
    }
    let zones: Vec<String> = parse::zones(&bench.ask("zoneadm", "list -cp"))
        .into_iter()
        .map(|row| format!("{} {}", row.name, row.state.word()))
        .collect();
    let up = |line: fn(u8) -> String| -> Vec<String> {
        let all = wanted.iter().enumerate().filter(|(_, up)| **up);
        all.map(|(number, _)| line(number as u8)).collect()
    };
    let mut zones = zones;
    zones.sort();
    assert_eq!(
        zones,
        up(|number| format!("rd-u{number} running")),
        "seed {seed}"
    );
    let mut links: Vec<String> = bench
        .ask("dladm", "show-vnic -p -o link")
        .lines()
        .filter(|link| *link != "reddwarfgw0")
        .map(str::to_owned)
        .collect();
    links.sort();
    let link =
        |number| crate::net::link_name(std::net::Ipv4Addr::new(10, 88, 0, 10 + number).into());
    assert_eq!(links, up(link), "seed {seed}");
    for link in &links {
        let set = bench.ask(
            "dladm",
            &format!("show-linkprop -c -o value -p protection {link}"),
        );
        assert_eq!(
            set.trim().split(',').count(),
            4,
            "seed {seed}: {link}: {set}"
        );
    }
    // As the service proxy does every half minute.
    let router = agent.host.router(Vec::new()).expect("one");
    let routed = agent
        .runtime
        .spawn(async move { router.route([].into()).await });
    let routed = routed.await.expect("ends");
    routed.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let rules = parse::nat_rules(&bench.ask("ipnat", "-l"));
    let redirects = rules.iter().filter(|rule| rule.starts_with("rdr")).count();
    assert_eq!(redirects, up(link).len(), "seed {seed}: {rules:?}");
    let datasets = bench.ask("zfs", "list -H -o name -r tank/rd/zones");
    // The base, the homes' base, and for each zone its root, its home and its writable part.
    assert_eq!(
        datasets.lines().count(),
        2 + 3 * up(link).len(),
        "seed {seed}: {datasets}"
    );
    let brand = |number: u8| spec(number).brand.unwrap_or_else(|| "lx".into());
    let brands: Vec<String> = parse::zones(&bench.ask("zoneadm", "list -p"))
        .into_iter()
        .map(|row| row.brand)
        .collect();
    let mut expected = up(|number| number.to_string())
        .iter()
        .map(|number| brand(number.parse().expect("a number")))
        .collect::<Vec<_>>();
    let mut brands = brands;
    expected.sort();
    brands.sort();
    assert_eq!(brands, expected, "seed {seed}");
    if wanted[2] {
        let own = bench.ask("zfs", &format!("get -H -o value zoned {}", dataset(2)));
        assert_eq!(own.trim(), "on", "seed {seed}: the zone's own dataset");
    }
    let temporary = std::fs::read_dir(bench.machine.disk().real("/tmp")).expect("read");
    assert_eq!(temporary.count(), 0, "seed {seed}: left in /tmp");
    agent.kill().await;
    for line in bench.machine.log_lines().expect("read") {
        let code = line["code"].as_i64().unwrap_or(0);
        assert!(
            code != 2 && code != 70,
            "seed {seed}: a wrong command line: {line}"
        );
    }
}

/// Seeds that once failed: a failed halt left a zone `down` forever; a starting agent waited for a hanging halt.
const ONCE_WRONG: [u64; 5] = [449, 467, 1096, 2917, 2970];

/// Sequences in which pods come and go, agents are killed, commands fail or are killed, and the host reboots lead to
/// the desired state. `REDDWARF_SEED` replays one, `REDDWARF_SEQUENCES` is the number of random ones besides those that
/// once failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_the_host_becomes_what_is_wanted() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let seeds: Vec<u64> = match number("REDDWARF_SEED") {
        Some(seed) => vec![seed],
        None => {
            let first = 0..number("REDDWARF_SEQUENCES").unwrap_or(8);
            first.chain(ONCE_WRONG).collect()
        }
    };
    for seed in seeds {
        println!("REDDWARF_SEED={seed}");
        sequence(seed).await;
    }
}
