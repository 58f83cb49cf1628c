//! Starts `reddwarf serve` for a test: the real binary, on a free port, with a temporary directory.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kube::config::Kubeconfig;
use tempfile::TempDir;

use crate::wire::Login;

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_reddwarf");

/// A running server. It is killed when it goes out of scope.
pub struct Server {
    child: Child,
    dir: Option<TempDir>,
    address: String,
}

impl Server {
    /// Starts one with an in-memory store and further `arguments` of `serve`, and waits until it serves.
    pub fn in_memory(arguments: &[&str]) -> Server {
        let mut all = vec!["--in-memory"];
        all.extend(arguments);
        Self::start(tempfile::tempdir().expect("a directory"), &all)
    }

    /// Starts one with the store in `dir`.
    pub fn start(dir: TempDir, arguments: &[&str]) -> Server {
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let mut child = Command::new(BINARY)
            .args(["serve", "--secure-port=0", "--data-dir"])
            .arg(dir.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        out.read_line(&mut line).expect("the program speaks");
        let Some(address) = line
            .split_once("https://")
            .and_then(|(_, rest)| Some(rest.split_once(';')?.0.to_owned()))
        else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("no server: {line:?} {}", log_of(dir.path()));
        };
        Server {
            child,
            dir: Some(dir),
            address,
        }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir()
    }

    fn dir(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// Kills it, like a power cut, and returns its directory.
    pub fn kill(mut self) -> TempDir {
        self.child.kill().expect("it ran until now");
        self.child.wait().expect("an exit code");
        self.dir.take().expect("a directory")
    }

    /// Stops it like an operator, and returns its directory.
    pub fn stop(mut self) -> TempDir {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let code = self.child.wait().expect("an exit code");
        assert!(code.success(), "{code}: {}", log_of(self.dir()));
        self.dir.take().expect("a directory")
    }

    /// The administrator, by client certificate.
    pub fn admin(&self) -> Login {
        Login::of(&self.address, &self.dir().join("pki"), None)
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its log.
    pub fn log(&self) -> String {
        log_of(self.dir())
    }

    /// Its peak memory in KiB, if the system reports it.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }

    /// A kube-rs client of the administrator.
    pub fn client(&self) -> impl Future<Output = kube::Client> + use<> {
        let path = self.dir().join("kubeconfig");
        async {
            let file = Kubeconfig::read_from(path).expect("a kubeconfig");
            let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await;
            kube::Client::try_from(config.expect("a kubeconfig")).expect("a client")
        }
    }

    /// A user with a token.
    pub fn bearer(&self, token: &str) -> Login {
        Login::of(&self.address, &self.dir().join("pki"), Some(token))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the server's log\n{}", log_of(self.dir()));
        }
    }
}

fn log_of(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}
