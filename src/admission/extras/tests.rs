use super::*;
use crate::admission::trial::Trial;

#[test]
fn plugins_that_are_asked_for_change_and_refuse() {
    let trial = Trial::new(
        r#"{"metadata":{"name":"default","annotations":{
            "scheduler.alpha.kubernetes.io/node-selector":"env=prod, disk=ssd",
            "scheduler.alpha.kubernetes.io/defaultTolerations":"[{\"key\":\"k\",\"operator\":\"Exists\"}]",
            "scheduler.alpha.kubernetes.io/tolerationsWhitelist":"[{\"key\":\"k\",\"operator\":\"Exists\"}]"}}}"#,
    );
    let pod = |spec: &str| format!(r#"{{"metadata":{{"name":"p"}},"spec":{{{spec}}}}}"#);
    let cases: [(&dyn Plugin, &str, &str, String, &str); 11] = [
        (&AlwaysAdmit, "pods", "", pod(""), "{}"),
        (
            &AlwaysDeny,
            "pods",
            "",
            pod(""),
            "pods \"p\" is forbidden: admission control is denying all modifications",
        ),
        (
            &DenyServiceExternalIps,
            "services",
            "",
            pod(r#""externalIPs":["1.1.1.1"]"#),
            "services \"p\" is forbidden: Use of external IPs is denied by admission control",
        ),
        (
            &DenyServiceExternalIps,
            "services",
            r#"{"spec":{"externalIPs":["1.1.1.1","2.2.2.2"]}}"#,
            pod(r#""externalIPs":["1.1.1.1"]"#),
            r#"{"externalIPs":["1.1.1.1"]}"#,
        ),
        (
            &AlwaysPullImages,
            "pods",
            "",
            pod(r#""containers":[{"image":"i"}],"volumes":[{"image":{}}]"#),
            r#"{"containers":[{"image":"i","imagePullPolicy":"Always"}],"volumes":[{"image":{"pullPolicy":"Always"}}]}"#,
        ),
        (
            &AlwaysPullImages,
            "pods",
            r#"{"spec":{"containers":[{"image":"i"}]}}"#,
            pod(r#""containers":[{"image":"i"}]"#),
            r#"{"containers":[{"image":"i"}]}"#,
        ),
        (
            &LimitPodHardAntiAffinityTopology,
            "pods",
            "",
            pod(
                r#""affinity":{"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"zone"}]}}"#,
            ),
            "pods \"p\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed",
        ),
        (
            &ExtendedResourceToleration,
            "pods",
            "",
            pod(r#""containers":[{"resources":{"requests":{"cpu":"1","example.com/gpu":"1"}}}]"#),
            r#"{"containers":[{"resources":{"requests":{"cpu":"1","example.com/gpu":"1"}}}],"tolerations":[{"key":"example.com/gpu","operator":"Exists","effect":"NoSchedule"}]}"#,
        ),
        (
            &PodNodeSelector,
            "pods",
            "",
            pod(r#""nodeSelector":{"a":"b"}"#),
            r#"{"nodeSelector":{"a":"b","env":"prod","disk":"ssd"}}"#,
        ),
        (
            &PodNodeSelector,
            "pods",
            "",
            pod(r#""nodeSelector":{"env":"test"}"#),
            "pods \"p\" is forbidden: pod node label selector conflicts with its namespace node label selector",
        ),
        (
            &PodTolerationRestriction,
            "pods",
            "",
            pod(r#""tolerations":[{"key":"x","operator":"Exists"}]"#),
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist",
        ),
    ];
    for (plugin, plural, old, new, wanted) in cases {
        assert_eq!(
            trial.spec(plugin, plural, old, &new),
            wanted,
            "{} {new}",
            plugin.name()
        );
    }
}
