use base64::Engine as _;
use rcgen::{CertificateParams, KeyPair};

use crate::resources::groups::trial::Trial;
use crate::schema::Value;
use crate::value;

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A request with a new key.
fn request() -> String {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(Vec::new()).expect("parameters");
    let request = params.serialize_request(&key).expect("a request");
    request.pem().expect("PEM")
}

/// A self-signed certificate.
fn certificate(authority: bool) -> String {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = match authority {
        true => rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained),
        false => rcgen::IsCa::ExplicitNoCa,
    };
    params.self_signed(&key).expect("a certificate").pem()
}

fn body(spec: &Value) -> String {
    crate::schema::json::to_string(&value!({"metadata": {"name": "c"}, "spec": spec}))
}

fn csr(pem: &str) -> Value {
    value!({"request": (base64(pem)), "signerName": "example.com/s", "usages": ["client auth"], "username": "somebody"})
}

fn trial() -> Trial {
    Trial::of("certificates.k8s.io", "certificatesigningrequests")
}

#[test]
fn a_request_says_who_asked_and_is_signed_by_its_key() {
    let (made, refused) = trial().create(&body(&csr(&request())));
    assert_eq!(refused, Vec::<String>::new());
    assert_eq!(made.at("spec").str("username"), "jane");
    assert_eq!(made.at("spec").list("groups"), [Value::from("devs")]);

    let pem = request();
    let mut der = crate::meta::pem::blocks(&pem)[0].bytes.clone();
    let last = der.len() - 1;
    der[last] ^= 1;
    let broken = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        base64::engine::general_purpose::STANDARD.encode(der)
    );
    for (pem, why) in [
        (broken.as_str(), "x509: ECDSA verification failure"),
        ("no PEM", "PEM block type must be CERTIFICATE REQUEST"),
        (
            &certificate(true),
            "PEM block type must be CERTIFICATE REQUEST",
        ),
    ] {
        let refused = trial().refusals(&body(&csr(pem)));
        assert!(refused[0].ends_with(why), "{refused:?}");
    }
}

#[test]
fn verdicts_come_by_the_approval_alone_and_stay() {
    let (made, _) = trial().create(&body(&csr(&request())));
    let with = |kinds: &[&str]| {
        let conditions: Vec<Value> = kinds
            .iter()
            .map(|kind| value!({"type": (*kind), "status": "True"}))
            .collect();
        move |object: &mut Value| {
            object
                .object_mut()
                .object_mut("status")
                .insert("conditions", conditions)
        }
    };
    let (approved, refused) = trial().update("approval", &made, |object| {
        with(&["Approved"])(object);
    });
    assert_eq!(refused, Vec::<String>::new());
    let condition = &approved.at("status").list("conditions")[0];
    assert_eq!(condition.str("lastUpdateTime"), "1970-01-12T13:46:40Z");
    for (subresource, old, kinds, why) in [
        (
            "status",
            &made,
            &["Approved"][..],
            "status.conditions: Forbidden: updates may not add a condition of type \"Approved\"",
        ),
        (
            "approval",
            &approved,
            &[],
            "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"",
        ),
        (
            "approval",
            &approved,
            &["Approved", "Denied"],
            "status.conditions: Invalid value: \"{conditions[{\\\"type\\\": \\\"Approved\\\"}], conditions[{\\\"type\\\": \\\"Denied\\\"}]}\": must specify at most one of: `conditions[{\"type\": \"Approved\"}]`, `conditions[{\"type\": \"Denied\"}]`",
        ),
    ] {
        let (_, refused) = trial().update(subresource, old, |object| {
            with(kinds)(object);
        });
        assert_eq!(refused, [why]);
    }
}

#[test]
fn a_certificate_is_issued_once() {
    let (made, _) = trial().create(&body(&csr(&request())));
    let issue = |old: &Value, pem: &str| {
        trial().update("status", old, |object| {
            let status = object.object_mut().object_mut("status");
            status.insert("certificate", base64(pem));
        })
    };
    let (_, refused) = issue(&made, &request());
    assert_eq!(
        refused,
        [
            r#"status.certificate: Invalid value: "<certificate data>": only CERTIFICATE PEM blocks are allowed, found "CERTIFICATE REQUEST""#
        ]
    );
    let (issued, refused) = issue(&made, &certificate(false));
    assert_eq!(refused, Vec::<String>::new());
    let (_, refused) = issue(&issued, &certificate(false));
    assert_eq!(
        refused,
        ["status.certificate: Forbidden: updates may not modify existing certificate content"]
    );
}

#[test]
fn bundles_hold_authorities_each_once() {
    let trial = Trial::of("certificates.k8s.io", "clustertrustbundles");
    let refused = |text: &str| trial.refusals(&body(&value!({ "trustBundle": text })));
    let (anchor, leaf) = (certificate(true), certificate(false));
    assert_eq!(refused(&anchor), Vec::<String>::new());
    for (text, why) in [
        (String::new(), "at least one trust anchor must be provided"),
        (leaf, "entry 0 does not have the CA bit set"),
        (request(), "entry 0 has bad block type: CERTIFICATE REQUEST"),
        (
            anchor.clone() + &anchor,
            "duplicate trust anchor (indices [0 1])",
        ),
    ] {
        assert_eq!(
            refused(&text),
            [format!(
                "spec.trustBundle: Invalid value: \"<value omitted>\": {why}"
            )]
        );
    }
    let named = value!({"signerName": "example.com/s", "trustBundle": anchor});
    assert_eq!(
        trial.refusals(&body(&named)),
        [
            r#"metadata.name: Invalid value: "c": ClusterTrustBundle for signerName example.com/s must be named with prefix example.com:s:"#
        ]
    );
}

#[test]
fn a_pods_request_ends_once() {
    let trial = Trial::of("certificates.k8s.io", "podcertificaterequests");
    let pem = request();
    let der = &crate::meta::pem::blocks(&pem)[0].bytes;
    let stub = base64::engine::general_purpose::STANDARD.encode(der);
    let spec = value!({"signerName": "example.com/s", "podName": "p", "podUID": "1", "serviceAccountName": "s",
        "serviceAccountUID": "2", "nodeName": "n", "nodeUID": "3", "stubPKCS10Request": stub});
    let (made, refused) = trial.create(&body(&spec));
    assert_eq!(refused, Vec::<String>::new());
    assert_eq!(made.at("spec").int("maxExpirationSeconds"), 86_400);
    let ended = |kind: &str, chain: &str| {
        let condition = value!({"type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2024-01-01T00:00:00Z"});
        let status = value!({"conditions": [condition], "certificateChain": chain});
        trial
            .update("status", &made, |object| object.set("status", status))
            .1
    };
    // In these tests nobody is authorized to sign.
    assert_eq!(
        ended("Denied", ""),
        [
            r#"spec.signerName: Forbidden: User "jane" is not permitted to "sign" for signer "example.com/s""#
        ]
    );
    assert_eq!(
        ended("Denied", "x"),
        [
            "status: Invalid value: non-condition status fields must be empty when denying or failing the PodCertificateRequest"
        ]
    );
    assert_eq!(
        ended("Issued", ""),
        [
            r#"status.certificateChain: Invalid value: "": issued certificate chain must contain at least one certificate"#
        ]
    );
    let refused = ended("Issued", &certificate(false));
    assert!(
        refused[0].ends_with("leaf certificate was not issued to the requested public key"),
        "{refused:?}"
    );
}
