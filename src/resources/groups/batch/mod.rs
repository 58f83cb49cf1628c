//! Kinds of the group `batch`.

mod cronjobs;
mod jobs;
#[cfg(test)]
mod tests;
mod validate;

use crate::resources::Rules;

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "cronjobs" => cronjobs::RULES,
        "jobs" => jobs::RULES,
        _ => Rules::DEFAULT,
    }
}
