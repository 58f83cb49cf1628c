//! ResourceQuota: limits the total resources of a namespace. The usage of a write is charged in the same
//! commit. Follows k8s.io/apiserver/pkg/admission/plugin/resourcequota.

#[cfg(test)]
mod tests;
pub mod usage;

use std::collections::BTreeSet;

use self::usage::{Evaluator, is_terminating};
use super::{Attributes, Operation, Plugin};
use crate::meta::Status;
use crate::meta::amounts::Amounts;
use crate::resources::{cluster, owners, record};
use crate::schema::{Key, Value};
use crate::store::{Change, Expect};

/// The plugin.
pub struct ResourceQuota;

impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        let namespaces = request.is_about("", "namespaces");
        if request.namespace.is_empty() || (namespaces && request.operation == Operation::Create) {
            return Ok(());
        }
        let resource = request.resource;
        let Some(evaluator) = Evaluator::of(&resource.group, &resource.plural) else {
            return Ok(());
        };
        if !counts(request) {
            return Ok(());
        }
        let Some(quotas) = request.cluster.resource("", "resourcequotas") else {
            return Ok(());
        };
        let store = &request.cluster.store;
        let world = store.world();
        let keys = quotas.keys(request.namespace);
        // The list of quotas comes from the durable state; their usage may be newer.
        let entries = world.range(&quotas.prefix, &keys, "");
        let found: Vec<_> = entries.filter_map(|entry| store.head(&entry.key)).collect();
        let charge = Charge {
            evaluator: &evaluator,
            object: &request.object,
            old: request
                .old
                .filter(|_| request.operation == Operation::Update),
            refuses: request.subresource != "status",
            now: request.now,
        };
        let known: Vec<Value> = found.iter().map(|entry| cluster::object(entry)).collect();
        let used = charge
            .on_all(&known)
            .map_err(|why| request.forbidden(&why))?;
        let mut effects = Vec::new();
        for ((entry, old), used) in found.iter().zip(&known).zip(used) {
            let Some(used) = used else { continue };
            let mut quota = old.clone();
            let status = quota.object_mut().object_mut("status");
            status.insert("used", used.to_value());
            owners::server_wrote(&quotas, "status", old, &mut quota, request.now);
            effects.push(Change {
                resource: quotas.prefix.clone(),
                key: entry.key.clone(),
                expect: Expect::Revision(entry.rev),
                put: Some(record::encode(&quotas, &quota)),
                ttl: None,
            });
        }
        request.effects.extend(effects);
        Ok(())
    }
}

/// Whether a request can change the usage.
fn counts(request: &Attributes<'_>) -> bool {
    let create = request.operation == Operation::Create;
    let update = request.operation == Operation::Update;
    let main = request.subresource.is_empty();
    match (&*request.resource.group, &*request.resource.plural) {
        ("", "pods") => match request.subresource {
            "" => {
                create
                    || (update
                        && request.old.is_some_and(|old| {
                            is_terminating(old) != is_terminating(&request.object)
                        }))
            }
            "resize" => update,
            _ => false,
        },
        ("", "persistentvolumeclaims") => {
            (main && (create || update)) || (request.subresource == "status" && update)
        }
        ("", "services") | ("resource.k8s.io", "resourceclaims") => main && (create || update),
        _ => main && create,
    }
}

/// A write that may change the usage of quotas.
struct Charge<'a> {
    evaluator: &'a Evaluator,
    object: &'a Value,
    old: Option<&'a Value>,
    refuses: bool,
    now: i64,
}

impl Charge<'_> {
    /// The new usage of each quota after the write; `None` if unchanged. What no quota can charge is refused before
    /// anything is that exceeds one.
    ///
    /// # Errors
    /// Why the write violates or exceeds a quota.
    fn on_all<'a>(
        &self,
        quotas: impl IntoIterator<Item = &'a Value>,
    ) -> Result<Vec<Option<Amounts>>, String> {
        let concerned: Vec<Option<&Value>> = quotas
            .into_iter()
            .map(|quota| Ok(self.concerns(quota)?.then_some(quota)))
            .collect::<Result<_, String>>()?;
        let used = concerned.into_iter();
        used.map(|quota| quota.map_or(Ok(None), |quota| self.on(quota)))
            .collect()
    }

    /// Whether a quota counts the object.
    ///
    /// # Errors
    /// Why it cannot be counted.
    fn concerns(&self, quota: &Value) -> Result<bool, String> {
        let name = quota.at("metadata").str("name");
        let (hard, used) = limits(quota);
        let names = self.evaluator.names(hard.0.keys().map(Key::as_str));
        if names.is_empty() || !self.evaluator.in_scopes(quota, self.object) {
            return Ok(false);
        }
        if let Some(why) = self.evaluator.unsaid(&names, self.object) {
            return Err(format!("failed quota: {name}: {why}"));
        }
        if names.iter().any(|name| !used.0.contains_key(*name)) {
            let names: Vec<&str> = names.iter().copied().collect();
            return Err(format!(
                "status unknown for quota: {name}, resources: {}",
                names.join(",")
            ));
        }
        Ok(true)
    }

    /// The new usage of a quota that counts the object; `None` if unchanged.
    fn on(&self, quota: &Value) -> Result<Option<Amounts>, String> {
        let name = quota.at("metadata").str("name");
        let (hard, used) = limits(quota);
        let mut asked = self.evaluator.usage(self.object, self.now);
        let negative: Vec<&str> = asked
            .0
            .iter()
            .filter(|(_, amount)| amount.sign() < 0)
            .map(|(name, _)| name.as_str())
            .collect();
        if !negative.is_empty() {
            return Err(format!(
                "quota usage is negative for resource(s): {}",
                negative.join(",")
            ));
        }
        if let Some(old) = self.old.filter(|old| self.evaluator.in_scopes(quota, old)) {
            let before = self.evaluator.usage(old, self.now);
            for (name, amount) in &mut asked.0 {
                *amount = *amount - before.get(name);
            }
        }
        asked
            .0
            .retain(|name, amount| amount.sign() > 0 && hard.0.contains_key(name));
        if asked.0.is_empty() {
            return Ok(None);
        }
        let mut sum = used.clone();
        sum.add(&asked);
        let exceeded: BTreeSet<&str> = asked
            .0
            .keys()
            .map(Key::as_str)
            .filter(|name| sum.get(name) > hard.get(name))
            .collect();
        if self.refuses && !exceeded.is_empty() {
            let told = |amounts: &Amounts| {
                let parts: Vec<String> = exceeded
                    .iter()
                    .filter_map(|name| Some(format!("{name}={}", amounts.0.get(*name)?)))
                    .collect();
                parts.join(",")
            };
            return Err(format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                told(&asked),
                told(&used),
                told(&hard)
            ));
        }
        Ok(Some(sum))
    }
}

/// The limits of a quota, and what is used of them.
fn limits(quota: &Value) -> (Amounts, Amounts) {
    let status = quota.at("status");
    (
        Amounts::read(status.at("hard")),
        Amounts::read(status.at("used")),
    )
}
