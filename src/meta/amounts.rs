//! ResourceLists: amounts requested, limited, or available, by resource name. Follows
//! k8s.io/component-helpers/resource.

use std::collections::BTreeMap;

use compact_str::CompactString;

use super::quantity::Quantity;
use crate::schema::{Object, Value};

/// Amounts by resource name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(pub BTreeMap<CompactString, Quantity>);

/// One of the two lists in a container's `resources`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `requests`
    Requests,
    /// `limits`
    Limits,
}

impl Side {
    /// The member of `resources`.
    pub fn key(self) -> &'static str {
        match self {
            Side::Requests => "requests",
            Side::Limits => "limits",
        }
    }
}

impl Amounts {
    /// Reads `{"cpu": "100m"}`; skips invalid quantities.
    pub fn read(list: &Value) -> Amounts {
        let members = list.as_object().into_iter().flat_map(Object::iter);
        Amounts(
            members
                .filter_map(|(name, amount)| {
                    let amount = Quantity::parse(amount.as_str()?).ok()?;
                    Some((name.clone(), amount))
                })
                .collect(),
        )
    }

    /// Writes `{"cpu": "100m"}`, sorted.
    pub fn to_value(&self) -> Value {
        let members = self.0.iter();
        Value::Object(
            members
                .map(|(name, amount)| (name.clone(), amount.to_string()))
                .collect(),
        )
    }

    /// The amount of a resource; zero if it is not in the list.
    pub fn get(&self, name: &str) -> Quantity {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Adds another list.
    pub fn add(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            let sum = match self.0.get(name) {
                Some(had) => *had + *amount,
                None => *amount,
            };
            self.0.insert(name.clone(), sum);
        }
    }

    /// Raises each amount to that of the other list if that is larger.
    pub fn max(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            if self.0.get(name).is_none_or(|had| amount > had) {
                self.0.insert(name.clone(), *amount);
            }
        }
    }

    /// The requests or limits of one container.
    pub fn container(container: &Value, side: Side) -> Amounts {
        Amounts::read(container.at("resources").at(side.key()))
    }

    /// The effective amounts of a pod's containers and init containers, without pod-level resources.
    pub fn containers(spec: &Value, side: Side) -> Amounts {
        Amounts::sum(spec, |container| Amounts::container(container, side))
    }

    /// What a running pod requests or may use at most, without its overhead: the sum of its containers and restartable
    /// init containers, or more if initialization needs more; resources set at pod level take precedence.
    pub fn pod(spec: &Value, side: Side) -> Amounts {
        let mut sum = Amounts::containers(spec, side);
        for (name, amount) in Amounts::container(spec, side).0 {
            if is_pod_level(&name) {
                sum.0.insert(name, amount);
            }
        }
        sum
    }

    /// The maximum of what a pod requests, has been allocated, and uses, with its overhead: these differ during a
    /// resize.
    pub fn pod_at_most(pod: &Value, side: Side) -> Amounts {
        let (spec, status) = (pod.at("spec"), pod.at("status"));
        let resize = status
            .list("conditions")
            .iter()
            .find(|condition| condition.str("type") == "PodResizePending");
        let infeasible = resize.is_some_and(|condition| condition.str("reason") == "Infeasible");
        let of_status = |container: &Value| -> Option<&Value> {
            let name = container.str("name");
            ["containerStatuses", "initContainerStatuses"]
                .iter()
                .flat_map(|list| status.list(list))
                .find(|known| known.str("name") == name)
        };
        let asked = |container: &Value| {
            if infeasible {
                Amounts::default()
            } else {
                Amounts::container(container, side)
            }
        };
        let given = |container: &Value| match of_status(container) {
            Some(known) if side == Side::Requests && known.get("allocatedResources").is_some() => {
                Amounts::read(known.at("allocatedResources"))
            }
            _ => asked(container),
        };
        let in_use = |container: &Value| match of_status(container) {
            Some(known) if known.at("resources").get(side.key()).is_some() => {
                Amounts::container(known, side)
            }
            _ => given(container),
        };
        let mut most = Amounts::sum(spec, in_use);
        most.max(&Amounts::sum(spec, given));
        if !infeasible {
            most.max(&Amounts::sum(spec, asked));
        }
        let mut whole = Amounts::default();
        if !infeasible {
            whole.max(&Amounts::container(spec, side));
        }
        if !spec.at("resources").is_empty() {
            whole.max(&Amounts::container(status, side));
            if side == Side::Requests {
                whole.max(&Amounts::read(status.at("allocatedResources")));
            }
            for (name, amount) in whole.0 {
                if is_pod_level(&name) {
                    most.0.insert(name, amount);
                }
            }
        }
        let mut overhead = Amounts::read(spec.at("overhead"));
        if side == Side::Limits {
            overhead.0.retain(|name, _| most.get(name).sign() != 0);
        }
        most.add(&overhead);
        most
    }

    /// [`Amounts::containers`], with `of` giving the amounts of each container.
    fn sum(spec: &Value, of: impl Fn(&Value) -> Amounts) -> Amounts {
        let mut sum = Amounts::default();
        for container in spec.list("containers") {
            sum.add(&of(container));
        }
        let (mut going_on, mut starting) = (Amounts::default(), Amounts::default());
        for container in spec.list("initContainers") {
            let mut own = of(container);
            if container.str("restartPolicy") == "Always" {
                sum.add(&own);
                going_on.add(&own);
                starting.max(&going_on);
            } else {
                own.add(&going_on);
                starting.max(&own);
            }
        }
        sum.max(&starting);
        sum
    }
}

/// Whether a resource may be set at pod level.
pub fn is_pod_level(name: &str) -> bool {
    name == "cpu" || name == "memory" || name.starts_with("hugepages-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::json;

    #[test]
    fn a_pod_needs_what_its_containers_need_at_any_time() {
        let cpu = |text: &str| {
            let spec = json::parse(text.as_bytes()).unwrap().value;
            Amounts::pod(&spec, Side::Requests).get("cpu").to_string()
        };
        let container = |amount: &str, rest: &str| {
            format!(r#"{{"resources":{{"requests":{{"cpu":"{amount}"}}}}{rest}}}"#)
        };
        let goes_on = r#","restartPolicy":"Always""#;
        for (containers, init, wanted) in [
            (
                vec![container("100m", ""), container("1", "")],
                vec![],
                "1100m",
            ),
            (vec![container("100m", "")], vec![container("1", "")], "1"),
            (
                vec![container("100m", "")],
                vec![container("1", goes_on)],
                "1100m",
            ),
            (
                vec![container("100m", "")],
                vec![container("1", goes_on), container("2", "")],
                "3",
            ),
            (
                vec![container("100m", "")],
                vec![container("2", ""), container("1", goes_on)],
                "2",
            ),
        ] {
            let spec = format!(
                r#"{{"containers":[{}],"initContainers":[{}]}}"#,
                containers.join(","),
                init.join(",")
            );
            assert_eq!(cpu(&spec), wanted, "{spec}");
        }
        let whole = r#"{"containers":[{"resources":{"requests":{"cpu":"1"}}}],"resources":{"requests":{"cpu":"5"}}}"#;
        assert_eq!(cpu(whole), "5");
    }
}
