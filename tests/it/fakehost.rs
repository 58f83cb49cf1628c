//! Tests the fake illumos host through its programs, without linking to the crate.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fakehost");

/// A host in its own directory.
struct Host(TempDir);

impl Host {
    /// A host created with these options.
    fn new(words: &[&str]) -> Self {
        let host = Host(tempfile::tempdir().expect("a directory"));
        let mut all = vec!["ctl", "init"];
        all.extend(words);
        host.fine(&all);
        host
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .env_remove("FAKEHOST_ROOT")
            .arg("--root")
            .arg(self.path())
            .args(words)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Told {
        Told::of(self.command(words).output().expect("it starts"))
    }

    /// Runs a command line; returns its exit status and output.
    fn line(&self, line: &str) -> Told {
        self.run(&line.split(' ').collect::<Vec<_>>())
    }

    /// The output of a command that must succeed.
    fn fine(&self, words: &[&str]) -> String {
        let told = self.run(words);
        assert_eq!(told.code, Some(0), "{words:?}: {}", told.err);
        told.out
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.path().join(path)).ok()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().expect("one")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    /// The state of a zone in the index file.
    fn state(&self, zone: &str) -> Option<String> {
        let index = self.read("etc/zones/index")?;
        let mut lines = index.lines().map(|line| line.split(':'));
        let mut fields = lines.find(|fields| fields.clone().next() == Some(zone))?;
        fields.nth(1).map(str::to_owned)
    }

    /// An image to install zones from, and a configured zone.
    fn with_zone(&self) {
        for line in [
            "zfs create -o mountpoint=/tank/zones tank/zones",
            "zfs create tank/img",
        ] {
            self.fine(&line.split(' ').collect::<Vec<_>>());
        }
        self.write("tank/img/root/sbin/init", "");
        self.write("tank/img/root/etc/alpine-release", "3.18.0\n");
        self.fine(&["zfs", "snapshot", "tank/img@ready"]);
        self.write("z1.cfg", ZONE);
        self.fine(&["zonecfg", "-z", "z1", "-f", "/z1.cfg"]);
    }
}

const ZONE: &str = "create -b
set brand=lx
set zonepath=/tank/zones/z1
set ip-type=exclusive
add attr
set name=kernel-version
set type=string
set value=5.10.0
end
add net
set physical=z1n0
set allowed-address=10.88.0.17/24
set defrouter=10.88.0.1
end
";

/// The output of a program, and its exit status, which is missing if it was killed.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Told {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Told {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

/// Checks a table of commands, exit statuses, and parts of either output.
fn check(host: &Host, table: &[(&str, i32, &str)]) {
    for (line, code, part) in table {
        let told = host.line(line);
        let fine = told.code == Some(*code) && (told.out.contains(part) || told.err.contains(part));
        assert!(fine, "{line}: wanted {code} {part:?}, got {told:?}");
    }
}

#[test]
fn tools_are_found_by_the_root_and_by_their_links() {
    let host = Host::new(&["-c"]);
    host.fine(&["zfs", "create", "tank/a"]);
    let links = host.path().join("bin");
    let shown = links.display().to_string();
    host.fine(&["ctl", "links", &shown]);
    let by_link = |tool: &str, root: bool, words: &[&str]| {
        let mut command = Command::new(links.join(tool));
        command.env_remove("FAKEHOST_ROOT").args(words);
        if root {
            command.env("FAKEHOST_ROOT", host.path());
        }
        Told::of(command.stdin(Stdio::null()).output().expect("it starts"))
    };
    let told = by_link("zfs", true, &["list", "-H", "-o", "name"]);
    assert_eq!((told.code, &*told.out), (Some(0), "tank\ntank/a\n"));
    for tool in [
        "zonecfg", "zoneadm", "zlogin", "dladm", "ipadm", "zfs", "zpool", "svcs", "svcadm",
        "svccfg", "svcprop", "kstat", "ipnat", "ipf", "prctl", "route", "routeadm", "zonename",
        "ppriv",
    ] {
        assert!(links.join(tool).exists(), "{tool}");
    }
    assert!(!links.join("ctl").exists(), "it is no tool of a host");
    // The host must be specified.
    let told = by_link("zfs", false, &["list"]);
    assert_eq!(told.code, Some(70));
    assert!(told.err.contains("usage: fakehost"), "{}", told.err);
    assert_eq!(host.line("nosuchtool").code, Some(70));
    // A feature of the real tool that is not implemented is reported, and does nothing.
    let told = host.line("zfs destroy -n tank/a");
    assert_eq!(told.code, Some(70), "{}", told.err);
    assert!(told.err.contains("not played"), "{}", told.err);
    assert_eq!(host.line("ctl init").code, Some(70), "there is one already");
    // A directory without a host becomes one.
    let other = Host(tempfile::tempdir().expect("a directory"));
    assert_eq!(other.fine(&["zpool", "list", "-H", "-o", "name"]), "tank\n");
}

#[test]
fn zones_are_on_disk_as_the_real_tools_have_them() {
    let host = Host::new(&["-c"]);
    host.with_zone();
    let text = host.read("etc/zones/z1.xml").expect("a configuration");
    for part in [
        "<!DOCTYPE zone PUBLIC \"-//Sun Microsystems Inc//DTD Zones//EN\" \"file:///usr/share/lib/xml/dtd/zonecfg.dtd.1\">",
        "<zone name=\"z1\" zonepath=\"/tank/zones/z1\"",
        "brand=\"lx\"",
        "ip-type=\"exclusive\"",
        "allowed-address=\"10.88.0.17/24\"",
        "<attr name=\"kernel-version\" type=\"string\" value=\"5.10.0\"/>",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let index = host.read("etc/zones/index").expect("an index");
    assert!(index.contains("z1:configured:/tank/zones/z1:\n"), "{index}");
    host.fine(&["zoneadm", "-z", "z1", "install", "-s", "tank/img@ready"]);
    let index = host.read("etc/zones/index").expect("an index");
    assert!(index.contains("z1:installed:/tank/zones/z1:"), "{index}");
    // Its uuid is known once it is installed.
    let line = host.fine(&["zoneadm", "-z", "z1", "list", "-p"]);
    let fields: Vec<&str> = line.trim_end().split(':').collect();
    assert_eq!(fields.len(), 8, "{line}");
    assert_eq!(fields[..4], ["-", "z1", "installed", "/tank/zones/z1"]);
    assert_eq!(fields[4].len(), 36, "{line}");
    assert_eq!(fields[5..7], ["lx", "excl"]);
    assert!(host.path().join("tank/zones/z1/root/sbin/init").exists());
    // The remains of a partial configuration are also kept.
    host.write(
        "z2.cfg",
        "create -b\nset brand=lx\nset zonepath=/tank/zones/z2\nset max-lwps=5\n",
    );
    let told = host.line("zonecfg -z z2 -f /z2.cfg");
    assert_eq!(told.code, Some(1));
    assert_eq!(host.state("z2").as_deref(), Some("configured"));
    for _ in 0..2 {
        host.line("zonecfg -z z2 delete -F");
    }
    assert_eq!(host.state("z2"), None);
    assert_eq!(host.read("etc/zones/z2.xml"), None);
}

#[test]
fn the_nth_command_fails_is_killed_or_stalls() {
    let host = Host::new(&["-c"]);
    let there = |dataset: &str| host.line(&format!("zfs list {dataset}")).code == Some(0);
    // The second creation from now; other commands do not count.
    host.fine(&[
        "ctl",
        "fault",
        "-t",
        "zfs",
        "-c",
        "create",
        "-n",
        "2",
        "fail",
        "cannot create: out of space",
        "1",
    ]);
    assert_eq!(host.line("zfs create tank/a").code, Some(0));
    assert!(there("tank/a"));
    let told = host.line("zfs create tank/b");
    assert_eq!(
        (told.code, &*told.err),
        (Some(1), "cannot create: out of space\n")
    );
    assert!(!there("tank/b"));
    assert_eq!(host.line("zfs create tank/b").code, Some(0), "once");
    for (when, done) in [("before", false), ("halfway", true), ("after", true)] {
        host.fine(&["ctl", "fault", "-t", "zfs", "-w", when, "crash"]);
        let name = format!("tank/killed-{when}");
        let told = host.line(&format!("zfs create {name}"));
        assert_eq!(told.code, None, "{when}: it is killed");
        assert_eq!(there(&name), done, "{when}");
    }
    // A killed hook leaves the zone incomplete; the only way on is to undo it.
    host.with_zone();
    host.fine(&[
        "ctl",
        "fault",
        "-t",
        "brand",
        "-w",
        "halfway:destroyed",
        "crash",
    ]);
    assert_eq!(
        host.line("zoneadm -z z1 install -s tank/img@ready").code,
        Some(1)
    );
    assert_eq!(host.state("z1").as_deref(), Some("incomplete"));
    check(
        &host,
        &[
            (
                "zoneadm -z z1 install -s tank/img@ready",
                1,
                "zone is incomplete; uninstall required.",
            ),
            ("zoneadm -z z1 boot", 1, ""),
            // The dataset was destroyed together with its mountpoint, without which the zone cannot be removed.
            (
                "zoneadm -z z1 uninstall -F",
                1,
                "zonepath /tank/zones/z1 does not exist",
            ),
        ],
    );
    std::fs::create_dir(host.path().join("tank/zones/z1")).expect("made");
    check(
        &host,
        &[
            ("zoneadm -z z1 uninstall -F", 0, ""),
            ("zoneadm -z z1 install -s tank/img@ready", 0, ""),
        ],
    );
    // A stalled command continues when it is released, and not before.
    let number = host.fine(&["ctl", "fault", "-t", "zfs", "-c", "tank/late", "stall"]);
    let mark = host
        .path()
        .join(format!("var/fakehost/stall.{}", number.trim()));
    let mut late = host
        .command(&["zfs", "create", "tank/late"])
        .spawn()
        .expect("it starts");
    while !mark.exists() {
        assert!(
            late.try_wait().expect("asked").is_none(),
            "it did not stall"
        );
        std::thread::yield_now();
    }
    assert!(!there("tank/late"));
    host.fine(&["ctl", "release", number.trim()]);
    assert!(late.wait().expect("it ends").success());
    assert!(there("tank/late"));
    assert_eq!(host.line("ctl release 99").code, Some(1));
    // A command that loses its caller continues: the caller is a shell here, and is killed.
    host.fine(&["ctl", "fault", "-t", "zfs", "-c", "tank/orphan", "orphan"]);
    let line = format!(
        "'{PROGRAM}' --root '{}' zfs create tank/orphan; true",
        host.path().display()
    );
    let caller = Command::new("sh")
        .args(["-c", &line])
        .status()
        .expect("it starts");
    assert_eq!(caller.code(), None, "it is killed");
    while !there("tank/orphan") {}
    host.fine(&["ctl", "fault", "-t", "zfs", "crash"]);
    host.fine(&["ctl", "forget"]);
    assert_eq!(host.fine(&["ctl", "faults"]), "");
}

#[test]
fn tools_answer_with_the_texts_and_statuses_of_the_real_ones() {
    let host = Host::new(&["-c"]);
    host.with_zone();
    check(
        &host,
        &[
            (
                "zoneadm -z nosuch list -p",
                1,
                "zoneadm: nosuch: No such zone configured",
            ),
            ("zoneadm -z z1 list -cp", 2, "usage:"),
            ("zoneadm list -pv", 1, "mutually exclusive"),
            ("zoneadm frob", 2, "Subcommands:"),
            (
                "zoneadm -z z1 boot",
                1,
                "zoneadm: zone 'z1': must be installed before boot.",
            ),
            (
                "zoneadm -z z1 halt",
                1,
                "halt operation is invalid for zones in state 'configured'",
            ),
            ("zoneadm -z z1 shutdown", 1, "not running"),
            ("zoneadm -z z1 reboot", 1, "not running"),
            (
                "zoneadm -z z1 uninstall -F",
                1,
                "is already in state 'configured'.",
            ),
            (
                "zoneadm -z z1 install -s tank/img@nosuch",
                1,
                "dataset does not exist",
            ),
            ("zoneadm -z z1 list -p", 0, ":incomplete:"),
            ("zoneadm -z z1 uninstall -F", 0, ""),
            // Output on standard error is not a failure.
            (
                "zoneadm -z z1 install -s tank/img@ready",
                0,
                "rmdir: directory",
            ),
            (
                "zoneadm -z z1 install -s tank/img@ready",
                1,
                "is already installed.",
            ),
            ("zoneadm -z z1 uninstall", 1, "not from terminal"),
            ("zoneadm -z z1 boot", 1, "failed to add network device"),
            ("dladm create-etherstub -t stub0", 0, ""),
            ("dladm create-vnic -t -l stub0 z1n0", 0, ""),
            ("zoneadm -z z1 boot", 0, ""),
            ("zoneadm -z z1 boot", 0, "zone is already booted"),
            (
                "zoneadm -z z1 uninstall -F",
                1,
                "uninstall operation is invalid for running zones.",
            ),
            ("zlogin nosuch id", 1, "unknown"),
            ("zlogin", 2, "usage:"),
            (
                "dladm delete-vnic -t z1n0",
                1,
                "dladm: vnic deletion failed: link busy",
            ),
            (
                "dladm show-linkprop -c -o value -p allowed-ips z1n0",
                0,
                "10.88.0.17\n",
            ),
            ("zoneadm -z z1 halt", 0, ""),
            ("zoneadm -z z1 halt", 0, "zone is already halted"),
            (
                "dladm show-linkprop -c -o value -p allowed-ips z1n0",
                0,
                "\n",
            ),
            (
                "zlogin z1 id",
                1,
                "login allowed only to running zones (z1 is 'installed')",
            ),
            (
                "dladm set-linkprop -t -p protection=mac-nospoof z1n0",
                0,
                "",
            ),
            ("zoneadm -z z1 boot", 1, "Protection is already set"),
            (
                "zonecfg -z z1 set brand=ipkg",
                0,
                "already installed; set brand not allowed.",
            ),
            (
                "zonecfg -z z1 delete",
                1,
                "Input not from terminal and -F not specified:",
            ),
            ("zonecfg -z z1 delete -F", 0, ""),
            ("zfs list -H -o name tank/zones/z1", 0, "tank/zones/z1\n"),
            ("zonecfg -z z1 delete -F", 1, "z1: No such zone configured"),
            ("zonecfg -z _bad info", 2, "Bogus zone name"),
        ],
    );
    check(
        &host,
        &[
            (
                "dladm create-vnic -t -l stub0 z1n0",
                1,
                "dladm: vnic creation over stub0 failed: object already exists",
            ),
            (
                "dladm create-vnic -t -l stub0 rd-1",
                1,
                "dladm: invalid link name 'rd-1'",
            ),
            (
                "dladm create-vnic -t -l stub0 rd007",
                1,
                "dladm: invalid link name 'rd007'",
            ),
            (
                "dladm create-vnic -l stub0 a1",
                1,
                "can't create persistent object on top of temporary object",
            ),
            (
                "dladm create-etherstub -t stub0",
                1,
                "etherstub creation failed: object already exists",
            ),
            ("dladm show-vnic nosuch0", 1, "object not found"),
            (
                "dladm show-vnic -p",
                1,
                "output fields must be specified in parsable mode",
            ),
            ("dladm show-vnic -p -o link,over", 0, "z1n0:stub0\n"),
            ("dladm show-link -p -o class stub0", 0, "etherstub\n"),
            (
                "ipadm create-addr -t -T static -a 10.88.0.1/24 z1n0/v4",
                0,
                "",
            ),
            (
                "ipadm create-addr -t -T static -a 10.88.0.1/24 z1n0/v4",
                1,
                "Could not create address: Address object already exists",
            ),
            (
                "ipadm create-addr -t -T static -a 10.88.0.1/24 z1n0/v5",
                1,
                "Address already in use",
            ),
            ("ipadm create-if -t z1n0", 1, "Interface already exists"),
            (
                "ipadm show-addr -p -o addrobj,state,addr",
                0,
                "z1n0/v4:ok:10.88.0.1/24\n",
            ),
            ("dladm delete-vnic -t z1n0", 1, "link busy"),
            ("ipadm delete-addr z1n0/nosuch", 1, "Object not found"),
            ("ipadm delete-addr z1n0/v4", 0, ""),
            ("ipadm delete-if z1n0", 0, ""),
            ("dladm delete-vnic -t z1n0", 0, ""),
            // The requested option is not named in the output, others are.
            (
                "routeadm -p ipv4-forwarding",
                0,
                "persistent=disabled default=disabled current=disabled\n",
            ),
            ("routeadm -e ipv4-forwarding", 0, ""),
            ("routeadm -u", 0, ""),
            (
                "routeadm -p",
                0,
                "ipv4-forwarding persistent=enabled default=disabled current=enabled\n",
            ),
            ("routeadm -p nosuch", 1, "nosuch"),
            ("route -n get default", 1, "not in table"),
            ("ipnat -l", 1, "ioctl(SIOCGNATS): I/O error\n"),
            ("svcs -H -o state network/ipfilter", 0, "disabled\n"),
            ("svcadm enable network/ipfilter", 0, ""),
            ("ipnat -l", 0, "List of active MAP/Redirect filters:"),
            (
                "svcs -H -o state nosuch",
                1,
                "svcs: Pattern 'nosuch' doesn't match any instances",
            ),
            ("svcadm enable nosuch", 1, "doesn't match any instances"),
            ("svcprop -p general/enabled nosuch", 1, "doesn't match any"),
            ("svccfg validate /nosuch.xml", 1, "nosuch.xml"),
            (
                "kstat -p zones:0::zonename",
                0,
                "zones:0:global:zonename\tglobal\n",
            ),
            ("kstat -p nosuch:0", 1, ""),
            ("prctl -i zone nosuch", 1, "prctl: nosuch: unknown zone\n"),
            (
                "svcs -o state,fmri network/ipfilter",
                0,
                "STATE          FMRI\nonline         svc:/network/ipfilter:default\n",
            ),
            ("svcs -o frob", 1, "svcs: Unknown column \"frob\"."),
            (
                "svcs -q",
                2,
                "svcs: illegal option -- q\nUsage: svcs [-aHpv]",
            ),
            ("zonename", 0, "global\n"),
            ("ppriv -S 1", 0, "E: all\n"),
        ],
    );
    check(
        &host,
        &[
            ("zfs create tank/a", 0, ""),
            (
                "zfs create tank/a",
                1,
                "cannot create 'tank/a': dataset already exists",
            ),
            ("zfs create -p -o quota=1G tank/a", 0, ""),
            ("zfs get -Hp -o value quota tank/a", 0, "0\n"),
            (
                "zfs create tank/x/y",
                1,
                "cannot create 'tank/x/y': parent does not exist",
            ),
            ("zfs create -u tank/u", 2, "invalid option 'u'"),
            (
                "zfs list tank/nosuch",
                1,
                "cannot open 'tank/nosuch': dataset does not exist",
            ),
            ("zfs snapshot tank/a@s", 0, ""),
            ("zfs clone tank/a@s tank/c", 0, ""),
            (
                "zfs destroy tank/a@s",
                1,
                "snapshot has dependent clones\nuse '-R'",
            ),
            ("zfs destroy tank/a", 1, "filesystem has children\nuse '-r'"),
            (
                "zfs destroy -r tank/a",
                1,
                "filesystem has dependent clones\nuse '-R'",
            ),
            ("zfs promote tank/c", 0, ""),
            ("zfs destroy -r tank/a", 0, ""),
            ("zfs hold k tank/c@s", 0, ""),
            (
                "zfs destroy tank/c@s",
                1,
                "cannot destroy 'tank/c@s': dataset is busy",
            ),
            ("zfs set quota=none tank/c", 0, ""),
            ("zfs set nosuch=1 tank/c", 1, "invalid property 'nosuch'"),
            // A dataset that is or was delegated: its mountpoint can only be changed in a zone.
            ("zfs set mountpoint=none tank/c", 0, ""),
            ("zfs set zoned=on tank/c", 0, ""),
            (
                "zfs set mountpoint=/c tank/c",
                1,
                "'mountpoint' cannot be set on dataset in a non-global zone",
            ),
            ("zfs mount tank/c", 1, "dataset is exported to a local zone"),
            ("zpool list nosuch", 1, "no such pool"),
            ("zpool list -H -o health tank", 0, "ONLINE\n"),
            ("zpool status -x", 0, "all pools are healthy"),
        ],
    );
    // Full, suspended and read-only pools are reported as such.
    for (state, text) in [
        ("full", "out of space"),
        ("suspended", "pool I/O is currently suspended"),
        ("read-only", "read-only"),
    ] {
        host.fine(&["ctl", "pool", "tank", state]);
        let told = host.line("zfs create tank/more");
        assert_eq!(told.code, Some(1), "{state}");
        assert!(told.err.contains(text), "{state}: {}", told.err);
    }
}

#[test]
fn a_file_system_that_is_checked_before_names_its_raw_device() {
    let host = Host::new(&[]);
    host.with_zone();
    let add = "select fs dir=/d\nset type=";
    for (kind, raw, part) in [
        (
            "ufs",
            "set special=/dev/dsk/x\n",
            "could not verify fs /d: must specify 'raw' device for ufs file systems",
        ),
        (
            "lofs",
            "set raw=/dev/rdsk/x\n",
            "cannot verify fs /d: 'raw' device specified but no fsck executable exists for lofs",
        ),
    ] {
        host.write("etc-d", "");
        host.write("fs.cfg", &format!("add fs\nset dir=/d\nset special=/etc-d\nset type=lofs\nend\n{add}{kind}\n{raw}end\n"));
        host.fine(&["zonecfg", "-z", "z1", "-f", "/fs.cfg"]);
        let told = host.line("zoneadm -z z1 verify");
        assert_eq!(told.code, Some(1), "{kind}");
        assert!(told.err.contains(part), "{kind}: {}", told.err);
        host.fine(&["zonecfg", "-z", "z1", "remove fs dir=/d"]);
    }
}
