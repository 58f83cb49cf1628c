use std::collections::BTreeSet;

use clap::{Args as _, Parser as _};

use super::*;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    _agent: Arguments,
}

#[test]
fn what_would_do_nothing_is_refused() {
    for (line, fine) in [
        ("--node-ip 127.0.0.1", true),
        ("--node-ip 0.0.0.0", false),
        ("--node-ip 192.0.2.77", false),
        ("--node-ip ::1", false),
        ("--cluster-cidr fd00::/48", false),
        ("--configure-node-routes=false", true),
        ("--node-name foo.bar", true),
        ("--node-name Foo_Bar", false),
        ("--simulated-nodes 2", true),
        ("--simulated-nodes 2 --node-name a", false),
        ("--kubeconfig f --kubelet-client-ca-file f", true),
        ("--kubelet-client-ca-file f", false),
        ("--kubeconfig f --data-dir d", true),
        ("--kubeconfig f --secure-port 1", false),
        ("--kubeconfig f --cluster-signing-duration 1h", false),
        ("--bootstrap-kubeconfig b", true),
        ("--bootstrap-kubeconfig b --kubeconfig f", true),
        ("--bootstrap-kubeconfig b --kubelet-client-ca-file f", true),
        ("--bootstrap-kubeconfig b --secure-port 1", false),
        ("--server a:1", false),
        ("--server a:1 --token abcdef.0123456789abcdef", false),
        ("--token abcdef.0123456789abcdef", false),
        (
            "--server a:1 --token abcdef.0123456789abcdef --ca-cert-hash sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            true,
        ),
        (
            "--server a:1 --token-file t --ca-cert-hash sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            true,
        ),
        (
            "--server a:1 --token-file t --token abcdef.0123456789abcdef --ca-cert-hash sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            false,
        ),
        ("--token-file t", false),
        (
            "--server a:1 --token abcdef.0123456789abcdef --ca-cert-hash sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef --bootstrap-kubeconfig b",
            false,
        ),
        (
            "--server a:1 --token abcdef --ca-cert-hash sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            false,
        ),
        (
            "--server http://a:1 --token abcdef.0123456789abcdef --ca-cert-hash sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            false,
        ),
        ("--simulated-delays 1,2,3,4", true),
        ("--simulated-delays 1,2,3,4,5", false),
        ("--simulated-delays 1,", false),
        ("--insecure-registry a,b", true),
        ("--insecure-registry a,", false),
        ("--insecure-registry=", false),
    ] {
        let words = std::iter::once("agent").chain(line.split(' '));
        assert_eq!(Line::try_parse_from(words).is_ok(), fine, "{line}");
    }
}

#[test]
fn who_joins_serves_nothing() {
    let serve = serve::Arguments::augment_args(clap::Command::new("serve"));
    let all: BTreeSet<&str> = serve
        .get_arguments()
        .map(|one| one.get_id().as_str())
        .collect();
    let mut not: BTreeSet<&str> = SERVERS.into();
    not.insert("data_dir");
    assert_eq!(all, not);
}
