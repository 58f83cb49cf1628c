//! Tasks that must run as long as the process: one that panics or returns before it is cancelled is logged as an error
//! and run again.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The wait before a task that stopped is run again.
const PAUSE: Duration = Duration::from_secs(5);

/// A description of a task, for those who pass it on to a supervisor.
pub struct Task {
    name: String,
    run: Box<dyn Fn(CancellationToken) -> BoxFuture<'static, ()> + Send>,
}

impl Task {
    /// A task with a name and `run`, as in [`Supervisor::keep`].
    pub fn new<F>(
        name: impl Into<String>,
        run: impl Fn(CancellationToken) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Task {
            name: name.into(),
            run: Box::new(move |ends| run(ends).boxed()),
        }
    }
}

/// Which supervised tasks are running. Clones share the same state.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<HashMap<String, bool>>>);

impl Health {
    /// Whether a task of this name was started and is not waiting to be restarted. Stays true when all tasks end.
    pub fn runs(&self, name: &str) -> bool {
        self.0.lock().get(name).copied().unwrap_or(false)
    }

    fn note(&self, name: &str, runs: bool) {
        self.0.lock().insert(name.to_owned(), runs);
    }
}

/// Runs tasks until all of them are cancelled.
#[derive(Default)]
pub struct Supervisor {
    tasks: TaskTracker,
    ends: CancellationToken,
    health: Health,
}

impl Supervisor {
    /// A supervisor whose tasks end when `ends` is cancelled.
    pub fn new(ends: CancellationToken) -> Self {
        Supervisor {
            ends,
            ..Supervisor::default()
        }
    }

    /// The health of its tasks.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Starts a task. Each run gets its own token, which is cancelled when the task is to end and when the run is over,
    /// so that everything the run has started ends with it. Cancelling this token also ends the run; another one
    /// follows.
    pub fn keep<F>(
        &self,
        name: impl Into<String>,
        run: impl Fn(CancellationToken) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (name, ends, health) = (name.into(), self.ends.clone(), self.health.clone());
        health.note(&name, true);
        self.tasks.spawn(async move {
            loop {
                let own = ends.child_token();
                let begun = catch_unwind(AssertUnwindSafe(|| run(own.clone())));
                if run_once(&name, begun, own, &ends).await {
                    return;
                }
                health.note(&name, false);
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = ends.cancelled() => return,
                }
                health.note(&name, true);
            }
        });
    }

    /// Starts a described task, as [`Supervisor::keep`] does.
    pub fn keep_task(&self, task: Task) {
        self.keep(task.name, task.run);
    }

    /// Cancels all tasks and waits until they have ended.
    pub async fn end(&self) {
        self.ends.cancel();
        self.ended().await;
    }

    /// Waits until all tasks have ended after a cancellation.
    pub async fn ended(&self) {
        self.ends.cancelled().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Waits until a run stops, and cancels its `own` token then. Returns whether it was to stop.
async fn run_once(
    name: &str,
    begun: std::thread::Result<impl Future<Output = ()> + Send>,
    own: CancellationToken,
    ends: &CancellationToken,
) -> bool {
    // Whatever a panic left half done belongs to the run and is dropped with it.
    let end = match begun {
        Ok(running) => AssertUnwindSafe(running).catch_unwind().await,
        Err(panic) => Err(panic),
    };
    own.cancel();
    let ended = ends.is_cancelled();
    match end {
        Ok(()) if ended => {}
        Ok(()) => {
            tracing::error!(
                task = name,
                "a task ended unexpectedly; restarting it in {PAUSE:?}"
            );
        }
        Err(panic) => {
            let panic = message(&*panic);
            match ended {
                true => tracing::error!(task = name, panic, "a task panicked during shutdown"),
                false => {
                    tracing::error!(
                        task = name,
                        panic,
                        "a task panicked; restarting it in {PAUSE:?}"
                    );
                }
            }
        }
    }
    ended
}

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_stops_is_run_again_until_all_end() {
        let supervisor = Supervisor::default();
        let health = supervisor.health();
        let (began, mut begins) = mpsc::unbounded_channel();
        let runs = AtomicUsize::new(0);
        supervisor.keep("test", move |own| {
            let number = runs.fetch_add(1, Ordering::Relaxed);
            let _ = began.send(own.clone());
            assert_ne!(number, 3, "a task that panics before it begins");
            async move {
                match number {
                    // Like an event handler that wants its program restarted.
                    0 => own.cancel(),
                    1 => panic!("a task that panics"),
                    2 => {}
                    _ => own.cancelled().await,
                }
            }
        });
        assert!(health.runs("test"));
        assert!(!health.runs("another"));
        for _ in 0..4 {
            let own = begins.recv().await.expect("a run");
            own.cancelled().await;
            tokio::task::yield_now().await;
            assert!(!health.runs("test"), "it waits to be run again");
        }
        let own = begins.recv().await.expect("a run");
        assert!(!own.is_cancelled());
        assert!(health.runs("test"));
        supervisor.end().await;
        assert!(begins.try_recv().is_err());
        assert!(health.runs("test"), "one that was told to end is well");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_waits_to_be_run_again_ends_as_well() {
        let supervisor = Supervisor::default();
        let (began, mut begins) = mpsc::unbounded_channel();
        let task = Task::new("test", move |_| {
            let _ = began.send(());
            std::future::ready(())
        });
        supervisor.keep_task(task);
        begins.recv().await.expect("a run");
        supervisor.end().await;
        assert!(begins.recv().await.is_none());
    }
}
