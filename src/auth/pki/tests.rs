use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection, Stream};

use super::*;

const NOW: i64 = 1_900_000_000;

fn content(dir: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(dir.join("pki"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn opening_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    Pki::open_at(dir.path(), ["10.1.2.3", "Host.Example"], NOW).unwrap();
    assert!(!has_account_key(dir.path()));
    let key = account_key(dir.path()).unwrap();
    assert!(has_account_key(dir.path()));
    let first = content(dir.path());
    let names: Vec<_> = first.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            ".lock",
            "admin.crt",
            "admin.key",
            "apiserver.crt",
            "apiserver.key",
            "ca.crt",
            "ca.key",
            "sa.key"
        ]
    );
    Pki::open_at(dir.path(), ["host.example", "10.1.2.3"], NOW + DAY).unwrap();
    Pki::open_at(dir.path(), ["10.1.2.3"], NOW + DAY).unwrap();
    assert_eq!(account_key(dir.path()).unwrap(), key);
    assert_eq!(content(dir.path()), first);
}

#[cfg(unix)]
#[test]
fn keys_are_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path(), ["10.1.2.3"]).unwrap();
    let config = dir.path().join("kubeconfig");
    std::fs::write(&config, "old").unwrap();
    super::super::kubeconfig::write_admin(&config, "https://127.0.0.1:1", &pki).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.path().join("pki")), 0o700);
    assert_eq!(mode(&config), 0o600);
    for (name, _) in content(dir.path()) {
        assert_eq!(mode(&dir.path().join("pki").join(&name)), 0o600, "{name}");
    }
}

#[test]
fn only_what_must_be_is_issued_again() {
    let dir = tempfile::tempdir().unwrap();
    let changed = |at: i64, names: &[&str]| {
        let before = content(dir.path());
        Pki::open_at(dir.path(), names, at).unwrap();
        let after = content(dir.path());
        after
            .into_iter()
            .filter(|file| !before.contains(file))
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    Pki::open_at(dir.path(), ["10.1.2.3"], NOW).unwrap();
    assert_eq!(changed(NOW, &["10.1.2.4"]), ["apiserver.crt"], "a new name");
    assert_eq!(
        changed(NOW + (LEAF_DAYS - 59) * DAY, &["10.1.2.4"]),
        ["admin.crt", "apiserver.crt"],
        "close to the end of a year"
    );
    assert_eq!(
        changed(NOW + (CA_DAYS - 59) * DAY, &["10.1.2.4"]),
        ["admin.crt", "apiserver.crt", "ca.crt"],
        "close to the end of ten years the authority gets a new certificate for its key"
    );
    std::fs::remove_file(dir.path().join("pki/admin.key")).unwrap();
    assert_eq!(
        changed(NOW + (CA_DAYS - 59) * DAY, &["10.1.2.4"]),
        ["admin.crt", "admin.key"]
    );
}

#[test]
fn another_authority_of_the_same_name_issues_everything_again() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let names: [&str; 0] = [];
    Pki::open_at(dir.path(), names, NOW).unwrap();
    Pki::open_at(other.path(), names, NOW).unwrap();
    for file in ["ca.crt", "ca.key"] {
        std::fs::copy(
            other.path().join("pki").join(file),
            dir.path().join("pki").join(file),
        )
        .unwrap();
    }
    let before = content(dir.path());
    let pki = Pki::open_at(dir.path(), names, NOW).unwrap();
    let after = content(dir.path());
    let changed: Vec<_> = after
        .iter()
        .filter(|file| !before.contains(file))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(changed, ["admin.crt", "apiserver.crt"]);
    let admin = CertificateDer::from_pem_slice(pki.admin().certificate.as_bytes()).unwrap();
    assert_eq!(pki.clients().judge(&[admin], NOW), Ok(()));
}

#[test]
fn what_cannot_be_used_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let names: [&str; 0] = [];
    Pki::open_at(dir.path(), names, NOW).unwrap();
    let file = |name: &str| dir.path().join("pki").join(name);
    let good = std::fs::read(file("ca.key")).unwrap();
    std::fs::write(file("ca.key"), "nonsense").unwrap();
    let before = content(dir.path());
    let refusal = |dir: &Path| Pki::open_at(dir, names, NOW).err().unwrap();
    assert!(matches!(
        refusal(dir.path()),
        PkiError::Unusable { what: "private key", path, .. } if path == file("ca.key")
    ));
    assert_eq!(content(dir.path()), before);
    std::fs::copy(file("admin.key"), file("ca.key")).unwrap();
    assert!(matches!(
        refusal(dir.path()),
        PkiError::Unusable { what: "certificate", cause, .. } if cause.contains("does not belong")
    ));
    std::fs::remove_file(file("ca.key")).unwrap();
    assert!(matches!(refusal(dir.path()), PkiError::KeyMissing { .. }));
    assert!(!file("ca.key").exists());
    std::fs::write(file("ca.key"), good).unwrap();
    Pki::open_at(dir.path(), names, NOW).unwrap();
    assert!(matches!(
        Pki::open(dir.path(), ["not a name"]).err().unwrap(),
        PkiError::Name { name } if name == "not a name"
    ));
}

#[test]
fn names_of_a_server_are_addresses_and_names_of_hosts() {
    for (name, expected) in [
        ("Host.Example", Some("host.example")),
        ("192.0.2.1", Some("192.0.2.1")),
        ("2001:DB8:0::1", Some("2001:db8::1")),
        ("*.example.com", Some("*.example.com")),
        ("*", None),
        ("a.*.example.com", None),
        ("https://a", None),
        ("", None),
    ] {
        assert_eq!(server_name(name).ok().as_deref(), expected, "{name}");
    }
}

/// The client certificate that `server` sees from a client with an identity, and whether the client trusts the server.
fn handshake(
    pki: &Pki,
    trust: &Pki,
    server: &str,
    identity: Option<&Issued>,
) -> Result<(Option<Vec<CertificateDer<'static>>>, Vec<u8>), String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = Arc::new(pki.server_config(None).unwrap());
    let accepting = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut connection = ServerConnection::new(config).unwrap();
        let mut stream = Stream::new(&mut connection, &mut socket);
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        stream.write_all(b"!").ok()?;
        Some((
            connection.peer_certificates().map(<[_]>::to_vec),
            connection.alpn_protocol().unwrap_or_default().to_vec(),
        ))
    });
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trust.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let name = ServerName::try_from(server.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    let mut stream = Stream::new(&mut connection, &mut socket);
    let asked = stream
        .write_all(b"?")
        .and_then(|()| stream.read_exact(&mut [0]))
        .map_err(|cause| cause.to_string());
    drop(socket);
    let seen = accepting.join().unwrap();
    asked.map(|()| seen.unwrap())
}

#[test]
fn clients_trust_the_server_by_its_names_and_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path(), ["10.1.2.3", "fd00::0:1", "host.example"]).unwrap();
    for name in [
        "localhost",
        "127.0.0.1",
        "::1",
        "10.1.2.3",
        "fd00::1",
        "host.example",
        "kubernetes.default.svc",
    ] {
        let (peer, alpn) = handshake(&pki, &pki, name, None).unwrap();
        assert_eq!((peer, alpn.as_slice()), (None, &b"h2"[..]), "{name}");
    }
    assert!(handshake(&pki, &pki, "other.example", None).is_err());
}

#[test]
fn client_certificates_are_judged_after_the_handshake() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let names: [&str; 0] = [];
    let pki = Pki::open(dir.path(), names).unwrap();
    let stranger = Pki::open(other.path(), names).unwrap();
    let now = crate::meta::time::now();

    let (peer, _) = handshake(&pki, &pki, "localhost", Some(&pki.admin())).unwrap();
    let peer = peer.unwrap();
    assert_eq!(pki.clients().judge(&peer, now), Ok(()));
    assert!(
        pki.clients()
            .judge(&peer, now + (LEAF_DAYS + 1) * DAY)
            .is_err(),
        "expired"
    );

    // The CA list in the handshake names the CA, and both CAs have the same name.
    let (peer, _) = handshake(&pki, &pki, "localhost", Some(&stranger.admin())).unwrap();
    assert!(
        pki.clients().judge(&peer.unwrap(), now).is_err(),
        "of another authority"
    );

    let node = pki
        .issue_client("system:node:n", "system:nodes", crate::meta::time::now(), 1)
        .unwrap();
    let (peer, _) = handshake(&pki, &pki, "localhost", Some(&node)).unwrap();
    assert_eq!(pki.clients().judge(&peer.unwrap(), now), Ok(()));
    assert!(pki.clients().judge(&[], now).is_err());
}

#[test]
fn a_renewed_certificate_serves_the_next_connection() {
    let dir = tempfile::tempdir().unwrap();
    let names: [&str; 0] = [];
    let now = crate::meta::time::now();
    let pki = Pki::open(dir.path(), names).unwrap();
    assert!(!pki.renew(now).unwrap());
    let before = pki.admin();
    assert!(pki.renew(now + (LEAF_DAYS - 59) * DAY).unwrap());
    assert!(before.certificate != pki.admin().certificate);
    // The client gets the renewed certificate, which is not valid yet.
    assert!(handshake(&pki, &pki, "localhost", None).is_err());
}

#[test]
fn requests_are_certified_for_what_they_ask() {
    use rcgen::{CertificateParams, DnType, KeyPair};
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open_at(dir.path(), [""; 0], NOW).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params =
        CertificateParams::new(vec!["n.example".to_owned(), "10.1.2.3".to_owned()]).unwrap();
    let name = &mut params.distinguished_name;
    name.push(DnType::CommonName, "system:node:ü");
    name.push(DnType::OrganizationName, "system:nodes");
    // An attribute such as the uid of a user is not checked, so it is not certified.
    name.push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]), "1");
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let request = Request::parse(&pem).unwrap();
    assert_eq!(request.subject.name, "system:node:ü");
    assert_eq!(request.dns, ["n.example"]);
    assert_eq!(request.addresses, ["10.1.2.3".parse::<IpAddr>().unwrap()]);
    let terms = |usages: &[&str]| Terms {
        usages: usages.iter().map(|usage| (*usage).to_owned()).collect(),
        not_before: NOW,
        not_after: NOW + DAY,
    };
    let usages = [
        "client auth",
        "signing",
        "any",
        "s/mime",
        "email protection",
    ];
    let pem = pki.certify(&request, &terms(&usages)).unwrap();
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (rest, certificate) = X509Certificate::from_der(&der).unwrap();
    assert!(rest.is_empty());
    let ca = CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap();
    let (_, ca) = X509Certificate::from_der(&ca).unwrap();
    certificate.verify_signature(Some(ca.public_key())).unwrap();
    assert_eq!(certificate.issuer().as_raw(), ca.subject().as_raw());
    assert_eq!(
        certificate.subject().to_string(),
        "O=system:nodes, CN=system:node:ü"
    );
    assert_eq!(certificate.validity().not_before.timestamp(), NOW);
    assert_eq!(certificate.validity().not_after.timestamp(), NOW + DAY);
    assert!(!certificate.is_ca());
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert_eq!(usage.flags, 1);
    let purposes = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.any && purposes.client_auth && purposes.email_protection);
    assert!(!purposes.server_auth && purposes.other.is_empty());
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 2);
    assert!(pki.certify(&request, &terms(&["dancing"])).is_err());

    // Signed with a key other than its own.
    let other = KeyPair::generate().unwrap().serialize_pem();
    assert!(Request::parse(&other).is_err());
    let forged = pem_with_last_byte_changed(&params, &key);
    assert!(pki.certify(&forged, &terms(&[])).is_err());
}

fn pem_with_last_byte_changed(params: &rcgen::CertificateParams, key: &rcgen::KeyPair) -> Request {
    use base64::Engine as _;
    let mut der = params.serialize_request(key).unwrap().der().to_vec();
    *der.last_mut().unwrap() ^= 1;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    Request::parse(&format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"
    ))
    .unwrap()
}
