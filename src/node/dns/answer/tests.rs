use super::*;
use crate::node::dns::directory::tests::of;
use crate::node::dns::message::{Received, read};

fn zone() -> Zone {
    Zone::new("cluster.local", IpAddr::from([10, 244, 0, 1]))
}

fn known() -> Directory {
    let service = |name: &str, spec: serde_json::Value| serde_json::json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
    let slice = |name: &str, of: &str, endpoints: serde_json::Value, ports: serde_json::Value| {
        serde_json::json!({
            "metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": of}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
        })
    };
    let http = serde_json::json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
    of(
        serde_json::json!([
            service(
                "web",
                serde_json::json!({"type": "ClusterIP", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00::10"],
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]})
            ),
            service(
                "db",
                serde_json::json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"name": "sql", "port": 5432}]})
            ),
            service(
                "bare",
                serde_json::json!({"clusterIP": "None", "clusterIPs": ["None"]})
            ),
            service(
                "none",
                serde_json::json!({"clusterIP": "None", "clusterIPs": ["None"]})
            ),
            service("new", serde_json::json!({"type": "ClusterIP"})),
            service(
                "out",
                serde_json::json!({"type": "ExternalName", "externalName": "Example.org."})
            ),
            service(
                "in",
                serde_json::json!({"type": "ExternalName", "externalName": "hop.default.svc.cluster.local"})
            ),
            service(
                "hop",
                serde_json::json!({"type": "ExternalName", "externalName": "web.default.svc.cluster.local"})
            ),
            service(
                "ring",
                serde_json::json!({"type": "ExternalName", "externalName": "ring.default.svc.cluster.local"})
            ),
            service(
                "lost",
                serde_json::json!({"type": "ExternalName", "externalName": "no.default.svc.cluster.local"})
            ),
            service(
                "number",
                serde_json::json!({"type": "ExternalName", "externalName": "192.0.2.7"})
            ),
            service("nothing", serde_json::json!({"type": "ExternalName"})),
        ]),
        serde_json::json!([
            slice(
                "web-1",
                "web",
                serde_json::json!([{"addresses": ["10.244.0.5"]}]),
                http.clone()
            ),
            slice(
                "db-1",
                "db",
                serde_json::json!([
                    {"addresses": ["10.244.0.6"], "hostname": "db-0", "conditions": {"ready": true}},
                    {"addresses": ["10.244.0.7"]},
                    {"addresses": ["10.244.0.8"], "hostname": "db-2", "conditions": {"ready": false}},
                ]),
                serde_json::json!([{"name": "sql", "port": 5432, "protocol": "TCP"}])
            ),
            slice(
                "db-2",
                "db",
                serde_json::json!([{"addresses": ["10.244.0.7"]}]),
                serde_json::json!([{"name": "admin", "port": 9000, "protocol": "TCP"}])
            ),
            slice(
                "bare-1",
                "bare",
                serde_json::json!([{"addresses": ["10.244.0.6"]}]),
                serde_json::json!(null)
            ),
        ]),
    )
}

/// A question, as a message.
fn message(name: &str, kind: u16) -> Vec<u8> {
    let name = Name::new(name).expect("a name");
    let mut bytes = crate::node::dns::message::query(&name, TYPE::A, None).expect("a query");
    let at = bytes.len() - 4;
    bytes[at..at + 2].copy_from_slice(&kind.to_be_bytes());
    bytes
}

fn shown(record: &ResourceRecord<'_>) -> String {
    let data = match &record.rdata {
        RData::A(a) => format!("A {}", Ipv4Addr::from(a.address)),
        RData::AAAA(a) => format!("AAAA {}", Ipv6Addr::from(a.address)),
        RData::CNAME(CNAME(name)) => format!("CNAME {name}"),
        RData::NS(NS(name)) => format!("NS {name}"),
        RData::PTR(PTR(name)) => format!("PTR {name}"),
        RData::SRV(srv) => format!(
            "SRV {} {} {} {}",
            srv.priority, srv.weight, srv.port, srv.target
        ),
        RData::SOA(soa) => format!("SOA {} {} {}", soa.mname, soa.rname, soa.serial),
        RData::TXT(txt) => format!("TXT {}", String::try_from(txt.clone()).expect("text")),
        other => format!("{other:?}"),
    };
    format!("{} {} {data}", record.name, record.ttl)
}

/// An outcome as text: its kind, or response code and sections.
fn told(name: &str, kind: u16, known: &Directory) -> String {
    let bytes = message(name, kind);
    let Received::Query(query) = read(&bytes) else {
        panic!("{name}: no query");
    };
    match answer(&query, known, &zone()) {
        Outcome::Elsewhere => "elsewhere".into(),
        Outcome::Refusal(code) => format!("{code:?}"),
        Outcome::Alias { answers, target } => {
            let answers: Vec<_> = answers.iter().map(shown).collect();
            format!("{}; then {target}", answers.join(", "))
        }
        Outcome::Answer(reply) => {
            let section = |records: &[ResourceRecord<'_>]| {
                records.iter().map(shown).collect::<Vec<_>>().join(", ")
            };
            match (
                reply.missing,
                section(&reply.answers),
                section(&reply.additional),
            ) {
                (missing, answers, _) if answers.is_empty() => {
                    let authority = section(&reply.authority);
                    assert_eq!(
                        authority,
                        "cluster.local 30 SOA ns.dns.cluster.local hostmaster.cluster.local 7"
                    );
                    if missing { "no name" } else { "no data" }.to_owned()
                }
                (_, answers, additional) if additional.is_empty() => answers,
                (_, answers, additional) => format!("{answers}; {additional}"),
            }
        }
    }
}

const A: u16 = 1;
const AAAA: u16 = 28;
const ANY: u16 = 255;
const AXFR: u16 = 252;
const CNAME_: u16 = 5;
const NS_: u16 = 2;
const PTR_: u16 = 12;
const SOA_: u16 = 6;
const SRV_: u16 = 33;
const TXT_: u16 = 16;

#[test]
fn names_are_answered_as_the_specification_says() {
    let known = known();
    for (name, kind, expected) in [
        // Services with addresses.
        (
            "web.default.svc.cluster.local",
            A,
            "web.default.svc.cluster.local 30 A 10.96.0.10",
        ),
        (
            "WEB.Default.svc.cluster.LOCAL",
            A,
            "WEB.Default.svc.cluster.LOCAL 30 A 10.96.0.10",
        ),
        (
            "web.default.svc.cluster.local",
            AAAA,
            "web.default.svc.cluster.local 30 AAAA fd00::10",
        ),
        ("web.default.svc.cluster.local", TXT_, "no data"),
        ("web.default.svc.cluster.local", ANY, "no data"),
        ("web.default.svc.cluster.local", 0xff10, "no data"),
        ("new.default.svc.cluster.local", A, "no data"),
        ("no.default.svc.cluster.local", A, "no name"),
        ("web.other.svc.cluster.local", A, "no name"),
        (
            "_http._tcp.web.default.svc.cluster.local",
            SRV_,
            "_http._tcp.web.default.svc.cluster.local 30 SRV 0 50 80 web.default.svc.cluster.local; web.default.svc.cluster.local 30 A 10.96.0.10, web.default.svc.cluster.local 30 AAAA fd00::10",
        ),
        ("_http._udp.web.default.svc.cluster.local", SRV_, "no name"),
        ("_no._tcp.web.default.svc.cluster.local", SRV_, "no name"),
        (
            "_dns._udp.web.default.svc.cluster.local",
            A,
            "_dns._udp.web.default.svc.cluster.local 30 A 10.96.0.10",
        ),
        (
            "10-244-0-5.web.default.svc.cluster.local",
            A,
            "10-244-0-5.web.default.svc.cluster.local 30 A 10.244.0.5",
        ),
        // Headless ones.
        (
            "db.default.svc.cluster.local",
            A,
            "db.default.svc.cluster.local 30 A 10.244.0.6, db.default.svc.cluster.local 30 A 10.244.0.7",
        ),
        ("db.default.svc.cluster.local", AAAA, "no data"),
        (
            "db-0.db.default.svc.cluster.local",
            A,
            "db-0.db.default.svc.cluster.local 30 A 10.244.0.6",
        ),
        ("db-0.db.default.svc.cluster.local", AAAA, "no data"),
        ("db-2.db.default.svc.cluster.local", A, "no name"),
        ("10-244-0-6.db.default.svc.cluster.local", A, "no name"),
        (
            "10-244-0-7.db.default.svc.cluster.local",
            A,
            "10-244-0-7.db.default.svc.cluster.local 30 A 10.244.0.7",
        ),
        (
            "_sql._tcp.db.default.svc.cluster.local",
            SRV_,
            "_sql._tcp.db.default.svc.cluster.local 30 SRV 0 50 5432 db-0.db.default.svc.cluster.local, _sql._tcp.db.default.svc.cluster.local 30 SRV 0 50 5432 10-244-0-7.db.default.svc.cluster.local; db-0.db.default.svc.cluster.local 30 A 10.244.0.6, 10-244-0-7.db.default.svc.cluster.local 30 A 10.244.0.7",
        ),
        (
            "bare.default.svc.cluster.local",
            A,
            "bare.default.svc.cluster.local 30 A 10.244.0.6",
        ),
        ("bare.default.svc.cluster.local", SRV_, "no data"),
        ("none.default.svc.cluster.local", A, "no name"),
        // ExternalName services.
        (
            "out.default.svc.cluster.local",
            A,
            "out.default.svc.cluster.local 30 CNAME Example.org; then Example.org",
        ),
        (
            "out.default.svc.cluster.local",
            CNAME_,
            "out.default.svc.cluster.local 30 CNAME Example.org",
        ),
        ("_http._tcp.out.default.svc.cluster.local", SRV_, "no name"),
        (
            "in.default.svc.cluster.local",
            A,
            "in.default.svc.cluster.local 30 CNAME hop.default.svc.cluster.local, hop.default.svc.cluster.local 30 CNAME web.default.svc.cluster.local, web.default.svc.cluster.local 30 A 10.96.0.10",
        ),
        ("ring.default.svc.cluster.local", A, "no data"),
        ("lost.default.svc.cluster.local", A, "no data"),
        ("number.default.svc.cluster.local", A, "no name"),
        ("nothing.default.svc.cluster.local", A, "no data"),
        // Pods.
        (
            "10-244-0-9.default.pod.cluster.local",
            A,
            "10-244-0-9.default.pod.cluster.local 30 A 10.244.0.9",
        ),
        ("10-244-0-9.default.pod.cluster.local", AAAA, "no data"),
        (
            "fd00--9.default.pod.cluster.local",
            AAAA,
            "fd00--9.default.pod.cluster.local 30 AAAA fd00::9",
        ),
        ("300-1-1-1.default.pod.cluster.local", A, "no name"),
        ("web.default.pod.cluster.local", A, "no name"),
        (r"1\.2\.3\.4.default.pod.cluster.local", A, "no name"),
        // Names above them.
        ("default.svc.cluster.local", A, "no data"),
        ("other.svc.cluster.local", A, "no name"),
        ("svc.cluster.local", A, "no data"),
        ("other.pod.cluster.local", A, "no data"),
        ("dns.cluster.local", A, "no data"),
        ("nonsense.cluster.local", A, "no name"),
        ("a.b.c.web.default.svc.cluster.local", A, "no name"),
        // The zone.
        ("cluster.local", A, "no data"),
        (
            "cluster.local",
            SOA_,
            "cluster.local 30 SOA ns.dns.cluster.local hostmaster.cluster.local 7",
        ),
        (
            "cluster.local",
            NS_,
            "cluster.local 30 NS ns.dns.cluster.local; ns.dns.cluster.local 30 A 10.244.0.1",
        ),
        ("cluster.local", AXFR, "Refused"),
        (
            "ns.dns.cluster.local",
            A,
            "ns.dns.cluster.local 30 A 10.244.0.1",
        ),
        ("ns.dns.cluster.local", AAAA, "no data"),
        (
            "dns-version.cluster.local",
            TXT_,
            "dns-version.cluster.local 28800 TXT 1.1.0",
        ),
        ("dns-version.cluster.local", A, "no data"),
        // Addresses.
        (
            "10.0.96.10.in-addr.arpa",
            PTR_,
            "10.0.96.10.in-addr.arpa 30 PTR web.default.svc.cluster.local",
        ),
        (
            "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
            PTR_,
            "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa 30 PTR web.default.svc.cluster.local",
        ),
        (
            "6.0.244.10.in-addr.arpa",
            PTR_,
            "6.0.244.10.in-addr.arpa 30 PTR 10-244-0-6.bare.default.svc.cluster.local, 6.0.244.10.in-addr.arpa 30 PTR db-0.db.default.svc.cluster.local",
        ),
        ("9.0.244.10.in-addr.arpa", PTR_, "elsewhere"),
        ("+6.0.244.10.in-addr.arpa", PTR_, "elsewhere"),
        ("6.0.244.10.in-addr.arpa", A, "elsewhere"),
        // External names.
        ("example.org", A, "elsewhere"),
        ("local", A, "elsewhere"),
        ("mycluster.local", A, "elsewhere"),
        (".", NS_, "elsewhere"),
    ] {
        assert_eq!(told(name, kind, &known), expected, "{name} {kind}");
    }
}

#[test]
fn what_is_not_known_yet_is_not_denied() {
    let mut known = known();
    known.complete = false;
    for (name, kind, expected) in [
        ("web.default.svc.cluster.local", A, "ServerFailure"),
        ("no.default.svc.cluster.local", A, "ServerFailure"),
        ("10.0.96.10.in-addr.arpa", PTR_, "ServerFailure"),
        (
            "dns-version.cluster.local",
            TXT_,
            "dns-version.cluster.local 28800 TXT 1.1.0",
        ),
        ("example.org", A, "elsewhere"),
    ] {
        assert_eq!(told(name, kind, &known), expected, "{name}");
    }
}

#[test]
fn addresses_take_turns() {
    let known = known();
    let mut bytes = message("db.default.svc.cluster.local", A);
    let mut first = |id: u8| {
        bytes[1] = id;
        let Received::Query(query) = read(&bytes) else {
            panic!("no query");
        };
        match answer(&query, &known, &zone()) {
            Outcome::Answer(reply) => shown(&reply.answers[0]),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(first(0), "db.default.svc.cluster.local 30 A 10.244.0.6");
    assert_eq!(first(1), "db.default.svc.cluster.local 30 A 10.244.0.7");
}
