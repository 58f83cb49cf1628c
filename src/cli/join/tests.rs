use rustls::pki_types::CertificateDer;

use super::*;

#[test]
fn what_is_there_counts_as_long_as_it_is_good() {
    use Standing::*;
    for (standing, can_bootstrap, expected) in [
        (Missing, true, Way::Bootstrap),
        (Missing, false, Way::Fail),
        (Useless("a".to_owned()), true, Way::Bootstrap),
        (Useless("a".to_owned()), false, Way::Fail),
        (Other, true, Way::Bootstrap),
        (Other, false, Way::Use),
        (Certificate(100), true, Way::Use),
        (Certificate(100), false, Way::Use),
        (Certificate(99), true, Way::Bootstrap),
        (Certificate(99), false, Way::Fail),
    ] {
        let told = way(&standing, can_bootstrap, 100);
        assert_eq!(told, expected, "{standing:?} {can_bootstrap}");
    }
}

#[test]
fn servers_are_named_by_url_or_as_kubeadm_names_them() {
    for (text, expected) in [
        ("https://192.0.2.1:6443", Some("https://192.0.2.1:6443/")),
        ("192.0.2.1:6443", Some("https://192.0.2.1:6443/")),
        ("https://[fd00::1]:6443/", Some("https://[fd00::1]:6443/")),
        ("http://192.0.2.1:6443", None),
        ("https://192.0.2.1/a", None),
        ("", None),
    ] {
        let told = server(text).ok().map(|url| url.to_string());
        assert_eq!(told.as_deref(), expected, "{text}");
    }
}

#[tokio::test]
async fn a_kubeconfig_that_is_written_is_read_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let pki = crate::auth::pki::Pki::open(dir.path(), [""; 0]).expect("keys");
    let issued = pki
        .issue_client("system:node:n", "system:nodes", time::now(), 1)
        .expect("issued");
    let identity = dir.path().join("a \"b\".pem");
    let text = format!("{}{}", issued.certificate, issued.key);
    std::fs::write(&identity, text).expect("written");
    let mut config = kube::Config::new("https://192.0.2.1:6443".parse().expect("a URL"));
    let roots = pem::blocks(pki.ca_pem())
        .into_iter()
        .map(|block| block.bytes);
    config.root_cert = Some(roots.collect());
    config.tls_server_name = Some("n.example".to_owned());
    let path = dir.path().join("kubelet.conf");
    assert_eq!(read(&path).await.map(|_| ()), Err(Standing::Missing));
    write(&path, &config, &identity).expect("written");
    let again = read(&path)
        .await
        .unwrap_or_else(|wrong| panic!("{wrong:?}"));
    assert_eq!(again.config.cluster_url, config.cluster_url);
    assert_eq!(again.config.root_cert, config.root_cert);
    assert_eq!(again.config.tls_server_name, config.tls_server_name);
    let pair = again.pair.expect("a certificate");
    assert_eq!(pair.subject, certificates::subject("n"));
    let authority = config.root_cert.unwrap_or_default();
    let authority: Vec<_> = authority.into_iter().map(CertificateDer::from).collect();
    assert!(pair.is_of(&authority) && !pair.is_of(&[]));

    std::fs::write(&identity, "").expect("written");
    assert!(
        matches!(read(&path).await, Err(Standing::Useless(_))),
        "an empty file"
    );
    std::fs::write(&path, "").expect("written");
    assert!(
        matches!(read(&path).await, Err(Standing::Useless(_))),
        "an empty kubeconfig"
    );
}
