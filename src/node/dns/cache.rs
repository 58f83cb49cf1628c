//! Caches answers of upstream servers: most clients ask for each external name several times (search domains, both
//! address types), and resolvers often limit the number of questions per second. Follows CoreDNS's plugin `cache` in
//! kubeadm's configuration: positive and negative answers are kept for 30 seconds at most.

use std::collections::HashMap;
use std::time::Instant;

use simple_dns::{RCODE, TYPE};

use super::message::{self, Query, Via, code, is_truncated};

/// The longest time to keep an answer, in seconds.
const HOLDS: u32 = 30;
/// How many answers are kept in each of two halves.
const KEPT: usize = 4992;

/// Answers by question. Bounded: when one half is full, the older half is dropped.
#[derive(Debug, Default)]
pub struct Cache {
    young: HashMap<Vec<u8>, Known>,
    old: HashMap<Vec<u8>, Known>,
}

#[derive(Debug, Clone)]
struct Known {
    answer: Vec<u8>,
    since: Instant,
    holds: u32,
}

/// The cache key of a question: the flags for recursion and DNSSEC, the name in lower case, the EDNS data of the
/// client, and the transport, because long answers differ by it.
fn key(query: &Query<'_>, via: Via) -> Vec<u8> {
    let [asked, wishes] = [2, 3].map(|at| query.whole.get(at).copied().unwrap_or_default());
    let question = query.question();
    let mut key = vec![u8::from(via == Via::Stream), asked & 1, wishes & 0x30];
    key.extend(question.to_ascii_lowercase());
    key.extend(query.extras());
    key
}

impl Cache {
    /// The cached answer to a question, adapted to this query, unless it is too old.
    pub fn find(&mut self, query: &Query<'_>, via: Via, now: Instant) -> Option<Vec<u8>> {
        let key = key(query, via);
        let known = self.young.get(&key).or_else(|| self.old.get(&key))?;
        let age = u32::try_from(now.duration_since(known.since).as_secs()).ok()?;
        if age >= known.holds {
            return None;
        }
        let mut answer = known.answer.clone();
        for at in message::times(&answer)? {
            let left = message::time(&answer, at)?.saturating_sub(age);
            answer[at..at + 4].copy_from_slice(&left.to_be_bytes());
        }
        query.address(&mut answer);
        Some(answer)
    }

    /// Caches an answer for the TTL of its records; not if it failed or is truncated.
    pub fn keep(&mut self, query: &Query<'_>, via: Via, answer: &[u8], now: Instant) {
        if !matches!(code(answer), RCODE::NoError | RCODE::NameError) || is_truncated(answer) {
            return;
        }
        let Some(holds) = holds(answer).filter(|holds| *holds > 0) else {
            return;
        };
        if self.young.len() >= KEPT {
            self.old = std::mem::take(&mut self.young);
        }
        let known = Known {
            answer: answer.to_vec(),
            since: now,
            holds,
        };
        self.young.insert(key(query, via), known);
    }
}

/// The TTL of an answer, in seconds; None if it has none. For negative answers it comes from the SOA record (RFC 2308).
fn holds(answer: &[u8]) -> Option<u32> {
    let packet = message::read_answer(answer)?;
    let times = packet.answers.iter().map(|record| record.ttl);
    let denied = packet
        .name_servers
        .iter()
        .filter_map(|record| match &record.rdata {
            simple_dns::rdata::RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
            _ => None,
        });
    let least = match packet
        .answers
        .iter()
        .any(|record| record.rdata.type_code() != TYPE::CNAME)
    {
        true => times.min(),
        // Aliases without a target.
        false => denied.min().map(|denied| times.fold(denied, u32::min)),
    };
    least.map(|least| least.min(HOLDS))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use simple_dns::rdata::{A, RData, SOA};
    use simple_dns::{CLASS, Name, ResourceRecord};

    use super::*;
    use crate::node::dns::message::{Received, Reply, read};

    fn asked(name: &str, id: u16, size: Option<u16>) -> Vec<u8> {
        let name = Name::new(name).expect("a name");
        let mut bytes = message::query(&name, TYPE::A, size).expect("a query");
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        bytes
    }

    fn query(bytes: &[u8]) -> Query<'_> {
        match read(bytes) {
            Received::Query(query) => query,
            other => panic!("{other:?}"),
        }
    }

    fn address(ttl: u32) -> ResourceRecord<'static> {
        let data = RData::A(A { address: 7 });
        ResourceRecord::new(Name::new_unchecked("a.example"), CLASS::IN, ttl, data)
    }

    fn denial(ttl: u32, minimum: u32) -> ResourceRecord<'static> {
        let name = Name::new_unchecked("example");
        let soa = SOA {
            mname: name.clone(),
            rname: name.clone(),
            serial: 1,
            refresh: 1,
            retry: 1,
            expire: 1,
            minimum,
        };
        ResourceRecord::new(name, CLASS::IN, ttl, RData::SOA(soa))
    }

    #[test]
    fn what_was_answered_counts_as_long_as_it_says() {
        let start = Instant::now();
        let first = asked("a.example", 1, None);
        for (what, reply, holds) in [
            (
                "an address",
                Reply {
                    answers: vec![address(9)],
                    ..Reply::default()
                },
                9,
            ),
            (
                "the shortest of several",
                Reply {
                    answers: vec![address(9), address(4)],
                    ..Reply::default()
                },
                4,
            ),
            (
                "no longer than this",
                Reply {
                    answers: vec![address(600)],
                    ..Reply::default()
                },
                u64::from(HOLDS),
            ),
            (
                "that there is none",
                Reply {
                    missing: true,
                    authority: vec![denial(20, 6)],
                    ..Reply::default()
                },
                6,
            ),
            (
                "who says nothing",
                Reply {
                    missing: true,
                    ..Reply::default()
                },
                0,
            ),
            (
                "what is cut",
                Reply {
                    truncated: true,
                    answers: vec![address(9)],
                    ..Reply::default()
                },
                0,
            ),
            (
                "what does not last",
                Reply {
                    answers: vec![address(0)],
                    ..Reply::default()
                },
                0,
            ),
        ] {
            let mut cache = Cache::default();
            let answer = query(&first).write(&reply, Via::Datagram);
            cache.keep(&query(&first), Via::Datagram, &answer, start);
            // Another client, with another spelling of the name.
            let again = asked("A.Example", 2, None);
            let again = query(&again);
            for second in 0..40 {
                let now = start + Duration::from_secs(second);
                let found = cache.find(&again, Via::Datagram, now);
                assert_eq!(found.is_some(), second < holds, "{what} after {second}");
                let Some(found) = found else { continue };
                assert!(again.is_answered_by(2, &found), "{what}");
                assert_eq!(found[12..21], again.whole[12..21], "{what}: his spelling");
                let (before, left) = (message::read_answer(&answer), message::read_answer(&found));
                let (before, left) = (before.expect("one"), left.expect("one"));
                for (before, left) in before.answers.iter().zip(&left.answers) {
                    assert_eq!(
                        u64::from(before.ttl) - second,
                        u64::from(left.ttl),
                        "{what}"
                    );
                }
            }
        }
    }

    #[test]
    fn only_the_same_question_has_the_same_answer() {
        let now = Instant::now();
        let first = asked("a.example", 1, None);
        let answer = query(&first).write(
            &Reply {
                answers: vec![address(9)],
                ..Reply::default()
            },
            Via::Datagram,
        );
        let mut cache = Cache::default();
        cache.keep(&query(&first), Via::Datagram, &answer, now);
        let mut unwished = first.clone();
        unwished[2] &= !1;
        for (what, bytes, via, expected) in [
            ("the same", first.clone(), Via::Datagram, true),
            (
                "another name",
                asked("b.example", 1, None),
                Via::Datagram,
                false,
            ),
            ("by a stream", first.clone(), Via::Stream, false),
            (
                "a client that takes more",
                asked("a.example", 1, Some(1232)),
                Via::Datagram,
                false,
            ),
            ("without recursion", unwished, Via::Datagram, false),
        ] {
            let found = cache.find(&query(&bytes), via, now);
            assert_eq!(found.is_some(), expected, "{what}");
        }
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let now = Instant::now();
        let mut cache = Cache::default();
        for n in 0..3 * KEPT {
            let bytes = asked(&format!("n{n}.example"), 1, None);
            let query = query(&bytes);
            let reply = Reply {
                answers: vec![address(9)],
                ..Reply::default()
            };
            cache.keep(
                &query,
                Via::Datagram,
                &query.write(&reply, Via::Datagram),
                now,
            );
            assert!(cache.find(&query, Via::Datagram, now).is_some());
        }
        assert!(cache.young.len() + cache.old.len() <= 2 * KEPT);
    }
}
