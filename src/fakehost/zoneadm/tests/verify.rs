//! What zoneadm refuses before it boots a zone.

use super::{bench, state};

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

/// The checks before installing and booting (`verify_details`), with zoneadm's messages.
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
    // File systems and privileges. With the brand's lists zonecfg itself would reject these.
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
