//! Which rate to try next. Pure.
//!
//! Doubles (or halves) until one rate is good and a higher one is not, then tries the
//! middle of the two, until they are close.

/// How far apart the highest good rate and the lowest bad one may stay.
const CLOSE: f64 = 1.07;

/// A search for the highest good rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    first: f64,
    best: Option<f64>,
    /// The lowest that was bad.
    bad: Option<f64>,
    tries_left: usize,
}

impl Search {
    /// A search that begins with `first`, and tries so many rates at most.
    pub(super) fn new(first: f64, tries_max: usize) -> Self {
        Self { first, best: None, bad: None, tries_left: tries_max }
    }

    /// The next rate to try; `None` once it is known well enough.
    pub(super) fn next(&self) -> Option<f64> {
        if self.tries_left == 0 {
            return None;
        }
        match (self.best, self.bad) {
            (None, None) => Some(self.first),
            (Some(best), None) => Some(best * 2.0),
            (None, Some(bad)) => Some(bad / 2.0),
            (Some(best), Some(bad)) => (bad / best > CLOSE).then(|| (best * bad).sqrt()),
        }
    }

    /// Takes note of a rate that was tried.
    pub(super) fn note(&mut self, rate: f64, is_good: bool) {
        self.tries_left = self.tries_left.saturating_sub(1);
        if is_good {
            self.best = Some(self.best.map_or(rate, |best| best.max(rate)));
        } else {
            self.bad = Some(self.bad.map_or(rate, |bad| bad.min(rate)));
        }
    }

    /// The highest good rate, if there was one.
    pub(super) fn best(&self) -> Option<f64> {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn search(first: f64, limit: f64) -> Search {
        let mut search = Search::new(first, 16);
        while let Some(rate) = search.next() {
            search.note(rate, rate <= limit);
        }
        search
    }

    proptest! {
        #[test]
        fn the_limit_is_found_from_either_side(
            first in 100.0..1_000.0_f64,
            limit in 50.0..30_000.0_f64,
        ) {
            let search = search(first, limit);
            let best = search.best().unwrap();
            prop_assert!(best <= limit && best * CLOSE >= limit, "{best} of {limit}");
        }
    }

    #[test]
    fn what_nothing_holds_comes_to_an_end() {
        let search = search(500.0, 0.0);
        assert_eq!((search.best(), search.tries_left), (None, 0));
    }
}
