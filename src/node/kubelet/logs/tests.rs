use super::*;

/// Everything that a log request returns.
fn shown(log: &str, wanted: &Wanted) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("log"), log).expect("written");
    let mut reader = Reader::open(directory.path(), Path::new("log")).expect("opened");
    if let Some(lines) = wanted.tail {
        reader.skip_to_tail(lines).expect("read");
    }
    let mut all = Vec::new();
    loop {
        let chunk = reader.chunk(wanted).expect("read");
        if chunk.is_empty() {
            return String::from_utf8(all).expect("text");
        }
        all.extend(chunk);
    }
}

#[test]
fn as_much_is_shown_as_is_wanted() {
    let log = "2026-01-01T00:00:00Z stdout F a P b\n2026-01-01T00:00:01Z stderr P one \n2026-01-01T00:00:02Z stderr P two \n2026-01-01T00:00:03Z stderr F three\n2026-01-01T00:00:04Z stdout F last\n2026-01-01T00:00:05Z stdout F not yet";
    let all = Wanted::default();
    let tail = |lines| Wanted {
        tail: Some(lines),
        ..Wanted::default()
    };
    let since = "2026-01-01T00:00:02Z".parse().expect("a time");
    for (wanted, expected) in [
        (all.clone(), "a P b\none two three\nlast\n"),
        (tail(0), ""),
        // The rest of an incomplete line does not count.
        (tail(1), "last\n"),
        (tail(2), "three\nlast\n"),
        (tail(5), "a P b\none two three\nlast\n"),
        (tail(usize::MAX), "a P b\none two three\nlast\n"),
        (
            Wanted {
                stream: Some("stdout"),
                ..all.clone()
            },
            "a P b\nlast\n",
        ),
        (
            Wanted {
                timestamps: true,
                ..all.clone()
            },
            "2026-01-01T00:00:00Z a P b\n2026-01-01T00:00:01Z one two three\n2026-01-01T00:00:04Z last\n",
        ),
        (
            Wanted {
                since: Some(since),
                ..all
            },
            "two three\nlast\n",
        ),
    ] {
        assert_eq!(shown(log, &wanted), expected, "{wanted:?}");
    }
}

#[test]
fn the_end_of_a_long_log_is_found() {
    let line = |number: usize| format!("2026-01-01T00:00:00Z stdout F {number}\n");
    let log: String = (0..10_000).map(line).collect();
    assert!(log.len() > 4 * CHUNK);
    for lines in [1, 100, 5_000, 10_000, 10_001] {
        let tail = Some(lines);
        let wanted = Wanted {
            tail,
            ..Wanted::default()
        };
        let said = shown(&log, &wanted);
        assert_eq!(said.lines().count(), lines.min(10_000));
        assert!(said.ends_with("9999\n"));
    }
}

#[test]
fn a_line_without_end_takes_no_more_room_than_a_long_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = File::create(directory.path().join("log")).expect("made");
    log.set_len(1 << 40).expect("sparse");
    let mut reader = Reader::open(directory.path(), Path::new("log")).expect("opened");
    reader.skip_to_tail(3).expect("read");
    for _ in 0..4 {
        let line = reader.line().expect("read").expect("a part");
        assert_eq!(line.len() as u64, LINE);
    }
}
