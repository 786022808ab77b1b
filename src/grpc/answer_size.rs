//! How much an answer of many posts holds. Pure.

use prost::Message;

/// Bytes of posts in an answer: clients take messages of 4 MiB unless told otherwise, and beside
/// the posts an answer has ids and a token.
pub(super) const ANSWER_BYTES_MAX: usize = 3 << 20;

/// What of an answer is left for more entries.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_left: usize,
    is_empty: bool,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_left: bytes_max, is_empty: true }
    }

    /// Whether an entry still fits; then it takes its bytes. The first one always fits, so that
    /// every page has one, and the next page begins behind it: a post with the one that it
    /// repeats takes less than 1 MiB at the largest text limit.
    pub(super) fn take(&mut self, entry: &impl Message) -> bool {
        let bytes = entry.encoded_len();
        let fits = self.is_empty || bytes <= self.bytes_left;
        if fits {
            self.bytes_left = self.bytes_left.saturating_sub(bytes);
            self.is_empty = false;
        }
        fits
    }

    pub(super) fn bytes_left(&self) -> usize {
        self.bytes_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_takes_first_entry_and_then_what_fits() {
        let entry = |len: usize| "x".repeat(len);
        let size = |len| entry(len).encoded_len();
        let mut budget = Budget::new(100);
        assert!(budget.take(&entry(500)));
        assert!(!budget.take(&entry(1)));
        let mut budget = Budget::new(size(60) + size(40));
        assert!(budget.take(&entry(60)) && budget.take(&entry(40)));
        assert!(!budget.take(&entry(1)));
        assert_eq!(budget.bytes_left(), 0);
    }
}
