//! Thresholds of eviction.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::super::supplies::HostUsage;
use super::Signal;
use crate::meta::quantity::{Form, Quantity};

pub(super) fn units(amount: u64, form: Form) -> Quantity {
    Quantity::units(i64::try_from(amount).unwrap_or(i64::MAX), form)
}

/// The least amount that must remain.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    Amount(Quantity),
    /// In percent of the capacity.
    Percent(f64),
}

/// Thresholds: `memory.available<100Mi,nodefs.available<10%`.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds(Vec<(Signal, Limit)>);

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds(vec![
            (
                Signal::Memory,
                Limit::Amount(units(100 << 20, Form::Binary)),
            ),
            (Signal::Disk, Limit::Percent(10.0)),
            (Signal::Inodes, Limit::Percent(5.0)),
            (Signal::ImageDisk, Limit::Percent(15.0)),
            (Signal::ImageInodes, Limit::Percent(5.0)),
        ])
    }
}

impl FromStr for Thresholds {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').filter(|part| !part.is_empty());
        let one = |part: &str| -> Result<Option<(Signal, Limit)>, String> {
            let (name, limit) = part
                .split_once('<')
                .ok_or_else(|| format!("{part:?} is not SIGNAL<QUANTITY or SIGNAL<PERCENT%"))?;
            let signal = Signal::ALL.into_iter().find(|(_, own)| *own == name);
            let (signal, _) = signal.ok_or_else(|| format!("there is no signal {name:?}"))?;
            if matches!(limit, "0%" | "100%") {
                // These values mean no threshold.
                return Ok(None);
            }
            let limit = match limit.strip_suffix('%') {
                Some(percent) => percent
                    .parse()
                    .ok()
                    .filter(|percent| (0.0..=100.0).contains(percent))
                    .map(Limit::Percent),
                None => Quantity::parse(limit)
                    .ok()
                    .filter(|limit| limit.sign() >= 0)
                    .map(Limit::Amount),
            };
            let limit = limit.ok_or_else(|| format!("{part:?} names no amount"))?;
            Ok(Some((signal, limit)))
        };
        parts
            .filter_map(|part| one(part).transpose())
            .collect::<Result<_, String>>()
            .map(Thresholds)
    }
}

impl fmt::Display for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (signal, limit)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{}<{limit}", signal.name())?;
        }
        Ok(())
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Percent(percent) => write!(f, "{percent}%"),
            Limit::Amount(amount) => write!(f, "{amount}"),
        }
    }
}

/// A threshold that is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Met {
    /// The signal.
    pub signal: Signal,
    /// The least amount that must remain.
    pub limit: Quantity,
    /// The remaining amount.
    pub available: Quantity,
}

impl Thresholds {
    /// The limit of each signal, as in kubelet's `evictionHard`.
    pub fn limits(&self) -> BTreeMap<String, String> {
        let all = self.0.iter();
        all.map(|(signal, limit)| (signal.name().to_owned(), limit.to_string()))
            .collect()
    }

    /// What pods may use of a host with `capacity`: without what is kept free. Follows `hardEvictionReservation`
    /// (pkg/kubelet/cm).
    pub fn leave(&self, capacity: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut left = capacity.clone();
        for (signal, limit) in &self.0 {
            let name = match signal {
                Signal::Memory => "memory",
                Signal::Disk => "ephemeral-storage",
                _ => continue,
            };
            let Some(whole) = capacity
                .get(name)
                .and_then(|whole| Quantity::parse(whole).ok())
            else {
                continue;
            };
            let whole = whole.value();
            let kept = match limit {
                Limit::Amount(amount) => amount.value(),
                Limit::Percent(percent) => (whole as f64 * percent / 100.0) as i64,
            };
            let rest = units((whole - kept).max(0) as u64, Form::Binary);
            left.insert(name.to_owned(), rest.to_string());
        }
        left
    }

    /// The thresholds that a host meets, memory first. A signal that cannot be measured meets none.
    pub fn met(&self, host: &HostUsage) -> Vec<Met> {
        let mut met: Vec<Met> = self
            .0
            .iter()
            .filter_map(|(signal, limit)| {
                let amount = signal.of(host);
                let limit = match limit {
                    Limit::Amount(amount) => *amount,
                    Limit::Percent(percent) => {
                        let part = amount.capacity as f64 * percent / 100.0;
                        units(part as u64, Form::Binary)
                    }
                };
                let available = units(amount.available, signal.form());
                (amount.capacity > 0 && available < limit).then_some(Met {
                    signal: *signal,
                    limit,
                    available,
                })
            })
            .collect();
        met.sort_by_key(|met| met.signal != Signal::Memory);
        met
    }
}
