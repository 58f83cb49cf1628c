//! Validation of the conversion between versions.

use super::{Options, choice};
use crate::meta::errors::shown;
use crate::meta::{At, Errors, names};
use crate::resources::custom::conditions;
use crate::resources::groups::webhooks;
use crate::schema::Value;

pub(super) fn conversion(conversion: At<'_>, options: &Options<'_>, errors: &mut Errors) {
    if conversion.is_absent() {
        return;
    }
    let strategy = conversion.field("strategy");
    choice(strategy, &["None", "Webhook"], errors);
    let webhook = conversion.field("webhook");
    let versions = At {
        value: webhook.value.at("conversionReviewVersions"),
        path: conversion.path.field("conversionReviewVersions"),
    };
    let client = At {
        value: webhook.value.at("clientConfig"),
        path: conversion.path.field("webhookClientConfig"),
    };
    if strategy.str() != "Webhook" {
        if !client.is_absent() {
            errors.forbidden(
                client.path,
                "should not be set when strategy is not set to Webhook",
            );
        }
        if !versions.list().is_empty() {
            errors.forbidden(
                versions.path,
                "should not be set when strategy is not set to Webhook",
            );
        }
        return;
    }
    if client.is_absent() {
        errors.required(client.path, "required when strategy is set to Webhook");
    } else {
        webhook_client(client, options, errors);
    }
    review_versions(versions, options, errors);
}

fn review_versions(versions: At<'_>, options: &Options<'_>, errors: &mut Errors) {
    if versions.list().is_empty() {
        errors.required(versions.path, "");
        return;
    }
    let known = |list: &[Value]| {
        list.iter()
            .any(|version| matches!(version.as_str(), Some("v1" | "v1beta1")))
    };
    let mut seen: Vec<&str> = Vec::new();
    for version in versions.items() {
        if seen.contains(&version.str()) {
            errors.invalid(version.path, version.str(), "duplicate version");
            continue;
        }
        seen.push(version.str());
        version.invalid_each(names::dns1035_label(version.str()), errors);
    }
    let before = options.old.map(|old| {
        old.path(&["spec", "conversion", "webhook"])
            .list("conversionReviewVersions")
    });
    let required = before.is_none_or(|before| before.is_empty() || known(before));
    if required && !known(versions.list()) {
        errors.invalid(
            versions.path,
            versions.value,
            "must include at least one of v1, v1beta1",
        );
    }
}

fn webhook_client(client: At<'_>, options: &Options<'_>, errors: &mut Errors) {
    webhooks::client(client, errors);
    let bundle = client.field("caBundle");
    let old = options
        .old
        .map(|old| old.path(&["spec", "conversion", "webhook", "clientConfig", "caBundle"]));
    let was_wrong = old
        .and_then(Value::as_str)
        .is_some_and(|old| !conditions::is_bundle(old));
    if options.was_established() && !was_wrong && !conditions::is_bundle(bundle.str()) {
        errors.invalid_shown(
            bundle.path,
            &shown(bundle.value),
            "unable to load root certificates: unable to parse bytes as PEM block",
        );
    }
}
