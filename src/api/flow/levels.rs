//! The priority levels and flow schemas of a server: applies changes of the stored objects, and adjusts concurrency
//! limits to demand. Follows k8s.io/apiserver/pkg/util/flowcontrol/apf_controller.go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::classify::Schema;
use super::counts;
use super::demand::Found;
use super::queues::QueueSet;
use super::request::{Queuing, Response};
use super::retry::Refusals;
use super::shares::{Bounds, Claim, Shares, shared_out};
use super::width;
use crate::api::request_info::Info;
use crate::auth::{User, bootstrap};
use crate::schema::Value;

/// The level and the flow schema whose requests never wait.
const EXEMPT: &str = "exempt";
/// The level and the flow schema of requests that no other schema matches.
const CATCH_ALL: &str = "catch-all";

/// A priority level in use. Persists when its object changes.
pub struct Level {
    /// Its name.
    pub name: Arc<str>,
    /// Its requests.
    pub set: Mutex<QueueSet<oneshot::Sender<()>>>,
    /// Its recent rejections.
    pub refusals: Mutex<Refusals>,
}

/// A parsed PriorityLevelConfiguration.
#[derive(Clone, Debug)]
struct Configuration {
    name: Arc<str>,
    uid: Arc<str>,
    shares: Shares,
    response: Response,
}

impl Configuration {
    /// Parses a stored object; `None` if it is incomplete, which validation does not allow.
    fn of(object: &Value) -> Option<Configuration> {
        let (meta, spec) = (object.at("metadata"), object.at("spec"));
        let limited = spec.at("limited").at("limitResponse");
        let queuing = limited.at("queuing");
        let number = |key| {
            usize::try_from(queuing.int(key))
                .ok()
                .filter(|number| *number > 0)
        };
        let response = match (spec.str("type"), limited.str("type")) {
            ("Exempt", _) => Response::Exempt,
            ("Limited", "Reject") => Response::Reject,
            ("Limited", "Queue") => Response::Queue(Queuing {
                queues: number("queues")?,
                hand: number("handSize")?,
                length: number("queueLengthLimit")?,
            }),
            _ => return None,
        };
        Some(Configuration {
            name: meta.str("name").into(),
            uid: meta.str("uid").into(),
            shares: Shares::of(spec),
            response,
        })
    }
}

/// A level and its state.
struct Kept {
    level: Arc<Level>,
    configuration: Configuration,
    bounds: Bounds,
    limit: usize,
    demand: Found,
    /// The object was deleted: the level is removed after its last request.
    quiescing: bool,
}

/// All levels of a server.
pub struct Levels {
    /// The total number of seats.
    total: usize,
    kept: BTreeMap<Arc<str>, Kept>,
}

/// An immutable view for classifying requests, replaced after each change.
pub struct Snapshot {
    /// In matching order.
    classes: Vec<Class>,
}

/// A flow schema and its level.
pub struct Class {
    /// The schema.
    pub schema: Schema,
    /// Its level.
    pub level: Arc<Level>,
    /// The UIDs of both, for response headers.
    pub uids: Uids,
    /// What happens to requests when there are no free seats.
    pub response: Response,
    /// The most seats that a request may take.
    pub most: usize,
}

/// UIDs of a flow schema and of its level.
#[derive(Clone, Debug)]
pub struct Uids {
    /// The schema's.
    pub schema: HeaderValue,
    /// The level's.
    pub level: HeaderValue,
}

impl Snapshot {
    /// The class of a request: the first that matches, or catch-all.
    pub fn class(&self, user: &User, info: &Info) -> Option<&Class> {
        let mut classes = self.classes.iter();
        let found = classes.find(|class| class.schema.matches(user, info));
        found.or_else(|| {
            let mut classes = self.classes.iter();
            classes.find(|class| &*class.schema.name == CATCH_ALL)
        })
    }
}

impl Levels {
    /// The mandatory levels of a server with so many seats, before any object has been read.
    pub fn new(total: usize) -> (Levels, Snapshot) {
        let mut levels = Levels {
            total,
            kept: BTreeMap::new(),
        };
        let snapshot = levels.digest(Duration::ZERO, &[], &[]);
        (levels, snapshot)
    }

    /// Applies the stored objects. The mandatory ones exist even if they are not stored.
    pub fn digest(
        &mut self,
        now: Duration,
        levels: &[Arc<Value>],
        schemas: &[Arc<Value>],
    ) -> Snapshot {
        let stored = levels.iter().map(|object| &**object);
        // Stored objects come last, so they replace the mandatory ones of the same name.
        let all = mandatory("PriorityLevelConfiguration").chain(stored);
        let configured: BTreeMap<Arc<str>, Configuration> = all
            .filter_map(Configuration::of)
            .map(|configuration| (configuration.name.clone(), configuration))
            .collect();
        for (name, kept) in &mut self.kept {
            kept.quiescing = !configured.contains_key(name);
        }
        for (name, configuration) in configured {
            let new = || Kept {
                level: Arc::new(Level {
                    name: name.clone(),
                    set: Mutex::new(QueueSet::new(configuration.response, 0)),
                    refusals: Mutex::default(),
                }),
                configuration: configuration.clone(),
                bounds: Bounds::default(),
                limit: 0,
                demand: Found::default(),
                quiescing: false,
            };
            let kept = self.kept.entry(name.clone()).or_insert_with(new);
            kept.configuration = configuration;
        }
        self.adjust(now);
        let stored = schemas.iter().map(|object| &**object);
        let all = mandatory("FlowSchema").chain(stored);
        let classes: BTreeMap<Arc<str>, Class> = all
            .filter_map(|object| self.class(Schema::of(object)))
            .map(|class| (class.schema.name.clone(), class))
            .collect();
        let mut classes: Vec<Class> = classes.into_values().collect();
        classes.sort_by(|one, other| one.schema.order(&other.schema));
        Snapshot { classes }
    }

    /// The class of a schema; `None` if its level does not exist.
    fn class(&self, schema: Schema) -> Option<Class> {
        let kept = self
            .kept
            .get(&schema.level)
            .filter(|kept| !kept.quiescing)?;
        let header =
            |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        let response = kept.configuration.response;
        Some(Class {
            uids: Uids {
                schema: header(&schema.uid),
                level: header(&kept.configuration.uid),
            },
            level: kept.level.clone(),
            most: match response {
                Response::Queue(queuing) => width::most_of(kept.bounds.nominal, queuing.hand),
                Response::Exempt | Response::Reject => width::MOST,
            },
            response,
            schema,
        })
    }

    /// Distributes the seats again according to the demand since the last time, and removes idle levels whose object
    /// was deleted.
    pub fn adjust(&mut self, now: Duration) {
        self.kept
            .retain(|_, kept| !kept.quiescing || !kept.level.set.lock().is_idle());
        let shares = |kept: &Kept| kept.configuration.shares;
        let sum = self.kept.values().map(|kept| shares(kept).shares).sum();
        for kept in self.kept.values_mut() {
            kept.bounds = Bounds::of(shares(kept), self.total, sum);
            kept.demand = kept.level.set.lock().demand(now, kept.demand);
        }
        let claim = |kept: &Kept| Claim {
            exempt: kept.configuration.response == Response::Exempt,
            bounds: kept.bounds,
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            peak: kept.demand.peak as usize,
            demand: kept.demand.smoothed,
            current: kept.limit,
        };
        let claims: Vec<Claim> = self.kept.values().map(claim).collect();
        for (kept, seats) in self.kept.values_mut().zip(shared_out(&claims)) {
            kept.limit = seats;
            kept.level
                .change(|set| set.configure(now, kept.configuration.response, seats));
        }
    }

    /// The state of all levels, for metrics.
    pub fn counted(&self) -> Vec<counts::Level> {
        let counted = |kept: &Kept| counts::Level {
            name: kept.level.name.clone(),
            bounds: kept.bounds,
            limit: kept.limit,
            demand: kept.demand,
            counts: kept.level.set.lock().counts.clone(),
        };
        self.kept.values().map(counted).collect()
    }

    /// All levels by name, and whether each is quiescing.
    pub fn all(&self) -> impl Iterator<Item = (&Arc<Level>, bool)> {
        self.kept.values().map(|kept| (&kept.level, kept.quiescing))
    }
}

impl Level {
    /// Changes the queue set, and wakes the requests that were dispatched.
    pub fn change<T>(&self, change: impl FnOnce(&mut QueueSet<oneshot::Sender<()>>) -> T) -> T {
        let mut set = self.set.lock();
        let changed = change(&mut set);
        let woken = set.woken();
        drop(set);
        for wake in woken {
            // If the request has given up, it releases its seats itself.
            let _ = wake.send(());
        }
        changed
    }
}

/// The objects of a kind that exist in every cluster, stored or not.
fn mandatory<'a>(kind: &'static str) -> impl Iterator<Item = &'a Value> {
    let made = bootstrap::objects().iter().map(|made| &made.object);
    made.filter(move |object| {
        let name = object.at("metadata").str("name");
        object.str("kind") == kind && [EXEMPT, CATCH_ALL].contains(&name)
    })
}

#[cfg(test)]
mod tests;
