use clap::Parser as _;

use super::*;
use crate::fakehost::{Layout, Machine};
use crate::illumos::fake::FakeTools;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

async fn findings(machine: &Machine, words: &[&str]) -> Vec<String> {
    let brands = machine.disk().real("/usr/lib/brand").display().to_string();
    let start = ["doctor", "--brands", &brands];
    let line = Line::parse_from(start.iter().chain(words));
    let tools = FakeTools::new(machine.clone());
    let found = examine(&line.arguments, tools.as_ref()).await;
    found.iter().map(|finding| format!("{finding:?}")).collect()
}

#[test]
fn what_belongs_to_a_boot_environment_does_not_last() {
    let (at, environment) = (
        std::path::Path::new("/var/lib/reddwarf"),
        "rpool/ROOT/omnios",
    );
    for (dataset, lasts) in [
        ("rpool/ROOT/omnios", false),
        ("rpool/ROOT/omnios/var", false),
        ("rpool/ROOT/omnios-1", true),
        ("rpool/reddwarf/data", true),
    ] {
        let finding = data(at, dataset, environment);
        assert_eq!(matches!(finding, Good(_)), lasts, "{dataset}: {finding:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_found_with_the_remedy() {
    let root = tempfile::tempdir().expect("a directory");
    let mut layout = Layout::default();
    layout.brands.push("reddwarf".into());
    let machine = Machine::create(root.path(), &layout).expect("a host");
    let run = |line: &str| {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let reply = machine.run(&words[0], &words[1..], b"");
        assert_eq!(reply.code, 0, "{line}");
    };
    let good = findings(
        &machine,
        &["--storage-pool", "tank/rd", "--brand", "reddwarf"],
    )
    .await;
    let has = |all: &[String], kind: &str, part: &str| {
        let fine = all
            .iter()
            .any(|one| one.starts_with(kind) && one.contains(part));
        assert!(fine, "{kind} {part}: {all:#?}");
    };
    for part in [
        "this is the global zone",
        "all privileges",
        "zones: 0 beside",
        "the brand lx is installed",
        "the brand reddwarf is installed",
        "the pool tank is ONLINE",
        "will make the dataset tank/rd/zones",
        "the etherstub reddwarf0",
        "routeadm -e ipv4-forwarding",
    ] {
        has(&good, "Good", part);
    }
    for part in [
        "no default route",
        "ipfilter is disabled",
        "FSS is not the default",
        "reddwarf.lx",
    ] {
        let part = if part == "reddwarf.lx" {
            "--zone-init"
        } else {
            part
        };
        has(&good, "Warning", part);
    }
    // hack/omnios-install puts these there; the privileges in config.xml are the fake host's own.
    has(&good, "Bad", "brandctl, which installs zones, is missing");
    has(&good, "Bad", "the console of zones in platform.xml");
    for line in [
        "svcadm enable network/ipfilter",
        "dispadmin -d FSS",
        "zfs create -o readonly=on tank/rd",
        "zfs create -o readonly=off -o mountpoint=legacy tank/rd/zones",
        "zfs create -o readonly=off -o zoned=on -o mountpoint=none tank/rd/images",
        "ipadm create-addr -T static -a 192.0.2.1/24 e1000g0/v4",
        "route add default 192.0.2.254",
    ] {
        run(line);
    }
    let bad = findings(&machine, &["--storage-pool", "tank/rd"]).await;
    for (kind, part) in [
        ("Bad", "tank/rd is read-only: zfs set readonly=off tank/rd"),
        ("Bad", "tank/rd/zones has no mountpoint"),
        ("Bad", "tank/rd/images is a zone's own"),
        ("Good", "will make the dataset tank/rd/volumes"),
        ("Good", "the default route leads out by e1000g0"),
        ("Good", "ipnat answers: 0 rules"),
        ("Good", "the default scheduling class is FSS"),
        ("Warning", "ipf -T ipf_nattable_max=200000"),
        ("Bad", "--zone-init"),
    ] {
        has(&bad, kind, part);
    }
    let bad = findings(
        &machine,
        &["--storage-pool", "dozer/rd", "--physical-nic", "ixgbe0"],
    )
    .await;
    for part in ["dozer", "there is no link ixgbe0"] {
        has(&bad, "Bad", part);
    }
    run("ipf -T ipf_nattable_max=200000");
    let good = findings(&machine, &["--storage-pool", "tank/rd"]).await;
    has(&good, "Good", "holds 200000 sessions");
    let bad = findings(&machine, &["--storage-pool", "tank/r d"]).await;
    has(&bad, "Bad", "--storage-pool");
}
