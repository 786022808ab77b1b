//! How far a reader has read, and what it should not miss.

use std::cmp::Reverse;

use tonic::Status;

use super::{
    Api,
    page::{self, List},
};
use crate::{
    domain::{PostId, UserId},
    event_log::EventLog,
    home_timeline::{
        Filter,
        catch_up::{Place, Reason, catch_up},
    },
    proto::v1,
    store::Store,
    writes::{FieldError, check_user},
};

/// New posts that are looked at, at the most.
const NEW_MAX: usize = 800;
const PER_AUTHOR_DEFAULT: u32 = 3;
const PAGE_SIZE_DEFAULT: usize = 20;

/// Where a page of a catch-up goes on: among which posts, and behind which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct GoOn {
    /// The read marker of the first page.
    after: PostId,
    /// The newest post that was new then.
    until: PostId,
    /// Where the last post stands that was shown. It may be gone by now.
    last: Place,
}

impl<L: EventLog, S: Store> Api<L, S> {
    pub(super) async fn unread(&self, user: UserId) -> Result<v1::Unread, Status> {
        check_user("user_id", user)?;
        let after = self.read_marker(user).await?;
        let everything = Filter::default();
        let (new, cut) = self.homes.newer_than(user, &everything, after, None, 0, NEW_MAX).await?;
        let mut own = self.store.author_page(user, None, NEW_MAX).await?;
        own.retain(|id| *id > after);
        let is_others =
            |id: &&PostId| own.binary_search_by_key(&Reverse(**id), |id| Reverse(*id)).is_err();
        let others: Vec<PostId> = new.iter().filter(is_others).copied().collect();
        Ok(v1::Unread {
            read_marker_id: after.0,
            count: others.len() as u32,
            newest_id: others.first().map_or(0, |newest| newest.0),
            is_at_least: cut.is_some(),
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
        let mut count_max = page::size(page_size, PAGE_SIZE_DEFAULT, NEW_MAX)?;
        if !ids_only {
            count_max = count_max.min(self.posts_max());
        }
        let per_author_max = match u32::try_from(posts_per_author) {
            Ok(0) => PER_AUTHOR_DEFAULT,
            Ok(count) => count,
            Err(_) => {
                let reason = format!("is {posts_per_author}; it cannot be negative");
                return Err(FieldError::new("posts_per_author", reason).into());
            }
        };
        let go_on = GoOn::parse(&page_token, user)?;
        let after = match go_on {
            Some(go_on) => go_on.after,
            None => self.read_marker(user).await?,
        };
        // What has come since the first page is none of it.
        let before = go_on.map(|go_on| PostId(go_on.until.0.saturating_add(1)));
        let everything = Filter::default();
        let (new, cut) =
            self.homes.newer_than(user, &everything, after, before, 0, NEW_MAX).await?;
        let until = go_on.map_or_else(|| new.first().copied(), |go_on| Some(go_on.until));
        let posts = self.store.posts(&new).await?;
        let mut places = catch_up(user, posts.iter().flatten().map(|post| &**post), per_author_max);
        if let Some(go_on) = go_on {
            places.retain(|place| *place > go_on.last);
        }
        let more = places.len() > count_max;
        places.truncate(count_max);
        let next_page_token = match (places.last(), until) {
            (Some(last), Some(until)) if more => GoOn { after, until, last: *last }.token(user),
            _ => String::new(),
        };
        let mut response = v1::ListCatchUpResponse {
            post_ids: places.iter().map(|place| place.post.0.0).collect(),
            posts: Vec::new(),
            next_page_token,
            looked_down_to_id: cut.map_or(0, |cut| cut.0),
        };
        if !ids_only {
            let place_of = |id: PostId| new.binary_search_by_key(&Reverse(id), |id| Reverse(*id));
            let found: Vec<_> = places
                .iter()
                .filter_map(|place| Some(posts[place_of(place.post.0).ok()?].clone()))
                .collect();
            response.posts = self.with_originals(&found).await?.into_iter().flatten().collect();
        }
        Ok(response)
    }

    async fn read_marker(&self, user: UserId) -> Result<PostId, Status> {
        match self.store.account(user).await? {
            Some(reader) => Ok(self.store.read_marker(reader).await?),
            None => Ok(PostId(0)),
        }
    }
}

impl GoOn {
    fn token(self, user: UserId) -> String {
        let Self { after, until, last: Place { reason, round, post: Reverse(post) } } = self;
        let numbers = [after.0, until.0, reason as u64, u64::from(round), post.0];
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        page::seal(List::CatchUp, user.0, &bytes)
    }

    fn parse(token: &str, user: UserId) -> Result<Option<Self>, FieldError> {
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
            Some(Self { after: PostId(after), until: PostId(until), last })
        };
        go_on().map(Some).ok_or_else(|| page::malformed(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let last = Place { reason: Reason::Exclusive, round: 2, post: Reverse(PostId(7)) };
        let go_on = GoOn { after: PostId(1), until: PostId(u64::MAX), last };
        let token = go_on.token(UserId(3));
        assert_eq!(GoOn::parse(&token, UserId(3)), Ok(Some(go_on)));
        assert!(GoOn::parse(&token, UserId(4)).is_err());
        assert!(GoOn::parse(&page::token(List::CatchUp, 3, 7), UserId(3)).is_err());
    }
}
