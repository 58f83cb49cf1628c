//! The states of zones, and which commands lead from one to another.

use super::{bench, configure, state};
use crate::fakehost::{Action, Fault, When};

#[test]
fn states_and_what_leads_on_are_those_of_the_real_zoneadm() {
    let bench = bench();
    let install = "zoneadm -z a install -s tank/img@ready";
    let uninstall = "zoneadm -z a uninstall -F";
    for (line, code, part, after) in [
        (
            "zoneadm -z nope list -p",
            1,
            "zoneadm: nope: No such zone configured\n",
            "configured",
        ),
        (
            "zoneadm -z a list -cp",
            2,
            "-cp: illegal option -- c\nusage:\tlist [-cinpv]\n",
            "configured",
        ),
        (
            "zoneadm list -pv",
            1,
            "zoneadm: list -p and -v are mutually exclusive.\n",
            "configured",
        ),
        (
            "zoneadm -z a boot",
            1,
            "zoneadm: zone 'a': must be installed before boot.\n",
            "configured",
        ),
        (
            "zoneadm -z a halt",
            1,
            "zone 'a': halt operation is invalid for zones in state 'configured'\n",
            "configured",
        ),
        (
            "zoneadm boot",
            1,
            "zoneadm: no zone specified\n",
            "configured",
        ),
        ("zoneadm install", 2, "usage:\tinstall", "configured"),
        (
            "zoneadm frob",
            2,
            "\nSubcommands:\n\nhelp\nboot [",
            "configured",
        ),
        ("zoneadm -z a boot -?", 0, "usage:\tboot [--", "configured"),
        (
            "zoneadm -z a halt -x",
            2,
            "-x: illegal option -- x\nusage:\thalt\n",
            "configured",
        ),
        (
            "zoneadm -z global halt",
            1,
            "zoneadm: zone 'global': halt operation is invalid for the global zone.\n",
            "configured",
        ),
        (
            "zoneadm -z a unmount",
            1,
            "must be mounted before unmount.",
            "configured",
        ),
        ("zoneadm -z a mark", 2, "", "configured"),
        ("zoneadm -z a mark installed", 2, "", "configured"),
        ("zoneadm -z a mark incomplete", 0, "", "incomplete"),
        (
            "zoneadm -z a verify",
            1,
            "zone is incomplete; uninstall required.",
            "incomplete",
        ),
        ("zoneadm -z a mark -F configured", 0, "", "configured"),
        (
            uninstall,
            1,
            "zoneadm: zone 'a': is already in state 'configured'.\n",
            "configured",
        ),
        (
            "zoneadm -z a install",
            1,
            "The installation source must be specified.",
            "incomplete",
        ),
        (
            install,
            1,
            "zoneadm: zone 'a': zone is incomplete; uninstall required.\n",
            "incomplete",
        ),
        (
            "zoneadm -z a boot",
            1,
            "must be installed before boot.",
            "incomplete",
        ),
        (uninstall, 0, "", "configured"),
        (
            install,
            0,
            "rmdir: directory \"/tank/zones/a/cores\"",
            "installed",
        ),
        (
            install,
            1,
            "zoneadm: zone 'a': is already installed.\n",
            "installed",
        ),
        (
            "zoneadm -z a halt",
            0,
            "zone 'a': zone is already halted\n",
            "installed",
        ),
        (
            "zoneadm -z a reboot",
            1,
            "zoneadm: zone 'a': not running\n",
            "installed",
        ),
        ("zoneadm -z a shutdown", 1, "not running", "installed"),
        ("zoneadm -z a ready", 0, "", "ready"),
        (
            uninstall,
            1,
            "zoneadm: zone 'a': uninstall operation is invalid for ready zones.\n",
            "ready",
        ),
        (
            "zoneadm -z a reboot",
            1,
            "zone 'a': reboot operation is invalid for zones in state 'ready'\n",
            "ready",
        ),
        ("zoneadm -z a boot", 0, "", "running"),
        (
            "zoneadm -z a boot",
            0,
            "zone 'a': zone is already booted\n",
            "running",
        ),
        (
            install,
            1,
            "install operation is invalid for running zones.",
            "running",
        ),
        (
            "dladm delete-vnic -t an0",
            1,
            "dladm: vnic deletion failed: link busy\n",
            "running",
        ),
        (
            "zfs destroy -r tank/zones/a",
            1,
            "cannot unmount '/tank/zones/a': Device busy\n",
            "running",
        ),
        (
            "zfs unmount tank/ctl",
            1,
            "cannot unmount '/tank/ctl': Device busy\n",
            "running",
        ),
        (
            "zoneadm -z a shutdown",
            1,
            "zone 'a': unable to shutdown zone\n",
            "running",
        ),
        ("zoneadm -z a ready", 0, "", "ready"),
        ("zoneadm -z a halt", 0, "", "installed"),
        (
            "zoneadm -z a uninstall",
            1,
            "zoneadm: zone 'a': Input not from terminal and -F not specified: uninstall not done.\n",
            "installed",
        ),
        ("zoneadm -z a mark incomplete", 0, "", "incomplete"),
        (uninstall, 0, "", "configured"),
        (
            "zfs list -Ho name tank/zones/a",
            1,
            "dataset does not exist",
            "configured",
        ),
        ("dladm delete-vnic -t an0", 0, "", "configured"),
        ("zonecfg -z a delete -F", 0, "", ""),
    ] {
        let (got, text) = bench.ask(line);
        assert_eq!(got, code, "{line}: {text}");
        assert!(text.contains(part), "{line}: {text}");
        if !after.is_empty() {
            assert_eq!(state(&bench), after, "after {line}");
        }
    }
}

#[test]
fn running_is_not_alive() {
    let bench = bench();
    let disk = bench.machine.disk().clone();
    bench.do_all(&["zoneadm -z a install -s tank/img@ready"]);
    let dead = || bench.machine.state().unwrap().zones["a"].dead.clone();
    let init = disk.real("/tank/zones/a/root/sbin/init");
    std::fs::remove_file(&init).unwrap();
    bench.do_all(&["zoneadm -z a boot"]);
    assert!(dead().unwrap().contains("/sbin/init"));
    bench.do_all(&["zoneadm -z a halt"]);
    std::fs::copy(disk.real("/tank/img/root/sbin/init"), &init).unwrap();
    bench.do_all(&["zoneadm -z a boot"]);
    assert_eq!(dead(), None);
    let id = || bench.machine.state().unwrap().zones["a"].id;
    let before = id();
    bench.do_all(&[
        "dladm set-linkprop -t -p protection=mac-nospoof an0",
        "ctl zone-reboot a",
    ]);
    assert_ne!(id(), before);
    assert_eq!(
        bench
            .ask("dladm show-linkprop -c -o value -p protection an0")
            .1,
        "ip-nospoof\n"
    );
    bench.do_all(&["zoneadm -z a halt"]);
    std::fs::write(
        disk.real("/tmp/cfg"),
        "select net physical=an0\nset defrouter=10.99.0.1\nend\n",
    )
    .unwrap();
    bench.do_all(&["zonecfg -z a -f /tmp/cfg", "zoneadm -z a boot"]);
    assert!(dead().unwrap().contains("default route"));
}

#[test]
fn a_second_command_on_a_zone_waits_for_the_first() {
    let bench = bench();
    let stall = Fault {
        id: 7,
        tool: Some("brand".to_owned()),
        // The zone becomes incomplete before its brand's hook runs; another zone's hook may run earlier.
        contains: Some(" a ".to_owned()),
        nth: 1,
        when: When::Before,
        action: Action::Stall,
    };
    bench
        .machine
        .change(|host, _| host.faults.push(stall))
        .unwrap();
    let words = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
    let first = bench
        .machine
        .start("zoneadm", &words("-z a install -s tank/img@ready"), b"");
    while state(&bench) != "incomplete" {
        std::thread::yield_now();
    }
    let second = bench
        .machine
        .start("zoneadm", &words("-z a uninstall -F"), b"");
    // Other zones do not wait.
    configure(&bench, "b");
    bench.do_all(&["zoneadm -z b install -s tank/img@ready"]);
    assert_eq!(state(&bench), "incomplete");
    while bench.run("ctl release 7").code != 0 {
        std::thread::yield_now();
    }
    assert_eq!(first.wait().code, 0);
    assert_eq!(second.wait().code, 0);
    assert_eq!(state(&bench), "configured");
}

#[test]
fn a_halt_can_hang_or_stay_half_way() {
    let bench = bench();
    bench.do_all(&[
        "zoneadm -z a install -s tank/img@ready",
        "zoneadm -z a boot",
        "ctl zone-stuck a down",
    ]);
    let (code, text) = bench.ask("zoneadm -z a halt");
    assert_eq!(
        (code, text.as_str()),
        (
            1,
            "zone 'a': unable to unmount '/tank/zones/a/root'\nzone 'a': unable to unmount file systems in zone\nzone 'a': unable to destroy zone\n"
        )
    );
    assert_eq!(state(&bench), "down");
    bench.do_all(&["ctl zone-stuck a shutting_down"]);
    let halt = bench
        .machine
        .start("zoneadm", &["-z", "a", "halt"].map(str::to_owned), b"");
    while state(&bench) != "shutting_down" {
        std::thread::yield_now();
    }
    bench.do_all(&["ctl zone-stuck a no"]);
    assert_eq!(halt.wait().code, 0);
    assert_eq!(state(&bench), "installed");
}
