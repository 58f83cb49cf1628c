use super::*;

fn openssl(arguments: &[&str], input: &str) -> Option<String> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(input.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    assert!(output.status.success(), "openssl {arguments:?}");
    String::from_utf8(output.stdout).ok()
}

fn proves(pem: &str, algorithm: &str) -> Signer {
    let signer = Signer::from_pem(pem).unwrap();
    assert_eq!(signer.public.algorithm(), algorithm);
    let signature = signer.sign(b"message").unwrap();
    let public = &signer.public;
    assert!(public.verifies(algorithm, b"message", &signature));
    assert!(!public.verifies(algorithm, b"massage", &signature));
    for other in ["none", "HS256", "RS256", "ES256", "ES384"] {
        assert_eq!(
            public.verifies(other, b"message", &signature),
            other == algorithm
        );
    }
    assert_eq!(
        public_keys_of_pem(pem).unwrap(),
        std::slice::from_ref(public)
    );
    signer
}

#[test]
fn a_new_key_signs_and_judges() {
    let signer = proves(&new_rsa(2048).unwrap(), "RS256");
    let jwk = signer.public.jwk();
    let names: Vec<&str> = jwk
        .as_object()
        .unwrap()
        .keys()
        .map(|key| key.as_str())
        .collect();
    assert_eq!(names, ["use", "kty", "kid", "alg", "n", "e"]);
    assert_eq!(jwk.str("e"), "AQAB");
    assert_eq!(BASE64.decode(jwk.str("n")).unwrap().len(), 256);
    let curve = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let jwk = proves(&curve, "ES256").public.jwk();
    assert_eq!((jwk.str("kty"), jwk.str("crv")), ("EC", "P-256"));
}

#[test]
fn keys_of_openssl_are_read_in_all_forms() {
    let Some(version) = openssl(&["version"], "") else {
        return;
    };
    assert!(version.contains("SSL"));
    let rsa = openssl(&["genrsa", "2048"], "").unwrap();
    let old = openssl(&["rsa", "-traditional"], &rsa).unwrap();
    assert!(old.contains("BEGIN RSA PRIVATE KEY"));
    let id = proves(&rsa, "RS256").public.id;
    assert_eq!(proves(&old, "RS256").public.id, id);
    let public = openssl(&["rsa", "-pubout"], &rsa).unwrap();
    assert_eq!(public_keys_of_pem(&public).unwrap()[0].id, id);
    assert!(Signer::from_pem(&public).is_err());
    for (curve, algorithm) in [("prime256v1", "ES256"), ("secp384r1", "ES384")] {
        let sec1 = openssl(&["ecparam", "-genkey", "-noout", "-name", curve], "").unwrap();
        assert!(sec1.contains("BEGIN EC PRIVATE KEY"));
        let pkcs8 = openssl(&["pkcs8", "-topk8", "-nocrypt"], &sec1).unwrap();
        let id = proves(&sec1, algorithm).public.id;
        assert_eq!(proves(&pkcs8, algorithm).public.id, id);
        let public = openssl(&["ec", "-pubout"], &sec1).unwrap();
        let both = format!("{public}{rsa}");
        assert_eq!(public_keys_of_pem(&both).unwrap().len(), 2);
        assert_eq!(public_keys_of_pem(&both).unwrap()[0].id, id);
    }
    let curve = openssl(&["ecparam", "-genkey", "-noout", "-name", "secp521r1"], "").unwrap();
    assert!(Signer::from_pem(&curve).is_err());
    assert!(public_keys_of_pem("").is_err());
}
