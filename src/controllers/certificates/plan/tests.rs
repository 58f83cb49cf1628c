use super::*;

fn asked(name: &str, groups: &[&str]) -> Request {
    let mut request = Request::parse(include_str!("../request.pem")).unwrap();
    request.subject.name = name.into();
    request.subject.groups = groups.iter().map(|group| (*group).into()).collect();
    request
}

fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

#[test]
fn signers_take_what_they_are_for() {
    let nodes = &["system:nodes"][..];
    let node = || asked("system:node:n", nodes);
    let with_dns = || {
        let mut request = node();
        request.dns.push("n".to_owned());
        request
    };
    let with_mail = || {
        let mut request = with_dns();
        request.emails.push("a@b".to_owned());
        request
    };
    let client = "digital signature,client auth";
    let serving = "server auth,key encipherment,digital signature";
    for (signer, request, usages, wanted) in [
        (CLIENT, asked("a", &["b"]), "client auth", "ok"),
        (
            CLIENT,
            asked("a", &[]),
            "client auth,server auth",
            "invalid usage for client certificate: server auth",
        ),
        (
            CLIENT,
            asked("a", &[]),
            "digital signature",
            "missing required usage for client certificate: client auth",
        ),
        (KUBELET_CLIENT, node(), client, "ok"),
        (
            KUBELET_CLIENT,
            asked("system:node:n", &["system:nodes", "x"]),
            client,
            "subject organization is not system:nodes",
        ),
        (
            KUBELET_CLIENT,
            with_dns(),
            client,
            "DNS subjectAltNames are not allowed",
        ),
        (
            KUBELET_CLIENT,
            node(),
            "client auth",
            "usages did not match [client auth digital signature key encipherment]",
        ),
        (
            KUBELET_CLIENT,
            asked("n", nodes),
            client,
            "subject common name does not begin with system:node:",
        ),
        (KUBELET_SERVING, with_dns(), serving, "ok"),
        (
            KUBELET_SERVING,
            node(),
            serving,
            "DNS or IP subjectAltName is required",
        ),
        (
            KUBELET_SERVING,
            with_mail(),
            serving,
            "Email subjectAltNames are not allowed",
        ),
        (
            KUBELET_SERVING,
            with_dns(),
            client,
            "usages did not match [digital signature key encipherment server auth]",
        ),
        (LEGACY, asked("", &[]), "any", "ok"),
        ("example.com/own", asked("", &[]), "any", "not ours"),
    ] {
        let spec = CertificateSigningRequestSpec {
            signer_name: signer.to_owned(),
            usages: Some(words(usages)),
            ..CertificateSigningRequestSpec::default()
        };
        let found = match check(&spec, &request) {
            None => "not ours".to_owned(),
            Some(Ok(())) => "ok".to_owned(),
            Some(Err(why)) => why,
        };
        assert_eq!(found, wanted, "{signer} {usages}");
    }
}

#[test]
fn certificates_last_as_long_as_asked_for_within_bounds() {
    const NOW: i64 = 1_000_000_000;
    const LONGEST: i64 = 365 * 24 * HOUR;
    let within = |longest: i64, seconds: Option<i32>, expires: i64| {
        let spec = CertificateSigningRequestSpec {
            expiration_seconds: seconds,
            ..CertificateSigningRequestSpec::default()
        };
        terms(&spec, longest, NOW, NOW + expires).map(|terms| {
            assert_eq!(terms.not_before, NOW - 300);
            terms.not_after - NOW
        })
    };
    let until = |seconds: Option<i32>, expires: i64| within(LONGEST, seconds, expires);
    let far = 100 * LONGEST;
    assert_eq!(until(None, far), Ok(LONGEST - 300));
    assert_eq!(until(Some(i32::MAX), far), Ok(LONGEST - 300));
    assert_eq!(until(Some(1), far), Ok(600));
    assert_eq!(until(Some(3600), far), Ok(3600), "short ones end as asked");
    assert_eq!(until(Some(8 * 3600), far), Ok(8 * 3600 - 300));
    assert_eq!(within(5, None, far), Ok(5), "as the signer was told");
    assert_eq!(within(900, Some(3600), far), Ok(900));
    assert_eq!(within(900, Some(700), far), Ok(700));
    assert_eq!(within(300, Some(200), far), Ok(600), "as upstream");
    assert_eq!(until(None, 77), Ok(77), "none outlives its authority");
    assert!(
        until(None, 0)
            .unwrap_err()
            .starts_with("the signer has expired")
    );
}

#[test]
fn nodes_are_approved_by_their_rights() {
    let request = |user: &str, signer: &str| CertificateSigningRequest {
        spec: CertificateSigningRequestSpec {
            username: Some(user.to_owned()),
            signer_name: signer.to_owned(),
            usages: Some(words("digital signature,client auth")),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    };
    let rights = |request: &CertificateSigningRequest, asked: &Request| -> Vec<&str> {
        let approvals = approvals(request, asked);
        approvals.into_iter().map(|(right, _)| right).collect()
    };
    let node = asked("system:node:n", &["system:nodes"]);
    let (own, other) = ("system:node:n", "system:bootstrap:a");
    assert_eq!(
        rights(&request(own, KUBELET_CLIENT), &node),
        ["selfnodeclient", "nodeclient"]
    );
    assert_eq!(
        rights(&request(other, KUBELET_CLIENT), &node),
        ["nodeclient"]
    );
    assert_eq!(rights(&request(own, KUBELET_SERVING), &node), [""; 0]);
    let master = asked("system:node:n", &["system:masters"]);
    assert_eq!(rights(&request(own, KUBELET_CLIENT), &master), [""; 0]);
}

#[test]
fn old_requests_go() {
    let now: Timestamp = "2026-01-03T00:00:00Z".parse().unwrap();
    let old = |status: &str, seconds: i64| {
        let at = crate::meta::time::print(now.as_second() - seconds);
        let text = format!(
            r#"{{"metadata":{{"creationTimestamp":"{at}"}},"spec":{{"request":"","signerName":"","usages":[]}},"status":{}}}"#,
            status.replace("AT", &at)
        );
        is_old(&serde_json::from_str(&text).unwrap(), now)
    };
    let with = |kind: &str, rest: &str| {
        format!(
            r#"{{"conditions":[{{"type":"{kind}","status":"True","lastUpdateTime":"AT"}}]{rest}}}"#
        )
    };
    for (status, after) in [
        ("{}".to_owned(), PENDING),
        (with("Approved", ""), PENDING),
        (with("Approved", r#","certificate":"YQ==""#), ANSWERED),
        (with("Denied", ""), ANSWERED),
        (with("Failed", ""), ANSWERED),
    ] {
        assert!(!old(&status, after), "{status}");
        assert!(old(&status, after + 1), "{status}");
    }
    let signed = |kind: &str| {
        serde_json::from_str(&format!(
            r#"{{"spec":{{"request":"","signerName":"","usages":[]}},"status":{}}}"#,
            with(kind, "").replace("AT", "2026-01-03T00:00:00Z")
        ))
        .unwrap()
    };
    assert!(is_to_be_signed(&signed("Approved")));
    assert!(!is_to_be_signed(&signed("Denied")) && is_judged(&signed("Denied")));
}
