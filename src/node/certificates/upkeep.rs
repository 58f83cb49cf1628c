//! Keeps certificates renewed while the agent runs. Follows k8s.io/client-go/util/certificate/certificate_manager.go.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ask::{self, AskError};
use super::plan::{Next, Why, next};
use super::store::Store;
use crate::auth::pki::{Pair, Wanted};
use crate::meta::{names, time};

/// How often the clock is read: it may be changed, or the host may be suspended.
const LOOK: Duration = Duration::from_secs(10);
/// The pause after the first failure, and the longest.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(32);
/// The pause after a success, so that very short-lived certificates do not flood the API with requests.
const REST: Duration = Duration::from_secs(1);

/// Uses the current certificate.
pub trait Holder: Send + Sync {
    /// Replaces the certificate in use.
    fn take(&self, pair: &Pair);
    /// Called when the certificate has expired.
    fn lost(&self);
    /// The client to request another one with; `held` is the current certificate, if it is valid.
    fn client(&self, held: Option<&Pair>) -> kube::Client;
}

/// Keeps a certificate renewed until `ends` is cancelled; `held` is the current one.
pub async fn keep(
    store: &Store,
    wanted: &Wanted,
    mut held: Option<Pair>,
    holder: &dyn Holder,
    ends: CancellationToken,
) {
    let what = store.purpose().what();
    let mut chance = names::chance();
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
                tracing::info!(?why, "the {what} was renewed, and is valid until {until}");
                holder.take(&pair);
                held = Some(pair);
                chance = names::chance();
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

/// Logs why there is no certificate, once for each reason.
fn tell(what: &str, error: &AskError, told: &mut Option<String>) {
    let text = error.to_string();
    if told.as_ref() != Some(&text) {
        tracing::warn!("the {what} is not renewed yet: {text}");
        *told = Some(text);
    }
}

/// Waits until a certificate has to be renewed, by the wall clock, because its validity is defined by that.
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
