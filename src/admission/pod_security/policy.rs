//! Pod security levels and versions in a namespace's labels. Follows k8s.io/pod-security-admission/api.

use std::fmt;

use crate::meta::errors::quoted;
use crate::meta::{Errors, Path};
use crate::schema::Value;

/// A pod security level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// The minor version of Kubernetes 1 whose checks apply; `None` for the latest.
pub(super) type Version = Option<i64>;

/// A level with its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LevelVersion {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

/// The policy of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// The level that is enforced.
    pub enforce: LevelVersion,
    /// The level that causes warnings.
    pub warn: LevelVersion,
}

const OPEN: LevelVersion = LevelVersion {
    level: Level::Privileged,
    version: None,
};

fn level(text: &str) -> Result<Level, &'static str> {
    match text {
        "privileged" => Ok(Level::Privileged),
        "baseline" => Ok(Level::Baseline),
        "restricted" => Ok(Level::Restricted),
        _ => Err("must be one of privileged, baseline, restricted"),
    }
}

fn version(text: &str) -> Result<Version, &'static str> {
    const WRONG: &str = "must be \"latest\" or \"v1.x\"";
    if text == "latest" {
        return Ok(None);
    }
    let digits = text.strip_prefix("v1.").ok_or(WRONG)?;
    let plain = digits == "0" || (!digits.is_empty() && !digits.starts_with('0'));
    if !plain || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(WRONG);
    }
    digits.parse().map(Some).map_err(|_| WRONG)
}

impl Policy {
    /// Reads the labels; reports invalid ones, and takes invalid enforce labels as the strictest level.
    pub fn read(labels: &Value, errors: &mut Errors) -> Policy {
        let said = |name: &str| labels.at(&label(name)).as_str().map(str::to_owned);
        let (enforce, enforce_version) = (said("enforce"), said("enforce-version"));
        let (audit, audit_version) = (said("audit"), said("audit-version"));
        let (warn, warn_version) = (said("warn"), said("warn-version"));
        let mut policy = Policy {
            enforce: OPEN,
            warn: OPEN,
        };
        let mut enforces = false;
        if let Some(text) = &enforce {
            let read = level(text);
            enforces = read.is_ok();
            policy.enforce.level = take(read, "enforce", text, Level::Restricted, errors);
        }
        if let Some(text) = &enforce_version {
            policy.enforce.version = take(version(text), "enforce-version", text, None, errors);
        }
        // Audit is not implemented, but invalid labels are reported.
        if let Some(text) = &audit {
            take(level(text), "audit", text, Level::Privileged, errors);
        }
        if let Some(text) = &audit_version {
            take(version(text), "audit-version", text, None, errors);
        }
        if let Some(text) = &warn {
            policy.warn.level = take(level(text), "warn", text, Level::Privileged, errors);
        }
        if let Some(text) = &warn_version {
            policy.warn.version = take(version(text), "warn-version", text, None, errors);
        }
        // Templates get warnings for what is rejected in pods.
        if warn.is_none() && enforces && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if warn_version.is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        policy
    }
}

fn label(name: &str) -> String {
    format!("pod-security.kubernetes.io/{name}")
}

fn take<T>(read: Result<T, &str>, name: &str, text: &str, otherwise: T, errors: &mut Errors) -> T {
    read.unwrap_or_else(|why| {
        let labels = Path::ROOT.field("metadata.labels");
        errors.invalid_shown(labels.key(&label(name)), &quoted(text), why);
        otherwise
    })
}
