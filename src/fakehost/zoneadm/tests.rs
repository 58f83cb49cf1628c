//! Tests of zoneadm against what the one of OmniOS prints and does.

mod failures;
mod states;
mod verify;

use crate::fakehost::zfs::tests::Bench;

/// The configuration of an lx zone with one link.
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
