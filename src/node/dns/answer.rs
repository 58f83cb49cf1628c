//! Answers DNS questions: a pure function of the question and the known services. Follows the Kubernetes DNS-Based
//! Service Discovery specification 1.1.0 and CoreDNS's plugin `kubernetes`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::{A, AAAA, CNAME, NS, PTR, RData, SOA, SRV, TXT};
use simple_dns::{CLASS, Label, Name, RCODE, ResourceRecord, TYPE};

use super::directory::{Directory, Found, Place};
use super::message::{Query, Reply};

/// The version of the specification.
const VERSION: &str = "1.1.0";
/// The TTL of the version, in seconds.
const VERSION_HOLDS: u32 = 28_800;
/// The TTL of everything else, in seconds: as in kubeadm's configuration of CoreDNS.
const HOLDS: u32 = 30;
/// How many aliases are followed.
const CHAIN: usize = 10;
/// The longest name, in bytes on the wire.
const NAME: usize = 255;
/// The query types of zone transfers.
const TRANSFERS: [u16; 2] = [251, 252];

/// A DNS zone and its name server.
#[derive(Debug, Clone)]
pub struct Zone {
    labels: Vec<String>,
    server: IpAddr,
}

/// The result for a question.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// An answer.
    Answer(Reply<'a>),
    /// Only a response code.
    Refusal(RCODE),
    /// These aliases, and the records that upstream servers have for the last one's target.
    Alias {
        /// The aliases, in order.
        answers: Vec<ResourceRecord<'a>>,
        /// The target of the last one.
        target: Name<'a>,
    },
    /// The answer of upstream servers.
    Elsewhere,
}

impl Zone {
    /// The zone of a cluster's domain, served at this address.
    pub fn new(domain: &str, server: IpAddr) -> Zone {
        let labels = domain.split('.').filter(|label| !label.is_empty());
        Zone {
            labels: labels.map(str::to_ascii_lowercase).collect(),
            server,
        }
    }

    /// The labels of a name below the zone; None if the name is not in it.
    fn below<'n>(&self, labels: &'n [String]) -> Option<Vec<&'n str>> {
        let below = labels.strip_suffix(self.labels.as_slice())?;
        Some(below.iter().map(String::as_str).collect())
    }

    /// The name of labels below the zone, unless it is too long.
    fn name(&self, below: impl IntoIterator<Item = impl AsRef<str>>) -> Option<Name<'static>> {
        let below = below.into_iter().map(|label| label.as_ref().to_owned());
        name(below.chain(self.labels.iter().cloned()))
    }

    fn authority(&self, known: &Directory) -> Vec<ResourceRecord<'static>> {
        let names = [&[][..], &["ns", "dns"], &["hostmaster"]].map(|below| self.name(below));
        let [Some(zone), Some(mname), Some(rname)] = names else {
            return Vec::new();
        };
        let soa = SOA {
            mname,
            rname,
            serial: known.serial,
            refresh: 7200,
            retry: 1800,
            expire: 86400,
            minimum: HOLDS,
        };
        vec![record(zone, HOLDS, RData::SOA(soa))]
    }
}

/// A name made of labels, unless it or one of them is too long.
fn name(labels: impl IntoIterator<Item = String>) -> Option<Name<'static>> {
    let labels = labels.into_iter().map(String::into_bytes);
    let labels: Vec<_> = labels.collect();
    let fits = labels.iter().all(|label| (1..=63).contains(&label.len()));
    let length: usize = labels.iter().map(|label| label.len() + 1).sum();
    let labels: Vec<_> = labels.into_iter().map(Label::new_unchecked).collect();
    (fits && length < NAME).then(|| Name::new_with_labels(&labels))
}

/// The labels of a name in lower case, because names are case-insensitive.
fn labels(name: &Name<'_>) -> Vec<String> {
    name.as_bytes()
        .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
        .collect()
}

fn record<'a>(name: Name<'a>, holds: u32, data: RData<'a>) -> ResourceRecord<'a> {
    ResourceRecord::new(name, CLASS::IN, holds, data)
}

fn address_record<'a>(name: Name<'a>, address: IpAddr) -> ResourceRecord<'a> {
    let data = match address {
        IpAddr::V4(address) => RData::A(A {
            address: address.into(),
        }),
        IpAddr::V6(address) => RData::AAAA(AAAA {
            address: address.into(),
        }),
    };
    record(name, HOLDS, data)
}

/// Answers a question.
pub fn answer<'a>(query: &Query<'a>, known: &Directory, zone: &Zone) -> Outcome<'a> {
    let asked = labels(&query.name);
    let Some(below) = zone.below(&asked) else {
        return match address_of(&asked) {
            Some(address) if query.kind == TYPE::PTR => by_address(query, address, known, zone),
            _ => Outcome::Elsewhere,
        };
    };
    if TRANSFERS.map(TYPE::from).contains(&query.kind) {
        return Outcome::Refusal(RCODE::Refused);
    }
    let name = query.name.clone();
    let nothing = |missing: bool| {
        Outcome::Answer(Reply {
            missing,
            authority: zone.authority(known),
            ..Reply::default()
        })
    };
    let only = |answers: Vec<ResourceRecord<'a>>, additional: Vec<ResourceRecord<'a>>| {
        if answers.is_empty() {
            return nothing(false);
        }
        Outcome::Answer(Reply {
            answers,
            additional,
            ..Reply::default()
        })
    };
    match (below.as_slice(), query.kind) {
        ([], TYPE::SOA) => return only(zone.authority(known), Vec::new()),
        ([], TYPE::NS) => {
            let server = zone.name(["ns", "dns"]);
            let glue = server.clone().map(|name| address_record(name, zone.server));
            let server = server.map(|server| record(name, HOLDS, RData::NS(NS(server))));
            return only(Vec::from_iter(server), Vec::from_iter(glue));
        }
        (["ns", "dns"], kind) => {
            let own = address_record(name, zone.server);
            return only(
                Vec::from_iter(Some(own).filter(|own| own.rdata.type_code() == kind)),
                Vec::new(),
            );
        }
        (["dns-version"], TYPE::TXT) => {
            let text = TXT::new().with_string(VERSION).ok();
            let text = text.map(|text| record(name, VERSION_HOLDS, RData::TXT(text)));
            return only(Vec::from_iter(text), Vec::new());
        }
        ([] | ["dns"] | ["dns-version"], _) => return nothing(false),
        _ => {}
    }
    // A name that is not known yet may exist.
    if !known.complete {
        return Outcome::Refusal(RCODE::ServerFailure);
    }
    match known.find(&below) {
        Found::Missing => nothing(true),
        Found::Empty => nothing(false),
        Found::Places(places) => {
            let (answers, additional) = records(query, name, &places, zone);
            only(answers, additional)
        }
        Found::Alias(target) => {
            follow(query, target, known, zone).unwrap_or_else(|| nothing(false))
        }
    }
}

/// Follows aliases as long as they stay in the zone; None if they lead nowhere.
fn follow<'a>(
    query: &Query<'a>,
    target: String,
    known: &Directory,
    zone: &Zone,
) -> Option<Outcome<'a>> {
    let (mut answers, mut owner, mut target) = (Vec::new(), query.name.clone(), target);
    for _ in 0..CHAIN {
        let absolute = target.strip_suffix('.').unwrap_or(&target);
        let next = name(absolute.split('.').map(str::to_owned))?;
        let alias = RData::CNAME(CNAME(next.clone()));
        answers.push(record(owner, HOLDS, alias));
        if query.kind == TYPE::CNAME {
            let reply = Reply {
                answers,
                ..Reply::default()
            };
            return Some(Outcome::Answer(reply));
        }
        let asked = labels(&next);
        let Some(below) = zone.below(&asked) else {
            return Some(Outcome::Alias {
                answers,
                target: next,
            });
        };
        match known.find(&below) {
            Found::Alias(further) => (owner, target) = (next, further),
            Found::Places(places) => {
                let (mut more, additional) = records(query, next, &places, zone);
                if more.is_empty() {
                    return None;
                }
                answers.append(&mut more);
                return Some(Outcome::Answer(Reply {
                    answers,
                    additional,
                    ..Reply::default()
                }));
            }
            Found::Missing | Found::Empty => return None,
        }
    }
    None
}

/// The records of places that a question asks for, and those that the client will need next.
fn records<'a>(
    query: &Query<'_>,
    owner: Name<'a>,
    places: &[Place],
    zone: &Zone,
) -> (Vec<ResourceRecord<'a>>, Vec<ResourceRecord<'a>>) {
    match query.kind {
        TYPE::A | TYPE::AAAA => {
            let is_wanted = |address: &IpAddr| address.is_ipv4() == (query.kind == TYPE::A);
            let addresses = places.iter().map(|place| place.address);
            let mut addresses = distinct(addresses.filter(is_wanted));
            // Clients use the first address: each answer begins with another one.
            if !addresses.is_empty() {
                let first = usize::from(query.id()) % addresses.len();
                addresses.rotate_left(first);
            }
            let records = addresses.into_iter();
            let records = records.map(|address| address_record(owner.clone(), address));
            (records.collect(), Vec::new())
        }
        TYPE::SRV => {
            let weight = u16::try_from(100 / places.len().max(1)).map_or(1, |weight| weight.max(1));
            let of_port = |place: &Place| Some((zone.name(&place.name)?, place.port?));
            let answers = distinct(places.iter().filter_map(of_port)).into_iter();
            let answers = answers.map(|(target, port)| {
                let service = SRV {
                    priority: 0,
                    weight,
                    port,
                    target,
                };
                record(owner.clone(), HOLDS, RData::SRV(service))
            });
            let with_port = places.iter().filter(|place| place.port.is_some());
            let targets =
                with_port.filter_map(|place| Some((zone.name(&place.name)?, place.address)));
            let additional = distinct(targets).into_iter();
            let additional = additional.map(|(name, address)| address_record(name, address));
            (answers.collect(), additional.collect())
        }
        _ => (Vec::new(), Vec::new()),
    }
}

/// The distinct values, in their order.
fn distinct<T: Clone + Eq + std::hash::Hash>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = std::collections::HashSet::new();
    values.filter(|value| seen.insert(value.clone())).collect()
}

/// The address in a name of a reverse zone.
fn address_of(labels: &[String]) -> Option<IpAddr> {
    let (spelled, zone) = labels.split_at_checked(labels.len().checked_sub(2)?)?;
    let backwards = spelled.iter().rev().map(String::as_str);
    match (zone[0].as_str(), zone[1].as_str(), spelled.len()) {
        ("in-addr", "arpa", 4) => {
            let text = backwards.collect::<Vec<_>>().join(".");
            text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
        }
        ("ip6", "arpa", 32) => {
            let is_digit =
                |label: &String| label.len() == 1 && label.as_bytes()[0].is_ascii_hexdigit();
            let text: String = backwards.collect();
            let digits = spelled.iter().all(is_digit).then_some(text)?;
            let bits = u128::from_str_radix(&digits, 16).ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(bits)))
        }
        _ => None,
    }
}

/// The names of an address; upstream servers are asked for unknown ones.
fn by_address<'a>(
    query: &Query<'a>,
    address: IpAddr,
    known: &Directory,
    zone: &Zone,
) -> Outcome<'a> {
    if !known.complete {
        return Outcome::Refusal(RCODE::ServerFailure);
    }
    let names = known.names_of(address);
    let names = names.iter().filter_map(|name| zone.name(name));
    let answers: Vec<_> = names
        .map(|name| record(query.name.clone(), HOLDS, RData::PTR(PTR(name))))
        .collect();
    if answers.is_empty() {
        return Outcome::Elsewhere;
    }
    Outcome::Answer(Reply {
        answers,
        ..Reply::default()
    })
}

#[cfg(test)]
mod tests;
