use crate::resources::groups::trial::Trial;

/// A definition with a schema of `spec`, and additional members of its only version.
fn definition(spec: &str, version: &str) -> String {
    let comma = if version.is_empty() { "" } else { "," };
    format!(
        r#"{{"metadata": {{"name": "widgets.x.io"}}, "spec": {{"group": "x.io", "scope": "Namespaced",
            "names": {{"plural": "widgets", "kind": "Widget"}},
            "versions": [{{"name": "v1", "served": true, "storage": true,
                "schema": {{"openAPIV3Schema": {{"type": "object", "properties": {{"spec": {spec}}}}}}}{comma}{version}}}]}}}}"#
    )
}

fn trial() -> Trial {
    Trial::of("apiextensions.k8s.io", "customresourcedefinitions")
}

#[test]
fn schemas_are_refused_in_upstreams_words() {
    let at = "spec.validation.openAPIV3Schema.properties[spec]";
    for (spec, told) in [
        (r#"{"type": "object"}"#, String::new()),
        (
            r#"{}"#,
            format!("{at}.type: Required value: must not be empty for specified object fields"),
        ),
        (
            r#"{"type": "array"}"#,
            format!("{at}.items: Required value: must be specified"),
        ),
        (
            r#"{"type": "text"}"#,
            format!(
                r#"{at}.type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string""#
            ),
        ),
        (
            r#"{"type": "string", "pattern": "("}"#,
            format!(
                r#"{at}.pattern: Invalid value: "(": must be a valid regular expression, but isn't: error parsing regexp: missing closing ): `(`"#
            ),
        ),
        (
            r#"{"type": "integer", "default": "x"}"#,
            format!(
                r#"{at}.default: Invalid value: "string":  in body must be of type integer: "string""#
            ),
        ),
        (
            r#"{"type": "object", "default": {"a": 1}}"#,
            format!(r#"{at}.default: Invalid value: {{"a":1}}: must not have unknown fields"#),
        ),
        (
            r#"{"type": "object", "allOf": [{"type": "object"}]}"#,
            format!("{at}.allOf[0].type: Forbidden: must be empty to be structural"),
        ),
        (
            r#"{"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}"#,
            String::new(),
        ),
        (
            r#"{"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}"#,
            format!(
                "{at}.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"
            ),
        ),
        (
            r#"{"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "properties": {"k": {"type": "string"}}}}"#,
            format!(
                "{at}.items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            ),
        ),
        (
            r#"{"type": "object", "x-kubernetes-embedded-resource": true}"#,
            format!(
                "{at}.properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
            ),
        ),
        (
            r#"{"type": "object", "$schema": "http://x"}"#,
            "spec.validation.openAPIV3Schema: Invalid value: \"\": OpenAPIV3Schema 'schema' is not supported".to_owned(),
        ),
        (
            r#"{"type": "object", "x-kubernetes-validations": [{"rule": " "}]}"#,
            format!("{at}.x-kubernetes-validations[0].rule: Required value: rule is not specified"),
        ),
    ] {
        let refusals = trial().refusals(&definition(spec, ""));
        assert_eq!(refusals.join("; "), told, "{spec}");
    }
}

#[test]
fn versions_are_refused_in_upstreams_words() {
    for (version, told) in [
        (
            r#""deprecationWarning": "x""#,
            r#"spec.versions[0].deprecationWarning: Invalid value: "x": can only be set for deprecated versions"#,
        ),
        (
            r#""additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": "spec.a"}]"#,
            r#"spec.additionalPrinterColumns[0].JSONPath: Invalid value: "spec.a": must be a simple json path starting with ."#,
        ),
        (
            r#""selectableFields": [{"jsonPath": ".spec.b"}]"#,
            r#"spec.selectableFields[0].jsonPath: Invalid value: ".spec.b": is an invalid path: does not refer to a valid field"#,
        ),
        (r#""selectableFields": [{"jsonPath": ".spec.a"}]"#, ""),
        (
            r#""subresources": {"scale": {"specReplicasPath": ".n", "statusReplicasPath": ".status.n"}}"#,
            r#"spec.subresources.scale.specReplicasPath: Invalid value: ".n": should be a json path under .spec"#,
        ),
    ] {
        let spec = r#"{"type": "object", "properties": {"a": {"type": "string"}}}"#;
        let refusals = trial().refusals(&definition(spec, version));
        assert_eq!(refusals.join("; "), told, "{version}");
    }
}

#[test]
fn a_creation_knows_its_storage_version_and_an_update_keeps_the_old_one() {
    let trial = trial();
    let (old, refusals) = trial.create(&definition(r#"{"type": "object"}"#, ""));
    assert_eq!(refusals, [""; 0]);
    let stored = |value: &crate::schema::Value| {
        crate::schema::json::to_string(value.at("status").at("storedVersions"))
    };
    assert_eq!(stored(&old), r#"["v1"]"#);
    let (new, refusals) = trial.update("", &old, |new| {
        let versions = new.object_mut().object_mut("spec").array_mut("versions");
        versions[0].set("name", "v2");
    });
    assert_eq!(stored(&new), r#"["v1","v2"]"#);
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(refusals[0].starts_with(
        r#"status.storedVersions[0]: Invalid value: "v1": missing from spec.versions;"#
    ));
}
