//! Hostnames and DNS configuration of pods.

use crate::meta::{At, Errors, addresses, names};
use crate::schema::Value;

const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_TEXT: usize = 2048;

/// `dnsConfig`: validatePodDNSConfig.
pub(super) fn config(spec: At<'_>, errors: &mut Errors) {
    let config = spec.field("dnsConfig");
    let servers = config.field("nameservers");
    if spec.value.str("dnsPolicy") == "None" {
        if config.is_absent() {
            return errors.required(
                config.path,
                "must provide `dnsConfig` when `dnsPolicy` is None",
            );
        }
        let none = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        if !servers.required(none, errors) {
            return;
        }
    }
    if servers.list().len() > MAX_SERVERS {
        servers.invalid(
            format!("must not have more than {MAX_SERVERS} nameservers"),
            errors,
        );
    }
    for server in servers.items() {
        server.checked(addresses::ip_legacy, errors);
    }
    let searches = config.field("searches");
    if searches.list().len() > MAX_SEARCHES {
        searches.invalid(
            format!("must not have more than {MAX_SEARCHES} search paths"),
            errors,
        );
    }
    let texts: Vec<&str> = searches.list().iter().filter_map(Value::as_str).collect();
    if texts.join(" ").len() > MAX_SEARCH_TEXT {
        searches.invalid(
            format!(
                "must not have more than {MAX_SEARCH_TEXT} characters (including spaces) in the search list"
            ),
            errors,
        );
    }
    for search in searches.items() {
        let text = search.str();
        if text == "." {
            continue;
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        for wrong in names::dns1123_subdomain_with_underscore(text) {
            errors.invalid(search.path, text, wrong);
        }
    }
    for option in config.field("options").items() {
        if option.value.str("name").is_empty() {
            errors.required(option.path, "must not be empty");
        }
    }
}

/// `hostnameOverride`: validatePodHostName.
pub(super) fn hostname_override(spec: At<'_>, errors: &mut Errors) {
    let name = spec.field("hostnameOverride");
    if name.is_absent() {
        return;
    }
    if spec.value.bool("setHostnameAsFQDN") {
        errors.forbidden(
            name.path,
            "may not be specified when setHostnameAsFQDN is true",
        );
    }
    if spec.value.bool("hostNetwork") {
        errors.forbidden(name.path, "may not be specified when hostNetwork is true");
    }
    if name.str().len() > 64 {
        errors.too_long(name.path, 64);
    }
    name.checked(names::dns1123_subdomain, errors);
}

/// Validates host aliases: ValidateHostAliases.
pub(super) fn host_aliases(list: At<'_>, errors: &mut Errors) {
    for alias in list.items() {
        alias.field("ip").checked(addresses::ip_legacy, errors);
        for name in alias.field("hostnames").items() {
            name.checked(names::dns1123_subdomain, errors);
        }
    }
}
