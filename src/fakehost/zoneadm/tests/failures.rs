//! What commands that fail half way, and reboots of the host, leave behind.

use super::{bench, state};
use crate::fakehost::{Action, Fault, When, ZoneStatus};

#[test]
fn what_dies_half_way_leaves_what_the_real_one_leaves() {
    let bench = bench();
    let fault = |tool: &str, point: &str, action: Action| {
        let fault = Fault {
            id: 900,
            tool: Some(tool.to_owned()),
            contains: None,
            nth: 1,
            when: When::Halfway(Some(point.to_owned())),
            action,
        };
        bench
            .machine
            .change(|host, _| host.faults.push(fault))
            .unwrap();
    };
    let install = "zoneadm -z a install -s tank/img@ready";
    for (tool, point, origin) in [
        ("zoneadm", "incomplete", None),
        ("zoneadm", "zonepath", Some("-\n")),
        ("brand", "destroyed", None),
        ("brand", "cloned", Some("tank/img@ready\n")),
    ] {
        fault(tool, point, Action::Crash);
        let reply = bench.run(install);
        assert!(reply.killed || reply.code == 1, "{tool} {point}");
        bench.machine.idle();
        assert_eq!(state(&bench), "incomplete", "{tool} {point}");
        let (code, text) = bench.ask("zfs list -Ho origin tank/zones/a");
        assert_eq!(
            (code == 0).then_some(text.as_str()),
            origin,
            "{tool} {point}"
        );
        if origin.is_none() {
            // Only the directory is left: that is enough for the hook.
            assert!(
                bench.machine.disk().exists("/tank/zones/a") || {
                    std::fs::create_dir(bench.machine.disk().real("/tank/zones/a")).unwrap();
                    true
                }
            );
        }
        bench.do_all(&["zoneadm -z a uninstall -F"]);
        assert_eq!(state(&bench), "configured");
    }
    bench.do_all(&[install]);
    // The client of a boot dies; zoneadmd continues.
    fault("zoneadmd", "mounted", Action::Stall);
    let boot = bench
        .machine
        .start("zoneadm", &["-z", "a", "boot"].map(str::to_owned), b"");
    while state(&bench) != "ready" {
        std::thread::yield_now();
    }
    boot.kill();
    assert!(boot.wait().killed);
    while bench.run("ctl release 900").code != 0 {
        std::thread::yield_now();
    }
    bench.machine.idle();
    assert_eq!(state(&bench), "running");
    // The caller is killed, the tool is not.
    fault("zoneadm", "verified", Action::Orphan);
    assert!(bench.run("zoneadm -z a halt").killed);
    bench.machine.idle();
    assert_eq!(state(&bench), "installed");
    // zoneadmd dies with the zone half down; the next halt completes it.
    bench.do_all(&["zoneadm -z a boot"]);
    fault("zoneadmd", "down", Action::Crash);
    assert_eq!(bench.run("zoneadm -z a halt").code, 1);
    assert_eq!(state(&bench), "down");
    assert_eq!(
        bench.ask("zoneadm -z a boot"),
        (0, "zone 'a': zone is already booted\n".to_owned())
    );
    bench.do_all(&["zoneadm -z a halt"]);
    assert_eq!(state(&bench), "installed");
}

#[test]
fn a_reboot_of_the_host_keeps_what_lasts() {
    let bench = bench();
    bench.do_all(&[
        "zoneadm -z a install -s tank/img@ready",
        "zoneadm -z a boot",
        "dladm create-vnic -l e1000g0 keep0",
        "dladm set-linkprop -p mtu=1400 keep0",
        "dladm set-linkprop -t -p maxbw=50 keep0",
        "ipadm create-addr -t -T static -a 10.88.0.1/24 keep0/v4",
        "ctl reboot",
    ]);
    assert_eq!(state(&bench), "installed");
    assert_eq!(
        bench.ask("dladm show-link -p -o link").1,
        "e1000g0\nkeep0\n"
    );
    assert_eq!(
        bench
            .ask("dladm show-linkprop -c -o value -p mtu,maxbw keep0")
            .1,
        "1400\n\n"
    );
    assert_eq!(
        bench.ask("ipadm show-addr -p -o addrobj").1,
        "lo0/v4\nlo0/v6\n"
    );
    assert_eq!(bench.ask("zfs list -Ho mounted tank/zones/a").1, "yes\n");
    bench.do_all(&["ctl pool tank late", "ctl reboot"]);
    assert_eq!(bench.ask("zfs list tank").0, 1);
    let (code, text) = bench.ask("zoneadm -z a boot");
    assert!(code == 1, "{text}");
    bench.do_all(&[
        "zpool import tank",
        "dladm create-etherstub -t rdstub0",
        "dladm create-vnic -t -l rdstub0 an0",
        "zoneadm -z a boot",
    ]);
    assert_eq!(
        bench.machine.state().unwrap().zones["a"].status,
        ZoneStatus::Running
    );
}
