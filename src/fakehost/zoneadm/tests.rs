use crate::fakehost::zfs::tests::Bench;
use crate::fakehost::{Action, Fault, When, ZoneStatus};

/// A configuration of an lx zone with one link.
fn configuration(name: &str) -> String {
    format!(
        "create -b\nset brand=lx\nset zonepath=/tank/zones/{name}\nset ip-type=exclusive\nadd net\nset physical={name}n0\nset allowed-address=10.88.0.17/24\nset defrouter=10.88.0.1\nend\nadd fs\nset dir=/rd/ctl\nset special=/tank/ctl\nset type=lofs\nend\n"
    )
}

/// A host with a sandbox image, an etherstub, and the zone `a` configured.
fn bench() -> Bench {
    let bench = Bench::new();
    let disk = bench.machine.disk().clone();
    bench.do_all(&[
        "zfs create tank/zones",
        "zfs create tank/ctl",
        "zfs create tank/img",
        "dladm create-etherstub -t rdstub0",
    ]);
    for directory in ["sbin", "etc"] {
        std::fs::create_dir_all(disk.real(&format!("/tank/img/root/{directory}"))).unwrap();
    }
    std::fs::write(disk.real("/tank/img/root/etc/alpine-release"), "3").unwrap();
    let init = disk.real("/tank/img/root/sbin/init");
    std::fs::write(&init, "#!").unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&init, std::fs::Permissions::from_mode(0o755)).unwrap();
    bench.do_all(&["zfs snapshot tank/img@ready"]);
    configure(&bench, "a");
    bench
}

fn configure(bench: &Bench, name: &str) {
    std::fs::write(bench.machine.disk().real("/tmp/cfg"), configuration(name)).unwrap();
    bench.do_all(&[
        &format!("zonecfg -z {name} -f /tmp/cfg"),
        &format!("dladm create-vnic -t -l rdstub0 -p mtu=1500 {name}n0"),
    ]);
}

fn state(bench: &Bench) -> String {
    let (_, line) = bench.ask("zoneadm -z a list -p");
    line.split(':').nth(2).unwrap_or("").to_owned()
}

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
fn listings_have_the_fields_of_omnios() {
    let bench = bench();
    bench.do_all(&[
        "zoneadm -z a install -s tank/img@ready",
        "zoneadm -z a boot",
    ]);
    let (_, text) = bench.ask("zoneadm list -cp");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "0:global:running:/::ipkg:shared:0");
    let fields: Vec<&str> = lines[1].split(':').collect();
    assert_eq!(fields.len(), 8);
    assert_ne!(fields[0], "-");
    assert_eq!(
        [fields[1], fields[2], fields[3], fields[5], fields[6]],
        ["a", "running", "/tank/zones/a", "lx", "excl"]
    );
    bench.do_all(&["zoneadm -z a halt"]);
    assert_eq!(
        bench.ask("zoneadm list -p").1,
        "0:global:running:/::ipkg:shared:0\n"
    );
    assert!(bench.ask("zoneadm list -ip").1.contains("\n-:a:installed:"));
    assert_eq!(bench.ask("zoneadm list -cn").1, "a\n");
}

#[test]
fn a_boot_is_refused_for_what_the_real_one_refuses() {
    let bench = bench();
    let disk = bench.machine.disk().clone();
    bench.do_all(&["zoneadm -z a install -s tank/img@ready"]);
    let refused = |part: &str| {
        let (code, text) = bench.ask("zoneadm -z a boot");
        assert!(code == 1 && text.contains(part), "{part}: {text}");
        assert!(
            text.ends_with("zoneadm: zone 'a': call to zoneadmd failed\n"),
            "{text}"
        );
        assert_eq!(state(&bench), "installed");
    };
    bench.do_all(&["dladm set-linkprop -t -p protection=mac-nospoof an0"]);
    refused(
        "zone 'a': Protection is already set\nzone 'a': failed to add address: Invalid argument\n",
    );
    bench.do_all(&[
        "dladm reset-linkprop -t -p protection an0",
        "dladm set-linkprop -t -p allowed-ips=10.0.0.1 an0",
    ]);
    refused("allowed-ips is already set");
    bench.do_all(&[
        "dladm reset-linkprop -t -p allowed-ips an0",
        "ipadm create-if -t an0",
    ]);
    refused(
        "interface 'an0' which is used in the global zone\nzone 'a': failed to add network device",
    );
    bench.do_all(&["ipadm delete-if an0", "dladm delete-vnic -t an0"]);
    refused("failed to add network device");
    bench.do_all(&[
        "dladm create-vnic -t -l rdstub0 an0",
        "zfs create -o mountpoint=/tank/zones/a/root/x tank/x",
    ]);
    refused("These file-systems are mounted on subdirectories");
    bench.do_all(&["zfs destroy tank/x"]);
    let marker = disk.real("/tank/zones/a/root/etc/alpine-release");
    std::fs::remove_file(&marker).unwrap();
    refused("Unsupported distribution!");
    // Other distributions than Ubuntu have such a file, too.
    let lsb = disk.real("/tank/zones/a/root/etc/lsb-release");
    std::fs::write(&lsb, "DISTRIB_ID=Mint").unwrap();
    refused("Unsupported distribution!");
    std::fs::write(&marker, "3").unwrap();
    // The marker of Alpine chooses the script of Busybox.
    let lx = disk.real("/usr/lib/brand/lx/lx_boot_zone_busybox");
    std::fs::rename(&lx, lx.with_extension("away")).unwrap();
    refused(
        "lx_boot_zone_busybox: cannot open [No such file or directory]\nzone 'a': exec /usr/lib/brand/lx/lx_boot a /tank/zones/a failed\n",
    );
    std::fs::rename(lx.with_extension("away"), &lx).unwrap();
    std::fs::remove_dir_all(disk.real("/tank/zones/a/root/rd")).unwrap();
    std::os::unix::fs::symlink("/etc", disk.real("/tank/zones/a/root/rd")).unwrap();
    refused(
        "/root/rd is a symlink\nzone 'a': /tank/zones/a/root/rd/ctl is not a valid mount point\n",
    );
    std::fs::remove_file(disk.real("/tank/zones/a/root/rd")).unwrap();
    bench.do_all(&["zoneadm -z a boot"]);
    assert!(disk.exists("/tank/zones/a/root/rd/ctl"));
    assert_eq!(
        bench
            .ask("dladm show-linkprop -c -o value -p protection,allowed-ips an0")
            .1,
        "ip-nospoof\n10.88.0.17\n"
    );
    bench.do_all(&["zoneadm -z a halt"]);
    assert_eq!(
        bench
            .ask("dladm show-linkprop -c -o value -p protection,allowed-ips an0")
            .1,
        "\n\n"
    );
    bench.do_all(&["zfs unmount tank/ctl", "zfs destroy tank/ctl"]);
    let (code, text) = bench.ask("zoneadm -z a boot");
    assert!(
        code == 1 && text.contains("could not verify fs /rd/ctl: could not access /tank/ctl"),
        "{text}"
    );
}

/// The checks of zoneadm before it installs and boots (`verify_details`), with its messages.
#[test]
fn what_is_verified_is_told_as_by_the_real_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = bench();
    let disk = bench.machine.disk().clone();
    let mode = |path: &str, mode: u32| {
        let path = disk.real(path);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let install = "zoneadm -z a install -s tank/img@ready";
    let says = |line: &str, code: i32, text: &str| {
        assert_eq!(bench.ask(line), (code, text.to_owned()), "{line}");
    };
    let (code, text) = bench.ask("zoneadm -z a verify");
    assert!(
        code == 0 && text.starts_with("WARNING: /tank/zones/a does not exist"),
        "{text}"
    );
    // The parent directory of zonepaths.
    mode("/tank/zones", 0o775);
    says(
        install,
        1,
        "/tank/zones must not be group writable.\ncould not verify zonepath /tank/zones/a because of the above errors.\nzoneadm: zone a failed to verify\n",
    );
    mode("/tank/zones", 0o755);
    bench.do_all(&["zfs set setuid=off tank/zones"]);
    let (code, text) = bench.ask(install);
    assert!(
        code == 1 && text.starts_with("Zonepath /tank/zones/a is on a nosuid file system.\n"),
        "{text}"
    );
    bench.do_all(&["zfs inherit setuid tank/zones"]);
    // An existing root.
    std::fs::create_dir_all(disk.real("/tank/zones/a/root")).unwrap();
    mode("/tank/zones/a", 0o750);
    mode("/tank/zones/a/root", 0o700);
    says(
        install,
        1,
        "/tank/zones/a must not be group readable.\n/tank/zones/a must not be group executable.\n/tank/zones/a: changing permissions to 0700.\n/tank/zones/a/root mode is not 0755.\ncould not verify zonepath /tank/zones/a because of the above errors.\nzoneadm: zone a failed to verify\n",
    );
    assert_eq!(disk.mode("/tank/zones/a"), Some(0o700));
    std::fs::remove_dir_all(disk.real("/tank/zones/a")).unwrap();
    bench.do_all(&[install]);
    // Nested zonepaths.
    let within = "create -b;set brand=lx;set zonepath=/tank/zones/a/b;set ip-type=exclusive";
    let words = ["-z", "b", within].map(str::to_owned);
    assert_eq!(bench.machine.run("zonecfg", &words, b"").code, 0);
    let (code, text) = bench.ask("zoneadm -z b install -s tank/img@ready");
    assert!(
        code == 1
            && text.starts_with(
                "b zonepath (/tank/zones/a/b) and a zonepath (/tank/zones/a) overlap.\n"
            ),
        "{text}"
    );
    // File systems and privileges. These zonecfg refuses itself where it has the brand's lists.
    let config = disk.real("/usr/lib/brand/lx/config.xml");
    let text = std::fs::read_to_string(&config).unwrap();
    let without = text.lines().filter(|line| !line.contains("<privilege "));
    let without: String = without.map(|line| format!("{line}\n")).collect();
    assert_ne!(without, text);
    let (code, said) = {
        let words = ["-z", "a", "set limitpriv=default,frob"].map(str::to_owned);
        let reply = bench.machine.run("zonecfg", &words, b"");
        (
            reply.code,
            String::from_utf8_lossy(&reply.stderr).into_owned(),
        )
    };
    assert!(
        code == 1 && said.contains("a: invalid privilege: frob"),
        "{said}"
    );
    std::fs::write(&config, without).unwrap();
    for (lines, text) in [
        (
            "add fs;set dir=/x;set special=/x;set type=proc;end",
            "cannot verify fs /x: type proc is not allowed.\n",
        ),
        (
            "add fs;set dir=/x;set special=/x;set type=foofs;end",
            "could not verify fs /x: could not access /usr/lib/fs/foofs/mount: No such file or directory\n",
        ),
        (
            "add fs;set dir=/x;set special=/x;set raw=/x;set type=lofs;end",
            "cannot verify fs /x: 'raw' device specified but no fsck executable exists for lofs\n",
        ),
        (
            "add fs;set dir=/x;set special=/x;set type=ufs;end",
            "could not verify fs /x: must specify 'raw' device for ufs file systems\n",
        ),
        (
            "add fs;set dir=/x;set special=tank/x;set type=zfs;end",
            "could not verify fs /x: could not access zfs dataset 'tank/x'\n",
        ),
        (
            "add fs;set dir=/x;set special=swap;set type=tmpfs;end",
            "could not verify fs /x: could not access swap: No such file or directory\n",
        ),
        (
            "add dataset;set name=tank/x;end",
            "could not verify zfs dataset tank/x: dataset does not exist\n",
        ),
        (
            "set limitpriv=default,frob",
            "unknown privilege \"frob\" specified in the zone's privilege set\n",
        ),
        (
            "set limitpriv=default,sys_config",
            "privilege \"sys_config\" is not permitted within the zone's privilege set\n",
        ),
    ] {
        let undo = match lines.split(';').next() {
            Some("add fs") => "remove fs dir=/x",
            Some("add dataset") => "remove dataset name=tank/x",
            _ => "clear limitpriv",
        };
        for (lines, text) in [
            (lines, format!("{text}zoneadm: zone a failed to verify\n")),
            (undo, String::new()),
        ] {
            let words = ["-z", "a", lines].map(str::to_owned);
            assert_eq!(bench.machine.run("zonecfg", &words, b"").code, 0, "{lines}");
            bench.run("zoneadm -z a verify");
            mode("/tank/zones/a", 0o700);
            says("zoneadm -z a verify", i32::from(!text.is_empty()), &text);
        }
    }
    // A mount in the root keeps it from being uninstalled.
    bench.do_all(&["zfs create -o mountpoint=/tank/zones/a/root/x tank/x"]);
    says(
        "zoneadm -z a uninstall -F",
        1,
        "zoneadm: zone 'a': These file systems are mounted on subdirectories of /tank/zones/a/root.\n\n\t/tank/zones/a/root/x\n",
    );
    bench.do_all(&["zfs destroy tank/x"]);
    // It is moved by changing the mountpoint.
    bench.do_all(&["zoneadm -z a move /tank/zones/c"]);
    says(
        "zfs get -Ho value mountpoint tank/zones/a",
        0,
        "/tank/zones/c\n",
    );
    assert_eq!(
        bench.ask("zoneadm -z a list -p").1.split(':').nth(3),
        Some("/tank/zones/c")
    );
    assert!(!disk.exists("/tank/zones/a"));
    // A detached zone keeps its configuration in its zonepath, from which it can be created again.
    bench.do_all(&[
        "zoneadm -z a detach",
        "zonecfg -z a export -f /tmp/before",
        "zonecfg -z a delete -F",
    ]);
    let words = [
        "-z",
        "a",
        "create -a /tank/zones/nope; create -a /tank/zones/c",
    ]
    .map(str::to_owned);
    let reply = bench.machine.run("zonecfg", &words, b"");
    assert_eq!(
        (reply.code, reply.stderr),
        (0, b"invalid path to detached zone\n".to_vec())
    );
    let before = std::fs::read_to_string(disk.real("/tmp/before")).unwrap();
    assert_eq!(bench.ask("zonecfg -z a export"), (0, before));
    let (code, text) = bench.ask(install);
    assert!(
        code == 1
            && text.starts_with(
                "Cannot install detached zone.\nUse attach or remove /tank/zones/c directory.\n"
            ),
        "{text}"
    );
    bench.do_all(&["zoneadm -z a attach", "zoneadm -z a verify"]);
    assert!(!disk.exists("/tank/zones/c/SUNWdetached.xml"));
    for (line, code, text) in [
        (
            "zonecfg -R tank -z a info",
            2,
            "root path must be absolute: tank\n",
        ),
        (
            "zonecfg -R /nope -z a info",
            2,
            "root path must be a directory: /nope\n",
        ),
        (
            "zonecfg -z a export -f /nope/x",
            0,
            "opening file /nope/x: No such file or directory\n",
        ),
    ] {
        says(line, code, text);
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
fn a_second_command_on_a_zone_waits_for_the_first() {
    let bench = bench();
    let stall = Fault {
        id: 7,
        tool: Some("brand".to_owned()),
        // The zone is incomplete before its brand is asked; that of another one may be asked first.
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
