use super::checks::{Pod, judge, told};
use super::policy::{Level, LevelVersion, Policy};
use super::warn_of_pods;
use crate::meta::Errors;
use crate::schema::{Value, json};

fn parsed(text: &str) -> Value {
    json::parse(text.as_bytes()).unwrap().value
}

fn breaches(level: &str, spec: &str) -> String {
    let labels = parsed(&format!(
        r#"{{"pod-security.kubernetes.io/enforce":"{}","pod-security.kubernetes.io/enforce-version":"{}"}}"#,
        level.split(':').next().unwrap(),
        level.split(':').nth(1).unwrap_or("latest"),
    ));
    let policy = Policy::read(&labels, &mut Errors::default());
    let pod = parsed(&format!(r#"{{"metadata":{{}},"spec":{{{spec}}}}}"#));
    told(&judge(policy.enforce, Pod::of(&pod)))
}

#[test]
fn each_rule_is_told_in_upstreams_words() {
    let careful = r#""securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]},"runAsNonRoot":true,"seccompProfile":{"type":"Localhost"}"#;
    for (level, spec, wanted) in [
        ("privileged", r#""hostNetwork":true"#.to_owned(), ""),
        ("baseline", r#""hostNetwork":true,"hostIPC":true"#.to_owned(), "host namespaces (hostNetwork=true, hostIPC=true)"),
        (
            "baseline",
            r#""initContainers":[{"name":"i","securityContext":{"privileged":true}}],"containers":[{"name":"c","securityContext":{"privileged":true}}]"#.to_owned(),
            r#"privileged (containers "i", "c" must not set securityContext.privileged=true)"#,
        ),
        (
            "baseline",
            r#""containers":[{"name":"c","ports":[{"hostPort":80},{"hostPort":443}]}]"#.to_owned(),
            r#"hostPort (container "c" uses hostPorts 443, 80)"#,
        ),
        (
            "baseline",
            r#""securityContext":{"seLinuxOptions":{"type":"custom_t","user":"u"}},"containers":[{"name":"c","securityContext":{"seLinuxOptions":{"role":"r"}}}]"#.to_owned(),
            r#"seLinuxOptions (pod and container "c" set forbidden securityContext.seLinuxOptions: type "custom_t"; user may not be set; role may not be set)"#,
        ),
        (
            "baseline",
            r#""containers":[{"name":"c","livenessProbe":{"httpGet":{"host":"h"}},"lifecycle":{"preStop":{"tcpSocket":{"host":"g"}}}}]"#.to_owned(),
            r#"probe or lifecycle host (container "c" uses probe or lifecycle hosts "g", "h")"#,
        ),
        ("baseline:v1.33", r#""containers":[{"name":"c","livenessProbe":{"httpGet":{"host":"h"}}}]"#.to_owned(), ""),
        ("baseline", r#""securityContext":{"sysctls":[{"name":"net.ipv4.tcp_notsent_lowat"}]}"#.to_owned(), ""),
        (
            "baseline:v1.36",
            r#""securityContext":{"sysctls":[{"name":"net.ipv4.tcp_notsent_lowat"}]}"#.to_owned(),
            "forbidden sysctls (net.ipv4.tcp_notsent_lowat)",
        ),
        ("baseline", r#""containers":[{"name":"c"}]"#.to_owned(), ""),
        ("restricted", format!(r#""containers":[{{"name":"c",{careful}}}}}]"#), ""),
        (
            "restricted",
            format!(r#""containers":[{{"name":"c",{careful},"runAsUser":0}}}}]"#),
            r#"runAsUser=0 (container "c" must not set runAsUser=0)"#,
        ),
        ("restricted", format!(r#""hostUsers":false,"containers":[{{"name":"c",{careful},"runAsUser":0}}}}]"#), ""),
        (
            "restricted",
            format!(r#""volumes":[{{"name":"n","nfs":{{}}}},{{"name":"s","secret":{{}}}},{{"name":"h","hostPath":{{}}}}],"containers":[{{"name":"c",{careful}}}}}]"#),
            r#"restricted volume types (volumes "n", "h" use restricted volume types "hostPath", "nfs")"#,
        ),
        (
            "restricted",
            r#""containers":[{"name":"c"}]"#.to_owned(),
            r#"allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
        ),
        (
            "restricted",
            r#""os":{"name":"windows"},"securityContext":{"runAsNonRoot":true},"containers":[{"name":"c"}]"#.to_owned(),
            "",
        ),
        (
            "restricted:v1.7",
            r#""containers":[{"name":"c"}]"#.to_owned(),
            r#"runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)"#,
        ),
        (
            "restricted:v1.99",
            format!(r#""containers":[{{"name":"c",{careful}}}}},{{"name":"d","securityContext":{{"allowPrivilegeEscalation":false,"runAsNonRoot":false,"capabilities":{{"drop":["ALL"],"add":["SYS_TIME","NET_BIND_SERVICE"]}},"seccompProfile":{{"type":"Unconfined"}}}}}}]"#),
            r#"unrestricted capabilities (container "d" must not include "SYS_TIME" in securityContext.capabilities.add), runAsNonRoot != true (container "d" must not set securityContext.runAsNonRoot=false), seccompProfile (container "d" must not set securityContext.seccompProfile.type to "Unconfined")"#,
        ),
    ] {
        assert_eq!(breaches(level, &spec), wanted, "{level} {spec}");
    }
}

#[test]
fn labels_are_read_and_what_is_wrong_in_them_told() {
    let read = |labels: &str| {
        let labels: Vec<String> = labels
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| format!(r#""pod-security.kubernetes.io/{key}":"{value}""#))
            .collect();
        let mut errors = Errors::default();
        let policy = Policy::read(&parsed(&format!("{{{}}}", labels.join(","))), &mut errors);
        let told: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        (
            policy.enforce.to_string(),
            policy.warn.to_string(),
            told.join("; "),
        )
    };
    for (labels, enforce, warn, told) in [
        ("", "privileged:latest", "privileged:latest", ""),
        ("enforce=baseline", "baseline:latest", "baseline:latest", ""),
        (
            "enforce=baseline,enforce-version=v1.20",
            "baseline:v1.20",
            "baseline:v1.20",
            "",
        ),
        (
            "enforce=baseline,enforce-version=v1.20,warn-version=latest",
            "baseline:v1.20",
            "baseline:latest",
            "",
        ),
        (
            "enforce=restricted,warn=privileged",
            "restricted:latest",
            "privileged:latest",
            "",
        ),
        (
            "enforce=strict",
            "restricted:latest",
            "privileged:latest",
            r#"metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted"#,
        ),
        (
            "warn-version=v1",
            "privileged:latest",
            "privileged:latest",
            r#"metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: "v1": must be "latest" or "v1.x""#,
        ),
        (
            "enforce-version=v1.9223372036854775807",
            "privileged:v1.9223372036854775807",
            "privileged:latest",
            "",
        ),
        (
            "enforce-version=v1.9223372036854775808",
            "privileged:latest",
            "privileged:latest",
            r#"metadata.labels[pod-security.kubernetes.io/enforce-version]: Invalid value: "v1.9223372036854775808": must be "latest" or "v1.x""#,
        ),
        (
            "audit-version=v1.01",
            "privileged:latest",
            "privileged:latest",
            r#"metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: "v1.01": must be "latest" or "v1.x""#,
        ),
    ] {
        assert_eq!(
            read(labels),
            (enforce.to_owned(), warn.to_owned(), told.to_owned()),
            "{labels}"
        );
    }
}

#[test]
fn pods_that_are_there_are_told_once_a_kind_of_breach() {
    let pod = |name: &str, spec: &str| {
        parsed(&format!(
            r#"{{"metadata":{{"name":"{name}"}},"spec":{{{spec}}}}}"#
        ))
    };
    let pods = [
        pod("b", r#""hostNetwork":true"#),
        pod("a", r#""hostNetwork":true"#),
        pod("ok", ""),
        pod(
            "c",
            r#""hostPID":true,"volumes":[{"name":"h","hostPath":{}}]"#,
        ),
    ];
    let level = LevelVersion {
        level: Level::Baseline,
        version: None,
    };
    assert_eq!(
        warn_of_pods("n", &pods, level),
        [
            r#"existing pods in namespace "n" violate the new PodSecurity enforce level "baseline:latest""#,
            "a (and 1 other pod): host namespaces",
            "c: host namespaces, hostPath volumes",
        ]
    );
    assert!(warn_of_pods("n", &pods[2..3], level).is_empty());
}
