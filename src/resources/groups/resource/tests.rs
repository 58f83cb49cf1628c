//! Tests validation and defaults of this group.

use crate::resources::groups::trial::Trial;

const CLAIM: &str = r#"{"metadata": {"name": "c"}, "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "dc"}}]}}}"#;

#[test]
fn a_claim_gets_defaults_and_its_references_must_be_known() {
    let trial = Trial::of("resource.k8s.io", "resourceclaims");
    let (claim, refused) = trial.create(CLAIM);
    assert_eq!(refused, Vec::<String>::new());
    let exactly = claim.path(&["spec", "devices"]).list("requests")[0].at("exactly");
    assert_eq!(
        (exactly.str("allocationMode"), exactly.int("count")),
        ("ExactCount", 1)
    );
    let refused = trial.refusals(
        r#"{"metadata": {"name": "c"}, "spec": {"devices": {"requests": [{"name": "r"}], "constraints": [{"requests": ["x"]}], "config": [{"opaque": {"driver": "", "parameters": 1}}]}}}"#,
    );
    assert_eq!(
        refused,
        [
            "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
            "spec.devices.constraints[0].requests[0]: Invalid value: \"x\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
            "spec.devices.constraints[0]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
            "spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
            "spec.devices.config[0].opaque.driver: Required value",
        ]
    );
}

#[test]
fn what_was_allocated_stays_so() {
    let trial = Trial::of("resource.k8s.io", "resourceclaims");
    let (claim, _) = trial.create(CLAIM);
    let status = |device: &str| crate::value!({"allocation": {"devices": {"results": [{"request": "r", "driver": "d", "pool": "p", "device": device}]}}});
    let (claim, refused) = trial.update("status", &claim, |claim| {
        claim.set("status", status("one"));
    });
    assert_eq!(refused, Vec::<String>::new());
    let (_, refused) = trial.update("status", &claim, |claim| {
        claim.set("status", status("two"));
    });
    assert_eq!(
        refused,
        ["status.allocation: Invalid value: field cannot be modified once set"]
            .map(|text| text.replace("value: f", "value: null: f"))
    );
}

#[test]
fn a_slice_is_in_one_place_and_its_devices_have_one_value_an_attribute() {
    let trial = Trial::of("resource.k8s.io", "resourceslices");
    let refused = trial.refusals(
        r#"{"metadata": {"name": "s"}, "spec": {"driver": "d", "pool": {"name": "p", "resourceSliceCount": 1}, "nodeName": "n", "allNodes": true,
            "devices": [{"name": "a", "attributes": {"v": {"version": "1.2"}}}, {"name": "a", "attributes": {"w": {}}}]}}"#,
    );
    let starts = [
        "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of",
        "spec.devices[0].attributes[v].version: Invalid value: \"1.2\": must be a string compatible",
        "spec.devices[1]: Duplicate value: \"a\"",
        "spec.devices[1].attributes[w]: Invalid value: \"\": must specify",
    ];
    assert_eq!(refused.len(), starts.len(), "{refused:#?}");
    for (told, start) in refused.iter().zip(starts) {
        assert!(told.starts_with(start), "{told}");
    }
}
