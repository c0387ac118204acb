//! What several questions about one picture share, in token ids.

/// Length of the longest prefix that all sequences share, short enough that every
/// sequence keeps at least its last token: the one whose answer is read.
pub fn shared_prefix(sequences: &[Vec<u32>]) -> usize {
    let Some((first, rest)) = sequences.split_first() else { return 0 };
    let shortest = sequences.iter().map(Vec::len).min().unwrap_or(0);
    let shared = rest.iter().map(|other| common(first, other)).min().unwrap_or(first.len());
    shared.min(shortest.saturating_sub(1))
}

/// Length of the longest common prefix of two sequences.
pub fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_keeps_its_last_token() {
        assert_eq!(shared_prefix(&[vec![1, 2, 3]]), 2);
        assert_eq!(shared_prefix(&[vec![1, 2, 3], vec![1, 2, 3, 4]]), 2);
        assert_eq!(shared_prefix(&[vec![1, 2, 3], vec![1, 5, 3]]), 1);
        assert_eq!(shared_prefix(&[vec![7], vec![8]]), 0);
        assert_eq!(shared_prefix(&[]), 0);
    }
}
