//! Client configurations of webhooks: a URL or a service. Follows k8s.io/apiserver/pkg/util/webhook/validation.go.

use crate::meta::{At, Errors, names};

/// Validates a WebhookClientConfig, except its CA bundle.
pub(super) fn client(client: At<'_>, errors: &mut Errors) {
    let (url, service) = (client.field("url"), client.field("service"));
    match (url.is_absent(), service.is_absent()) {
        (true, true) | (false, false) => {
            errors.required(client.path, "exactly one of url or service is required");
        }
        (false, true) => self::url(url, errors),
        (true, false) => self::service(service, errors),
    }
}

/// ValidateWebhookURL, with https required.
fn url(at: At<'_>, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let url = match crate::meta::url::parse(at.str()) {
        Ok(url) => url,
        Err(why) => {
            errors.required(at.path, &format!("url must be a valid URL: {why}{FORM}"));
            return;
        }
    };
    if url.scheme != "https" {
        errors.invalid(
            at.path,
            url.scheme.as_str(),
            format!("'https' is the only allowed URL scheme{FORM}"),
        );
    }
    if url.host.is_empty() {
        errors.invalid(at.path, "", format!("host must be specified{FORM}"));
    }
    if let Some(user) = &url.user {
        errors.invalid(
            at.path,
            user.as_str(),
            "user information is not permitted in the URL",
        );
    }
    if !url.fragment.is_empty() {
        errors.invalid(
            at.path,
            url.fragment.as_str(),
            "fragments are not permitted in the URL",
        );
    }
    if !url.query.is_empty() {
        errors.invalid(
            at.path,
            url.query.as_str(),
            "query parameters are not permitted in the URL",
        );
    }
}

/// ValidateWebhookService, with upstream's exchanged arguments: errors about a missing name show the namespace, and
/// vice versa.
fn service(service: At<'_>, errors: &mut Errors) {
    if service.value.str("namespace").is_empty() {
        errors.required(service.path.field("name"), "");
    }
    if service.value.str("name").is_empty() {
        errors.required(service.path.field("namespace"), "");
    }
    let port = service.field("port");
    let wrong = names::port_number(port.int().unwrap_or(0));
    if !wrong.is_empty() {
        errors.invalid(
            port.path,
            port.int().unwrap_or(0),
            format!("port is not valid: {}", wrong.join(", ")),
        );
    }
    let path = service.field("path");
    let text = path.str();
    if matches!(text, "" | "/") {
        return;
    }
    if text == "//" {
        errors.invalid(path.path, text, "segment[0] may not be empty");
        return;
    }
    if !text.starts_with('/') {
        errors.invalid(path.path, text, "must start with a '/'");
    }
    let inner: String = text.chars().skip(1).collect();
    let inner = inner.strip_suffix('/').unwrap_or(&inner);
    for (i, step) in inner.split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(path.path, text, format!("segment[{i}] may not be empty"));
            continue;
        }
        for wrong in names::dns1123_subdomain(step) {
            errors.invalid(path.path, text, format!("segment[{i}]: {wrong}"));
        }
    }
}
