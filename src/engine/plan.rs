//! Packing: many questions in one pass, each seeing the prefix and itself only.

use std::ops::Range;

use crate::ops::SHARED;

/// Most question tokens in one pass: it bounds the attention scores, whose number grows
/// with the square of the pack where they are computed by burn, and costs nothing below it.
pub const PACK_TOKENS: usize = 512;

/// Questions laid end to end behind a shared prefix.
#[derive(Debug, Clone, PartialEq)]
pub struct Pack {
    /// Which of the questions are in this pack.
    pub questions: Range<usize>,
    /// Their tokens, end to end.
    pub ids: Vec<u32>,
    /// Position of each token on all three axes: every question continues the prefix.
    pub positions: Vec<[usize; 3]>,
    /// Index of each question's last token, where its answer is read.
    pub answers: Vec<usize>,
    /// The question that each token belongs to, from 0 in each pack.
    pub segments: Vec<usize>,
}

/// Packs the parts of `sequences` behind their first `prefix` tokens, in order, at most
/// [`PACK_TOKENS`] to a pack (a longer question has a pack of its own). `next` is the
/// position of the first token after the prefix.
pub fn packs(sequences: &[Vec<u32>], prefix: usize, next: usize) -> Vec<Pack> {
    let mut packs: Vec<Pack> = Vec::new();
    for (question, sequence) in sequences.iter().enumerate() {
        let tokens = &sequence[prefix..];
        let pack = match packs.last_mut() {
            Some(pack) if pack.ids.len() + tokens.len() <= PACK_TOKENS => pack,
            _ => {
                packs.push(Pack {
                    questions: question..question,
                    ids: Vec::new(),
                    positions: Vec::new(),
                    answers: Vec::new(),
                    segments: Vec::new(),
                });
                packs.last_mut().expect("a pack was pushed just now")
            }
        };
        let segment = pack.answers.len();
        pack.questions.end = question + 1;
        pack.ids.extend_from_slice(tokens);
        pack.positions.extend((next..next + tokens.len()).map(|position| [position; 3]));
        pack.segments.extend(std::iter::repeat_n(segment, tokens.len()));
        pack.answers.push(pack.ids.len() - 1);
    }
    packs
}

impl Pack {
    /// What the tokens of a pass see that reads `prefix` shared tokens, of which the first `cached` lie in the cache,
    /// and then this pack: segment and last visible key of each, and the segments of all keys.
    pub fn seen(&self, prefix: usize, cached: usize) -> (Vec<[i32; 2]>, Vec<i32>) {
        let segments = self.segments.iter().map(|&segment| segment as i32);
        let keys: Vec<i32> = std::iter::repeat_n(SHARED, prefix).chain(segments).collect();
        let queries = keys.iter().enumerate().skip(cached);
        (queries.map(|(last, &segment)| [segment, last as i32]).collect(), keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_see_the_prefix_and_themselves_only() {
        let packs = packs(&[vec![1, 2, 3], vec![1, 4]], 1, 9);
        assert_eq!(packs.len(), 1);
        let pack = &packs[0];
        assert_eq!((pack.ids.as_slice(), pack.answers.as_slice()), ([2, 3, 4].as_slice(), [1, 2].as_slice()));
        assert_eq!(pack.positions, [[9; 3], [10; 3], [9; 3]]);
        let (queries, keys) = pack.seen(1, 1);
        assert_eq!(keys, [SHARED, 0, 0, 1]);
        assert_eq!(queries, [[0, 1], [0, 2], [1, 3]]);
        assert_eq!(pack.seen(1, 0).0, [[SHARED, 0], [0, 1], [0, 2], [1, 3]], "nothing is cached");
    }

    #[test]
    fn a_pack_is_bounded_and_nothing_is_lost() {
        let sequences: Vec<Vec<u32>> = (0..100).map(|n| vec![n; 20]).collect();
        let packs = packs(&sequences, 0, 0);
        assert!(packs.len() > 1, "2000 tokens do not fit into one pack");
        assert!(packs.iter().all(|pack| pack.ids.len() <= PACK_TOKENS), "a pack is too long");
        assert_eq!(
            packs.iter().flat_map(|pack| pack.questions.clone()).collect::<Vec<_>>(),
            (0..100).collect::<Vec<_>>()
        );
    }
}
