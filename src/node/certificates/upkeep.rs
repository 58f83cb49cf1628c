//! Keeping certificates renewed while the agent runs. Follows k8s.io/client-go/util/certificate/certificate_manager.go.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ask::{self, AskError};
use super::plan::{Next, Why, next};
use super::store::Store;
use crate::auth::pki::{Pair, Wanted};
use crate::meta::time;

/// How often the clock is looked at: it may be set, or the host sleep.
const LOOK: Duration = Duration::from_secs(10);
/// How long the first failure holds the next request back, and the most that failures do.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(32);
/// Certificates that are renewed all the time (of an authority that issues for moments) leave the API some rest.
const REST: Duration = Duration::from_secs(1);

/// What is done with the certificate of the moment.
pub trait Holder: Send + Sync {
    /// Another certificate is there, and is to be used from now on.
    fn take(&self, pair: &Pair);
    /// The certificate is valid no longer.
    fn lost(&self);
    /// Who asks for another one; `held` is the certificate of the moment, if it is valid.
    fn client(&self, held: Option<&Pair>) -> kube::Client;
}

/// Keeps a certificate renewed until `ends` is cancelled: `held` is what there is now.
pub async fn keep(
    store: &Store,
    wanted: &Wanted,
    mut held: Option<Pair>,
    holder: &dyn Holder,
    ends: CancellationToken,
) {
    let what = store.purpose().what();
    let mut chance = chance();
    let (mut pause, mut told) = (FIRST, None);
    loop {
        let why = tokio::select! {
            why = due(held.as_ref(), wanted, chance) => why,
            () = ends.cancelled() => return,
        };
        if why == Why::Expired && held.take().is_some() {
            holder.lost();
        }
        let client = holder.client(held.as_ref());
        let asked = tokio::select! {
            asked = ask::ask(&client, store, wanted) => asked,
            () = ends.cancelled() => return,
        };
        let rest = match asked {
            Ok(pair) => {
                let until = time::print(pair.not_after);
                tracing::info!(?why, "the {what} was renewed, and is good until {until}");
                holder.take(&pair);
                held = Some(pair);
                chance = self::chance();
                (pause, told) = (FIRST, None);
                REST
            }
            Err(error) => {
                tell(what, &error, &mut told);
                let longer = (pause * 2).min(LONGEST);
                std::mem::replace(&mut pause, longer)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = ends.cancelled() => return,
        }
    }
}

/// Says why there is no certificate, once a reason.
fn tell(what: &str, error: &AskError, told: &mut Option<String>) {
    let text = error.to_string();
    if told.as_ref() != Some(&text) {
        tracing::warn!("the {what} is not renewed yet: {text}");
        *told = Some(text);
    }
}

/// Waits until a certificate is to be renewed, by the clock that it names its times by.
async fn due(held: Option<&Pair>, wanted: &Wanted, chance: f64) -> Why {
    loop {
        let now = time::now();
        match next(held, wanted, now, chance) {
            Next::Renew(why) => return why,
            Next::Keep(until) => {
                let left = Duration::from_secs(until.saturating_sub(now).unsigned_abs());
                tokio::time::sleep(left.min(LOOK)).await;
            }
        }
    }
}

/// A number from 0 to 1 that nobody can tell before.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    crate::meta::names::random(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}
