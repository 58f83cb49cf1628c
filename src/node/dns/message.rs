//! Parses DNS queries and writes answers.
//!
//! Headers and questions are parsed here and not by simple-dns, because questions of types that it does not know are
//! forwarded, too, and errors in a query determine the response code. Records are written (and parsed, if aliases are
//! followed out of the cluster) by simple-dns.

use simple_dns::rdata::OPT;
use simple_dns::{
    CLASS, Label, Name, Packet, PacketFlag, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

use super::forward::with_id;

/// The length of a header.
const HEAD: usize = 12;
/// The longest name, in bytes on the wire.
const NAME: usize = 255;
/// The size of a datagram that every client accepts.
const PLAIN: u16 = 512;
/// The largest datagram that is sent, whatever a client accepts: larger ones may be fragmented.
const LARGEST: u16 = 1232;
/// How many records may follow a question: one with EDNS data, others with signatures.
const EXTRAS: u16 = 4;
/// The least size of a record: name, type, class, TTL and length.
const RECORD: usize = 11;
/// The class of all names here.
const INTERNET: u16 = 1;
/// The code for an unknown EDNS version, which can only be sent with EDNS.
const BAD_VERSION: u16 = 16;

/// The transport of a query, and of its forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// UDP.
    Datagram,
    /// TCP.
    Stream,
}

/// The result of parsing a message.
#[derive(Debug)]
pub enum Received<'a> {
    /// Not a query: no answer.
    Nothing,
    /// An invalid query, with the answer: only a response code.
    Wrong(Vec<u8>),
    /// A query.
    Query(Query<'a>),
}

/// A query of class `IN`.
#[derive(Debug)]
pub struct Query<'a> {
    /// The whole message.
    pub whole: &'a [u8],
    /// The end of the question in it.
    end: usize,
    /// The name.
    pub name: Name<'a>,
    /// The type.
    pub kind: TYPE,
    /// The EDNS size for datagrams, if the client has one.
    size: Option<u16>,
}

/// An answer.
#[derive(Debug, Default)]
pub struct Reply<'a> {
    /// Whether the name does not exist.
    pub missing: bool,
    /// Whether the answer is truncated.
    pub truncated: bool,
    /// Whether part of it comes from other servers.
    pub foreign: bool,
    /// The answer section.
    pub answers: Vec<ResourceRecord<'a>>,
    /// The authority section.
    pub authority: Vec<ResourceRecord<'a>>,
    /// Records that the client will need next.
    pub additional: Vec<ResourceRecord<'a>>,
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([two[0], two[1]]))
}

/// The labels of an uncompressed name, and its end.
fn written_name(bytes: &[u8], from: usize) -> Option<(Vec<Label<'_>>, usize)> {
    let (mut labels, mut at) = (Vec::new(), from);
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        match length {
            0 => return Some((labels, at)),
            1..=63 if at + length - from < NAME => {
                labels.push(Label::new_unchecked(bytes.get(at..at + length)?));
                at += length;
            }
            _ => return None,
        }
    }
}

/// The offset of a record's type, after its name.
fn after_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(*length),
            0xC0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// The EDNS data of a client.
struct Edns {
    size: u16,
    version: u8,
}

/// Parses the records after a question; None if they are malformed.
fn extras(bytes: &[u8], mut at: usize, count: u16) -> Option<Option<Edns>> {
    let mut edns = None;
    for _ in 0..count {
        let fixed = after_name(bytes, at)?;
        let (kind, class) = (number(bytes, fixed)?, number(bytes, fixed + 2)?);
        let version = *bytes.get(fixed + 5)?;
        let length = usize::from(number(bytes, fixed + 8)?);
        at = fixed + 10 + length;
        bytes.get(..at)?;
        if TYPE::from(kind) == TYPE::OPT {
            let only = edns.replace(Edns {
                size: class,
                version,
            });
            if only.is_some() {
                return None;
            }
        }
    }
    Some(edns)
}

/// Builds an answer that is only a response code.
fn bare(head: &[u8], question: &[u8], code: u16, edns: bool) -> Vec<u8> {
    let (flags, code_below) = (u16::from_be_bytes([head[2], head[3]]), code & 0xF);
    // The opcode and the recursion-desired flag are copied.
    let flags = 0x8080 | (flags & 0x7900) | code_below;
    let mut reply = Vec::with_capacity(HEAD + question.len() + RECORD);
    reply.extend_from_slice(&head[..2]);
    for word in [
        flags,
        u16::from(!question.is_empty()),
        0,
        0,
        u16::from(edns),
    ] {
        reply.extend_from_slice(&word.to_be_bytes());
    }
    reply.extend_from_slice(question);
    if edns {
        let above = u8::try_from(code >> 4).unwrap_or_default();
        let [high, low] = LARGEST.to_be_bytes();
        reply.extend_from_slice(&[0, 0, 41, high, low, above, 0, 0, 0, 0, 0]);
    }
    reply
}

/// Parses a received message.
pub fn read(bytes: &[u8]) -> Received<'_> {
    let Some(head) = bytes.get(..HEAD) else {
        return Received::Nothing;
    };
    let flags = u16::from_be_bytes([head[2], head[3]]);
    // Answering answers could go on forever.
    if flags & 0x8000 != 0 {
        return Received::Nothing;
    }
    let wrong = |code: RCODE| Received::Wrong(bare(head, &[], code as u16, false));
    if flags & 0x7800 != 0 {
        return wrong(RCODE::NotImplemented);
    }
    let counts = [4, 6, 8, 10].map(|at| u16::from_be_bytes([head[at], head[at + 1]]));
    let [1, 0, 0, 0..=EXTRAS] = counts else {
        return wrong(RCODE::FormatError);
    };
    let question = || {
        let (labels, at) = written_name(bytes, HEAD)?;
        let (kind, class) = (number(bytes, at)?, number(bytes, at + 2)?);
        let end = at + 4;
        Some((labels, kind, class, end, extras(bytes, end, counts[3])?))
    };
    let Some((labels, kind, class, end, edns)) = question() else {
        return wrong(RCODE::FormatError);
    };
    let told = |code: u16| Received::Wrong(bare(head, &bytes[HEAD..end], code, edns.is_some()));
    if edns.as_ref().is_some_and(|edns| edns.version > 0) {
        return told(BAD_VERSION);
    }
    if class != INTERNET {
        return told(RCODE::Refused as u16);
    }
    Received::Query(Query {
        whole: bytes,
        end,
        name: Name::new_with_labels(&labels),
        kind: kind.into(),
        size: edns.map(|edns| edns.size),
    })
}

/// Writes a query for a name.
pub fn query(name: &Name<'_>, kind: TYPE, size: Option<u16>) -> simple_dns::Result<Vec<u8>> {
    let mut packet = Packet::new_query(0);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(question(name.clone(), kind));
    *packet.opt_mut() = size.map(edns);
    packet.build_bytes_vec()
}

fn question(name: Name<'_>, kind: TYPE) -> Question<'_> {
    Question::new(name, QTYPE::TYPE(kind), CLASS::IN.into(), false)
}

fn edns<'a>(size: u16) -> OPT<'a> {
    OPT {
        opt_codes: Vec::new(),
        udp_packet_size: size,
        version: 0,
    }
}

/// Parses the answer of another server.
pub fn read_answer(bytes: &[u8]) -> Option<Packet<'_>> {
    let counts = [4, 6, 8, 10].map(|at| number(bytes, at).map(usize::from));
    let [Some(questions), Some(answers), Some(authority), Some(more)] = counts else {
        return None;
    };
    // Memory is allocated by counts in the header: they are only trusted if that many records can be present.
    let least = HEAD + questions * 5 + (answers + authority + more) * RECORD;
    if least > bytes.len() {
        return None;
    }
    Packet::parse(bytes).ok()
}

/// The response code of an answer with a complete header.
pub fn code(answer: &[u8]) -> RCODE {
    RCODE::from(number(answer, 2).unwrap_or_default() & 0xF)
}

/// Whether an answer is truncated.
pub fn is_truncated(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & 2 != 0)
}

/// The offsets of the TTLs in an answer; None if it is malformed. EDNS and signature records have none.
pub fn times(answer: &[u8]) -> Option<Vec<usize>> {
    let counts = [4, 6, 8, 10].map(|at| number(answer, at).map(usize::from));
    let [Some(questions), Some(answers), Some(authority), Some(more)] = counts else {
        return None;
    };
    let mut at = HEAD;
    for _ in 0..questions {
        at = after_name(answer, at)? + 4;
    }
    let mut times = Vec::new();
    for _ in 0..answers + authority + more {
        let fixed = after_name(answer, at)?;
        if TYPE::from(number(answer, fixed)?) != TYPE::OPT {
            times.push(fixed + 4);
        }
        at = fixed + 10 + usize::from(number(answer, fixed + 8)?);
        answer.get(..at)?;
    }
    Some(times)
}

/// The TTL at an offset from [`times`].
pub fn time(answer: &[u8], at: usize) -> Option<u32> {
    let four = answer.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

impl Query<'_> {
    /// The records after the question.
    pub fn extras(&self) -> &[u8] {
        &self.whole[self.end..]
    }

    /// Adapts the answer to an equal question to this query, with the name as spelled here.
    pub fn address(&self, answer: &mut [u8]) {
        answer[..2].copy_from_slice(&self.whole[..2]);
        answer[HEAD..self.end].copy_from_slice(self.question());
    }

    /// The question in its original bytes.
    pub fn question(&self) -> &[u8] {
        &self.whole[HEAD..self.end]
    }

    /// The id of the message.
    pub fn id(&self) -> u16 {
        number(self.whole, 0).unwrap_or_default()
    }

    /// Whether a message answers this question.
    pub fn is_answered_by(&self, id: u16, answer: &[u8]) -> bool {
        let same = |asked: &[u8]| asked.eq_ignore_ascii_case(self.question());
        number(answer, 0) == Some(id)
            && answer.get(2).is_some_and(|flags| flags & 0x80 != 0)
            && number(answer, 4) == Some(1)
            && answer.get(HEAD..self.end).is_some_and(same)
    }

    /// The answer for the client from a server's message to a query with `id`; None if it belongs to another query.
    /// Servers that return an error may omit the question.
    pub fn heard(&self, id: u16, answer: &[u8]) -> Option<Vec<u8>> {
        if self.is_answered_by(id, answer) {
            return Some(with_id(answer, self.id().to_be_bytes()));
        }
        let is_refusal = matches!(
            code(answer),
            RCODE::FormatError | RCODE::NotImplemented | RCODE::Refused
        );
        let is_bare = number(answer, 0) == Some(id)
            && answer.get(2).is_some_and(|flags| flags & 0x80 != 0)
            && number(answer, 4) == Some(0);
        (is_bare && is_refusal).then(|| self.refusal(code(answer)))
    }

    /// The query without EDNS.
    pub fn plain(&self) -> Vec<u8> {
        let mut plain = self.whole[..self.end].to_vec();
        plain[10..HEAD].fill(0);
        plain
    }

    /// The EDNS size for datagrams, if the client has one.
    pub fn size(&self) -> Option<u16> {
        self.size
    }

    /// The largest answer to send, in bytes.
    pub fn most(&self, via: Via) -> usize {
        usize::from(match via {
            Via::Datagram => self.size.unwrap_or(PLAIN).clamp(PLAIN, LARGEST),
            Via::Stream => u16::MAX,
        })
    }

    /// An answer that is only a response code.
    pub fn refusal(&self, code: RCODE) -> Vec<u8> {
        let edns = self.size.is_some();
        bare(self.whole, self.question(), code as u16, edns)
    }

    /// An answer, truncated to the allowed size. Additional records are dropped first, which is no loss (RFC 2181,
    /// section 9).
    pub fn write(&self, reply: &Reply<'_>, via: Via) -> Vec<u8> {
        let most = self.most(via);
        let build = |answers: usize, additional: bool| self.build(reply, answers, additional);
        let fits = |built: &simple_dns::Result<Vec<u8>>| {
            built.as_ref().is_ok_and(|bytes| bytes.len() <= most)
        };
        let all = reply.answers.len();
        // More records cannot fit, and are not tried.
        let least = HEAD + all * RECORD;
        let mut whole = [true, false]
            .into_iter()
            .filter(|_| least <= most)
            .map(|additional| build(all, additional));
        let cut = whole.find(fits).unwrap_or_else(|| {
            let (mut fit, mut too_many) = (0, all.min(most / RECORD));
            while fit + 1 < too_many {
                let middle = fit.midpoint(too_many);
                match fits(&build(middle, false)) {
                    true => fit = middle,
                    false => too_many = middle,
                }
            }
            build(fit, false)
        });
        cut.unwrap_or_else(|_| self.refusal(RCODE::ServerFailure))
    }

    fn build(
        &self,
        reply: &Reply<'_>,
        answers: usize,
        additional: bool,
    ) -> simple_dns::Result<Vec<u8>> {
        let mut packet = Packet::new_reply(self.id());
        packet.set_flags(PacketFlag::RECURSION_AVAILABLE);
        if !reply.foreign {
            packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        }
        if self.whole[2] & 1 != 0 {
            packet.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        if reply.truncated || answers < reply.answers.len() {
            packet.set_flags(PacketFlag::TRUNCATION);
        }
        if reply.missing {
            *packet.rcode_mut() = RCODE::NameError;
        }
        let asked = question(self.name.clone(), self.kind);
        packet.questions.push(asked);
        packet.answers = reply.answers[..answers].to_vec();
        packet.name_servers = reply.authority.clone();
        if additional {
            packet.additional_records = reply.additional.clone();
        }
        *packet.opt_mut() = self.size.map(|_| edns(LARGEST));
        packet.build_bytes_vec_compressed()
    }
}

#[cfg(test)]
mod tests;
