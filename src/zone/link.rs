//! The agent's side of the connection to a supervisor: requests, replies, and sessions.

mod session;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio_util::task::AbortOnDropHandle;

use crate::listen;
use crate::zone::supervisor::{
    Ask, FRAME, Hello, Numbered, Refusal, Reply, SOCKET, What, kind, read_frame, write_frame,
};
use crate::zone::{Process, ProcessId, ZoneError};

pub use self::session::session;

/// How long a supervisor may take to reply.
const ANSWER: Duration = Duration::from_secs(120);

/// What the supervisor has reported.
#[derive(Default)]
struct Known {
    processes: BTreeMap<ProcessId, Process>,
    control: Option<mpsc::Sender<(u8, Vec<u8>)>>,
    asks: HashMap<u64, oneshot::Sender<Result<(), Refusal>>>,
    sessions: HashMap<u64, oneshot::Sender<Result<UnixStream, String>>>,
}

impl Known {
    /// Abandons a connection: requests on it are not answered on another one.
    fn cut(&mut self) {
        self.control = None;
        self.asks.clear();
        self.sessions.clear();
    }
}

/// Binds the socket. Socket paths are limited to some 100 bytes: for a longer directory a short alias is used if there
/// is one.
#[cfg(target_os = "linux")]
fn bind(directory: &Path) -> std::io::Result<UnixListener> {
    use std::os::fd::AsRawFd as _;
    let handle = std::fs::File::open(directory)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd()))
}

#[cfg(not(target_os = "linux"))]
fn bind(directory: &Path) -> std::io::Result<UnixListener> {
    UnixListener::bind(directory.join(SOCKET))
}

/// A pending request; dropping it discards its reply.
struct Asked<'l> {
    link: &'l Link,
    number: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut known = self.link.known.lock();
        known.asks.remove(&self.number);
        known.sessions.remove(&self.number);
    }
}

/// A control connection. However it ends, no request uses it any more, unless another one has replaced it.
struct Control<'l> {
    link: &'l Link,
    sender: mpsc::Sender<(u8, Vec<u8>)>,
    _writer: AbortOnDropHandle<()>,
}

impl Drop for Control<'_> {
    fn drop(&mut self) {
        {
            let mut known = self.link.known.lock();
            let current = known.control.as_ref();
            if current.is_some_and(|own| own.same_channel(&self.sender)) {
                known.cut();
                self.link.boot.send_replace(None);
            }
        }
        (self.link.changed)();
    }
}

/// The connection to one supervisor.
pub struct Link {
    name: String,
    known: Mutex<Known>,
    /// The id of the connected boot.
    boot: watch::Sender<Option<String>>,
    next: AtomicU64,
    listening: Mutex<Option<AbortHandle>>,
    changed: Box<dyn Fn() + Send + Sync>,
}

impl Link {
    /// A link that is not listening yet; `changed` is called after each report.
    pub fn new(name: String, changed: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Link {
            name,
            known: Mutex::default(),
            boot: watch::channel(None).0,
            next: AtomicU64::new(1),
            listening: Mutex::new(None),
            changed: Box::new(changed),
        })
    }

    /// Listens in the control directory.
    ///
    /// # Errors
    /// Any error of the system calls.
    pub fn listen(self: &Arc<Self>, directory: &Path) -> std::io::Result<()> {
        let mut listening = self.listening.lock();
        if listening.is_some() {
            return Ok(());
        }
        match std::fs::remove_file(directory.join(SOCKET)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = bind(directory)?;
        let link = self.clone();
        let task = tokio::spawn(async move {
            link.accept(|| async { Ok(listener.accept().await?.0) })
                .await;
        });
        *listening = Some(task.abort_handle());
        Ok(())
    }

    /// Accepts connections until it is dropped; they end with it.
    async fn accept<A>(self: Arc<Self>, accept: impl Fn() -> A)
    where
        A: Future<Output = std::io::Result<UnixStream>>,
    {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let stream = listen::next("supervisors'", &accept).await;
            while connections.try_join_next().is_some() {}
            connections.spawn(self.clone().take(stream));
        }
    }

    /// Stops listening and closes connections.
    pub fn close(&self) {
        if let Some(task) = self.listening.lock().take() {
            task.abort();
        }
        let mut known = self.known.lock();
        known.processes.clear();
        known.cut();
        self.boot.send_replace(None);
    }

    /// The id of the connected boot.
    pub fn boot(&self) -> Option<String> {
        self.boot.borrow().clone()
    }

    /// Waits for a supervisor to connect.
    pub async fn hello(&self, patience: Duration) -> bool {
        let mut boot = self.boot.subscribe();
        let said = boot.wait_for(Option::is_some);
        tokio::time::timeout(patience, said)
            .await
            .is_ok_and(|said| said.is_ok())
    }

    /// The processes as last reported.
    pub fn processes(&self) -> Vec<Process> {
        self.known.lock().processes.values().cloned().collect()
    }

    async fn take(self: Arc<Self>, mut stream: UnixStream) {
        let Ok(Some((kind::HELLO, payload))) = read_frame(&mut stream).await else {
            return;
        };
        match serde_json::from_slice(&payload) {
            Ok(Hello::Control { boot, processes }) => self.control(stream, boot, processes).await,
            Ok(Hello::Session { number, refused }) => {
                let waiting = self.known.lock().sessions.remove(&number);
                if let Some(waiting) = waiting {
                    let _ = waiting.send(match refused {
                        None => Ok(stream),
                        Some(reason) => Err(reason),
                    });
                }
            }
            Err(error) => {
                tracing::warn!(zone = self.name, %error, "a message of a supervisor cannot be decoded")
            }
        }
    }

    async fn control(self: Arc<Self>, stream: UnixStream, boot: String, processes: Vec<Process>) {
        let (mut from, mut to) = stream.into_split();
        let (sender, mut queue) = mpsc::channel::<(u8, Vec<u8>)>(256);
        {
            let mut known = self.known.lock();
            known.cut();
            known.processes = processes
                .into_iter()
                .map(|process| (process.id.clone(), process))
                .collect();
            known.control = Some(sender.clone());
        }
        self.boot.send_replace(Some(boot));
        (self.changed)();
        let writer = tokio::spawn(async move {
            while let Some((kind, payload)) = queue.recv().await {
                if write_frame(&mut to, kind, &payload).await.is_err() {
                    return;
                }
            }
        });
        let _control = Control {
            link: &self,
            sender,
            _writer: AbortOnDropHandle::new(writer),
        };
        let mut warned = false;
        while let Ok(Some((kind, payload))) = read_frame(&mut from).await {
            if let Err(error) = self.hear(kind, &payload)
                && !std::mem::replace(&mut warned, true)
            {
                tracing::warn!(
                    zone = self.name, kind, %error,
                    "a supervisor sends messages that cannot be decoded; it may have another version"
                );
            }
        }
    }

    /// Handles a frame of a control connection.
    ///
    /// # Errors
    /// It cannot be decoded. A request that it replies to fails.
    fn hear(&self, kind: u8, payload: &[u8]) -> Result<(), serde_json::Error> {
        match kind {
            kind::CHANGED => {
                let process: Process = serde_json::from_slice(payload)?;
                let mut known = self.known.lock();
                known.processes.insert(process.id.clone(), process);
                drop(known);
                (self.changed)();
            }
            kind::REPLY => {
                let reply = serde_json::from_slice::<Reply>(payload);
                let (number, result) = match &reply {
                    Ok(reply) => (reply.number, reply.result.clone()),
                    Err(error) => {
                        let Numbered { number } = serde_json::from_slice(payload)?;
                        let cause = format!("the supervisor's answer is not understood: {error}");
                        (number, Err(Refusal::Failed(cause)))
                    }
                };
                if let Some(waiting) = self.known.lock().asks.remove(&number) {
                    let _ = waiting.send(result);
                }
                reply?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn send(
        &self,
        operation: &'static str,
        Asked { number, .. }: &Asked<'_>,
        what: What,
    ) -> Result<(), ZoneError> {
        let number = *number;
        let zone = || format!("zone {}", self.name);
        let unreachable = || ZoneError::State {
            operation,
            what: zone(),
            state: "unreachable".into(),
        };
        let (tell, told) = oneshot::channel();
        let control = {
            let mut known = self.known.lock();
            let control = known.control.clone().ok_or_else(unreachable)?;
            known.asks.insert(number, tell);
            control
        };
        let payload = serde_json::to_vec(&Ask { number, what })
            .map_err(|error| ZoneError::failed(operation, zone(), error))?;
        // A supervisor would consider it corrupt, and drop the connection that everything else of its zone uses.
        if payload.len() >= FRAME as usize {
            return Err(ZoneError::Refused {
                operation,
                what: zone(),
                reason: format!(
                    "what it is to be told takes {} bytes, and {FRAME} is too much: give it fewer variables, or shorter ones",
                    payload.len()
                ),
            });
        }
        control
            .send((kind::ASK, payload))
            .await
            .map_err(|_| unreachable())?;
        let result = tokio::time::timeout(ANSWER, told)
            .await
            .map_err(|_| ZoneError::failed(operation, zone(), "its supervisor does not answer"))?
            .map_err(|_| unreachable())?;
        result.map_err(|refusal| match refusal {
            Refusal::NotFound => ZoneError::NotFound {
                operation,
                what: format!("a process of {}", zone()),
            },
            Refusal::State(state) => ZoneError::State {
                operation,
                what: format!("a process of {}", zone()),
                state,
            },
            Refusal::Start(reason) => ZoneError::Start { reason },
            Refusal::Failed(cause) => ZoneError::failed(operation, zone(), cause),
        })
    }

    fn asked(&self) -> Asked<'_> {
        Asked {
            link: self,
            number: self.next.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Sends a request and waits for the reply.
    ///
    /// # Errors
    /// The supervisor's error.
    pub async fn ask(&self, operation: &'static str, what: What) -> Result<(), ZoneError> {
        self.send(operation, &self.asked(), what).await
    }

    /// Adds labels to a process.
    pub fn label(&self, id: &ProcessId, labels: &BTreeMap<String, String>) {
        if let Some(process) = self.known.lock().processes.get_mut(id) {
            process.labels.extend(labels.clone());
        }
    }

    /// Removes a process from the table.
    pub fn forget(&self, id: &ProcessId) {
        self.known.lock().processes.remove(id);
    }
}

#[cfg(test)]
mod tests;
