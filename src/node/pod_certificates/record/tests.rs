use serde_json::{Value, json};

use super::*;

const JITTER: SignedDuration = SignedDuration::from_secs(60);
const CHAIN: &str = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";

/// A time so many minutes after the start.
fn at(minutes: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
}

fn request(status: Value) -> PodCertificateRequest {
    let object = json!({"metadata": {"namespace": "n", "name": "r"}, "spec": {
        "nodeName": "", "nodeUID": "", "podName": "", "podUID": "", "serviceAccountName": "",
        "serviceAccountUID": "", "signerName": "", "stubPKCS10Request": ""
    }, "status": status});
    serde_json::from_value(object).expect("a request")
}

fn ended(kind: &str) -> Value {
    json!({"conditions": [{"type": kind, "status": "True", "reason": "R", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
}

/// An answered request whose certificate is to be renewed after 100 minutes and expires after 200.
fn issued() -> Value {
    let mut status = ended("Issued");
    status["certificateChain"] = json!(format!("by us\n{CHAIN}"));
    status["beginRefreshAt"] = json!(at(100).to_string());
    status["notAfter"] = json!(at(200).to_string());
    status
}

fn asked(key: &str) -> Option<Asked> {
    Some(Asked {
        key: key.into(),
        name: "r".into(),
        abandoned_at: at(10),
    })
}

#[test]
fn requests_lead_to_certificates_or_to_an_end() {
    let denied = r#"PodCertificateRequest was permanently denied: reason="R" message="m""#;
    let failed = r#"PodCertificateRequest was permanently failed: reason="R" message="m""#;
    let renewed = Step::Wait(Some(at(101)));
    let abandoned = Step::Wait(Some(at(10) + SignedDuration::from_secs(1)));
    for (what, status, minute, step, given, events) in [
        ("not seen yet", None, 5, abandoned, Err(NOT_YET), vec![]),
        ("deleted", None, 11, Step::Ask, Err(NOT_YET), vec![]),
        (
            "pending",
            Some(json!({})),
            11,
            Step::Wait(None),
            Err(NOT_YET),
            vec![],
        ),
        (
            "another condition",
            Some(ended("Seen")),
            0,
            Step::Wait(None),
            Err(NOT_YET),
            vec![],
        ),
        ("issued", Some(issued()), 0, renewed, Ok("k"), vec![]),
        (
            "issued late",
            Some(issued()),
            101,
            Step::Ask,
            Ok("k"),
            vec![],
        ),
        (
            "denied",
            Some(ended("Denied")),
            0,
            Step::Wait(None),
            Err(denied),
            vec!["Denied"],
        ),
        (
            "failed",
            Some(ended("Failed")),
            0,
            Step::Wait(None),
            Err(failed),
            vec!["Failed"],
        ),
    ] {
        let mut record = Record {
            asked: asked("k"),
            ..Record::default()
        };
        let seen = status.map(request);
        let (found, notices) = record.step(seen.as_ref(), at(minute), JITTER);
        assert_eq!(found, step, "{what}");
        let reasons: Vec<_> = notices.iter().map(|notice| notice.reason).collect();
        assert_eq!(reasons, events, "{what}");
        let pair = record.given();
        let got = pair.as_ref().map(|pair| (&*pair.key, &*pair.chain));
        assert_eq!(
            got.map_err(|why| &**why),
            given.map(|key| (key, CHAIN)),
            "{what}"
        );
        if found != Step::Ask {
            // The state stays, and is reported once.
            let later = record.step(seen.as_ref(), at(minute), JITTER);
            assert_eq!(later, (found, vec![]), "{what}");
        }
    }
    assert_eq!(
        Record::default().step(None, at(0), JITTER),
        (Step::Ask, vec![])
    );
}

#[test]
fn the_old_certificate_stays_until_there_is_a_new_one() {
    let mut record = Record {
        asked: asked("old"),
        ..Record::default()
    };
    let first = request(issued());
    record.step(Some(&first), at(0), JITTER);
    let key = |record: &Record| record.given().map(|pair| pair.key.clone());
    let pending = request(json!({}));
    let told = |notices: Vec<Notice>| notices.iter().map(|one| one.reason).collect::<Vec<_>>();
    assert_eq!(record.step(None, at(101), JITTER), (Step::Ask, vec![]));
    record.asked = asked("new");
    for (minute, wake, events) in [
        (102, Some(at(111)), vec![]),
        (111, Some(at(200)), vec!["CertificateOverdueForRefresh"]),
        (112, Some(at(200)), vec![]),
        (200, None, vec!["CertificateExpired"]),
        (201, None, vec![]),
    ] {
        let (step, notices) = record.step(Some(&pending), at(minute), JITTER);
        assert_eq!(
            (step, told(notices)),
            (Step::Wait(wake), events),
            "{minute}"
        );
        assert_eq!(key(&record), Ok("old".into()), "{minute}");
    }
    let mut next = issued();
    next["beginRefreshAt"] = json!(at(300).to_string());
    let (step, _) = record.step(Some(&request(next)), at(202), JITTER);
    assert_eq!(step, Step::Wait(Some(at(301))));
    assert_eq!(key(&record), Ok("new".into()));
    record.asked = asked("never");
    record.step(Some(&request(ended("Denied"))), at(303), JITTER);
    assert!(key(&record).is_err(), "a denied renewal is final");
}
