//! Who is told of a post: whom it mentions, and whose posts it answers or repeats.

use super::{Posts, Workload};
use crate::{
    load::{
        graph::UserIndex,
        random::{Purpose, below, generator},
        trace::TraceKind,
    },
    proto::v1::NotificationReason,
};

/// How many accounts a synthetic post mentions at the most.
const MENTIONS_MAX: u64 = 3;

impl Workload {
    /// The accounts that a post mentions, ascending.
    pub(crate) fn mentions(&self, number: u32) -> Vec<UserIndex> {
        let author = self.author(number);
        let mut mentioned = match &self.posts {
            Posts::Drawn { mentions_percent, .. } => {
                let mut random = generator(self.seed, Purpose::Mentions, u64::from(number));
                if *mentions_percent == 0 || below(&mut random, 100) >= u64::from(*mentions_percent)
                {
                    return Vec::new();
                }
                let count = 1 + below(&mut random, MENTIONS_MAX);
                (0..count).map(|_| self.somebody(&mut random)).collect()
            }
            Posts::Traced { posts, .. } => match posts[number as usize].kind {
                TraceKind::Mention(user) => vec![user],
                _ => Vec::new(),
            },
        };
        mentioned.retain(|user| *user != author);
        mentioned.sort_unstable();
        mentioned.dedup();
        mentioned
    }

    /// Who is told of a post, each once.
    pub(crate) fn notified(&self, number: u32) -> Vec<UserIndex> {
        let mut notified = self.mentions(number);
        let meant = self.meant(number).map(|other| self.author(other));
        let is_new = |user: &UserIndex| *user != self.author(number) && !notified.contains(user);
        if let Some(user) = meant.filter(is_new) {
            notified.push(user);
        }
        notified
    }

    /// Why an account is told of a post.
    pub(crate) fn reasons(&self, number: u32, user: UserIndex) -> Vec<NotificationReason> {
        let mut reasons = Vec::new();
        if self.mentions(number).contains(&user) {
            reasons.push(NotificationReason::Mention);
        }
        if self.meant(number).is_some_and(|other| self.author(other) == user) {
            let is_repost = self.repeats(number).is_some();
            reasons.push(if is_repost {
                NotificationReason::Repost
            } else {
                NotificationReason::Reply
            });
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{planned, synthetic_settings},
        *,
    };
    use crate::{
        client::text_file::tests::file_of,
        load::settings::{Settings, Source},
    };

    #[test]
    fn a_share_of_the_posts_mentions_others() {
        let settings = Settings { mentions_percent: 20, ..synthetic_settings(200, 2_000) };
        let load = planned(&settings);
        let mut mentioning = 0;
        for number in 0..2_000 {
            let mentions = load.mentions(number);
            assert!(
                !mentions.contains(&load.author(number)) && mentions.is_sorted_by(|a, b| a < b)
            );
            let named = mentions.iter().map(|user| load.graph.id(*user).0);
            assert!(load.request(number, None).mentioned_ids.into_iter().eq(named));
            mentioning += u32::from(!mentions.is_empty());
        }
        assert!((330..470).contains(&mentioning), "{mentioning}");
    }

    #[test]
    fn who_is_mentioned_answered_or_repeated_is_told_and_why() {
        use NotificationReason::{Mention, Reply, Repost};
        let file =
            file_of(b"1 2 100 MT\n2 1 101 RE\n3 2 102 RT\n4 3 103 RT\n2 2 104 MT\n1 1 105 RE\n");
        let source = Source::Trace { file: file.path().to_owned(), speed: None };
        let load = planned(&Settings { source, ..synthetic_settings(2, 1) });
        let notified = |number| {
            let notified = load.notified(number).into_iter();
            notified.map(|user| (user, load.reasons(number, user))).collect::<Vec<_>>()
        };
        assert_eq!(notified(0), [(1, vec![Mention])]);
        assert_eq!(notified(1), [(0, vec![Reply])]);
        assert_eq!(notified(2), [(1, vec![Repost])]);
        // What repeats a repost repeats its original.
        assert_eq!(notified(3), [(1, vec![Repost])]);
        // Nobody is told of what he does to himself.
        assert_eq!((notified(4), notified(5)), (vec![], vec![]));
    }
}
