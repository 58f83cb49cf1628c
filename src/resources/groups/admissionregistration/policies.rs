//! Admission policies: CEL expressions that validate or change objects.

use std::collections::BTreeSet;

use super::{COMMON, FAILURES, REINVOCATIONS, match_defaults, matching, params, static_name};
use crate::meta::{At, Errors, jsonpath::JsonPath, names, table};
use crate::resources::groups::core::pods::defaults;
use crate::resources::{Generation, MetaOnStatus, Printing, Rules, StatusRules, metadata};
use crate::schema::{Object, Value};

/// The maximum number of audit annotations.
const ANNOTATIONS: usize = 20;
/// The maximum length of a value expression, in bytes.
const ANNOTATION_SIZE: usize = 5 << 10;
/// Operations whose objects can be mutated, sorted.
pub(super) const MUTABLE: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];

/// The rules of validating admission policies.
pub(super) const VALIDATING: Rules = Rules {
    defaults: policy_defaults,
    validate: |policy, old, cx, errors| {
        metadata::again(policy, old, cx, errors);
        validating(policy, old, errors);
        static_name(policy, old, errors);
        params::may_read_kind(policy, old, cx, errors);
    },
    status: StatusRules {
        validate: |policy, _, _, errors| status(policy.field("status"), errors),
        metadata: MetaOnStatus::Kept,
        ..COMMON.status
    },
    printing: Printing::of(|policy, now| cells(policy, "validations", now)),
    generation: Generation::Spec,
    internal: "admissionregistration.ValidatingAdmissionPolicy",
    ..COMMON
};

/// The rules of mutating admission policies.
pub(super) const MUTATING: Rules = Rules {
    defaults: policy_defaults,
    validate: |policy, old, cx, errors| {
        metadata::again(policy, old, cx, errors);
        mutating(policy, old, errors);
        static_name(policy, old, errors);
        params::may_read_kind(policy, old, cx, errors);
    },
    printing: Printing::of(|policy, now| cells(policy, "mutations", now)),
    generation: Generation::Spec,
    internal: "admissionregistration.MutatingAdmissionPolicy",
    ..COMMON
};

fn policy_defaults(policy: &mut Value, _: &crate::resources::Cx<'_>) {
    let spec = policy.object_mut().entry("spec", || Object::new().into());
    defaults::absent(spec, "failurePolicy", "Fail");
    if let Some(constraints) = spec.get_mut("matchConstraints") {
        match_defaults(constraints);
    }
}

fn cells(policy: &Value, list: &str, now: i64) -> Vec<Value> {
    let spec = policy.at("spec");
    let kind = match spec.get("paramKind") {
        Some(kind) => format!("{}/{}", kind.str("apiVersion"), kind.str("kind")),
        None => "<unset>".to_owned(),
    };
    vec![
        policy.at("metadata").str("name").into(),
        Value::Int(i64::try_from(spec.list(list).len()).unwrap_or(i64::MAX)),
        kind.into(),
        table::age(policy, now),
    ]
}

/// Validates the fields common to both kinds.
fn common(spec: At<'_>, old: Option<At<'_>>, mutating: bool, errors: &mut Errors) {
    spec.field("failurePolicy").one_of(FAILURES, errors);
    let kind = spec.field("paramKind");
    if !kind.is_absent() {
        params::kind(kind, errors);
    }
    let constraints = spec.field("matchConstraints");
    if constraints.is_absent() {
        errors.required(constraints.path, "");
    } else {
        matching::match_resources(constraints, errors);
        let rules = constraints.field("resourceRules");
        rules.required("", errors);
        if mutating {
            only_mutable(rules, errors);
        }
    }
    let kept = old.is_some_and(|old| {
        let was = old.value.at("spec");
        ["paramKind", "matchConditions"]
            .iter()
            .all(|key| was.at(key) == spec.value.at(key))
    });
    if !kept {
        matching::conditions(spec.field("matchConditions"), errors);
    }
    for variable in spec.field("variables").items() {
        let name = variable.field("name");
        if name.str().trim().is_empty() {
            errors.required(name.path, "name is not specified");
        } else if !is_identifier(name.str()) {
            name.invalid("must be a valid CEL identifier", errors);
        }
        let expression = variable.field("expression");
        matching::expression(expression, "expression is not specified", errors);
    }
}

/// Rejects DELETE in the rules of a mutating policy. Errors do not show the index of the rule.
pub(super) fn only_mutable(rules: At<'_>, errors: &mut Errors) {
    let operations = rules.path.field("operations");
    for rule in rules.list() {
        for operation in rule.list("operations") {
            if !MUTABLE.contains(&operation.as_str().unwrap_or_default()) {
                errors.not_supported(operations, operation, MUTABLE);
            }
        }
    }
}

/// Whether the name is an identifier in CEL and not reserved.
fn is_identifier(name: &str) -> bool {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    names::c_identifier(name).is_empty() && !RESERVED.contains(&name)
}

fn validating(policy: At<'_>, old: Option<At<'_>>, errors: &mut Errors) {
    let spec = policy.field("spec");
    common(spec, old, false, errors);
    let (validations, annotations) = (spec.field("validations"), spec.field("auditAnnotations"));
    if validations.value.is_empty() && annotations.value.is_empty() {
        for list in [validations, annotations] {
            errors.required(
                list.path,
                "validations or auditAnnotations must contain at least one item",
            );
        }
        return;
    }
    validations.items().for_each(|it| validation(it, errors));
    if annotations.list().len() > ANNOTATIONS {
        annotations.invalid_dump(
            "[]admissionregistration.AuditAnnotation",
            format!("must not have more than {ANNOTATIONS} auditAnnotations"),
            errors,
        );
    }
    let mut known = BTreeSet::new();
    let name = policy.value.at("metadata").str("name");
    for annotation in annotations.items() {
        let key = annotation.field("key");
        self::annotation(name, annotation, errors);
        if !known.insert(annotation.value.str("key")) {
            errors.duplicate(key.path, key.str());
        }
    }
}

fn validation(validation: At<'_>, errors: &mut Errors) {
    let message = validation.field("message");
    let message_expression = validation.field("messageExpression");
    matching::expression(
        validation.field("expression"),
        "expression is not specified",
        errors,
    );
    for text in [message_expression, message] {
        let trimmed = text.str().trim();
        if !text.str().is_empty() && trimmed.is_empty() {
            text.invalid("must be non-empty if specified", errors);
        }
    }
    if message.str().trim().contains(['\n', '\r']) {
        message.invalid("must not contain line breaks", errors);
    }
    validation
        .field("reason")
        .one_of_if_there(&["Forbidden", "Invalid", "RequestEntityTooLarge"], errors);
}

fn annotation(policy: &str, annotation: At<'_>, errors: &mut Errors) {
    let (key, expression) = (annotation.field("key"), annotation.field("valueExpression"));
    if policy.is_empty() {
        key.invalid_text("requires metadata.name be non-empty", errors);
    } else {
        let whole = format!("{policy}/{}", key.str());
        for wrong in names::qualified_name(&whole) {
            errors.invalid(key.path, whole.as_str(), wrong);
        }
    }
    if matching::expression(expression, "valueExpression is not specified", errors)
        && expression.str().trim().len() > ANNOTATION_SIZE
    {
        errors.required(
            expression.path,
            &format!("must not exceed {ANNOTATION_SIZE} bytes in length"),
        );
    }
}

fn mutating(policy: At<'_>, old: Option<At<'_>>, errors: &mut Errors) {
    let spec = policy.field("spec");
    common(spec, old, true, errors);
    let mutations = spec.field("mutations");
    mutations.required("mutations must contain at least one item", errors);
    mutations.items().for_each(|it| mutation(it, errors));
    spec.field("reinvocationPolicy")
        .required_one_of(REINVOCATIONS, errors);
}

fn mutation(mutation: At<'_>, errors: &mut Errors) {
    let kind = mutation.field("patchType");
    let (own, other) = match kind.str() {
        "" => return errors.required(kind.path, ""),
        "JSONPatch" => ("jsonPatch", "applyConfiguration"),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
        _ => return kind.one_of(&["ApplyConfiguration", "JSONPatch"], errors),
    };
    let patch = mutation.field(own);
    if patch.is_absent() {
        errors.required(
            patch.path,
            &format!("must be specified when patchType is {}", kind.str()),
        );
    } else {
        matching::expression(patch.field("expression"), "", errors);
    }
    let other = mutation.field(other);
    if !other.is_absent() {
        let name = if kind.str() == "JSONPatch" {
            "{applyConfiguration}"
        } else {
            "{jsonPatch}"
        };
        errors.invalid(
            other.path,
            name,
            format!("must not be specified when patchType is {}", kind.str()),
        );
    }
}

fn status(status: At<'_>, errors: &mut Errors) {
    let checking = status.field("typeChecking");
    for warning in checking.field("expressionWarnings").items() {
        warning.field("warning").required("", errors);
        let field = warning.field("fieldRef");
        let text = field.str().trim();
        if text.is_empty() {
            errors.required(field.path, "");
        } else if let Err(why) = JsonPath::parse(text) {
            errors.invalid(field.path, text, format!("invalid JSONPath: {why}"));
        }
    }
    status.field("conditions").conditions(errors);
}
