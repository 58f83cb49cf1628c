use futures::FutureExt as _;

use super::claims::{Bound, Reference, Wanted};
use super::*;
use crate::resources::{Registry, record};
use crate::schema::json;
use crate::store::{Change, Expect, memory};
use crate::value;

const API: &str = "https://issuer";
const NOW: i64 = 1_000_000;

/// A store with a service account, pod, node and secret, and the tokens for them.
struct Trial {
    store: Arc<dyn Store>,
    tokens: Tokens,
}

fn signer() -> Signer {
    Signer::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap()
}

fn settings() -> Settings {
    Settings {
        issuers: vec![API.into(), "https://old".into()],
        audiences: vec![API.into(), "api".into()],
        max_seconds: None,
        extend: true,
        jwks_uri: "https://10.0.0.1:6443/openid/v1/jwks".into(),
        bootstrap: true,
    }
}

impl Trial {
    fn new() -> Trial {
        let store = memory();
        let ring = KeyRing::of(Keys::new(signer(), Vec::new()));
        let tokens = Tokens::new(store.clone(), settings(), ring, None);
        let trial = Trial { store, tokens };
        trial.put(
            "serviceaccounts",
            "ns",
            r#"{"metadata":{"name":"app","namespace":"ns","uid":"ua"}}"#,
        );
        trial.put(
            "pods",
            "ns",
            r#"{"metadata":{"name":"p","namespace":"ns","uid":"up"}}"#,
        );
        trial.put(
            "secrets",
            "ns",
            r#"{"metadata":{"name":"s","namespace":"ns","uid":"us"}}"#,
        );
        trial.put("nodes", "", r#"{"metadata":{"name":"n","uid":"un"}}"#);
        trial
    }

    fn commit(&self, plural: &str, namespace: &str, name: &str, object: Option<&str>) {
        let resource = Registry::builtin().get("", plural).unwrap();
        let key = resource.key(namespace, name);
        let expect = match self.store.head(&key) {
            Some(entry) => Expect::Revision(entry.rev),
            None => Expect::Absent,
        };
        let put = object
            .map(|text| record::encode(resource, &json::parse(text.as_bytes()).unwrap().value));
        let change = Change {
            resource: resource.prefix.clone(),
            key,
            expect,
            put,
            ttl: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(self.store.commit(vec![change])).unwrap();
    }

    fn put(&self, plural: &str, namespace: &str, object: &str) {
        let parsed = json::parse(object.as_bytes()).unwrap().value;
        let name = parsed.at("metadata").str("name").to_owned();
        self.commit(plural, namespace, &name, Some(object));
    }

    fn token(&self, bound: Bound, audiences: &[&str]) -> String {
        let audiences: Vec<String> = audiences.iter().map(|a| (*a).to_owned()).collect();
        let claims = Wanted {
            issuer: self.tokens.issuer(),
            id: "id-1",
            audiences: &audiences,
            namespace: "ns",
            account: reference("app", "ua"),
            bound,
            now: NOW,
            seconds: 600,
            warn_after: None,
        }
        .claims();
        self.tokens.issue(&claims).unwrap()
    }

    fn judge_at(&self, token: &str, audiences: &[&str], now: i64) -> Result<Authenticated, String> {
        let audiences: Vec<String> = audiences.iter().map(|a| (*a).to_owned()).collect();
        self.tokens
            .authenticate(token, &audiences, now, &mut Vec::new())
            .map_err(|why| why.join("; "))
    }

    fn told(&self, token: &str) -> String {
        match self.judge_at(token, &[API], NOW) {
            Ok(found) => {
                let extra: Vec<String> = found
                    .user
                    .extra
                    .iter()
                    .map(|(key, values)| {
                        let key = key.strip_prefix("authentication.kubernetes.io/").unwrap();
                        format!("{key}={}", values.join(","))
                    })
                    .collect();
                format!("{} {} {}", found.user.name, found.user.uid, extra.join(" "))
            }
            Err(why) => why,
        }
    }
}

fn reference(name: &str, uid: &str) -> Reference {
    Reference {
        name: name.into(),
        uid: uid.into(),
    }
}

fn pod() -> Bound {
    Bound {
        pod: Some(reference("p", "up")),
        node: Some(reference("n", "un")),
        ..Bound::default()
    }
}

const GONE: &str = "service account token has been invalidated";

#[test]
fn claims_are_upstreams() {
    let audiences = ["a".to_owned()];
    let claims = Wanted {
        issuer: API,
        id: "j",
        audiences: &audiences,
        namespace: "ns",
        account: reference("app", "ua"),
        bound: pod(),
        now: 10,
        seconds: 600,
        warn_after: Some(7),
    }
    .claims();
    assert_eq!(
        json::to_string(&claims),
        r#"{"aud":["a"],"exp":610,"iat":10,"iss":"https://issuer","jti":"j","kubernetes.io":{"namespace":"ns","node":{"name":"n","uid":"un"},"pod":{"name":"p","uid":"up"},"serviceaccount":{"name":"app","uid":"ua"},"warnafter":17},"nbf":10,"sub":"system:serviceaccount:ns:app"}"#
    );
}

#[test]
fn a_token_tells_what_it_is_bound_to_and_ends_with_it() {
    let trial = Trial::new();
    let plain = trial.token(Bound::default(), &[API]);
    let of_pod = trial.token(pod(), &[API]);
    let of_secret = trial.token(
        Bound {
            secret: Some(reference("s", "us")),
            ..Bound::default()
        },
        &[API],
    );
    let of_node = trial.token(
        Bound {
            node: Some(reference("n", "un")),
            ..Bound::default()
        },
        &[API],
    );
    let who = "system:serviceaccount:ns:app ua credential-id=JTI=id-1";
    for _ in 0..2 {
        assert_eq!(trial.told(&plain), who);
        assert_eq!(
            trial.told(&of_pod),
            format!("{who} node-name=n node-uid=un pod-name=p pod-uid=up")
        );
        assert_eq!(trial.told(&of_secret), who);
        assert_eq!(
            trial.told(&of_node),
            format!("{who} node-name=n node-uid=un")
        );
    }
    trial.commit("nodes", "", "n", None);
    assert_eq!(trial.told(&of_node), GONE);
    assert!(
        trial.told(&of_pod).starts_with(who),
        "its node is only told"
    );
    trial.commit("pods", "ns", "p", None);
    assert_eq!(trial.told(&of_pod), GONE);
    trial.put(
        "pods",
        "ns",
        r#"{"metadata":{"name":"p","namespace":"ns","uid":"other"}}"#,
    );
    assert_eq!(
        trial.told(&of_pod),
        "pod UID (other) does not match service account pod ref claim (up)"
    );
    trial.commit("secrets", "ns", "s", None);
    assert_eq!(trial.told(&of_secret), GONE);
    trial.commit("serviceaccounts", "ns", "app", None);
    assert_eq!(trial.told(&plain), r#"serviceaccounts "app" not found"#);
    trial.put(
        "serviceaccounts",
        "ns",
        r#"{"metadata":{"name":"app","namespace":"ns","uid":"new"}}"#,
    );
    assert_eq!(
        trial.told(&plain),
        "service account UID (new) does not match claim (ua)"
    );
}

#[test]
fn what_ends_counts_for_a_minute_more() {
    let trial = Trial::new();
    let token = trial.token(pod(), &[API]);
    let ends = crate::meta::time::print(NOW - 10);
    trial.put(
        "pods",
        "ns",
        &format!(r#"{{"metadata":{{"name":"p","namespace":"ns","uid":"up","deletionTimestamp":"{ends}"}}}}"#),
    );
    assert!(trial.judge_at(&token, &[API], NOW).is_ok());
    assert!(trial.judge_at(&token, &[API], NOW + 50).is_ok());
    assert_eq!(trial.judge_at(&token, &[API], NOW + 51).unwrap_err(), GONE);
}

#[test]
fn a_token_is_good_from_a_minute_before_to_a_minute_after_its_time() {
    let trial = Trial::new();
    let token = trial.token(Bound::default(), &[API]);
    for (at, refused) in [
        (NOW - 61, Some("service account token is not valid yet")),
        (NOW - 60, None),
        (NOW + 660, None),
        (NOW + 661, Some("service account token has expired")),
    ] {
        let judged = trial.judge_at(&token, &[API], at);
        assert_eq!(judged.err().as_deref(), refused, "{at}");
    }
}

#[test]
fn a_token_is_for_its_audiences_alone() {
    let trial = Trial::new();
    let token = trial.token(Bound::default(), &["vault", "api"]);
    let found = trial.judge_at(&token, &[API, "api", "vault"], NOW).unwrap();
    assert_eq!(found.audiences, ["api", "vault"]);
    assert_eq!(
        trial.judge_at(&token, &["x", "y"], NOW).unwrap_err(),
        r#"token audiences ["vault" "api"] is invalid for the target audiences ["x" "y"]"#
    );
    let for_nobody = trial.token(Bound::default(), &[]);
    assert_eq!(
        trial
            .judge_at(&for_nobody, &["api"], NOW)
            .unwrap()
            .audiences,
        ["api"]
    );
}

#[test]
fn tokens_of_others_are_none() {
    let trial = Trial::new();
    let stranger = signer();
    let sign = |issuer: &str, signer: &Signer| {
        jwt::sign(&value!({"iss": issuer, "aud": "api"}), signer).unwrap()
    };
    assert_eq!(trial.told(&sign("https://elsewhere", &stranger)), "");
    assert_eq!(trial.told("a.b.c"), "");
    assert_eq!(
        trial.told(&sign(API, &stranger)),
        "invalid signature, no keys found"
    );
    let both = Keys::new(signer(), vec![stranger.public.clone()]);
    assert_eq!(both.public.len(), 2);
    let rotated = Tokens::new(trial.store.clone(), settings(), KeyRing::of(both), None);
    let old = jwt::sign(
        &value!({"iss": "https://old", "aud": "api", "kubernetes.io": {"namespace": "ns", "serviceaccount": {"name": "app", "uid": "ua"}}}),
        &stranger,
    )
    .unwrap();
    let audiences = ["api".to_owned()];
    let found = rotated.authenticate(&old, &audiences, NOW, &mut Vec::new());
    assert_eq!(found.unwrap().user.uid, "ua");
}

#[test]
fn the_token_of_a_secret_is_good_while_the_secret_holds_it() {
    use base64::Engine as _;
    let trial = Trial::new();
    let claims = value!({
        "iss": "kubernetes/serviceaccount",
        "kubernetes.io/serviceaccount/namespace": "ns",
        "kubernetes.io/serviceaccount/secret.name": "old",
        "kubernetes.io/serviceaccount/service-account.name": "app",
        "kubernetes.io/serviceaccount/service-account.uid": "ua",
        "sub": "system:serviceaccount:ns:app"
    });
    let token = trial.tokens.issue(&claims).unwrap();
    assert_eq!(trial.told(&token), "Token has been invalidated");
    let held = base64::engine::general_purpose::STANDARD.encode(&token);
    let secret = |labels: &str, held: &str| {
        format!(
            r#"{{"metadata":{{"name":"old","namespace":"ns","uid":"uo","labels":{{{labels}}}}},"data":{{"token":"{held}"}}}}"#
        )
    };
    trial.put("secrets", "ns", &secret("", "bm8="));
    assert_eq!(trial.told(&token), "Token does not match server's copy");
    trial.put("secrets", "ns", &secret("", &held));
    assert_eq!(trial.told(&token), "system:serviceaccount:ns:app ua ");
    let invalid = r#""kubernetes.io/legacy-token-invalid-since":"2020-01-01""#;
    trial.put("secrets", "ns", &secret(invalid, &held));
    assert!(trial.told(&token).contains("has been marked invalid"));
    let used = trial.tokens.uses.take().now_or_never().unwrap();
    let told: Vec<_> = used.iter().map(|one| (&*one.secret, &*one.uid)).collect();
    assert_eq!(told, [("old", "uo")], "its use is told, even in vain");
    for (label, told) in [(0, false), (1, false), (-1, true), (2, true)] {
        let at = crate::meta::time::print(NOW + label * 86_400);
        let day = at.split('T').next().unwrap();
        let label = format!(r#""kubernetes.io/legacy-token-last-used":"{day}""#);
        trial.put("secrets", "ns", &secret(&label, &held));
        assert_eq!(trial.told(&token), "system:serviceaccount:ns:app ua ");
        assert_eq!(
            trial.tokens.uses.take().now_or_never().is_some(),
            told,
            "{day}"
        );
    }
    trial.put("secrets", "ns", &secret("", &held));
    trial.put(
        "serviceaccounts",
        "ns",
        r#"{"metadata":{"name":"app","namespace":"ns","uid":"ua"},"secrets":[{"name":"old"}]}"#,
    );
    for _ in 0..2 {
        let mut warnings = Vec::new();
        let found = trial
            .tokens
            .authenticate(&token, &[API.to_owned()], NOW, &mut warnings);
        assert!(found.is_ok());
        assert_eq!(warnings.len(), 1, "its use is warned of each time");
    }
}

#[test]
fn the_issuer_tells_of_its_keys() {
    let trial = Trial::new();
    assert_eq!(
        json::to_string(&trial.tokens.configuration().unwrap()),
        r#"{"issuer":"https://issuer","jwks_uri":"https://10.0.0.1:6443/openid/v1/jwks","response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256"]}"#
    );
    let keys = trial.tokens.key_set().unwrap();
    let id = &trial.tokens.keys().unwrap().public[0].id;
    assert_eq!(keys.list("keys")[0].str("kid"), id);
}

#[test]
fn secrets_are_compared_whole() {
    assert!(same(b"", b""));
    assert!(same(b"abc", b"abc"));
    assert!(!same(b"abc", b"abd"));
    assert!(!same(b"abc", b"ab"));
    assert!(!same(b"", b"a"));
}
