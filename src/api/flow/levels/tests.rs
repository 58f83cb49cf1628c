use super::super::request::{Arrival, Start};
use super::super::width::Width;
use super::*;
use crate::api::query::Query;
use crate::auth::AUTHENTICATED;
use crate::schema::json;

fn object(text: &str) -> Arc<Value> {
    Arc::new(json::parse(text.as_bytes()).expect("JSON").value)
}

fn level(name: &str, shares: u32) -> Arc<Value> {
    object(&format!(
        r#"{{"metadata":{{"name":"{name}","uid":"of-{name}"}},"spec":{{"type":"Limited","limited":{{"nominalConcurrencyShares":{shares},"limitResponse":{{"type":"Reject"}}}}}}}}"#
    ))
}

fn schema(name: &str, precedence: u32, level: &str) -> Arc<Value> {
    object(&format!(
        r#"{{"metadata":{{"name":"{name}","uid":"of-{name}"}},"spec":{{"matchingPrecedence":{precedence},"priorityLevelConfiguration":{{"name":"{level}"}},"rules":[{{"subjects":[{{"kind":"Group","group":{{"name":"*"}}}}],"resourceRules":[{{"verbs":["*"],"apiGroups":["*"],"resources":["*"],"clusterScope":true,"namespaces":["*"]}}]}}]}}}}"#
    ))
}

/// The schema and the level of jane's request to list all pods.
fn judged(snapshot: &Snapshot) -> (String, String) {
    let info = Info::of(&http::Method::GET, "/api/v1/pods", &Query::parse(""));
    let jane = User::new("jane", &[AUTHENTICATED]);
    let class = snapshot.class(&jane, &info).expect("a class");
    (class.schema.name.to_string(), class.level.name.to_string())
}

#[test]
fn the_first_schema_whose_level_is_there_takes_a_request() {
    let (mut levels, first) = Levels::new(100);
    let names = |one: &str, other: &str| (one.to_owned(), other.to_owned());
    // Nothing is stored.
    assert_eq!(judged(&first), names("catch-all", "catch-all"));
    for (stored_levels, stored_schemas, found) in [
        (vec![level("l", 10)], vec![schema("s", 50, "l")], ("s", "l")),
        (
            vec![level("l", 10)],
            vec![schema("b", 50, "l"), schema("a", 50, "l")],
            ("a", "l"),
        ),
        (
            vec![level("l", 10)],
            vec![schema("a", 51, "l"), schema("b", 50, "l")],
            ("b", "l"),
        ),
        (
            vec![level("l", 10)],
            vec![schema("a", 50, "gone"), schema("b", 60, "l")],
            ("b", "l"),
        ),
        (
            vec![],
            vec![schema("a", 50, "l")],
            ("catch-all", "catch-all"),
        ),
    ] {
        let snapshot = levels.digest(Duration::ZERO, &stored_levels, &stored_schemas);
        assert_eq!(judged(&snapshot), names(found.0, found.1));
    }
}

#[test]
fn a_level_that_is_gone_goes_with_its_last_request() {
    let (mut levels, _) = Levels::new(100);
    let snapshot = levels.digest(Duration::ZERO, &[level("l", 15)], &[schema("s", 50, "l")]);
    let kept = |levels: &Levels| -> Vec<(String, bool)> {
        levels
            .all()
            .map(|(level, goes)| (level.name.to_string(), goes))
            .collect()
    };
    let all = |names: &[(&str, bool)]| -> Vec<(String, bool)> {
        names
            .iter()
            .map(|(name, goes)| ((*name).to_owned(), *goes))
            .collect()
    };
    assert_eq!(
        kept(&levels),
        all(&[("catch-all", false), ("exempt", false), ("l", false)])
    );
    // In proportion to their shares: 15 of 20.
    let seats: Vec<usize> = levels
        .counted()
        .iter()
        .map(|level| level.bounds.nominal)
        .collect();
    assert_eq!(seats, [25, 0, 75]);
    let info = Arc::new(Info::of(
        &http::Method::GET,
        "/api/v1/pods",
        &Query::parse(""),
    ));
    let jane = User::new("jane", &[AUTHENTICATED]);
    let class = snapshot.class(&jane, &info).expect("a class");
    let started = class.level.change(|set| {
        set.start(
            Duration::ZERO,
            Arrival {
                schema: class.schema.name.clone(),
                flow: "".into(),
                number: 0,
                width: Width::ONE,
                user: jane.name.clone(),
                info: info.clone(),
            },
        )
    });
    let Start::Run(ticket) = started else {
        panic!("{started:?}");
    };
    levels.digest(Duration::ZERO, &[], &[]);
    assert_eq!(
        kept(&levels),
        all(&[("catch-all", false), ("exempt", false), ("l", true)])
    );
    class.level.change(|set| set.end(Duration::ZERO, ticket));
    levels.adjust(Duration::ZERO);
    assert_eq!(
        kept(&levels),
        all(&[("catch-all", false), ("exempt", false)])
    );
    let catch_all = &levels.counted()[0];
    assert_eq!((catch_all.bounds.nominal, catch_all.limit), (100, 100));
}
