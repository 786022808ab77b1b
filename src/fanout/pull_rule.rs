//! When an author is pulled because of how many follow it. Pure.

/// Authors with more followers than this are pulled unless something else is set.
pub const PULL_ABOVE_DEFAULT: u64 = 250_000;

/// From how many followers on authors are pulled by the workers.
///
/// Who is pulled is pushed again only once a fifth of them has gone, since what was not
/// pushed meanwhile has to be brought to all who are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullRule {
    /// Authors with more followers than this are pulled once they post; `None`: nobody is.
    pub above: Option<u64>,
}

impl PullRule {
    /// Whether an author with so many followers is not to be pushed.
    pub fn pulls(self, followers: u64) -> bool {
        self.above.is_some_and(|above| followers > above)
    }

    /// Whether an author who has so many followers is to be pushed again, since `lost` of them
    /// have just gone and with these it had more than four fifths of the limit. One that had
    /// fewer already was pulled by hand, and stays so.
    pub fn returns(self, followers: u64, lost: u64) -> bool {
        let Some(above) = self.above else { return false };
        let enough = above - above / 5;
        followers <= enough && followers + lost > enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_more_is_pulled_until_a_fifth_has_gone() {
        let rule = PullRule { above: Some(100) };
        assert!(!rule.pulls(100));
        assert!(rule.pulls(101));
        assert!(!rule.returns(81, 30));
        assert!(rule.returns(80, 1));
        assert!(rule.returns(50, 31));
        assert!(!rule.returns(50, 30), "it had no more before");
    }

    #[test]
    fn without_a_rule_nobody_is_switched() {
        assert!(!PullRule::default().pulls(u64::MAX));
        assert!(!PullRule::default().returns(0, u64::MAX));
    }

    #[test]
    fn the_least_rule_pulls_whoever_is_followed() {
        let rule = PullRule { above: Some(0) };
        assert!(rule.pulls(1) && !rule.pulls(0));
        assert!(rule.returns(0, 1));
    }
}
