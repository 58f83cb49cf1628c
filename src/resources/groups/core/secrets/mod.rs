//! Secrets. Follows k8s.io/kubernetes/pkg/registry/core/secret/strategy.go and pkg/apis/core/validation.

mod key_pair;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::configmaps::{MAX_SIZE, count, decoded_len, frozen, value_key};
use crate::meta::{At, Errors, table};
use crate::resources::groups::core::pods::defaults;
use crate::resources::{Printing, Rules, Selectable, Selection, SelectorError, metadata};
use crate::schema::{Value, json};

const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

/// The rules of secrets.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| {
        // Values in `stringData` have precedence over `data`. They are never returned.
        if let Some(Value::Object(said)) = object.remove("stringData") {
            let data = object.object_mut().object_mut("data");
            for (key, value) in said {
                let text = value.as_str().unwrap_or_default();
                data.insert(key, STANDARD.encode(text));
            }
        }
        defaults::text(object, "type", "Opaque");
    },
    validate: |object, old, cx, errors| {
        metadata::again(object, old, cx, errors);
        let kind = object.field("type");
        if let Some(old) = old {
            kind.immutable(old.value.at("type"), errors);
            frozen(object, old.value, &[("data", true)], errors);
        }
        secret(object, errors);
    },
    warnings: |object, _, _| {
        let pem = |key: &str| decoded(object.at("data").str(key));
        match object.str("type") {
            "kubernetes.io/tls" => key_pair::check(&pem("tls.crt"), &pem("tls.key"))
                .err()
                .into_iter()
                .collect(),
            _ => Vec::new(),
        }
    },
    printing: Printing::of(|object, now| {
        vec![
            object.at("metadata").str("name").into(),
            object.str("type").into(),
            count(object.entries("data").count()),
            table::age(object, now),
        ]
    }),
    selection: Selection {
        fields: &[Selectable {
            name: "type",
            value: |object| object.str("type").to_owned(),
        }],
        refusal: SelectorError::Own,
        ..Selection::DEFAULT
    },
    internal: "core.Secret",
    ..Rules::DEFAULT
};

fn decoded(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap_or_default()
}

fn secret(object: At<'_>, errors: &mut Errors) {
    let data = object.field("data");
    let mut size = 0;
    for (key, value) in data.entries() {
        value_key(key, value, errors);
        size += decoded_len(value.str());
    }
    if size > MAX_SIZE {
        errors.too_long(data.path, MAX_SIZE);
    }
    let has = |key: &str| data.value.get(key).is_some();
    let need = |key: &str, errors: &mut Errors| errors.required(data.path.key(key), "");
    match object.value.str("type") {
        "kubernetes.io/service-account-token" => {
            let annotations = object.value.at("metadata").at("annotations");
            if annotations.str(ACCOUNT_NAME).is_empty() {
                let path = object.path.field("metadata.annotations");
                errors.required(path.key(ACCOUNT_NAME), "");
            }
        }
        "kubernetes.io/dockercfg" => docker(data, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => docker(data, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            need("username", errors);
            need("password", errors);
        }
        "kubernetes.io/ssh-auth" if data.value.str("ssh-privatekey").is_empty() => {
            need("ssh-privatekey", errors);
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|key| !has(key)) {
                need(key, errors);
            }
        }
        _ => {}
    }
}

/// Registry credentials must be a JSON object.
fn docker(data: At<'_>, key: &str, errors: &mut Errors) {
    let path = data.path.key(key);
    let Some(text) = data.value.get(key).and_then(Value::as_str) else {
        errors.required(path, "");
        return;
    };
    let wrong = match json::parse(&decoded(text)) {
        Err(error) => error.message,
        Ok(parsed) => match parsed.value {
            Value::Object(_) | Value::Null => return,
            other => format!(
                "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                other.type_name()
            ),
        },
    };
    errors.invalid(path, "<secret contents redacted>", wrong);
}
