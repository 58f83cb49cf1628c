//! Runs controllers: each a task with an identity of its own, over caches that all share.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::client::Transport;
use super::events;
use super::informer::Informers;
use super::{Context, Controller, Identity, Program, Settings};
use crate::auth::{AUTHENTICATED, User};

/// What the API takes as the name of who sets fields.
const AGENT: &str = "kube-controller-manager";
/// How long a controller that broke is left alone.
const PAUSE: Duration = Duration::from_secs(5);
/// How long controllers may take to end.
const LONGEST_END: Duration = Duration::from_secs(30);

/// Controllers that run.
pub struct Manager {
    tasks: TaskTracker,
    informers: Informers,
    ends: CancellationToken,
}

impl Manager {
    /// Starts controllers that end when `ends` is cancelled.
    pub fn start(
        controllers: &[&'static Controller],
        transport: &Transport,
        settings: Settings,
        ends: CancellationToken,
    ) -> Manager {
        let shared = transport.client(informer_user(), AGENT);
        let informers = Informers::new(shared, ends.clone());
        let settings = Arc::new(settings);
        let events = events::start(ends.clone());
        let tasks = TaskTracker::new();
        for controller in controllers {
            let Some((identity, program)) = controller.program else {
                continue;
            };
            let client = match identity {
                Identity::Account(account) => transport.client(account_user(account), AGENT),
                Identity::User(name) => {
                    let user = User::new(&format!("system:{name}"), &[AUTHENTICATED]);
                    transport.client(user, name)
                }
            };
            let context = Context {
                client,
                events: events.clone(),
                informers: informers.clone(),
                settings: settings.clone(),
                ends: ends.clone(),
            };
            tasks.spawn(keep_running(controller.name, program, context));
        }
        Manager {
            tasks,
            informers,
            ends,
        }
    }

    /// Ends all controllers; resolves when they are done with what they had begun, or have had long enough: a server is
    /// not to hang because one of them does.
    pub async fn stop(self) {
        self.ends.cancel();
        self.tasks.close();
        let ended = async {
            self.tasks.wait().await;
            self.informers.ended().await;
        };
        if tokio::time::timeout(LONGEST_END, ended).await.is_err() {
            tracing::error!("controllers do not end and are left behind");
        }
    }
}

/// Runs a controller, and again should it break before it is to end. Each run has an end of its own, with which what it
/// follows ends as well, and which also comes when it breaks at a change that it is told of.
async fn keep_running(name: &'static str, program: Program, context: Context) {
    loop {
        let span = tracing::info_span!("controller", name);
        let ends = context.ends.child_token();
        let own = Context {
            informers: context.informers.for_run(ends.clone()),
            ends: ends.clone(),
            ..context.clone()
        };
        let run = tokio::spawn(program(own).instrument(span)).await;
        ends.cancel();
        if context.ends.is_cancelled() {
            return;
        }
        match run {
            Ok(()) => tracing::error!(controller = name, "ended too early and is started again"),
            Err(error) => {
                tracing::error!(controller = name, %error, "broke and is started again");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = context.ends.cancelled() => return,
        }
    }
}

/// Who reads what controllers share.
fn informer_user() -> User {
    User::new("system:kube-controller-manager", &[AUTHENTICATED])
}

/// A service account of kube-system.
pub fn account_user(account: &str) -> User {
    User::new(
        &format!("system:serviceaccount:kube-system:{account}"),
        &[
            "system:serviceaccounts",
            "system:serviceaccounts:kube-system",
            AUTHENTICATED,
        ],
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt as _;

    use super::*;

    fn context() -> Context {
        let transport = Transport::new(|_, _| std::future::pending());
        let client = transport.client(User::new("test", &[]), "test");
        let ends = CancellationToken::new();
        Context {
            informers: Informers::new(client.clone(), ends.clone()),
            client,
            events: events::start(ends.clone()),
            settings: Arc::default(),
            ends,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_ended_is_followed_by_another_one_until_all_end() {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let context = context();
        let program: Program = |own: Context| {
            async move {
                match RUNS.fetch_add(1, Ordering::Relaxed) {
                    // As when it breaks at a change.
                    0 => own.ends.cancel(),
                    1 => panic!("a program that breaks"),
                    2 => {}
                    _ => own.ends.cancelled().await,
                }
            }
            .boxed()
        };
        let ends = context.ends.clone();
        let runs = tokio::spawn(keep_running("test", program, context));
        tokio::time::sleep(PAUSE * 4).await;
        assert_eq!(RUNS.load(Ordering::Relaxed), 4);
        ends.cancel();
        runs.await.expect("it ends");
    }

    #[tokio::test(start_paused = true)]
    async fn controllers_that_do_not_end_are_left_behind() {
        let context = context();
        let manager = Manager {
            tasks: TaskTracker::new(),
            informers: context.informers,
            ends: context.ends,
        };
        manager.tasks.spawn(std::future::pending::<()>());
        manager.stop().await;
    }
}
