use super::*;

fn asked(counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 0x01, 0x00];
    for count in counts {
        bytes.extend_from_slice(&count.to_be_bytes());
    }
    bytes.extend_from_slice(rest);
    bytes
}

const QUESTION: &[u8] = b"\x03Web\x07example\0\0\x01\0\x01";
/// 1400 bytes, version 0, and the DNSSEC OK flag.
const EDNS: &[u8] = b"\0\0\x29\x05\x78\0\0\x80\0\0\0";

#[test]
fn what_is_wrong_with_a_query_is_told() {
    let with = |parts: &[&[u8]]| parts.concat();
    let long = b"\x3f".iter().chain(&[b'a'; 63]).copied();
    let long: Vec<u8> = std::iter::repeat_n(long, 4).flatten().collect();
    for (what, bytes, code) in [
        ("a query", asked([1, 0, 0, 0], QUESTION), None),
        (
            "with EDNS",
            asked([1, 0, 0, 1], &with(&[QUESTION, EDNS])),
            None,
        ),
        (
            "an unknown type",
            asked([1, 0, 0, 0], b"\x01a\0\xff\x10\0\x01"),
            None,
        ),
        ("the root", asked([1, 0, 0, 0], b"\0\0\x02\0\x01"), None),
        ("no question", asked([0, 0, 0, 0], &[]), Some(1)),
        (
            "two",
            asked([2, 0, 0, 0], &with(&[QUESTION, QUESTION])),
            Some(1),
        ),
        ("answers", asked([1, 1, 0, 0], QUESTION), Some(1)),
        (
            "half a question",
            asked([1, 0, 0, 0], &QUESTION[..13]),
            Some(1),
        ),
        (
            "a name that points",
            asked([1, 0, 0, 0], b"\xc0\x0c\0\x01\0\x01"),
            Some(1),
        ),
        (
            "a label of a kind that is not",
            asked([1, 0, 0, 0], b"\x41a\0\0\x01\0\x01"),
            Some(1),
        ),
        (
            "a name that is too long",
            asked([1, 0, 0, 0], &with(&[&long, b"\0\0\x01\0\x01"])),
            Some(1),
        ),
        (
            "records that are not there",
            asked([1, 0, 0, 1], QUESTION),
            Some(1),
        ),
        (
            "EDNS twice",
            asked([1, 0, 0, 2], &with(&[QUESTION, EDNS, EDNS])),
            Some(1),
        ),
        (
            "a later EDNS",
            asked(
                [1, 0, 0, 1],
                &with(&[QUESTION, b"\0\0\x29\x05\x78\0\x01\0\0\0\0"]),
            ),
            Some(0),
        ),
        (
            "another class",
            asked([1, 0, 0, 0], b"\x01a\0\0\x10\0\x03"),
            Some(5),
        ),
        (
            "another operation",
            {
                let mut bytes = asked([1, 0, 0, 0], QUESTION);
                bytes[2] = 0x28;
                bytes
            },
            Some(4),
        ),
    ] {
        let found = match read(&bytes) {
            Received::Nothing => panic!("{what}: nothing"),
            Received::Wrong(reply) => {
                assert_eq!(reply[..2], bytes[..2], "{what}");
                assert_eq!(reply[2] & 0xf8, 0x80 | (bytes[2] & 0x78), "{what}");
                Some(reply[3] & 0xf)
            }
            Received::Query(_) => None,
        };
        assert_eq!(found, code, "{what}");
    }
    for nothing in [&b""[..], b"short", b"\x12\x34\x81\0\0\0\0\0\0\0\0\0"] {
        assert!(matches!(read(nothing), Received::Nothing));
    }
}

#[test]
fn answers_fit_into_what_clients_take() {
    let record = |n: u8| {
        let address = u32::from_be_bytes([10, 0, 0, n]);
        let name = Name::new_unchecked("Web.example");
        let data = simple_dns::rdata::RData::A(simple_dns::rdata::A { address });
        ResourceRecord::new(name, CLASS::IN, 30, data)
    };
    let plain = asked([1, 0, 0, 0], QUESTION);
    let edns = asked([1, 0, 0, 1], &[QUESTION, EDNS].concat());
    for (what, bytes, via, answers, additional, expected) in [
        ("few", &plain, Via::Datagram, 3, 2, (3, 2, false)),
        (
            "what is not missed",
            &plain,
            Via::Datagram,
            20,
            20,
            (20, 0, false),
        ),
        ("many", &plain, Via::Datagram, 200, 0, (30, 0, true)),
        (
            "many with EDNS",
            &edns,
            Via::Datagram,
            200,
            0,
            (74, 0, true),
        ),
        (
            "many by a stream",
            &plain,
            Via::Stream,
            200,
            9,
            (200, 9, false),
        ),
    ] {
        let Received::Query(query) = read(bytes) else {
            panic!("{what}: no query");
        };
        let reply = Reply {
            answers: (0..answers).map(record).collect(),
            additional: (0..additional).map(record).collect(),
            ..Reply::default()
        };
        let written = query.write(&reply, via);
        assert!(written.len() <= query.most(via), "{what}");
        let read = read_answer(&written).expect("an answer");
        let found = (
            read.answers.len(),
            read.additional_records.len(),
            read.has_flags(PacketFlag::TRUNCATION),
        );
        assert_eq!(found, expected, "{what}");
        assert!(query.is_answered_by(0x1234, &written), "{what}");
        assert!(!query.is_answered_by(0x1235, &written), "{what}");
    }
}

proptest::proptest! {
    #[test]
    fn whatever_is_read_is_no_harm(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
        let _ = read(&bytes);
        let _ = read_answer(&bytes);
        let like_one = asked([1, 0, 0, 2], &bytes);
        if let Received::Query(query) = read(&like_one) {
            query.write(&Reply::default(), Via::Datagram);
        }
    }
}
