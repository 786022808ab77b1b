//! How far a reader has read, and what it should not miss.

use std::cmp::Reverse;

use tonic::Status;

use super::{
    Api,
    answer_size::{ANSWER_BYTES_MAX, Budget},
    page::{self, List},
};
use crate::{
    domain::{PostId, UserId},
    event_log::EventLog,
    home_timeline::catch_up::{Place, Reason},
    proto::v1,
    reading::{self, GoOn},
    store::Store,
    writes::{FieldError, check_user},
};

const PER_AUTHOR_DEFAULT: u32 = 3;

impl<L: EventLog, S: Store> Api<L, S> {
    pub(super) async fn unread(&self, user: UserId) -> Result<v1::Unread, Status> {
        check_user("user_id", user)?;
        let unread = reading::unread(&*self.store, &self.homes, user).await?;
        Ok(v1::Unread {
            read_marker_id: unread.read_marker.0,
            count: unread.count as u32,
            newest_id: unread.newest.map_or(0, |newest| newest.0),
            is_at_least: unread.is_at_least,
        })
    }

    pub(super) async fn catch_up(
        &self,
        request: v1::ListCatchUpRequest,
    ) -> Result<v1::ListCatchUpResponse, Status> {
        let v1::ListCatchUpRequest { user_id, page_size, page_token, posts_per_author, ids_only } =
            request;
        let user = UserId(user_id);
        check_user("user_id", user)?;
        let mut count_max = page::size(page_size, page::POSTS_DEFAULT, page::POSTS_MAX)?;
        if !ids_only {
            count_max = count_max.min(self.posts_max());
        }
        let per_author_max = parse_per_author(posts_per_author)?;
        let go_on = parse(&page_token, user)?;
        let (store, homes) = (&*self.store, &self.homes);
        let mut page =
            reading::catch_up(store, homes, user, per_author_max, go_on, count_max).await?;
        let mut posts = Vec::new();
        if !ids_only {
            let mut budget = Budget::new(ANSWER_BYTES_MAX);
            let fit = self.with_originals(page.posts.iter().map(Some), &mut budget).await?;
            page.cut(fit.taken);
            posts = fit.posts;
        }
        Ok(v1::ListCatchUpResponse {
            post_ids: page.posts.iter().map(|post| post.id.0).collect(),
            posts,
            next_page_token: page.next.map_or_else(String::new, |go_on| token(go_on, user)),
            looked_down_to_id: page.looked_down_to.map_or(0, |id| id.0),
        })
    }
}

fn parse_per_author(asked: i32) -> Result<u32, FieldError> {
    match u32::try_from(asked) {
        Ok(0) => Ok(PER_AUTHOR_DEFAULT),
        Ok(count) => Ok(count),
        Err(_) => {
            let reason = format!("is {asked}; it cannot be negative");
            Err(FieldError::new("posts_per_author", reason))
        }
    }
}

pub(super) fn token(go_on: GoOn, user: UserId) -> String {
    let GoOn { after, until, last: Place { reason, round, post: Reverse(post) } } = go_on;
    let numbers = [after.0, until.0, reason as u64, u64::from(round), post.0];
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    page::seal(List::CatchUp, user.0, &bytes)
}

pub(super) fn parse(token: &str, user: UserId) -> Result<Option<GoOn>, FieldError> {
    let field = "page_token";
    let Some(bytes) = page::unseal(field, token, List::CatchUp, user.0)? else {
        return Ok(None);
    };
    let (numbers, _) = bytes.as_chunks::<8>();
    let numbers: Vec<u64> = numbers.iter().map(|bytes| u64::from_be_bytes(*bytes)).collect();
    let go_on = || {
        let [after, until, reason, round, post] = numbers[..] else { return None };
        let reason = [Reason::Conversation, Reason::Exclusive, Reason::Voice]
            .get(usize::try_from(reason).ok()?)?;
        let (round, post) = (u32::try_from(round).ok()?, Reverse(PostId(post)));
        let last = Place { reason: *reason, round, post };
        Some(GoOn { after: PostId(after), until: PostId(until), last })
    };
    go_on().map(Some).ok_or_else(|| page::malformed(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let last = Place { reason: Reason::Exclusive, round: 2, post: Reverse(PostId(7)) };
        let go_on = GoOn { after: PostId(1), until: PostId(u64::MAX), last };
        let written = token(go_on, UserId(3));
        assert_eq!(parse(&written, UserId(3)), Ok(Some(go_on)));
        assert!(parse(&written, UserId(4)).is_err());
        assert!(parse(&page::next(List::CatchUp, 3, Some(7)), UserId(3)).is_err());
    }
}
