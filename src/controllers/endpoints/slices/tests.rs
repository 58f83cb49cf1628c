//! Endpoints of pods, and the slices that list them.

use super::plan::new_slice;
use super::wanted::{Wanted, endpoint, endpoint_ports};
use super::*;
use crate::client::kinds::Pod;

fn service(spec: &str) -> Service {
    serde_json::from_str(&format!(
        r#"{{"metadata":{{"name":"s","namespace":"n","uid":"s","labels":{{"a":"b"}}}},"spec":{{"clusterIP":"10.0.0.1","ipFamilies":["IPv4"],{spec}"ports":[{{"name":"http","port":80,"protocol":"TCP","targetPort":"web"}}]}}}}"#
    ))
    .unwrap()
}

fn pod(name: &str, port: i32) -> Pod {
    serde_json::from_str(&format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"n","uid":"{name}"}},"spec":{{"nodeName":"node","containers":[{{"name":"c","ports":[{{"name":"web","containerPort":{port},"protocol":"TCP"}}]}}]}},"status":{{"phase":"Running","podIP":"10.1.0.1","podIPs":[{{"ip":"10.1.0.1"}},{{"ip":"fd00::1"}}],"conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
    ))
    .unwrap()
}

fn endpoints(service: &Service, names: impl IntoIterator<Item = String>) -> Wanted {
    let mut out = Wanted::new();
    for name in names {
        let pod = pod(&name, 8080);
        let ports = endpoint_ports(service, &pod);
        let entry = out
            .entry(ports_key(&ports))
            .or_insert_with(|| (ports, Vec::new()));
        entry
            .1
            .push(endpoint(service, &pod, Some("z".to_owned()), "IPv4"));
    }
    out
}

fn named(from: usize, to: usize) -> impl Iterator<Item = String> {
    (from..to).map(|i| format!("p{i:03}"))
}

/// The sizes of created and updated slices, and the names of deleted ones.
fn told(changes: &Changes) -> String {
    let size = |slice: &EndpointSlice| slice.endpoints.as_ref().unwrap().len();
    let made = changes
        .create
        .iter()
        .map(|slice| format!("+{}", size(slice)));
    let written = changes
        .update
        .iter()
        .map(|slice| format!("{}={}", slice.name_any(), size(slice)));
    let deleted = changes.delete.iter().map(|name| format!("-{name}"));
    made.chain(written)
        .chain(deleted)
        .collect::<Vec<_>>()
        .join(" ")
}

fn slice(service: &Service, name: &str, names: impl IntoIterator<Item = String>) -> EndpointSlice {
    let (_, (ports, endpoints)) = endpoints(service, names).pop_first().unwrap();
    let mut slice = new_slice(service, ports, "IPv4");
    slice.metadata.name = Some(name.to_owned());
    slice.endpoints = Some(endpoints);
    slice
}

#[test]
fn an_endpoint_says_where_a_pod_is_and_how_it_is() {
    let service = service("");
    let mut pod = pod("p", 8080);
    let made = endpoint(&service, &pod, Some("z".to_owned()), "IPv4");
    assert_eq!(made.addresses, ["10.1.0.1"]);
    let conditions = made.conditions.unwrap();
    assert_eq!(
        (conditions.ready, conditions.serving, conditions.terminating),
        (Some(true), Some(true), Some(false))
    );
    assert_eq!(
        endpoint(&service, &pod, None, "IPv6").addresses,
        ["fd00::1"]
    );
    assert_eq!(endpoint_ports(&service, &pod)[0].port, Some(8080));
    (pod.spec.hostname, pod.spec.subdomain) = (Some("h".to_owned()), Some("s".to_owned()));
    pod.status.conditions.clear();
    let unready = endpoint(&service, &pod, None, "IPv4");
    assert_eq!(unready.hostname.as_deref(), Some("h"));
    assert_eq!(unready.conditions.unwrap().ready, Some(false));
    let all = self::service(r#""publishNotReadyAddresses":true,"#);
    assert_eq!(
        endpoint(&all, &pod, None, "IPv4").conditions.unwrap().ready,
        Some(true)
    );
}

#[test]
fn slices_change_as_little_as_can_be() {
    let service = service("");
    let planned = |existing: Vec<EndpointSlice>, names: &mut dyn Iterator<Item = String>| {
        told(&plan(
            &service,
            existing,
            endpoints(&service, names),
            "IPv4",
        ))
    };
    let a = || slice(&service, "a", named(0, 3));
    assert_eq!(planned(vec![], &mut named(0, 3)), "+3");
    assert_eq!(planned(vec![a()], &mut named(0, 3)), "");
    assert_eq!(planned(vec![a()], &mut named(0, 4)), "a=4");
    assert_eq!(planned(vec![a()], &mut named(1, 3)), "a=2");
    assert_eq!(planned(vec![], &mut named(0, 250)), "+100 +100 +50");
    let full = || slice(&service, "full", named(0, 100));
    assert_eq!(planned(vec![full()], &mut named(0, 101)), "+1");
    let half = || slice(&service, "half", named(100, 150));
    assert_eq!(planned(vec![full(), half()], &mut named(0, 160)), "half=60");
    assert_eq!(
        planned(vec![full(), half()], &mut named(50, 150)),
        "full=50",
        "half has none of those"
    );
    assert_eq!(
        planned(vec![], &mut named(0, 0)),
        "+0",
        "an empty service has one empty slice"
    );
    assert_eq!(
        planned(vec![a()], &mut named(0, 0)),
        "a=0",
        "which takes the place of another"
    );
    let mut empty = new_slice(&service, Vec::new(), "IPv4");
    empty.metadata.name = Some("e".to_owned());
    assert_eq!(planned(vec![empty.clone()], &mut named(0, 0)), "");
    assert_eq!(planned(vec![empty], &mut named(0, 2)), "e=2");
    let mut foreign = a();
    foreign.metadata.owner_references = None;
    assert_eq!(planned(vec![foreign], &mut named(0, 3)), "+3 -a");
    let mut labelled = a();
    labelled.metadata.labels.as_mut().unwrap().remove("a");
    assert_eq!(planned(vec![labelled], &mut named(0, 3)), "a=3");
}

#[test]
fn hints_send_traffic_near() {
    let near = service(r#""trafficDistribution":"PreferSameNode","#);
    let plain = service("");
    let existing = slice(&plain, "a", named(0, 1));
    let changes = plan(
        &near,
        vec![existing.clone()],
        endpoints(&near, named(0, 1)),
        "IPv4",
    );
    assert_eq!(told(&changes), "a=1");
    let hints = changes.update[0].endpoints.as_ref().unwrap()[0]
        .hints
        .clone()
        .unwrap();
    assert_eq!(hints.for_zones.unwrap()[0].name, "z");
    assert_eq!(hints.for_nodes.unwrap()[0].name, "node");
    let hinted = changes.update[0].clone();
    assert_eq!(
        told(&plan(
            &near,
            vec![hinted.clone()],
            endpoints(&near, named(0, 1)),
            "IPv4"
        )),
        ""
    );
    let changes = plan(&plain, vec![hinted], endpoints(&plain, named(0, 1)), "IPv4");
    assert_eq!(changes.update[0].endpoints.as_ref().unwrap()[0].hints, None);
}
