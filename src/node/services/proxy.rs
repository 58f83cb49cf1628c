//! The service proxy of a node: applies the plan to the network.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Services;
use super::health::Ports;
use super::place::Place;
use super::plan::{Here, asked, plan};
use super::readiness::Readiness;
use crate::blocking::blocking;
use crate::net::services::{ServicePort, ServiceRouter};
use crate::node::addresses::Addresses;

/// How long nothing may change before the rules are checked: somebody may have flushed them.
const LOOK: Duration = Duration::from_secs(30);
/// How long changes are collected after an update, normally and if there are many ports.
const GATHER: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// How many ports count as many.
const MANY: usize = 1000;
/// The first and the longest pause after a failure.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// Keeps the network up to date with services and their endpoints, until `ends` is cancelled. The last state stays
/// then, because pods keep running. `addresses` are those of `here`, as they change; `place` is the node's place, and
/// `readiness` gets the health.
pub async fn keep(
    services: Services,
    here: Here,
    addresses: Addresses,
    place: watch::Receiver<Place>,
    router: Arc<dyn ServiceRouter>,
    readiness: Readiness,
    ends: CancellationToken,
) {
    tokio::select! {
        () = follow(services, here, addresses, place, &*router, readiness) => {}
        () = ends.cancelled() => {}
    }
}

async fn follow(
    services: Services,
    mut here: Here,
    mut addresses: Addresses,
    mut place: watch::Receiver<Place>,
    router: &dyn ServiceRouter,
    readiness: Readiness,
) {
    let changed = Arc::new(Notify::new());
    let told = || {
        let (changed, readiness) = (changed.clone(), readiness.clone());
        move || {
            readiness.queued();
            changed.notify_one();
        }
    };
    let (service, slice) = (told(), told());
    services.services.subscribe(move |_| service());
    services.slices.subscribe(move |_| slice());
    // A plan from incomplete lists would remove what pods of an earlier agent use.
    services.services.synced().await;
    services.slices.synced().await;
    let mut served = None;
    // What was applied last, and when it is checked again.
    let mut done: Option<(Arc<[ServicePort]>, Instant)> = None;
    let mut health = Ports::default();
    let mut wait = AGAIN[0];
    loop {
        let now = addresses.ipv4();
        // The first time, too: they may have changed since the router was made.
        if served.as_ref() != Some(&now) {
            router.serve_at(now.clone());
            here.addresses = now.clone();
            (served, done) = (Some(now), None);
        }
        let (services, here) = (services.clone(), here.clone());
        let zone = place.borrow_and_update().zone.clone();
        let planned = blocking(move || {
            let (services, slices) = (services.services.all(), services.slices.all());
            let ports = plan(&services, &slices, &here, zone.as_deref());
            Ok::<_, String>((ports, asked(&services, &slices, &here)))
        });
        let routed = async {
            let (ports, balancers) = planned.await?;
            match &done {
                // Most changes of services and endpoints make no difference for traffic.
                Some((last, look)) if **last == *ports && Instant::now() < *look => {}
                _ => {
                    let ports: Arc<[ServicePort]> = ports.into();
                    done = None;
                    let again = router.route(ports.clone()).await?;
                    done = Some((ports, Instant::now() + again.unwrap_or(LOOK)));
                }
            }
            // Only after it has been applied.
            health.serve(balancers).await;
            Ok::<_, String>(())
        };
        let routed = routed.await;
        match routed {
            Ok(()) => {
                readiness.updated();
                wait = AGAIN[0];
                let (many, look) = done
                    .as_ref()
                    .map_or((false, Instant::now()), |(ports, at)| {
                        (ports.len() > MANY, *at)
                    });
                let is_told = tokio::select! {
                    () = changed.notified() => true,
                    // The channel is no longer polled once the node's place is no longer updated.
                    Ok(()) = place.changed() => true,
                    () = addresses.changed() => true,
                    () = tokio::time::sleep_until(look) => false,
                };
                if is_told {
                    tokio::time::sleep(GATHER[usize::from(many)]).await;
                }
            }
            Err(error) => {
                tracing::warn!(error, "cannot update the rules of services; retrying");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(AGAIN[1]);
            }
        }
    }
}
