use super::recent::MOST_KNOWN;
use super::*;

fn note(object: &str, message: &str) -> Note {
    Note {
        component: "c",
        host: "".into(),
        about: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some("n".to_owned()),
            name: Some(object.to_owned()),
            uid: Some(object.to_owned()),
            resource_version: Some(message.len().to_string()),
            field_path: None,
        },
        tone: Tone::Normal,
        reason: "R".to_owned(),
        message: message.to_owned(),
    }
}

#[test]
fn equal_events_are_counted_alike_ones_joined_and_floods_held_back() {
    let mut book = Book::default();
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let told = |book: &mut Book, message: &str, now: i64| -> Option<(String, i32)> {
        let entry = book.take(note("a", message), at(now))?;
        Some((entry.note.message, entry.count))
    };
    assert_eq!(told(&mut book, "m", 0), Some(("m".to_owned(), 1)));
    assert_eq!(told(&mut book, "m", 1), Some(("m".to_owned(), 2)));
    for i in 1..9 {
        assert_eq!(
            told(&mut book, &format!("m{i}"), 2).map(|(_, count)| count),
            Some(1)
        );
    }
    let joined = |i: i32| format!("(combined from similar events): m{i}");
    assert_eq!(told(&mut book, "m9", 3), Some((joined(9), 1)));
    assert_eq!(
        told(&mut book, "m10", 3),
        Some((joined(10), 2)),
        "one event"
    );
    assert_eq!(told(&mut book, "m", 3), Some(("m".to_owned(), 3)));
    for _ in 0..12 {
        assert!(told(&mut book, "m10", 3).is_some());
    }
    assert_eq!(told(&mut book, "m10", 3), None, "25 at once are enough");
    let later = told(&mut book, "m11", 303);
    assert_eq!(
        later,
        Some((joined(11), 16)),
        "one more in five minutes, and all count"
    );
    assert_eq!(told(&mut book, "m11", 303), None);
    let others: Vec<String> = (0..2)
        .map(|_| book.take(note("b", "m"), at(303)).unwrap().name)
        .collect();
    assert_eq!(others[0], others[1], "one more of the same event");
    for object in 0..2 * MOST_KNOWN {
        assert!(
            book.take(note(&format!("o{object}"), "m"), at(303))
                .is_some()
        );
        if object % (MOST_KNOWN / 2) == 0 {
            let again = book.take(note("b", "m"), at(303)).map(|entry| entry.name);
            assert_eq!(
                again.as_ref(),
                Some(&others[0]),
                "what goes on is not forgotten"
            );
        }
    }
    let sizes = (book.known.values.len(), book.alike.values.len());
    assert_eq!(sizes, (MOST_KNOWN, MOST_KNOWN));
    assert_eq!(book.buckets.values.len(), MOST_KNOWN);
}
