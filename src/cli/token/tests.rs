use std::collections::HashSet;

use clap::Parser as _;

use super::*;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    create: Create,
}

#[test]
fn a_token_is_one_that_is_taken() {
    let tokens: HashSet<String> = (0..100).map(|_| random_token()).collect();
    assert_eq!(tokens.len(), 100);
    assert!(tokens.iter().all(|token| bootstrap::parts(token).is_some()));
}

#[test]
fn a_secret_is_as_kubeadm_writes_it() {
    let data = |arguments: &[&str]| {
        let words = ["create"].iter().chain(arguments);
        let create = Line::try_parse_from(words)
            .unwrap_or_else(|error| panic!("{error}"))
            .create;
        let secret = create.secret("abcdef", "0123456789abcdef", 0);
        assert_eq!(
            secret.metadata.name.as_deref(),
            Some("bootstrap-token-abcdef")
        );
        assert_eq!(
            secret.type_.as_deref(),
            Some("bootstrap.kubernetes.io/token")
        );
        let data = secret.data.unwrap_or_default().into_iter();
        data.map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(&value.0)))
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (arguments, expected) in [
        (
            &[][..],
            "auth-extra-groups=system:bootstrappers:kubeadm:default-node-token expiration=1970-01-02T00:00:00Z token-id=abcdef token-secret=0123456789abcdef usage-bootstrap-authentication=true usage-bootstrap-signing=true",
        ),
        (
            &[
                "--ttl=0",
                "--groups=system:bootstrappers:a",
                "--usages=authentication",
                "--description=d",
            ],
            "auth-extra-groups=system:bootstrappers:a description=d token-id=abcdef token-secret=0123456789abcdef usage-bootstrap-authentication=true",
        ),
    ] {
        assert_eq!(data(arguments), expected);
    }
    for wrong in [
        "--groups=system:masters",
        "--usages=a",
        "--ttl=-1h",
        "--ttl=a",
        "abc",
    ] {
        assert!(Line::try_parse_from(["create", wrong]).is_err(), "{wrong}");
    }
}

#[test]
fn what_is_told_of_a_cluster_is_told_again_where_its_authorities_changed() {
    let (one, two) = (b"one".to_vec(), b"two".to_vec());
    let url: http::Uri = "https://192.0.2.1:6443".parse().unwrap();
    let told = cluster_info(&url, &pem::text("CERTIFICATE", &one));
    assert!(tells(&told, std::slice::from_ref(&one)));
    assert!(!tells(&told, &[one, two]));
    assert!(!tells("", &[b"one".to_vec()]));
    let line = line(&url, "a.b", &["sha256:1".to_owned()], Some("10.244.1.0/24"));
    assert_eq!(
        line,
        "reddwarf agent --server https://192.0.2.1:6443 --token a.b --ca-cert-hash sha256:1 --pod-cidr 10.244.1.0/24"
    );
}
