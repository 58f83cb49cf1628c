//! Shuffle sharding: the hash of a flow selects a few of the queues, so that a flow that floods its own queues leaves
//! other flows some queues that they do not share with it. Follows k8s.io/apiserver/pkg/util/shufflesharding.

/// The hash of a flow, from which its queues follow.
pub fn number(schema: &str, distinguisher: &str) -> u64 {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    digest.update(schema.as_bytes());
    digest.update(&[0]);
    digest.update(distinguisher.as_bytes());
    let digest = digest.finish();
    let first = digest.as_ref().iter().take(8).rev();
    first.fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// Deals `hand` distinct cards from a deck of `deck` cards, determined by `number`.
pub fn deal(mut number: u64, deck: usize, hand: usize) -> Vec<usize> {
    let mut drawn: Vec<usize> = Vec::with_capacity(hand);
    let mut dealt = Vec::with_capacity(hand);
    for taken in 0..hand.min(deck) {
        let left = (deck - taken) as u64;
        #[allow(clippy::cast_possible_truncation)]
        let draw = (number % left) as usize;
        number /= left;
        // Map the index among the remaining cards to the card's number in the full deck.
        let card = drawn
            .iter()
            .rev()
            .fold(draw, |card, before| card + usize::from(card >= *before));
        drawn.push(draw);
        dealt.push(card);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_flow_has_the_queues_that_its_name_deals() {
        // The first eight bytes of the digest, little-endian.
        assert_eq!(
            number("", ""),
            u64::from_le_bytes([0x6e, 0x34, 0x0b, 0x9c, 0xff, 0xb3, 0x7a, 0x98])
        );
        assert_ne!(number("a", "b"), number("ab", ""));
        for (number, deck, hand, dealt) in [
            (0, 4, 3, vec![0, 1, 2]),
            (4 * 3 * 2 - 1, 4, 3, vec![3, 2, 1]),
            // The first card is 1, the second the last of the remaining ones, the third the first.
            (1 + 4 * 2, 4, 3, vec![1, 3, 0]),
            (7, 1, 1, vec![0]),
        ] {
            assert_eq!(deal(number, deck, hand), dealt, "{number}");
        }
    }

    proptest! {
        #[test]
        fn no_card_is_dealt_twice(number: u64, deck in 1..200_usize, hand in 1..8_usize) {
            let dealt = deal(number, deck, hand);
            prop_assert_eq!(dealt.len(), hand.min(deck));
            prop_assert!(dealt.iter().all(|card| *card < deck));
            prop_assert_eq!(dealt.iter().collect::<BTreeSet<_>>().len(), dealt.len());
        }
    }
}
