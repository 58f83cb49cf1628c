//! CertificateSigningRequests, and their subresources for approval and signing.

use std::collections::BTreeSet;

use super::{SIGNER, x509};
use crate::meta::{At, Errors, table, time};
use crate::resources::groups::core::pods::defaults;
use crate::resources::groups::core::pods::validate::signer_name;
use crate::resources::{
    Cx, Naming, Printing, Rules, Selection, SelectorError, StatusRules, metadata,
};
use crate::schema::{Object, Value};

/// The signer of requests from before signers had names.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
/// The key usages, sorted.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// The conditions of which a request may have only one.
const VERDICTS: [&str; 2] = ["Approved", "Denied"];

/// The rules of certificate signing requests. Updates change only metadata; approval and certificate are written
/// through subresources.
pub(super) const RULES: Rules = Rules {
    prepare_create: |request, cx| asked_by(request.object_mut().object_mut("spec"), cx),
    prepare_update: |request, old, _| request.set("spec", old.at("spec")),
    validate: |request, old, cx, errors| {
        metadata::again(request, old, cx, errors);
        if old.is_none() {
            spec(request.field("spec"), errors);
        }
    },
    status: StatusRules {
        prepare: prepare_status,
        validate: validate_status,
        ..StatusRules::DEFAULT
    },
    printing: Printing::of(cells),
    selection: Selection {
        fields: &[SIGNER],
        by_namespace: false,
        refusal: SelectorError::Own,
        ..Selection::DEFAULT
    },
    naming: Naming::validated_by(|_, _| Vec::new()),
    internal: "certificates.CertificateSigningRequest",
    ..Rules::DEFAULT
};

/// Records the requesting user.
fn asked_by(spec: &mut Object, cx: &Cx<'_>) {
    let texts = |list: &[compact_str::CompactString]| -> Vec<Value> {
        list.iter().map(Value::from).collect()
    };
    let extra: Object = cx
        .user
        .extra
        .iter()
        .map(|(key, values)| (key.clone(), Value::Array(texts(values))))
        .collect();
    spec.insert("username", cx.user.name.clone());
    spec.insert("uid", cx.user.uid.clone());
    spec.insert("groups", texts(&cx.user.groups));
    spec.insert("extra", extra);
}

fn spec(spec: At<'_>, errors: &mut Errors) {
    let request = spec.field("request");
    if let Err(why) = x509::check_request(&text(request.value)) {
        request.invalid(why, errors);
    }
    let usages = spec.field("usages");
    usages.required("", errors);
    for usage in usages.items() {
        usage.one_of(USAGES, errors);
    }
    let mut known = BTreeSet::new();
    for usage in usages.items() {
        if !known.insert(usage.str()) {
            errors.duplicate(usage.path, usage.str());
        }
    }
    let signer = spec.field("signerName");
    if signer.str() == LEGACY_SIGNER {
        signer.invalid(
            "the legacy signerName is not allowed via this API version",
            errors,
        );
    } else {
        signer_name(signer, errors);
    }
    let seconds = spec.field("expirationSeconds");
    if seconds.int().is_some_and(|n| n < 600) {
        seconds.invalid(
            "may not specify a duration less than 600 seconds (10 minutes)",
            errors,
        );
    }
}

/// Decodes base64 text; empty if it is malformed.
fn text(base64: &Value) -> String {
    use base64::Engine as _;
    let engine = &base64::engine::general_purpose::STANDARD;
    let bytes = engine.decode(base64.as_str().unwrap_or_default());
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

fn prepare_status(request: &mut Value, old: &Value, cx: &Cx<'_>) {
    request.set("spec", old.at("spec"));
    if cx.subresource == "approval" {
        let certificate = old.at("status").at("certificate");
        let status = request.object_mut().object_mut("status");
        status.insert("certificate", certificate);
    } else {
        keep_verdicts(request, old);
    }
    let now = time::print(cx.now);
    let Some(status) = request.get_mut("status") else {
        return;
    };
    for condition in defaults::items(status, "conditions") {
        if condition.get("lastUpdateTime").is_none() {
            condition.set("lastUpdateTime", now.as_str());
        }
        if condition.get("lastTransitionTime").is_none() {
            let same = |was: &&Value| {
                ["type", "status"]
                    .iter()
                    .all(|key| was.str(key) == condition.str(key))
            };
            let was = old.at("status").list("conditions").iter().find(same);
            let since = was.and_then(|was| was.get("lastTransitionTime"));
            let since = since.cloned().unwrap_or_else(|| now.as_str().into());
            condition.set("lastTransitionTime", since);
        }
    }
}

/// When the certificate is written, approval conditions are restored unless some were added or removed, which
/// validation rejects.
fn keep_verdicts(request: &mut Value, old: &Value) {
    for kind in VERDICTS {
        let of_kind = |condition: &&Value| condition.str("type") == kind;
        let old_ones: Vec<Value> = conditions(old).iter().filter(of_kind).cloned().collect();
        if conditions(request).iter().filter(of_kind).count() != old_ones.len() {
            continue;
        }
        let Some(status) = request.get_mut("status") else {
            return;
        };
        defaults::items(status, "conditions")
            .filter(|condition| condition.str("type") == kind)
            .zip(old_ones)
            .for_each(|(condition, was)| *condition = was);
    }
}

fn conditions(request: &Value) -> &[Value] {
    request.at("status").list("conditions")
}

fn validate_status(request: At<'_>, old: At<'_>, cx: &Cx<'_>, errors: &mut Errors) {
    metadata::again(request, Some(old), cx, errors);
    let status = request.field("status");
    let (list, certificate) = (status.field("conditions"), status.field("certificate"));
    judge_conditions(list, errors);
    let had = old.value.at("status").str("certificate");
    let changed = had != certificate.str();
    if changed && let Err(why) = x509::check_certificates(&text(certificate.value)) {
        errors.invalid(certificate.path, "<certificate data>", why);
    }
    let count = |request: &Value, kind: &str| {
        conditions(request)
            .iter()
            .filter(|condition| condition.str("type") == kind)
            .count()
    };
    let counts = |kind: &str| (count(request.value, kind), count(old.value, kind));
    for kind in ["Approved", "Denied", "Failed"] {
        if let (now, before) = counts(kind)
            && now < before
        {
            errors.forbidden(
                list.path,
                format!("updates may not remove a condition of type \"{kind}\""),
            );
        }
    }
    for kind in VERDICTS.iter().filter(|_| cx.subresource != "approval") {
        if let (now, before) = counts(kind)
            && now > before
        {
            errors.forbidden(
                list.path,
                format!("updates may not add a condition of type \"{kind}\""),
            );
        }
    }
    if changed && !had.is_empty() {
        errors.forbidden(
            certificate.path,
            "updates may not modify existing certificate content",
        );
    }
    // Upstream reports declarative validation last.
    if VERDICTS.iter().all(|kind| count(request.value, kind) > 0) {
        let members = VERDICTS.map(|kind| format!("conditions[{{\"type\": \"{kind}\"}}]"));
        errors.invalid(
            list.path,
            format!("{{{}}}", members.join(", ")),
            format!(
                "must specify at most one of: {}",
                members.map(|member| format!("`{member}`")).join(", ")
            ),
        );
    }
}

fn judge_conditions(list: At<'_>, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    for condition in list.items() {
        let (kind, status) = (condition.field("type"), condition.field("status"));
        kind.required("", errors);
        let supported: &[&str] = match kind.str() {
            "Approved" | "Denied" | "Failed" => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        status.required_one_of(supported, errors);
        if !known.insert(condition.value.str("type")) {
            errors.duplicate(kind.path, kind.str());
        }
    }
}

fn cells(request: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (request.at("spec"), request.at("status"));
    let has = |kind: &str| {
        conditions(request)
            .iter()
            .any(|condition| condition.str("type") == kind)
    };
    let mut state = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !status.str("certificate").is_empty() {
        state.push_str(",Issued");
    }
    let signer = match spec.str("signerName") {
        "" => "<none>",
        signer => signer,
    };
    let asked = spec.at("expirationSeconds").as_int();
    vec![
        request.at("metadata").str("name").into(),
        table::age(request, now),
        signer.into(),
        spec.str("username").into(),
        asked
            .map_or_else(|| "<none>".into(), table::human_duration)
            .into(),
        state.into(),
    ]
}
