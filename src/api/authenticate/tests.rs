use super::*;
use crate::auth::pki::Pki;
use crate::auth::tokens::file::TokenFile;
use crate::auth::tokens::{KeyRing, Keys, Settings, keys::Signer};
use crate::store::memory;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

struct Trial {
    _dir: tempfile::TempDir,
    pki: Pki,
    authentication: Authentication,
}

fn trial(anonymous: bool) -> Trial {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path(), ["localhost"]).unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, "tok,jane,1,\"devs\"\n").unwrap();
    let signer = Signer::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let tokens = Tokens::new(
        memory(),
        Settings {
            issuers: vec!["https://i".into()],
            audiences: vec!["https://i".into()],
            max_seconds: None,
            extend: true,
            jwks_uri: String::new(),
            bootstrap: true,
        },
        KeyRing::of(Keys::new(signer, Vec::new())),
        Some(TokenFile::open(&file).unwrap()),
    );
    let authentication = Authentication {
        clients: pki.clients().clone(),
        front_proxy: None,
        tokens: Arc::new(tokens),
        anonymous,
    };
    Trial {
        _dir: dir,
        pki,
        authentication,
    }
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn nobody() -> Peer {
    Peer::new(Vec::new())
}

#[test]
fn authorization_headers_are_read_as_upstream_reads_them() {
    for (header, found) in [
        ("", Bearer::None),
        ("Basic YTpi", Bearer::None),
        ("Bearer", Bearer::None),
        ("Bearer ", Bearer::None),
        ("bearer t", Bearer::Token("t")),
        ("  BEARER t  ", Bearer::Token("t")),
        ("Bearer t u v", Bearer::Token("t")),
        ("Bearer  t", Bearer::Spaced),
        ("Bearer\tt", Bearer::None),
    ] {
        assert_eq!(Bearer::of(header), found, "{header:?}");
    }
}

#[test]
fn the_first_good_credential_counts_and_a_bad_one_shuts_out() {
    let trial = trial(true);
    let stranger = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    let good = || Peer::new(vec![certificate(&trial.pki.admin().certificate)]);
    let bad = || Peer::new(vec![stranger.cert.der().clone()]);
    let token = |token: &'static str| headers(&[("authorization", token)]);
    for (peer, mut asked, who) in [
        (
            nobody(),
            headers(&[]),
            Some("system:anonymous system:unauthenticated"),
        ),
        (
            nobody(),
            token("Basic YTpi"),
            Some("system:anonymous system:unauthenticated"),
        ),
        (
            nobody(),
            token("Bearer tok"),
            Some("jane devs system:authenticated"),
        ),
        (nobody(), token("Bearer nope"), None),
        (
            good(),
            token("Bearer tok"),
            Some("kubernetes-admin system:masters system:authenticated"),
        ),
        (
            good(),
            token("Bearer nope"),
            Some("kubernetes-admin system:masters system:authenticated"),
        ),
        (
            bad(),
            token("Bearer tok"),
            Some("jane devs system:authenticated"),
        ),
        (bad(), headers(&[]), None),
    ] {
        let found = trial.authentication.authenticate(&mut asked, &peer);
        let told = found
            .as_ref()
            .ok()
            .map(|(user, _)| format!("{} {}", user.name, user.groups.join(" ")));
        assert_eq!(told.as_deref(), who, "{asked:?}");
        if let Err(status) = found {
            assert_eq!(
                (status.code, status.message.as_str()),
                (401, "Unauthorized")
            );
        }
    }
    let (user, _) = trial
        .authentication
        .authenticate(&mut headers(&[]), &good())
        .unwrap();
    let id = &user.extra(accounts::CREDENTIAL_ID)[0];
    assert!(id.starts_with("X509SHA256=") && id.len() == 11 + 64, "{id}");
    let (_, warnings) = trial
        .authentication
        .authenticate(&mut token("Bearer  tok"), &nobody())
        .unwrap();
    assert_eq!(warnings, [SPACED]);
}

#[test]
fn without_anonymous_requests_everybody_must_show_something() {
    let trial = trial(false);
    let ask = |asked: &[(&'static str, &str)]| {
        trial
            .authentication
            .authenticate(&mut headers(asked), &nobody())
            .is_ok()
    };
    assert!(!ask(&[]));
    assert!(ask(&[("authorization", "Bearer tok")]));
}

#[test]
fn a_web_socket_brings_its_token_among_its_protocols() {
    let trial = trial(true);
    let upgrade = [("connection", "Upgrade"), ("upgrade", "websocket")];
    let ask = |protocols: &str| {
        let mut asked = headers(&upgrade);
        asked.insert(header::SEC_WEBSOCKET_PROTOCOL, protocols.parse().unwrap());
        let found = trial.authentication.authenticate(&mut asked, &nobody());
        let left = asked[header::SEC_WEBSOCKET_PROTOCOL]
            .to_str()
            .unwrap()
            .to_owned();
        (found.ok().map(|(user, _)| user.name), left)
    };
    let token = format!("{SOCKET}{}", BASE64.encode("tok"));
    let wrong = format!("{SOCKET}{}", BASE64.encode("nope"));
    assert_eq!(
        ask(&format!("{token}, v5.channel.k8s.io")),
        (Some("jane".into()), "v5.channel.k8s.io".into())
    );
    assert_eq!(ask("v5.channel.k8s.io").0.as_deref(), Some(ANONYMOUS));
    for bad in [
        format!("{wrong}, v5.channel.k8s.io"),
        token.clone(),
        format!("{token},{token},x"),
        format!("{SOCKET}!,x"),
    ] {
        assert_eq!(ask(&bad).0, None, "{bad}");
    }
}

#[test]
fn a_front_proxy_is_believed_for_its_certificate() {
    let mut trial = trial(true);
    let proxy = |allowed: &[&str]| FrontProxy {
        clients: ClientCertificates::clone(trial.pki.clients()),
        allowed_names: allowed.iter().map(|name| (*name).to_owned()).collect(),
        user_headers: vec![HeaderName::from_static("x-remote-user")],
        uid_headers: vec![HeaderName::from_static("x-remote-uid")],
        group_headers: vec![HeaderName::from_static("x-remote-group")],
        extra_prefixes: vec!["x-remote-extra-".into()],
    };
    let ask = |trial: &Trial, peer: &Peer| {
        let mut asked = headers(&[
            ("x-remote-user", "jane"),
            ("x-remote-uid", "u"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-example.com%2fp", "q"),
        ]);
        let (user, _) = trial.authentication.authenticate(&mut asked, peer).unwrap();
        (user, asked.len())
    };
    let certified = Peer::new(vec![certificate(&trial.pki.admin().certificate)]);
    assert_eq!(ask(&trial, &certified).0.name, "kubernetes-admin");
    trial.authentication.front_proxy = Some(proxy(&["someone"]));
    let certified = || Peer::new(vec![certificate(&trial.pki.admin().certificate)]);
    assert_eq!(ask(&trial, &certified()).0.name, "kubernetes-admin");
    assert_eq!(ask(&trial, &nobody()).0.name, ANONYMOUS);
    let peer = certified();
    trial.authentication.front_proxy = Some(proxy(&["kubernetes-admin"]));
    let (user, left) = ask(&trial, &peer);
    assert_eq!(left, 0);
    assert_eq!((&*user.name, &*user.uid), ("jane", "u"));
    assert_eq!(user.groups, ["a", "b", AUTHENTICATED]);
    assert_eq!(user.extra("example.com/p"), ["q"]);
}

#[test]
fn reviews_of_tokens_tell_what_is_wrong() {
    let trial = trial(true);
    let review = |token: &str, audiences: &[&str]| {
        let audiences: Vec<String> = audiences.iter().map(|a| (*a).to_owned()).collect();
        trial.authentication.review(token, &audiences)
    };
    let found = review("tok", &["https://i", "x"]).unwrap();
    assert_eq!(found.user.groups, ["devs", AUTHENTICATED]);
    assert_eq!(found.audiences, ["https://i"]);
    assert_eq!(review("tok", &["x"]).unwrap_err(), ["invalid bearer token"]);
    assert_eq!(
        review("nope", &["x"]).unwrap_err(),
        ["invalid bearer token"]
    );
    assert_eq!(review(" tok", &["x"]).unwrap().user.name, ANONYMOUS);
}
