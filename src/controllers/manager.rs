//! Runs the controllers: each is a task with its own identity, and all share caches.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{Controller, Identity};
use crate::auth::{AUTHENTICATED, User};
use crate::client::Transport;
use crate::client::events;
use crate::client::informer::Informers;
use crate::client::{Context, Settings};
use crate::supervise::Supervisor;

/// The prefix of user agents, from which the API takes the name of the field manager.
const AGENT: &str = "kube-controller-manager";
/// How long controllers may take to end.
const LONGEST_END: Duration = Duration::from_secs(30);

/// The running controllers.
pub struct Manager {
    tasks: Supervisor,
    informers: Informers,
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
        let tasks = Supervisor::new(ends.clone());
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
            let name = controller.name;
            tasks.keep(name, move |run: CancellationToken| {
                let own = Context {
                    informers: context.informers.for_run(run.clone()),
                    ends: run,
                    ..context.clone()
                };
                program(own).instrument(tracing::info_span!("controller", name))
            });
        }
        Manager { tasks, informers }
    }

    /// Ends all controllers. Resolves when they have finished their work, or after a timeout: a controller that hangs
    /// must not keep the server from ending.
    pub async fn stop(self) {
        let ended = async {
            self.tasks.end().await;
            self.informers.ended().await;
        };
        if tokio::time::timeout(LONGEST_END, ended).await.is_err() {
            tracing::error!("controllers did not end in time");
        }
    }
}

/// The user that fills the shared caches.
fn informer_user() -> User {
    User::new("system:kube-controller-manager", &[AUTHENTICATED])
}

/// A service account in kube-system.
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
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn controllers_that_do_not_end_are_left_behind() {
        let transport = Transport::new(|_, _| std::future::pending());
        let client = transport.client(User::new("test", &[]), "test");
        let ends = CancellationToken::new();
        let manager = Manager {
            tasks: Supervisor::new(ends.clone()),
            informers: Informers::new(client, ends),
        };
        manager.tasks.keep("test", |_| std::future::pending());
        let stopped = tokio::time::timeout(LONGEST_END * 2, manager.stop()).await;
        stopped.expect("it is not waited for");
    }
}
