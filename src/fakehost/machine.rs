//! A host in a directory; its tools run in this process or as separate processes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};

use parking_lot::{Condvar, Mutex};

use super::disk::Disk;
use super::host::{Dataset, Health, Host, Inits, Link, LinkClass, Pool};
use super::run::{self, Run};
use super::store::ConfigStore;
use super::zoneadm;
use super::zonecfg::Flavour;
use super::{Reply, exit, privileges, tools};

/// The properties of a new host.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The distribution.
    pub flavour: Flavour,
    /// How a zone's init is played.
    pub inits: Inits,
    /// The name of its pool.
    pub pool: String,
    /// The mountpoint of the pool's file system; `/POOL` by default.
    pub mountpoint: Option<String>,
    /// The pool's size in bytes.
    pub size: u64,
    /// Physical NICs.
    pub nics: Vec<String>,
    /// Installed brands.
    pub brands: Vec<String>,
    /// Whether a brand checks the configurations of its zones, as lx does on a real host.
    pub checks: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Layout {
            flavour: Flavour::Omnios,
            inits: Inits::Simulated,
            pool: "tank".to_owned(),
            mountpoint: None,
            size: 64 << 30,
            nics: vec!["e1000g0".to_owned()],
            brands: ["lx", "ipkg", "lipkg", "sparse", "bhyve"]
                .map(str::to_owned)
                .to_vec(),
            checks: true,
        }
    }
}

impl Layout {
    /// The host whose zonecfg was recorded: it also had the brand `reddwarf`, and no brand checked anything.
    pub fn recorded() -> Self {
        let mut layout = Layout {
            checks: false,
            ..Layout::default()
        };
        layout.brands.push("reddwarf".to_owned());
        layout
    }
}

/// A host in a directory. Clones share the same host.
#[derive(Debug, Clone)]
pub struct Machine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Disk,
    program: Option<PathBuf>,
    busy: Mutex<Busy>,
    idle: Condvar,
}

/// How many commands run in this process.
#[derive(Debug, Default)]
struct Busy {
    all: usize,
    /// How many of them are hooks of brands, which belong to the group of the tool that started them.
    hooks: usize,
}

/// A running command.
#[derive(Debug)]
pub struct Running {
    answer: Receiver<Reply>,
    kill: Arc<AtomicBool>,
}

impl Running {
    /// Waits for its end.
    pub fn wait(self) -> Reply {
        self.answer.recv().unwrap_or(Reply {
            killed: true,
            ..Reply::default()
        })
    }

    /// Waits for its end or until `killed` is set, which ends only the waiting.
    pub(super) fn wait_unless(self, killed: &AtomicBool) -> Option<Reply> {
        loop {
            match self
                .answer
                .recv_timeout(std::time::Duration::from_millis(2))
            {
                Ok(reply) => return Some(reply),
                Err(RecvTimeoutError::Disconnected) => {
                    return Some(Reply {
                        killed: true,
                        ..Reply::default()
                    });
                }
                Err(RecvTimeoutError::Timeout) if killed.load(Ordering::SeqCst) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Kills it at its next step; its helpers continue.
    pub fn kill(&self) {
        self.kill.store(true, Ordering::SeqCst);
    }
}

const BRAND: &str = "<?xml version=\"1.0\"?>
<!DOCTYPE brand PUBLIC \"-//Sun Microsystems Inc//DTD Brands//EN\" \"file:///usr/share/lib/xml/dtd/brand.dtd.1\">
<brand name=\"NAME\">
CHECKPRIVILEGES</brand>
";

/// The hook with which the brand lx checks a configuration before it is saved.
const CHECK: &str = "\t<verify_cfg>/usr/lib/brand/lx/lx_support verify</verify_cfg>\n";

impl Machine {
    /// The host in `root`, with tools that run in this process.
    pub fn open(root: &Path) -> io::Result<Self> {
        Self::with(root, None)
    }

    fn with(root: &Path, program: Option<PathBuf>) -> io::Result<Self> {
        let root = root.canonicalize()?;
        Ok(Machine(Arc::new(Inner {
            disk: Disk::new(&root),
            program,
            busy: Mutex::default(),
            idle: Condvar::new(),
        })))
    }

    /// The host in `root`, for a tool that is a separate process: its helpers become processes of `program`, too. A
    /// directory without a host becomes the host of the recordings.
    pub fn of_processes(root: &Path, program: PathBuf) -> io::Result<Self> {
        if !root.join("var/fakehost/host.json").exists() {
            match Self::create(root, &Layout::recorded()) {
                Ok(_) => {}
                // Another tool has created it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Self::with(root, Some(program))
    }

    /// Creates a host in `root`.
    ///
    /// # Errors
    /// There is one already, or the directory cannot be written.
    pub fn create(root: &Path, layout: &Layout) -> io::Result<Self> {
        fs::create_dir_all(root.join("var/fakehost/data"))?;
        let machine = Self::open(root)?;
        let file = machine.state_file();
        let lock = machine.lock()?;
        if file.exists() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is a host already", root.display()),
            ));
        }
        let brands = root.join("usr/lib/brand");
        // Without a brand's lists, zonecfg accepts any privileges.
        let privileges = match layout.checks {
            true => privileges::elements(),
            false => String::new(),
        };
        for brand in &layout.brands {
            fs::create_dir_all(brands.join(brand))?;
            fs::write(
                brands.join(brand).join("config.xml"),
                BRAND
                    .replace("NAME", brand)
                    .replace("PRIVILEGES", &privileges)
                    .replace(
                        "CHECK",
                        match brand.as_str() {
                            "lx" if layout.checks => CHECK,
                            _ => "",
                        },
                    ),
            )?;
        }
        if layout.brands.iter().any(|b| b == "lx") {
            for distribution in ["busybox", "debian", "redhat", "suse", "ubuntu", "void"] {
                fs::write(
                    brands
                        .join("lx")
                        .join(format!("lx_boot_zone_{distribution}")),
                    "",
                )?;
            }
        }
        if layout.brands.iter().any(|b| b == zoneadm::OURS) {
            let own = brands.join(zoneadm::OURS);
            let text = zoneadm::CONFIG.replace("\t<!-- PRIVILEGES -->\n", &privileges);
            fs::write(own.join("config.xml"), text)?;
            fs::write(own.join("platform.xml"), zoneadm::PLATFORM)?;
            fs::write(root.join(&zoneadm::INIT[1..]), "")?;
        }
        for directory in ["etc", "tmp", "dev", "lib", "sbin", "var/run/zones"] {
            fs::create_dir_all(root.join(directory))?;
        }
        fs::write(root.join("etc/netconfig"), "")?;
        ConfigStore::open(root)?;
        let host = machine.first(layout);
        machine.store(&host)?;
        drop(lock);
        run::locked(&machine, super::zfs::import)?;
        Ok(machine)
    }

    fn first(&self, layout: &Layout) -> Host {
        let mut host = Host::new(layout.flavour, layout.inits);
        let pool = Pool {
            size: layout.size,
            taken: 0,
            health: Health::Online,
            imported: true,
            late: false,
        };
        host.pools.insert(layout.pool.clone(), pool);
        let mut top = Dataset::new(host.number(), run::now());
        if let Some(mountpoint) = &layout.mountpoint {
            top.properties
                .insert("mountpoint".to_owned(), mountpoint.clone());
        }
        host.pending.push(super::disk::DiskOp::Fresh { id: top.id });
        host.datasets.insert(layout.pool.clone(), top);
        for nic in &layout.nics {
            let mac = host.mac();
            host.links
                .insert(nic.clone(), Link::new(LinkClass::Phys, None, mac));
        }
        host
    }

    /// Its files.
    pub fn disk(&self) -> &Disk {
        &self.0.disk
    }

    /// Its zone configurations.
    pub fn configurations(&self) -> io::Result<ConfigStore> {
        ConfigStore::open(self.0.disk.root())
    }

    pub(super) fn own(&self) -> PathBuf {
        self.0.disk.root().join("var/fakehost")
    }

    fn state_file(&self) -> PathBuf {
        self.own().join("host.json")
    }

    /// Takes the lock of the host's state.
    pub(super) fn lock(&self) -> io::Result<File> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.own().join("lock"))?;
        file.lock()?;
        Ok(file)
    }

    /// Reads the host's state; must be called under the lock if it is to be written again.
    pub fn state(&self) -> io::Result<Host> {
        let file = self.state_file();
        let text = fs::read(&file).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("no host in {}: {error}", self.0.disk.root().display()),
            )
        })?;
        serde_json::from_slice(&text).map_err(io::Error::from)
    }

    /// Writes the host's state.
    pub(super) fn store(&self, host: &Host) -> io::Result<()> {
        let file = self.state_file();
        let partial = file.with_extension("new");
        fs::write(&partial, serde_json::to_vec(host)?)?;
        fs::rename(partial, file)
    }

    /// Whether a command is stalled, or a zone stuck: what waits for it may wait forever.
    pub fn is_held_up(&self) -> bool {
        let mut files = fs::read_dir(self.own()).into_iter().flatten().flatten();
        let stalled = files.any(|file| file.file_name().to_string_lossy().starts_with("stall."));
        let stuck = |host: Host| host.zones.values().any(|zone| zone.stuck.is_some());
        stalled || self.state().is_ok_and(stuck)
    }

    /// Changes the host under its lock in ways that a real host would not, for tests.
    pub fn change<T>(&self, change: impl FnOnce(&mut Host, &Disk) -> T) -> io::Result<T> {
        run::locked(self, change)
    }

    pub(super) fn log(&self, line: &serde_json::Value) {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.own().join("log"));
        if let Ok(mut file) = file {
            let _ = file.write_all(format!("{line}\n").as_bytes());
        }
    }

    /// Starts a tool in this process.
    pub fn start(&self, tool: &str, args: &[String], stdin: &[u8]) -> Running {
        self.begin(tool, args, stdin, false)
    }

    fn begin(&self, tool: &str, args: &[String], stdin: &[u8], hook: bool) -> Running {
        let (sender, answer) = sync_channel(2);
        let kill = Arc::new(AtomicBool::new(false));
        let (machine, killed) = (self.clone(), kill.clone());
        let (tool, args, stdin) = (tool.to_owned(), args.to_vec(), stdin.to_vec());
        {
            let mut busy = self.0.busy.lock();
            busy.all += 1;
            busy.hooks += usize::from(hook);
        }
        std::thread::spawn(move || {
            let reply = machine.run_here(&tool, &args, &stdin, killed, Some(sender.clone()));
            let _ = sender.try_send(reply);
            {
                let mut busy = machine.0.busy.lock();
                busy.all -= 1;
                busy.hooks -= usize::from(hook);
            }
            machine.0.idle.notify_all();
        });
        Running { answer, kill }
    }

    /// Runs a tool in this process and waits for it.
    pub fn run(&self, tool: &str, args: &[String], stdin: &[u8]) -> Reply {
        self.start(tool, args, stdin).wait()
    }

    /// Waits until no command started here runs any more, including orphans.
    pub fn idle(&self) {
        let mut busy = self.0.busy.lock();
        while busy.all > 0 {
            self.0.idle.wait(&mut busy);
        }
    }

    /// Waits until no hook of a brand runs any more. Commands of zoneadmd, which belong to no tool's group, continue.
    pub fn hooks_end(&self) {
        let mut busy = self.0.busy.lock();
        while busy.hooks > 0 {
            self.0.idle.wait(&mut busy);
        }
    }

    /// Runs a tool on this thread.
    pub fn run_here(
        &self,
        tool: &str,
        args: &[String],
        stdin: &[u8],
        kill: Arc<AtomicBool>,
        caller: Option<SyncSender<Reply>>,
    ) -> Reply {
        let name = tool.rsplit('/').next().unwrap_or(tool);
        let Some(function) = tools::find(name) else {
            return Reply {
                code: exit::NOT_PLAYED,
                stderr: format!("fakehost: {name} is not a tool of this host\n").into_bytes(),
                ..Reply::default()
            };
        };
        Run::new(self, name, kill, caller).all(function, args, stdin)
    }

    /// Starts a helper of a tool: zoneadmd in its own group, a hook in the tool's.
    pub(super) fn helper(
        &self,
        tool: &str,
        args: &[String],
        own_group: bool,
    ) -> io::Result<Running> {
        use std::os::unix::process::CommandExt as _;
        let Some(program) = &self.0.program else {
            return Ok(self.begin(tool, args, b"", !own_group));
        };
        let mut command = std::process::Command::new(program);
        command
            .arg("--root")
            .arg(self.0.disk.root())
            .arg(tool)
            .args(args)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        if own_group {
            command.process_group(0);
        }
        let child = command.spawn()?;
        let (sender, answer) = sync_channel(1);
        std::thread::spawn(move || {
            if let Ok(output) = child.wait_with_output() {
                let _ = sender.send(Reply {
                    code: output.status.code().unwrap_or_default(),
                    stdout: output.stdout,
                    stderr: output.stderr,
                    killed: output.status.code().is_none(),
                });
            }
        });
        Ok(Running {
            answer,
            kill: Arc::new(AtomicBool::new(false)),
        })
    }

    /// The program that plays the tools, if they are separate processes.
    pub(super) fn program(&self) -> Option<&Path> {
        self.0.program.as_deref()
    }

    /// Whether tools are separate processes.
    pub(super) fn has_processes(&self) -> bool {
        self.0.program.is_some()
    }

    /// The entries of the log: one when a command begins, and one when it ends.
    pub fn log_lines(&self) -> io::Result<Vec<serde_json::Value>> {
        let text = match fs::read_to_string(self.own().join("log")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        text.lines()
            .map(|line| serde_json::from_str(line).map_err(io::Error::from))
            .collect()
    }
}
