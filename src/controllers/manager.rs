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

/// Controllers that run.
pub struct Manager {
    tasks: TaskTracker,
    informers: Arc<Informers>,
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
        let informers = Arc::new(Informers::new(shared, ends.clone()));
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

    /// Ends all controllers; resolves when they are done with what they had begun.
    pub async fn stop(self) {
        self.ends.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.informers.ended().await;
    }
}

/// Runs a controller, and again should it break before it is to end.
async fn keep_running(name: &'static str, program: Program, context: Context) {
    loop {
        let span = tracing::info_span!("controller", name);
        let run = tokio::spawn(program(context.clone()).instrument(span)).await;
        if context.ends.is_cancelled() {
            return;
        }
        match run {
            Ok(()) => tracing::error!(controller = name, "ended by itself and is started again"),
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
