//! Who mutes and blocks whom, and no longer.

use std::{collections::VecDeque, sync::Arc};

use rand::rngs::Xoshiro256PlusPlus;

use super::{
    super::{
        graph::UserIndex,
        random::{Purpose, below, generator},
        workload::Workload,
    },
    Change, Changes, DRAWS_MAX, Hide,
    draw::Follows,
};

/// How many mutes and blocks are remembered, to be ended.
const HELD_MAX: usize = 1_000;

/// Decides it, from the settings alone. Mostly it is between an account and one that it
/// follows, or that has mentioned it or written to it, so that something is hidden; a third of the changes end
/// an earlier one, so that many hold in the end.
pub(super) struct HidePlan {
    random: Xoshiro256PlusPlus,
    workload: Arc<Workload>,
    follows: Follows,
    held: VecDeque<(Hide, UserIndex, UserIndex)>,
}

impl HidePlan {
    pub(super) fn new(workload: Arc<Workload>) -> Self {
        let random = generator(workload.seed(), Purpose::Hides, 0);
        let follows = Follows::new(Arc::clone(&workload.graph));
        Self { random, workload, follows, held: VecDeque::new() }
    }

    /// The next change, after `post_count` posts and `changes`.
    pub(super) fn next(&mut self, post_count: u32, changes: &Changes) -> Change {
        if below(&mut self.random, 3) == 0
            && let Some((how, by, other)) = self.held.pop_front()
        {
            return Change::Hide { how, by, other, hides: false };
        }
        let written_to = match below(&mut self.random, 6) {
            0 => self.mentioned(post_count),
            1 => self.recipient(changes.sent_count()),
            _ => None,
        };
        let (reader, author) = written_to.unwrap_or_else(|| self.follow());
        let (how, by, other) = match below(&mut self.random, 3) {
            0 => (Hide::Block, reader, author),
            1 => (Hide::Block, author, reader),
            _ => (Hide::Mute, reader, author),
        };
        if self.held.len() == HELD_MAX {
            self.held.pop_front();
        }
        self.held.push_back((how, by, other));
        Change::Hide { how, by, other, hides: true }
    }

    /// An account and one that has mentioned it, if that is easily found.
    fn mentioned(&mut self, post_count: u32) -> Option<(UserIndex, UserIndex)> {
        (0..DRAWS_MAX).filter(|_| post_count > 0).find_map(|_| {
            let number = below(&mut self.random, u64::from(post_count)) as u32;
            let mentioned = self.workload.mentions(number).first().copied()?;
            Some((mentioned, self.workload.author(number)))
        })
    }

    /// The recipient and the sender of a message.
    fn recipient(&mut self, sent_count: u32) -> Option<(UserIndex, UserIndex)> {
        if sent_count == 0 {
            return None;
        }
        let number = below(&mut self.random, sent_count.into()) as u32;
        let parties = self.workload.message_parties(number);
        Some((parties.recipients[0], parties.sender))
    }

    /// An account and one that it follows, if that is easily found.
    fn follow(&mut self) -> (UserIndex, UserIndex) {
        (0..DRAWS_MAX)
            .find_map(|_| self.follows.one(&mut self.random))
            .unwrap_or_else(|| self.follows.possible(&mut self.random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{
        settings::Settings,
        workload::tests::{planned, synthetic_settings},
    };

    #[test]
    fn mutes_and_blocks_begin_and_end_and_the_last_word_on_each_holds() {
        let settings = Settings { mentions_percent: 20, ..synthetic_settings(300, 900) };
        let mut plan = HidePlan::new(Arc::new(planned(&settings)));
        let mut changes = Changes::default();
        changes.record(Change::SendMessage(99));
        let (mut held, mut ended) = (Vec::new(), 0);
        for post_count in 0..900 {
            let change = plan.next(post_count, &changes);
            changes.record(change);
            let Change::Hide { how, by, other, hides } = change else { panic!("{change:?}") };
            assert_ne!(by, other);
            held.retain(|hide| *hide != (how, by, other));
            if hides {
                held.push((how, by, other));
            } else {
                ended += 1;
            }
        }
        assert!((250..350).contains(&ended), "{ended}");
        let mutes = held.iter().filter(|(how, ..)| *how == Hide::Mute).count();
        assert!(mutes > 50 && held.len() - mutes > 100, "{mutes} of {}", held.len());
        let of_changes: Vec<_> = changes.hides().collect();
        assert_eq!(of_changes.len(), held.len());
        assert!(held.iter().all(|hide| of_changes.contains(hide)));
    }
}
