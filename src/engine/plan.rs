//! Packing: many questions in one pass, each seeing the prefix and itself only.

use std::ops::Range;

use crate::model::HIDDEN;

/// Most question tokens in one pass: it bounds the attention scores, whose number grows
/// with the square of the pack, and costs nothing below it.
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
    /// The mask of the pack behind `prefix` cached tokens, row by row, `[T, prefix + T]`.
    pub fn mask(&self, prefix: usize) -> Vec<f32> {
        let tokens = self.ids.len();
        let mut mask = vec![HIDDEN; tokens * (prefix + tokens)];
        for (row, seen) in mask.chunks_exact_mut(prefix + tokens).enumerate() {
            seen[..prefix].fill(0.0);
            for column in 0..=row {
                if self.segments[column] == self.segments[row] {
                    seen[prefix + column] = 0.0;
                }
            }
        }
        mask
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
        let seen: Vec<bool> = pack.mask(1).iter().map(|&bias| bias == 0.0).collect();
        #[rustfmt::skip]
        assert_eq!(seen, [
            true, true, false, false,
            true, true, true, false,
            true, false, false, true,
        ]);
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
