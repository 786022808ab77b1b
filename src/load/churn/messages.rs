//! Which direct messages are sent, and deleted again.

use rand::rngs::Xoshiro256PlusPlus;

use super::{
    super::random::{Purpose, below, generator},
    Change, Changes, DRAWS_MAX,
};

/// Decides it, from the seed alone: a quarter are deletions.
pub(super) struct MessagePlan(Xoshiro256PlusPlus);

impl MessagePlan {
    pub(super) fn new(seed: u64) -> Self {
        // Apart from those of the messages themselves, which have numbers.
        Self(generator(seed, Purpose::Messages, u64::MAX))
    }

    pub(super) fn next(&mut self, changes: &Changes) -> Change {
        let sent_count = changes.sent_count();
        if sent_count > 0 && below(&mut self.0, 4) == 0 {
            let deleted = (0..DRAWS_MAX)
                .map(|_| below(&mut self.0, u64::from(sent_count)) as u32)
                .find(|number| !changes.is_message_deleted(*number));
            if let Some(number) = deleted {
                return Change::DeleteMessage(number);
            }
        }
        Change::SendMessage(sent_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_sent_in_order_and_none_is_deleted_twice() {
        let mut plan = MessagePlan::new(1);
        let mut changes = Changes::default();
        let mut deleted = 0;
        for _ in 0..1_000 {
            let change = plan.next(&changes);
            match change {
                Change::SendMessage(number) => assert_eq!(number, changes.sent_count()),
                Change::DeleteMessage(number) => {
                    assert!(number < changes.sent_count() && !changes.is_message_deleted(number));
                    deleted += 1;
                }
                other => panic!("{other:?}"),
            }
            changes.record(change);
        }
        assert!((200..300).contains(&deleted), "{deleted}");
        assert_eq!(changes.sent_count(), 1_000 - deleted);
    }
}
