use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::store::IndexState;
use super::zfs::tests::Bench;
use super::{Action, Fault, Machine, When, ZoneStatus};

/// Violated invariants, which must not happen whatever commands and faults there are.
fn impossible(machine: &Machine) -> Vec<String> {
    let host = machine.state().unwrap();
    let index = machine.configurations().unwrap().index().unwrap();
    let disk = machine.disk();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, dataset) in &host.datasets {
        if let Some((parent, _)) = name.rsplit_once('/')
            && !host.datasets.contains_key(parent)
        {
            wrong.push(format!("{name} has no parent"));
        }
        if let Some(origin) = &dataset.origin
            && !host.has_zfs(origin)
        {
            wrong.push(format!("{name} has lost its origin {origin}"));
        }
        if let Some(at) = &dataset.mounted {
            if !seen.insert(at.clone()) {
                wrong.push(format!("two file systems at {at}"));
            }
            if !disk.exists(at) {
                wrong.push(format!("{name} is mounted at {at}, which is not there"));
            }
        }
    }
    for (name, zone) in &host.zones {
        let state = index.iter().find(|e| e.name == *name).map(|e| e.state);
        if state != Some(IndexState::Installed) {
            wrong.push(format!(
                "zone {name} is {} and {state:?}",
                zone.status.word()
            ));
        }
        for link in &zone.links {
            if host.links.get(&link.name).and_then(|l| l.zone.as_ref()) != Some(name) {
                wrong.push(format!("zone {name} has not its link {}", link.name));
            }
        }
    }
    let ids: BTreeSet<u64> = host.zones.values().map(|z| z.id).collect();
    if ids.len() != host.zones.len() {
        wrong.push("two zones have an id".to_owned());
    }
    for (name, link) in &host.links {
        if let Some(zone) = &link.zone
            && !host.zones.contains_key(zone)
        {
            wrong.push(format!("link {name} is in zone {zone}, which is down"));
        }
        if let Some(over) = &link.over
            && !host.links.contains_key(over)
        {
            wrong.push(format!("link {name} is over nothing"));
        }
    }
    if !host.pending.is_empty() {
        wrong.push(format!("left to do: {:?}", host.pending));
    }
    wrong
}

/// Commands about two zones for a random walk.
fn commands() -> Vec<String> {
    let mut all = Vec::new();
    for zone in ["a", "b"] {
        for line in [
            "zonecfg -z Z -f /tmp/Z",
            "zonecfg -z Z delete -F",
            "zoneadm -z Z install -s tank/img@ready",
            "zoneadm -z Z boot",
            "zoneadm -z Z boot",
            "zoneadm -z Z ready",
            "zoneadm -z Z halt",
            "zoneadm -z Z reboot",
            "zoneadm -z Z uninstall -F",
            "zoneadm -z Z clone a",
            "dladm create-vnic -t -l rdstub0 Zn0",
            "dladm delete-vnic -t Zn0",
            "dladm set-linkprop -t -p protection=mac-nospoof Zn0",
            "dladm reset-linkprop -t Zn0",
            "zfs destroy -r tank/zones/Z",
            "zfs snapshot tank/zones/Z@s",
            "zfs promote tank/zones/Z",
            "zfs unmount tank/zones/Z",
            "zfs mount tank/zones/Z",
            "ctl zone-reboot Z",
        ] {
            all.push(line.replace('Z', zone));
        }
    }
    let others = [
        "dladm create-etherstub -t rdstub0",
        "dladm delete-etherstub -t rdstub0",
        "ipadm create-addr -t -T static -a 10.0.0.1/24 an0/v4",
        "ipadm delete-if an0",
        "zfs rename tank/zones tank/other",
        "zfs rename tank/other tank/zones",
        "zfs destroy -R tank/img",
        "zfs destroy -R tank/zones",
        "zfs create tank/zones",
        "zfs create -p tank/img/root",
        "zfs snapshot tank/img@ready",
        "ctl pool tank late",
        "ctl pool tank online",
        "ctl reboot",
        "zpool import tank",
        "zpool export tank",
    ];
    all.extend(others.map(str::to_owned));
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn no_sequence_of_commands_and_deaths_leaves_an_impossible_host(
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0..12u8), 1..40),
    ) {
        let bench = Bench::new();
        let disk = bench.machine.disk();
        bench.do_all(&["zfs create tank/zones", "zfs create tank/img", "zfs snapshot tank/img@ready", "dladm create-etherstub -t rdstub0"]);
        for zone in ["a", "b"] {
            let text = format!("create -b\nset brand=sparse\nset zonepath=/tank/zones/{zone}\nset ip-type=exclusive\nadd net\nset physical={zone}n0\nset allowed-address=10.0.0.9/24\nend\n");
            std::fs::write(disk.real(&format!("/tmp/{zone}")), text).unwrap();
        }
        let commands = commands();
        for (which, fate) in steps {
            let line = which.get(&commands);
            // Some commands die half-way, with or without their helper.
            if fate < 3 {
                let fault = Fault {
                    id: 1,
                    tool: [None, Some("zoneadmd"), Some("brand")][fate as usize].map(str::to_owned),
                    contains: None,
                    nth: 1,
                    when: When::Halfway(None),
                    action: Action::Crash,
                };
                bench.machine.change(|host, _| host.faults = vec![fault]).unwrap();
            }
            bench.run(line);
            bench.machine.idle();
            bench.machine.change(|host, _| host.faults.clear()).unwrap();
            let wrong = impossible(&bench.machine);
            prop_assert!(wrong.is_empty(), "after {line}: {wrong:?}");
        }
        Ok::<(), TestCaseError>(())?;
    }
}

#[test]
fn a_command_killed_between_its_state_and_its_files_is_finished_by_the_next() {
    let bench = Bench::new();
    bench.do_all(&["zfs create tank/a"]);
    // As written by a tool that died before it moved the files.
    let mut host = bench.machine.state().unwrap();
    let id = host.datasets["tank/a"].id;
    host.datasets.get_mut("tank/a").unwrap().mounted = None;
    host.pending.push(super::disk::DiskOp::Unmount {
        id,
        at: "/tank/a".to_owned(),
    });
    bench.machine.store(&host).unwrap();
    bench.do_all(&["zfs list"]);
    assert!(bench.machine.state().unwrap().pending.is_empty());
    bench.do_all(&["zfs mount tank/a", "zfs destroy tank/a"]);
}

#[test]
fn links_are_made_shown_and_refused_as_dladm_has_it() {
    let bench = Bench::new();
    bench.do_all(&[
        "dladm create-etherstub -t rdstub0",
        "dladm create-vnic -t -l rdstub0 -m 2:8:20:ab:cd:ef -v 7 rd3fa00n0",
    ]);
    let over = "dladm: vnic creation over rdstub0 failed";
    for (line, code, text) in [
        (
            "dladm show-vnic -p -o link,over,macaddress,vid",
            0,
            "rd3fa00n0:rdstub0:2\\:8\\:20\\:ab\\:cd\\:ef:7\n".to_owned(),
        ),
        (
            "dladm show-vnic -p -o macaddress",
            0,
            "2:8:20:ab:cd:ef\n".to_owned(),
        ),
        (
            "dladm show-vnic -p",
            1,
            "dladm: output fields must be specified in parsable mode\n".to_owned(),
        ),
        (
            "dladm show-link -p -o nope",
            1,
            "dladm: unknown output field: `nope'\n".to_owned(),
        ),
        (
            "dladm show-vnic nope0",
            1,
            "dladm: invalid vnic name 'nope0': object not found\n".to_owned(),
        ),
        (
            "dladm create-vnic -t -l rdstub0 rd007",
            1,
            "dladm: invalid link name 'rd007'\n".to_owned(),
        ),
        (
            "dladm create-vnic -t -l rdstub0 rd-1",
            1,
            "dladm: invalid link name 'rd-1'\n".to_owned(),
        ),
        (
            "dladm create-vnic -t -l nope0 a0",
            1,
            "dladm: invalid link name 'nope0'\n".to_owned(),
        ),
        (
            "dladm create-vnic -t -l rdstub0 rd3fa00n0",
            1,
            format!("{over}: object already exists\n"),
        ),
        (
            "dladm create-vnic -l rdstub0 a0",
            1,
            format!("{over}: can't create persistent object on top of temporary object\n"),
        ),
        (
            "dladm create-etherstub -t rdstub0",
            1,
            "dladm: etherstub creation failed: object already exists\n".to_owned(),
        ),
        (
            "dladm delete-etherstub -t rdstub0",
            1,
            "dladm: vnic deletion failed: link busy\n".to_owned(),
        ),
        (
            "dladm delete-vnic -t nope0",
            1,
            "dladm: invalid link name 'nope0'\n".to_owned(),
        ),
        (
            "dladm show-linkprop -c -o value -p mtu rd3fa00n0",
            0,
            "9000\n".to_owned(),
        ),
        (
            "dladm set-linkprop -t -p mtu=1500 rd3fa00n0",
            0,
            String::new(),
        ),
        (
            "dladm show-link -p -o link,class,mtu,over rd3fa00n0",
            0,
            "rd3fa00n0:vnic:1500:rdstub0\n".to_owned(),
        ),
        (
            "dladm set-linkprop -t -p protection=nope rd3fa00n0",
            1,
            "dladm: warning: link property 'protection' must be one of: mac-nospoof,restricted,ip-nospoof,dhcp-nospoof\n"
                .to_owned(),
        ),
        (
            "ipadm create-addr -t -T static -a 10.88.0.1/24 rd3fa00n0/v4",
            0,
            String::new(),
        ),
        (
            "ipadm create-addr -t -T static -a 10.88.0.1/24 rd3fa00n0/v4",
            1,
            "ipadm: Could not create address: Address object already exists\n".to_owned(),
        ),
        (
            "ipadm show-addr -p -o addrobj,state,addr rd3fa00n0/v4",
            0,
            "rd3fa00n0/v4:ok:10.88.0.1/24\n".to_owned(),
        ),
        (
            "dladm delete-vnic -t rd3fa00n0",
            1,
            "dladm: vnic deletion failed: link busy\n".to_owned(),
        ),
        (
            "route add default 10.99.0.1",
            1,
            "add net default: gateway 10.99.0.1: Network is unreachable\n".to_owned(),
        ),
        ("ipadm delete-addr rd3fa00n0/v4", 0, String::new()),
        ("ipadm delete-if rd3fa00n0", 0, String::new()),
        ("dladm delete-vnic -t rd3fa00n0", 0, String::new()),
    ] {
        assert_eq!(bench.ask(line), (code, text), "{line}");
    }
}

#[test]
fn services_and_nat_go_together() {
    let bench = Bench::new();
    let disk = bench.machine.disk();
    let nat = |args: &str, rule: &str| {
        let words: Vec<String> = args.split(' ').map(str::to_owned).collect();
        bench.machine.run("ipnat", &words, rule.as_bytes()).code
    };
    let rule = "map e1000g0 10.88.0.0/24 -> 0/32\n";
    assert_eq!(nat("-f -", rule), 1);
    assert_eq!(
        bench.ask("svcs -H -o state network/ipfilter"),
        (0, "disabled\n".to_owned())
    );
    std::fs::create_dir_all(disk.real("/etc/ipf")).unwrap();
    std::fs::write(
        disk.real("/etc/ipf/ipnat.conf"),
        "map e1000g0 192.168.0.0/24 -> 0/32\n",
    )
    .unwrap();
    bench.do_all(&["svcadm enable -s network/ipfilter"]);
    assert_eq!(
        [
            nat("-f -", rule),
            nat("-f -", rule),
            nat("-f -", "map nonsense\n")
        ],
        [0, 0, 1],
        "a rule that is there is refused on standard error alone"
    );
    assert_eq!(
        bench
            .ask("ipnat -l")
            .1
            .lines()
            .skip(1)
            .take(3)
            .collect::<Vec<_>>(),
        [
            "map e1000g0 192.168.0.0/24 -> 0.0.0.0/32",
            "map e1000g0 10.88.0.0/24 -> 0.0.0.0/32",
            "",
        ]
    );
    bench.do_all(&["svcadm refresh network/ipfilter"]);
    assert!(!bench.ask("ipnat -l").1.contains("10.88.0.0"));
    assert_eq!(
        [nat("-rf -", rule), nat("-f -", rule), nat("-rf -", rule)],
        [0, 0, 0]
    );
    assert_eq!(
        bench.ask("svcs -H -o state nope").1,
        "svcs: Pattern 'nope' doesn't match any instances\n"
    );
    bench.do_all(&["routeadm -e ipv4-forwarding", "routeadm -u"]);
    assert_eq!(bench.ask("svcs -H -o state ipv4-forwarding").1, "online\n");
}

#[test]
fn statistics_controls_and_logins_are_those_of_running_zones() {
    let bench = Bench::new();
    let disk = bench.machine.disk();
    bench.do_all(&["zfs create tank/zones"]);
    let name = "a-zone-with-a-name-of-more-than-thirty-letters";
    std::fs::write(
        disk.real("/tmp/z"),
        "create -b\nset brand=sparse\nset zonepath=/tank/zones/z\nset ip-type=exclusive\nadd capped-cpu\nset ncpus=0.5\nend\n",
    )
    .unwrap();
    let ask = |line: &str| bench.ask(&line.replace('Z', name));
    for (line, code, part) in [
        ("zonecfg -z Z -f /tmp/z", 0, ""),
        (
            "zlogin Z true",
            1,
            "zlogin: cannot login to a zone which is 'configured'\n",
        ),
        ("zlogin nope true", 1, "zlogin: zone 'nope' unknown\n"),
        (
            "zlogin -n Z",
            2,
            "zlogin: -n may not be specified for interactive login\nusage: zlogin [-dinCEINQS]",
        ),
        (
            "zlogin -C Z true",
            2,
            "zlogin: Commands may not be specified for console login.\n",
        ),
        (
            "zlogin -d Z true",
            2,
            "zlogin: -d may only be specified with console login\n",
        ),
        (
            "zlogin global true",
            1,
            "zlogin: 'zlogin' not applicable to the global zone\n",
        ),
        ("zoneadm -z Z install", 0, ""),
        (
            "zlogin Z true",
            1,
            "zlogin: login allowed only to running zones (Z is 'installed').\n",
        ),
        (
            "zlogin -C Z",
            0,
            "[Connected to zone 'Z' console]\n\n[Connection to zone 'Z' console closed]\n",
        ),
        ("prctl -P -i zone Z", 1, "prctl: Z: unknown zone\n"),
        ("zoneadm -z Z boot", 0, ""),
        ("ctl zone-use Z 1.5 64M", 0, ""),
        ("kstat -p zones:::nsec_user", 0, "\t1500000000\n"),
        (
            "kstat -p memory_cap:::rss",
            0,
            ":a-zone-with-a-name-of-more-tha:rss\t67108864\n",
        ),
        ("kstat -p zones:::zonename", 0, "\tZ\n"),
        ("kstat -p nope:::", 1, ""),
        ("kstat -p a:b:c:d:e", 2, "Usage:\nkstat"),
        // An invalid option is not an error.
        (
            "kstat -p -x",
            0,
            "kstat: illegal option -- x\nUsage:\nkstat",
        ),
        ("kstat -C zones:[1-9]*:a*:zone?ame", 0, ":zonename:Z\n"),
        (
            "kstat -p -c zone_misc -s class",
            0,
            "zones:0:global:class\tzone_misc\n",
        ),
        (
            "kstat -l zones:0",
            0,
            "zones:0:global:avenrun_15min\nzones:0:global:avenrun_1min\n",
        ),
        (
            "prctl -n zone.max-lwps -t privileged -r -v 200 -i zone Z",
            1,
            "prctl: no matching resource control to replace\n",
        ),
        (
            "prctl -n zone.max-lwps -t privileged -s -v 200 -i zone Z",
            0,
            "",
        ),
        (
            "prctl -n zone.max-lwps -t privileged -s -v 200 -i zone Z",
            1,
            "prctl: resource control already exists\n",
        ),
        ("prctl -n zone.max-lwps -t privileged -x -i zone Z", 0, ""),
        (
            "prctl -r -v 2 -i zone Z",
            2,
            "prctl: -n is required with -s, -r, -x, -e, or -d\nusage:\n",
        ),
        (
            "prctl -n zone.frob -r -v 2 -i zone Z",
            2,
            "prctl: failed to get resource control for zone.frob: Invalid argument\n",
        ),
        ("prctl", 2, "prctl: no arguments specified\nusage:\n"),
        ("prctl -n zone.cpu-cap -r -v 75 -i zone Z", 0, ""),
        (
            "prctl -P -n zone.cpu-cap -i zone Z",
            0,
            "zone.cpu-cap privileged 75 - deny -\n",
        ),
        ("zlogin Z true", 1, "zlogin: exec failure"),
        ("zlogin -S Z pwd", 0, "/tank/zones/z/root\n"),
        ("zlogin -S Z exit 3", 3, ""),
        ("zlogin -S Z kill -9 $$", 0, ""),
        ("zoneadm -z Z halt", 0, ""),
        // The global zone always exists; statistics of other zones do not.
        (
            "kstat -p zones:::zonename",
            0,
            "zones:0:global:zonename\tglobal\n",
        ),
        ("kstat -p caps:::", 1, ""),
    ] {
        let (got, text) = ask(line);
        assert!(
            got == code && text.contains(&part.replace('Z', name)),
            "{line}: {got} {text}"
        );
    }
    assert!(
        !bench
            .machine
            .state()
            .unwrap()
            .zones
            .values()
            .any(|z| z.status == ZoneStatus::Running)
    );
}

#[test]
fn what_an_unmounted_file_system_left_below_its_parent_keeps_it_from_being_mounted_at_boot() {
    let bench = Bench::new();
    bench.do_all(&["zfs create tank/zones", "zfs unmount tank/zones"]);
    std::fs::create_dir_all(bench.machine.disk().real("/tank/zones/a")).unwrap();
    bench.do_all(&["ctl reboot"]);
    let host = bench.machine.state().unwrap();
    assert_eq!(host.datasets["tank"].mounted.as_deref(), Some("/tank"));
    assert_eq!(host.datasets["tank/zones"].mounted, None);
    assert!(impossible(&bench.machine).is_empty());
}
