use kube::ResourceExt as _;

use super::plan::*;
use super::*;

fn volume(name: &str, size: &str, rest: &str) -> Arc<PersistentVolume> {
    Arc::new(
        serde_json::from_str(&format!(
            r#"{{"metadata":{{"name":"{name}"}},"spec":{{"capacity":{{"storage":"{size}"}},"accessModes":["ReadWriteOnce"]{rest}}},"status":{{"phase":"Available"}}}}"#
        ))
        .unwrap(),
    )
}

fn claim(rest: &str, meta: &str) -> Claim {
    serde_json::from_str(&format!(
        r#"{{"metadata":{{"name":"c","namespace":"n","uid":"u"{meta}}},"spec":{{"resources":{{"requests":{{"storage":"5Gi"}}}},"accessModes":["ReadWriteOnce"]{rest}}},"status":{{"phase":"Pending"}}}}"#
    ))
    .unwrap()
}

fn class(name: &str, rest: &str) -> Arc<StorageClass> {
    Arc::new(
        serde_json::from_str(&format!(
            r#"{{"metadata":{{"name":"{name}"{rest}}},"provisioner":"reddwarf.io","volumeBindingMode":"{}"}}"#,
            if name == "late" { "WaitForFirstConsumer" } else { "Immediate" }
        ))
        .unwrap(),
    )
}

const FOR_US: &str = r#","claimRef":{"name":"c","namespace":"n"}"#;
const OURS: &str = r#","claimRef":{"name":"c","namespace":"n","uid":"u"}"#;
const OTHERS: &str = r#","claimRef":{"name":"d","namespace":"n","uid":"v"}"#;

/// The decision about a claim, in a word or two.
fn step(claim: &Claim, volumes: &[Arc<PersistentVolume>], classes: &[Arc<StorageClass>]) -> String {
    let around = Around {
        volumes,
        classes,
        unplaced: &[],
        placed: selected_node(claim).is_some(),
    };
    match claim_step(claim, &around) {
        ClaimStep::Bind(name) => format!("bind {name}"),
        ClaimStep::Assign(name) => format!("assign {name}"),
        ClaimStep::Provision => "provision".to_owned(),
        ClaimStep::Wait(told) => format!("wait {}", told.map_or("", |told| told.reason)),
        ClaimStep::Lose(told) => format!("lose {}", told.reason),
        ClaimStep::Misbound(_) => "misbound".to_owned(),
    }
}

#[test]
fn claims_get_the_smallest_volume_that_does() {
    let modes = r#","volumeMode":"Block""#;
    let two = r#""accessModes":["ReadWriteOnce","ReadWriteMany"]"#;
    let wide = |name: &str| {
        let text = serde_json::to_string(&*volume(name, "5Gi", "")).unwrap();
        Arc::new(
            serde_json::from_str(&text.replace(r#""accessModes":["ReadWriteOnce"]"#, two)).unwrap(),
        )
    };
    for (volumes, wanted) in [
        (vec![], "wait FailedBinding"),
        (vec![volume("a", "4Gi", "")], "wait FailedBinding"),
        (
            vec![
                volume("a", "9Gi", ""),
                volume("b", "5Gi", ""),
                volume("c", "6Gi", ""),
            ],
            "bind b",
        ),
        (vec![wide("a"), volume("b", "9Gi", "")], "bind b"),
        (vec![wide("a")], "bind a"),
        (
            vec![volume("a", "5Gi", ""), volume("b", "9Gi", FOR_US)],
            "bind b",
        ),
        (vec![volume("a", "5Gi", OTHERS)], "wait FailedBinding"),
        (vec![volume("a", "5Gi", modes)], "wait FailedBinding"),
        (
            vec![volume("a", "5Gi", r#","storageClassName":"s""#)],
            "wait FailedBinding",
        ),
    ] {
        assert_eq!(step(&claim("", ""), &volumes, &[]), wanted);
    }
}

#[test]
fn claims_wait_get_classes_and_volumes_made() {
    let default = r#","annotations":{"storageclass.kubernetes.io/is-default-class":"true"},"creationTimestamp":"2026-01-01T00:00:00Z""#;
    let newer = default.replace("2026", "2027");
    let chosen = r#","annotations":{"volume.kubernetes.io/selected-node":"n1"}"#;
    let of = |name: &str| format!(r#","storageClassName":"{name}""#);
    let classes = [
        class("late", ""),
        class("old", default),
        class("new", &newer),
    ];
    for (spec, meta, wanted) in [
        (String::new(), "", "assign new"),
        (of(""), "", "wait FailedBinding"),
        (of("old"), "", "provision"),
        (of("none"), "", "provision"),
        (of("late"), "", "wait WaitForFirstConsumer"),
        (of("late"), chosen, "provision"),
    ] {
        assert_eq!(step(&claim(&spec, meta), &[], &classes), wanted, "{spec}");
    }
    // The volume of a claim with delayed binding is chosen by the scheduler, unless it refers to the claim already.
    let late = claim(&of("late"), "");
    let rest = of("late");
    assert_eq!(
        step(&late, &[volume("a", "5Gi", &rest)], &classes),
        "wait WaitForFirstConsumer"
    );
    let own = volume("a", "5Gi", &format!("{rest}{FOR_US}"));
    assert_eq!(step(&late, &[own], &classes), "bind a");
}

#[test]
fn claims_that_name_volumes_get_those_or_none() {
    let named = r#","volumeName":"a""#;
    let ours = r#","annotations":{"pv.kubernetes.io/bound-by-controller":"yes"}"#;
    let done = r#","annotations":{"pv.kubernetes.io/bind-completed":"yes"}"#;
    for (spec, meta, volumes, wanted) in [
        (named, "", vec![], "wait "),
        (named, "", vec![volume("a", "5Gi", "")], "bind a"),
        (
            named,
            "",
            vec![volume("a", "1Gi", "")],
            "wait VolumeMismatch",
        ),
        (named, "", vec![volume("a", "1Gi", FOR_US)], "bind a"),
        (
            named,
            "",
            vec![volume("a", "5Gi", OTHERS)],
            "wait FailedBinding",
        ),
        (named, ours, vec![volume("a", "5Gi", OTHERS)], "misbound"),
        (named, done, vec![], "lose ClaimLost"),
        ("", done, vec![], "lose ClaimLost"),
        (named, done, vec![volume("a", "5Gi", OURS)], "bind a"),
        (named, done, vec![volume("a", "5Gi", "")], "bind a"),
        (
            named,
            done,
            vec![volume("a", "5Gi", OTHERS)],
            "lose ClaimMisbound",
        ),
    ] {
        assert_eq!(
            step(&claim(spec, meta), &volumes, &[]),
            wanted,
            "{spec} {meta}"
        );
    }
}

#[test]
fn volumes_follow_their_claims() {
    let made = |name: &str, rest: &str| {
        let mut made = (*volume(name, "5Gi", rest)).clone();
        mark(&mut made.metadata, PROVISIONED_BY, "x");
        made.spec.as_mut().unwrap().persistent_volume_reclaim_policy = Some("Delete".to_owned());
        made
    };
    let plain = |rest: &str| (*volume("a", "5Gi", rest)).clone();
    let other_uid = claim(r#","volumeName":"a""#, r#","labels":{}"#);
    let with = |name: &str| claim(&format!(r#","volumeName":"{name}""#), "");
    for (volume, claim, wanted) in [
        (plain(""), None, VolumeStep::Phase("Available")),
        (plain(FOR_US), None, VolumeStep::Phase("Available")),
        (plain(OURS), None, VolumeStep::Reclaim),
        (plain(OTHERS), Some(other_uid), VolumeStep::Reclaim),
        (plain(OURS), Some(with("a")), VolumeStep::Phase("Bound")),
        (plain(OURS), Some(with("b")), VolumeStep::Unbind),
        (made("a", OURS), Some(with("b")), VolumeStep::Reclaim),
        (plain(OURS), Some(claim("", "")), VolumeStep::Wake),
        (
            plain(OURS),
            Some(claim(r#","volumeMode":"Block""#, "")),
            VolumeStep::Mismatch,
        ),
    ] {
        assert_eq!(volume_step(&volume, claim.as_ref()), wanted);
    }
}

#[test]
fn binding_is_written_once() {
    let (free, wants) = (volume("a", "5Gi", ""), claim("", ""));
    let bound = bound_volume(&free, &wants).unwrap();
    assert_eq!(bound.annotations()[BOUND_BY_CONTROLLER], "yes");
    assert_eq!(bound_volume(&bound, &wants), None);
    let by_user = bound_volume(&volume("a", "5Gi", FOR_US), &wants).unwrap();
    assert!(by_user.annotations().is_empty(), "a user bound it");
    assert_eq!(claim_ref(&by_user).unwrap().uid.as_deref(), Some("u"));
    assert_eq!(claim_ref(&unbound_volume(&bound)), None);
    assert_eq!(claim_ref(&unbound_volume(&by_user)).unwrap().uid, None);

    let has = bound_claim(&wants, "a").unwrap();
    let text = serde_json::to_string(&has).unwrap();
    let has: Claim = serde_json::from_str(&text).unwrap();
    assert!(!is_unbound(&has) && volume_of(&has) == "a");
    assert_eq!(bound_claim(&has, "a"), None);
    let said = claim_status(&has, "Bound", Some(&bound)).unwrap();
    assert_eq!(
        said.status.as_ref().unwrap().capacity,
        bound.spec.as_ref().unwrap().capacity
    );
    let lost = claim_status(&has, "Lost", None).unwrap().status.unwrap();
    assert_eq!((lost.phase.as_deref(), lost.capacity), (Some("Lost"), None));
    assert_eq!(claim_status(&has, "Pending", None), None);
}

#[test]
fn volumes_of_our_own_are_on_a_node() {
    let node: Node = serde_json::from_str(
        r#"{"metadata":{"name":"n1","labels":{"kubernetes.io/hostname":"host"}}}"#,
    )
    .unwrap();
    let made = provision::volume(&claim("", ""), &class("c", ""), &node).unwrap();
    assert_eq!(
        (made.name_any(), provision::place(&made)),
        ("pvc-u".to_owned(), Some("host"))
    );
    assert!(provision::has_node(&made, [&node].into_iter()));
    assert!(!provision::has_node(&made, std::iter::empty()));
    assert_eq!(provisioner(&made), Some(provision::PROVISIONER));
    assert_eq!(policy(&made), "Delete");
    assert_eq!(
        bound_volume(&made, &claim("", "")),
        None,
        "made for the claim"
    );
    for refused in [
        r#","volumeMode":"Block""#,
        r#","dataSource":{"kind":"X","name":"y"}"#,
    ] {
        assert!(provision::volume(&claim(refused, ""), &class("c", ""), &node).is_err());
    }
}
