//! Lists as long as a body allows: each item is compared with all others by looking it up.

use super::trial::Trial;

/// `make(0),make(1),...`
fn many(make: impl Fn(usize) -> String) -> String {
    let items: Vec<String> = (0..30_000).map(make).collect();
    items.join(",")
}

/// The number of refusals of a pod with this spec.
fn of_pod(spec: &str, container: &str) -> usize {
    let body = format!(
        r#"{{"metadata":{{"name":"p"}},"spec":{{"containers":[{{"name":"c","image":"i"{container}}}]{spec}}}}}"#
    );
    Trial::of("", "pods").refusals(&body).len()
}

#[test]
fn volumes_and_mounts_of_pods() {
    let volumes = many(|n| format!(r#"{{"name":"v{n}","emptyDir":{{}}}}"#));
    let mounts = many(|n| format!(r#"{{"name":"v{n}","mountPath":"/m{n}"}}"#));
    let spec = format!(r#","volumes":[{volumes}]"#);
    assert_eq!(of_pod(&spec, &format!(r#","volumeMounts":[{mounts}]"#)), 0);

    let devices = many(|n| format!(r#"{{"name":"v{n}","devicePath":"/m{n}"}}"#));
    let container = format!(r#","volumeMounts":[{mounts}],"volumeDevices":[{devices}]"#);
    assert_eq!(
        of_pod(&spec, &container),
        10_000,
        "and more, which are not told"
    );
}

#[test]
fn other_lists_of_pods() {
    let sysctls = many(|n| format!(r#"{{"name":"kernel.shm{n}","value":"1"}}"#));
    let claims = many(|n| format!(r#"{{"name":"a{n}"}}"#));
    let keys = many(|n| format!(r#""key{n}""#));
    let gates = many(|n| format!(r#"{{"name":"example.com/g{n}"}}"#));
    let spread = many(|n| {
        format!(r#"{{"topologyKey":"k{n}","maxSkew":1,"whenUnsatisfiable":"ScheduleAnyway"}}"#)
    });
    for (spec, container, refused) in [
        (
            format!(r#","securityContext":{{"sysctls":[{sysctls}]}}"#),
            String::new(),
            false,
        ),
        (
            String::new(),
            format!(r#","resources":{{"claims":[{claims}]}}"#),
            true,
        ),
        (
            format!(r#","schedulingGates":[{gates}]"#),
            String::new(),
            false,
        ),
        (
            format!(r#","topologySpreadConstraints":[{spread}]"#),
            String::new(),
            false,
        ),
        (
            format!(
                r#","topologySpreadConstraints":[{{"topologyKey":"k","maxSkew":1,"whenUnsatisfiable":"ScheduleAnyway","labelSelector":{{}},"matchLabelKeys":[{keys}]}}]"#
            ),
            String::new(),
            false,
        ),
    ] {
        let told = of_pod(&spec, &container);
        assert_eq!(told > 0, refused, "{told}: {spec:.50} {container:.50}");
    }
}

#[test]
fn lists_of_other_kinds() {
    let ports = many(|n| format!(r#"{{"name":"p{n}","port":{}}}"#, n + 1));
    let codes = many(|n| (n + 1).to_string());
    let claims = many(|n| {
        format!(
            r#"{{"metadata":{{"name":"v{n}"}},"spec":{{"accessModes":["ReadWriteOnce"],"resources":{{"requests":{{"storage":"1"}}}}}}}}"#
        )
    });
    let template = r#""template":{"metadata":{"labels":{"a":"b"}},"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}"#;
    let always = template.replace("Never", "Always");
    let drivers = many(|n| format!(r#"{{"name":"d{n}","nodeID":"n"}}"#));
    for (group, plural, spec, least) in [
        ("", "services", format!(r#""ports":[{ports}]"#), 0),
        (
            "batch",
            "jobs",
            format!(
                r#""podFailurePolicy":{{"rules":[{{"action":"FailJob","onExitCodes":{{"operator":"In","values":[{codes}]}}}}]}},{template}"#
            ),
            1,
        ),
        (
            "apps",
            "statefulsets",
            format!(
                r#""serviceName":"s","selector":{{"matchLabels":{{"a":"b"}}}},"volumeClaimTemplates":[{claims}],{always}"#
            ),
            0,
        ),
        (
            "storage.k8s.io",
            "csinodes",
            format!(r#""drivers":[{drivers}]"#),
            0,
        ),
    ] {
        let trial = Trial::of(group, plural);
        let (object, told) = trial.create(&format!(
            r#"{{"metadata":{{"name":"o"}},"spec":{{{spec}}}}}"#
        ));
        assert_eq!(
            told.len(),
            least,
            "{plural}: {:?}",
            told.iter().take(3).collect::<Vec<_>>()
        );
        if plural == "csinodes" {
            assert_eq!(trial.update("", &object, |_| {}).1, Vec::<String>::new());
        }
    }
}
