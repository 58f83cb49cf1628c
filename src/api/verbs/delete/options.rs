//! The options of a deletion.

use super::super::Target;
use crate::api::query::{Query, validate_dry_run};
use crate::meta::status::About;
use crate::meta::{Errors, Path, Status};
use crate::schema::Value;
use crate::store::Entry;

pub(super) const ORPHAN: &str = "orphan";

pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// The options of a DELETE.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// In seconds; None for the kind's default.
    pub grace: Option<i64>,
    /// `preconditions.uid`
    pub uid: Option<String>,
    /// `preconditions.resourceVersion`
    pub resource_version: Option<String>,
    /// `propagationPolicy`
    pub propagation: Option<String>,
    /// `orphanDependents`, the predecessor of `propagationPolicy`.
    pub orphan: Option<bool>,
    /// Nothing is written.
    pub dry_run: bool,
    /// `ignoreStoreReadErrorWithClusterBreakingPotential`: delete the object only if it cannot be decoded.
    pub unreadable: bool,
}

/// The verb that a user needs besides `delete` to remove an object that cannot be decoded.
pub(super) const UNSAFE: &str = "unsafe-delete-ignore-read-errors";

pub(super) const UNREAD: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";

impl DeleteOptions {
    /// Reads the options from a body (canonical DeleteOptions), or from the query if there is none.
    ///
    /// # Errors
    /// 400 for invalid numbers, 422 for invalid combinations.
    pub fn read(body: Option<&Value>, query: &Query) -> Result<DeleteOptions, Status> {
        let mut options = DeleteOptions::default();
        let unread = match body {
            Some(body) => body.at(UNREAD).as_bool(),
            None => query.bool(UNREAD),
        };
        let dry: Vec<String> = match body {
            Some(body) => {
                options.grace = body.at("gracePeriodSeconds").as_int();
                let text = |key: &str| body.at("preconditions").at(key).as_str().map(str::to_owned);
                options.uid = text("uid");
                options.resource_version = text("resourceVersion");
                options.propagation = body.at("propagationPolicy").as_str().map(str::to_owned);
                options.orphan = body.at("orphanDependents").as_bool();
                body.list("dryRun")
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect()
            }
            None => {
                options.grace = query.int("gracePeriodSeconds")?;
                let text = |key: &str| query.get(key).filter(|text| !text.is_empty());
                options.uid = text("uid").map(str::to_owned);
                options.resource_version = text("resourceVersion").map(str::to_owned);
                options.propagation = query.get("propagationPolicy").map(str::to_owned);
                options.orphan = query.bool("orphanDependents");
                query.all("dryRun").map(str::to_owned).collect()
            }
        };
        let mut errors = Errors::default();
        if options.orphan.is_some() && options.propagation.is_some() {
            errors.invalid(
                Path::ROOT.field("propagationPolicy"),
                options.propagation.as_deref(),
                "orphanDependents and deletionPropagation cannot be both set",
            );
        }
        if let Some(policy) = options.propagation.as_deref()
            && !matches!(policy, "Foreground" | "Background" | "Orphan")
        {
            errors.not_supported(
                Path::ROOT.field("propagationPolicy"),
                policy,
                &["Foreground", "Background", "Orphan", "nil"],
            );
        }
        validate_dry_run(
            &dry.iter().map(String::as_str).collect::<Vec<_>>(),
            &mut errors,
        );
        options.dry_run = !dry.is_empty();
        options.unreadable = unread == Some(true);
        let preconditions = match body {
            Some(body) => body.get("preconditions").is_some(),
            None => options.uid.is_some() || options.resource_version.is_some(),
        };
        for (set, field) in [
            (options.propagation.is_some(), "propagationPolicy"),
            (options.orphan.is_some(), "orphanDependents"),
            (options.grace.is_some(), "gracePeriodSeconds"),
            (preconditions, "preconditions"),
        ] {
            if options.unreadable && set {
                let why = format!("cannot be set together with .{field}");
                errors.invalid(Path::ROOT.field(UNREAD), true, why);
            }
        }
        if errors.is_empty() {
            Ok(options)
        } else {
            Err(refused(&errors))
        }
    }
}

impl DeleteOptions {
    /// Checks the preconditions against the stored object.
    ///
    /// # Errors
    /// 409 for another uid or revision.
    pub(in crate::api) fn check(
        &self,
        target: &Target,
        entry: &Entry,
        uid: &str,
    ) -> Result<(), Status> {
        let resource = &target.resource;
        let name = resource.split_key(&entry.key).1;
        let rev = entry.rev.to_string();
        for (asked, found, what, ended) in [
            (&self.uid, uid, "UID", "deleted and then recreated"),
            (&self.resource_version, &*rev, "ResourceVersion", "modified"),
        ] {
            let Some(asked) = asked.as_deref().filter(|asked| *asked != found) else {
                continue;
            };
            if let Some(failed) = resource.rules.deletion.precondition_failed {
                let why = format!(
                    "{failed}: {what} in precondition: {asked}, {what} in object meta: {found}"
                );
                return Err(Status::conflict(target.about(name), &why));
            }
            // Upstream uses the internal type, which events of both groups share.
            let group = match resource.rules.internal.starts_with("core.") {
                true => "",
                false => &*resource.group,
            };
            let about = About {
                group,
                kind: &resource.kind,
                name,
            };
            let why = format!(
                "the {what} in the precondition ({asked}) does not match the {what} in record ({found}). The object might have been {ended}"
            );
            return Err(Status::conflict(about, &why));
        }
        Ok(())
    }
}

pub(super) fn refused(errors: &Errors) -> Status {
    let about = About {
        group: "meta.k8s.io",
        kind: "DeleteOptions",
        name: "",
    };
    Status::invalid(about, errors)
}
