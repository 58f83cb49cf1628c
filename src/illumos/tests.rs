use std::time::Duration;

use super::parse::*;
use super::*;

/// A row for each known message; the texts are those of illumos.
#[test]
fn failures_are_told_apart_by_what_tools_say() {
    for (tool, code, words, class) in [
        (
            Tool::Zfs,
            1,
            "cannot create 'tank/a': dataset already exists",
            Class::Exists,
        ),
        (
            Tool::Zfs,
            1,
            "cannot create snapshot 'tank/a@s': dataset already exists",
            Class::Exists,
        ),
        (
            Tool::Zfs,
            1,
            "cannot hold snapshot 'tank/a@s': tag already exists on this dataset",
            Class::Exists,
        ),
        (
            Tool::Zfs,
            1,
            "cannot open 'tank/a': dataset does not exist",
            Class::NotFound,
        ),
        (
            Tool::Zfs,
            1,
            "cannot create 'tank/a/b': parent does not exist",
            Class::NotFound,
        ),
        (
            Tool::Zfs,
            1,
            "could not find any snapshots to destroy; check snapshot names.",
            Class::NotFound,
        ),
        (
            Tool::Zfs,
            1,
            "cannot release 'r' from 'tank/a@s': no such tag on this dataset",
            Class::NotFound,
        ),
        (
            Tool::Zpool,
            1,
            "cannot open 'tank': no such pool",
            Class::NotFound,
        ),
        (
            Tool::Zfs,
            1,
            "cannot destroy 'tank/a': dataset is busy",
            Class::Busy,
        ),
        (
            Tool::Zfs,
            1,
            "cannot unmount '/tank/a': Device busy",
            Class::Busy,
        ),
        (
            Tool::Zfs,
            1,
            "cannot set property for 'tank/a': dataset in use by local zone",
            Class::Busy,
        ),
        (
            Tool::Zfs,
            1,
            "cannot destroy 'tank/a': filesystem has children\nuse '-r' to destroy the following datasets:\ntank/a/b",
            Class::Dependents,
        ),
        (
            Tool::Zfs,
            1,
            "cannot destroy 'tank/a': filesystem has dependent clones\nuse '-R' to destroy the following datasets:\ntank/b",
            Class::Dependents,
        ),
        (
            Tool::Zfs,
            1,
            "cannot destroy 'tank/a@s': snapshot has dependent clones",
            Class::Dependents,
        ),
        (
            Tool::Zfs,
            1,
            "filesystem successfully created, but not mounted",
            Class::NotMounted,
        ),
        (
            Tool::Zfs,
            1,
            "cannot mount '/tank/a': directory is not empty",
            Class::State,
        ),
        (
            Tool::Zfs,
            1,
            "cannot create 'tank/a': out of space",
            Class::NoSpace,
        ),
        (
            Tool::Zfs,
            1,
            "cannot set property for 'tank/a': size is less than current used or reserved space",
            Class::NoSpace,
        ),
        (
            Tool::Zfs,
            1,
            "cannot create 'tank/a': pool is read-only",
            Class::ReadOnly,
        ),
        (
            Tool::Zfs,
            1,
            "cannot open 'tank': pool I/O is currently suspended",
            Class::Suspended,
        ),
        (
            Tool::Zfs,
            1,
            "cannot create 'tank/a': permission denied",
            Class::Permission,
        ),
        (
            Tool::Zfs,
            2,
            "invalid option 'u'\nusage:\n\tcreate ...",
            Class::Usage,
        ),
        (
            Tool::Zonecfg,
            1,
            "z1: No such zone configured",
            Class::NotFound,
        ),
        (
            Tool::Zoneadm,
            1,
            "zoneadm: z1: No such zone configured",
            Class::NotFound,
        ),
        (
            Tool::Zoneadm,
            1,
            "zoneadm: zone 'z1': zone is incomplete; uninstall required.",
            Class::State,
        ),
        (
            Tool::Zoneadm,
            1,
            "zoneadm: zone 'z1': is already installed.",
            Class::State,
        ),
        (
            Tool::Zoneadm,
            1,
            "zoneadm: zone 'z1': is already in state 'configured'.",
            Class::State,
        ),
        (
            Tool::Zoneadm,
            1,
            "zoneadm: zone 'z1': must be installed before boot.",
            Class::State,
        ),
        (
            Tool::Zoneadm,
            1,
            "zoneadm: zone 'z1': not running",
            Class::State,
        ),
        (
            Tool::Zoneadm,
            1,
            "zoneadm: zone 'z1': uninstall operation is invalid for running zones.",
            Class::State,
        ),
        (
            Tool::Zoneadm,
            1,
            "zoneadm: zone 'z1': another zoneadm may have an operation in progress.",
            Class::Busy,
        ),
        (
            Tool::Zoneadm,
            1,
            "zone 'z1': These file-systems are mounted on subdirectories of /tank/z1/root:",
            Class::Busy,
        ),
        (
            Tool::Zoneadm,
            1,
            "zone 'z1': failed to add network device",
            Class::Busy,
        ),
        (
            Tool::Zonecfg,
            1,
            "On line 2 of f:\nzonecfg: zone 'z1': nope: unknown brand.",
            Class::Brand,
        ),
        (
            Tool::Zonecfg,
            1,
            "z1: Zone exists, input not from terminal and -F not specified:",
            Class::Exists,
        ),
        (
            Tool::Zonecfg,
            2,
            "zonecfg: a/b: Bogus zone name",
            Class::Usage,
        ),
        (
            Tool::Zonecfg,
            1,
            "On line 3 of f:\nsyntax error at 'x'",
            Class::Usage,
        ),
        (
            Tool::Zoneadm,
            1,
            "zoneadm: boot: must be a privileged user",
            Class::Permission,
        ),
        (
            Tool::Dladm,
            1,
            "dladm: vnic creation over rdstub0 failed: object already exists",
            Class::Exists,
        ),
        (
            Tool::Dladm,
            1,
            "dladm: vnic deletion failed: link busy",
            Class::Busy,
        ),
        (
            Tool::Dladm,
            1,
            "dladm: vnic deletion failed: object not found",
            Class::NotFound,
        ),
        (
            Tool::Dladm,
            1,
            "dladm: invalid link name 'rdx'",
            Class::NotFound,
        ),
        (
            Tool::Dladm,
            1,
            "dladm: vnic creation over a0 failed: insufficient privileges",
            Class::Permission,
        ),
        (
            Tool::Dladm,
            1,
            "dladm: vnic creation over a0 failed: can't create persistent object on top of temporary object",
            Class::State,
        ),
        (
            Tool::Ipadm,
            1,
            "ipadm: cannot create interface rdgw0: Interface already exists",
            Class::Exists,
        ),
        (
            Tool::Ipadm,
            1,
            "ipadm: Could not create address: Address object already exists",
            Class::Exists,
        ),
        (
            Tool::Ipadm,
            1,
            "ipadm: cannot delete address: Object not found",
            Class::NotFound,
        ),
        (
            Tool::Ipnat,
            1,
            "/dev/ipnat: open: No such file or directory",
            Class::Disabled,
        ),
        (
            Tool::Ipnat,
            1,
            "ioctl(SIOCGNATS): I/O error",
            Class::Disabled,
        ),
        (Tool::Ipnat, 1, "ioctl(SIOCGNATS): Device busy", Class::Busy),
        (
            Tool::Prctl,
            1,
            "4711:\t/sbin/init\nprctl: no matching resource control to replace",
            Class::NotFound,
        ),
        (
            Tool::Ipnat,
            1,
            "1:ioctl(add/insert nat rule): File exists",
            Class::Exists,
        ),
        (
            Tool::Svcs,
            1,
            "svcs: Pattern 'x' doesn't match any instances",
            Class::NotFound,
        ),
        (
            Tool::Zfs,
            1,
            "cannot open 'tank': pool is unavailable",
            Class::Suspended,
        ),
        (
            Tool::Zfs,
            1,
            "cannot rename 'tank/a': pool or dataset exists",
            Class::Exists,
        ),
        (
            Tool::Zfs,
            1,
            "cannot set property for 'tank/a': read-only property",
            Class::Usage,
        ),
        (
            Tool::Zfs,
            1,
            "cannot create 'tank/a': name is too long",
            Class::Usage,
        ),
        (
            Tool::Zoneadm,
            1,
            "zone 'z': WARNING: zone root /z/root already in use by zone y",
            Class::Busy,
        ),
        (
            Tool::Zoneadm,
            1,
            "zone 'z': ERROR: net0:1: could not bring network interface up: address in use by zone 'y'",
            Class::Busy,
        ),
        (
            Tool::Zoneadm,
            1,
            "zone 'z': zone is already booted",
            Class::State,
        ),
        (
            Tool::Zoneadm,
            1,
            "zoneadm: zone 'z': is already running.",
            Class::State,
        ),
        (
            Tool::Zoneadm,
            1,
            "zoneadm: zone 'z': must be configured before install.",
            Class::State,
        ),
        (
            Tool::Zoneadm,
            1,
            "zoneadm: zone z is running; installed is required.",
            Class::State,
        ),
        (
            Tool::Zoneadm,
            1,
            "zone 'z': shutdown already in progress",
            Class::Busy,
        ),
        (
            Tool::Zoneadm,
            1,
            "zoneadm: zone 'z': insufficient privilege: Not owner",
            Class::Permission,
        ),
        (
            Tool::Zoneadm,
            1,
            "zoneadm: zone 'z': only a privileged user may halt a zone.",
            Class::Permission,
        ),
        (
            Tool::Zoneadm,
            1,
            "zoneadm: zone 'z': must be in the global zone to boot a zone.",
            Class::Permission,
        ),
        (
            Tool::Zoneadm,
            1,
            "zoneadm: User joe is not authorized to halt this zone.",
            Class::Permission,
        ),
        (
            Tool::Zoneadm,
            1,
            "zone 'z': unknown privilege \"x\" specified in the zone's privilege set",
            Class::Usage,
        ),
        (
            Tool::Zonecfg,
            1,
            "z: Zone state is invalid for the requested operation",
            Class::State,
        ),
        (
            Tool::Zonecfg,
            1,
            "WARNING: you do not have write access to this zone's configuration file;",
            Class::Permission,
        ),
        (
            Tool::Dladm,
            1,
            "dladm: vnic creation failed: MAC address is already in use",
            Class::Exists,
        ),
        (
            Tool::Dladm,
            1,
            "dladm: vnic creation over x failed: invalid link",
            Class::NotFound,
        ),
        (
            Tool::Dladm,
            1,
            "dladm: cannot set link property 'mtu' on 'x': MTU check failed, use lower MTU or -f option",
            Class::Usage,
        ),
        (
            Tool::Dladm,
            1,
            "dladm: vnic deletion failed: operation timed out",
            Class::Busy,
        ),
        (
            Tool::Ipadm,
            1,
            "ipadm: cannot create interface x: Interface already in use",
            Class::Busy,
        ),
        (
            Tool::Ipadm,
            1,
            "ipadm: cannot create interface x: Datalink does not exist",
            Class::NotFound,
        ),
        (
            Tool::Ipadm,
            1,
            "ipadm: could not create address: Insufficient user authorizations",
            Class::Permission,
        ),
        (
            Tool::Ipadm,
            1,
            "ipadm: could not create address: Could not communicate with ipmgmtd",
            Class::Disabled,
        ),
        (
            Tool::Ipadm,
            1,
            "ipadm: could not create address: Persistent operation on temporary object",
            Class::State,
        ),
        (
            Tool::Dladm,
            1,
            "dladm: warning: link property 'priority' must be one of: low,medium,high",
            Class::Usage,
        ),
        (
            Tool::Dladm,
            1,
            "dladm: warning: invalid link property 'colour'",
            Class::Usage,
        ),
        (Tool::Kstat, 1, "whatever", Class::Other),
    ] {
        assert_eq!(
            classify(tool, code, words),
            class,
            "{} {words:?}",
            tool.name()
        );
    }
}

#[test]
fn a_failure_says_what_was_typed_what_was_said_and_what_helps() {
    let command = Command::new(Tool::Zfs, ["create", "-o", "mountpoint=/a b", "tank/x"]);
    let failure = Failure::of(&command, 1, "", "cannot create 'tank/x': out of space\n");
    assert_eq!(
        failure.to_string(),
        "zfs create -o 'mountpoint=/a b' tank/x: cannot create 'tank/x': out of space; free space in the pool or raise the quota"
    );
    let command = Command::new(Tool::Zonecfg, ["-z", "z", "-f", "/x"]);
    let said = "On line 1 of /x:\nsyntax error at 'y'\nCommands:\n\tadd\n";
    assert_eq!(
        Failure::of(&command, 1, "", said).said,
        "On line 1 of /x:; syntax error at 'y'"
    );
    assert_eq!(Failure::of(&command, 3, "", " \n").said, "it ended with 3");
}

#[test]
fn what_zoneadm_lists_is_read_with_more_fields_and_escapes() {
    let text = "0:global:running:/::ipkg:shared\n\
                -:rd-a:installed:/tank/a\\:b/rd-a:6f1c:lx:excl:12\n\
                7:rd-b:running:/tank/rd-b:6f1d:lx:excl:\n\
                -:rd-c:configured:/tank/rd-c::lx:excl\n\
                9:rd-d:shutting_down:/tank/rd-d:1:reddwarf:shared:3:more\n\
                -:rd-e:nonsense:/x:1:lx:excl\n\
                noise\n";
    let rows = zones(text);
    let short: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.id,
                row.name.as_str(),
                row.state,
                row.path.as_str(),
                row.exclusive,
            )
        })
        .collect();
    assert_eq!(
        short,
        [
            (None, "rd-a", HostState::Installed, "/tank/a:b/rd-a", true),
            (Some(7), "rd-b", HostState::Running, "/tank/rd-b", true),
            (None, "rd-c", HostState::Configured, "/tank/rd-c", true),
            (
                Some(9),
                "rd-d",
                HostState::ShuttingDown,
                "/tank/rd-d",
                false
            ),
            (None, "rd-e", HostState::Unknown, "/x", true),
        ]
    );
    assert_eq!(rows[4].brand, "lx");
}

#[test]
fn what_the_other_tools_print_is_read() {
    assert_eq!(fields(r"a\:b:c\\d::"), ["a:b", r"c\d", "", ""]);
    assert_eq!(
        vnics("rdbn0:rdstub0:2\\:8\\:20\\:ab\\:cd\\:ef:0\nrdcn0:aggr0:2\\:5d\\:a\\:0\\:0\\:5:42\n"),
        [
            VnicRow {
                link: "rdbn0".into(),
                over: "rdstub0".into(),
                mac: "02:08:20:ab:cd:ef".into(),
                vlan: 0
            },
            VnicRow {
                link: "rdcn0".into(),
                over: "aggr0".into(),
                mac: "02:5d:0a:00:00:05".into(),
                vlan: 42
            },
        ]
    );
    assert_eq!(
        links("rdstub0:etherstub\n"),
        [("rdstub0".to_owned(), "etherstub".to_owned())]
    );
    assert_eq!(
        addresses("rdgw0/v4:ok:10.88.0.1/24\nlo0/v6:ok:\\:\\:1/128\n"),
        [
            (
                "rdgw0/v4".to_owned(),
                "ok".to_owned(),
                "10.88.0.1/24".to_owned()
            ),
            ("lo0/v6".to_owned(), "ok".to_owned(), "::1/128".to_owned()),
        ]
    );
    assert!(routing_on(
        "persistent=enabled default=disabled current=enabled"
    ));
    assert!(!routing_on(
        "persistent=enabled default=disabled current=disabled"
    ));
    let route =
        "   route to: default\ndestination: default\n    gateway: 10.0.0.1\n  interface: e1000g0\n";
    assert_eq!(default_link(route).as_deref(), Some("e1000g0"));
    assert_eq!(
        nat_rules(
            "List of active MAP/Redirect filters:\nmap e1000g0 10.88.0.0/24 -> 0.0.0.0/32 portmap tcp/udp auto\nrdr e1000g0 0.0.0.0/0 port 80 -> 10.88.0.3 port 8080 tcp\n\nList of active sessions:\nMAP 10.88.0.3 1 <- -> x\n"
        ),
        [
            rule("map e1000g0 10.88.0.0/24 -> 0/32 portmap tcp/udp auto"),
            rule("rdr  e1000g0 any port 80 -> 10.88.0.3 port 8080 tcp"),
        ]
    );
    let attributes = "attr:\n\tname: rd-uid\n\ttype: string\n\tvalue: 0af3\nattr:\n\tname: rd-label-0\n\ttype: string\n\tvalue: \"a=b c\"\n";
    assert_eq!(attribute(attributes, "rd-uid").as_deref(), Some("0af3"));
    assert_eq!(
        attribute(attributes, "rd-label-0").as_deref(),
        Some("a=b c")
    );
    assert_eq!(attribute("No such attr resource.\n", "rd-uid"), None);
    assert_eq!(
        kstats("zones:7:rd-b:nsec_user\t12\nlink:0:rdbn0:rbytes64\t9\n")[0],
        (
            ["zones", "7", "rd-b", "nsec_user"].map(str::to_owned),
            "12".to_owned()
        )
    );
}

fn tool(directory: &std::path::Path, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
}

#[tokio::test]
async fn tools_are_fed_timed_and_told_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    tool(path, "zfs", "cat; echo noise >&2; echo $LC_ALL");
    tool(path, "dladm", "echo 'dladm: x: link busy' >&2; exit 1");
    tool(path, "zoneadm", "sleep 600 & wait");
    // A process survives and holds the output open.
    tool(path, "ipadm", "echo said; sleep 600 & echo $! >\"$0.pid\"");
    let tools = HostTools::new(Some(path), &path.join("notes")).expect("made");
    let output = tools
        .run(&Command::new(Tool::Zfs, ["list"]).fed("fed\n"))
        .await
        .expect("ends well");
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("fed\nC\n", "noise\n")
    );
    let busy = tools.run(&Command::new(Tool::Dladm, ["x"])).await;
    assert_eq!(busy.expect_err("fails").class, Class::Busy);
    let mut slow = Command::new(Tool::Zoneadm, ["boot"]);
    slow.limit = Duration::from_millis(50);
    assert_eq!(
        tools.run(&slow).await.expect_err("killed").class,
        Class::TimedOut
    );
    let left = tools.run(&Command::new(Tool::Ipadm, ["x"])).await;
    assert_eq!(left.expect("ends").stdout, "said\n");
    let pid = std::fs::read_to_string(path.join("ipadm.pid")).expect("noted");
    let pid = pid
        .trim()
        .parse()
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::KILL)
        .expect("ours");
    let none = tools.run(&Command::new(Tool::Zonecfg, ["x"])).await;
    assert_eq!(none.expect_err("not there").class, Class::NoTool);
}

#[tokio::test]
async fn what_a_killed_agent_left_running_is_ended_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_owned();
    // The tool ends or is killed, its hook continues.
    tool(
        &path,
        "zoneadm",
        "(while :; do sleep 1; done) & echo $! >\"$0.pid\"; wait",
    );
    let tools = HostTools::new(Some(&path), &path.join("notes")).expect("made");
    let command = Command::new(Tool::Zoneadm, ["install"]).owned("rd-1");
    let hook = loop {
        // The future is dropped: the agent is gone.
        let begun = tokio::time::timeout(Duration::from_millis(20), tools.run(&command)).await;
        assert!(begun.is_err(), "it does not end by itself");
        let noted = std::fs::read_to_string(path.join("zoneadm.pid")).unwrap_or_default();
        if let Some(pid) = noted
            .trim()
            .parse()
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            break pid;
        }
        tools.settle("rd-1").await.expect("settled");
    };
    assert!(rustix::process::test_kill_process(hook).is_ok());
    tools.settle("rd-1").await.expect("settled");
    // It may stay a zombie until init reaps it, but its group has no living process.
    assert_eq!(
        std::fs::read_dir(path.join("notes")).expect("read").count(),
        0
    );
    tools.settle("rd-1").await.expect("again");
}
