//! Compares posts with what was sent.

use super::Verifier;
use crate::{domain::PostId, proto::v1::Post};

impl Verifier {
    /// The number of each post of the workload, by its id.
    pub(super) fn numbers_by_id(&self) -> Vec<(PostId, u32)> {
        let mut by_id: Vec<(PostId, u32)> = (0..self.workload.post_count())
            .filter_map(|number| self.board.id(number).map(|id| (id, number)))
            .collect();
        by_id.sort_unstable();
        by_id
    }

    /// The first post that is not what was sent.
    pub(super) fn post_problem(
        &self,
        ids: &[PostId],
        posts: &[Post],
        by_id: &[(PostId, u32)],
    ) -> Option<String> {
        if posts.len() != ids.len() {
            return Some(format!("has {} ids and {} posts", ids.len(), posts.len()));
        }
        posts.iter().zip(ids).find_map(|(post, id)| {
            let number = number_of(*id, by_id)?;
            let reference = self.workload.meant(number).and_then(|n| self.board.id(n));
            let sent = self.workload.request(number, reference);
            let created_ms = post
                .create_time
                .map(|time| time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000);
            let expected_ms = (id.0 >> PostId::NODE_AND_SEQUENCE_BITS) + PostId::EPOCH_UNIX_MS;
            let is_as_sent = post.id == id.0
                && post.author_id == sent.author_id
                && post.text == sent.text
                && post.origin == sent.origin
                && post.link == sent.link
                && post.reply_to_id == sent.reply_to_id
                && post.repost_of_id == sent.repost_of_id
                && post.mentioned_ids == sent.mentioned_ids
                && created_ms == i64::try_from(expected_ms).ok();
            (!is_as_sent).then(|| format!("post {id} is {post:?}, but {sent:?} was sent"))
        })
    }

    /// What a plain repost repeats.
    pub(super) fn repeated(&self, id: PostId, by_id: &[(PostId, u32)]) -> Option<PostId> {
        let number = number_of(id, by_id)?;
        self.workload.repeats(number)?;
        self.board.id(self.workload.meant(number)?)
    }
}

/// Which post of the workload has an id.
pub(super) fn number_of(id: PostId, by_id: &[(PostId, u32)]) -> Option<u32> {
    by_id.binary_search_by_key(&id, |(id, _)| *id).ok().map(|place| by_id[place].1)
}
