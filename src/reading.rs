//! Reading what has come since a reader last looked: how much it is, and what of it the reader
//! should not miss.
//!
//! ```text
//!  read marker ──► home timeline above it ──► look up ──► their order (`catch_up`) ──► page
//! ```

use std::{cmp::Reverse, sync::Arc};

use crate::{
    domain::{Post, PostId, UserId},
    home_timeline::{
        Filter, HomeTimelines, Newer, ReadError,
        catch_up::{self, Place},
    },
    store::{Homes, Lookups, StoreError},
};

/// New posts that are looked at, at the most.
const NEW_MAX: usize = 800;

/// How much a reader has not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Up to which post it has read; post 0 if it has not said.
    pub read_marker: PostId,
    /// How many posts of others are newer.
    pub count: usize,
    /// The newest of them.
    pub newest: Option<PostId>,
    /// Whether there may be more than were looked at.
    pub is_at_least: bool,
}

/// A page of what a reader should not miss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// Those that matter most first.
    pub posts: Vec<Arc<Post>>,
    /// Where the next page goes on; `None` on the last one.
    pub next: Option<GoOn>,
    /// The newest post that was new on the first page, where there is one.
    until: Option<PostId>,
    /// Where the posts stand.
    places: Vec<Place>,
    /// The read marker of the first page.
    after: PostId,
    /// Down to which post all that is new was looked at, if that is not all of it.
    pub looked_down_to: Option<PostId>,
}

impl CatchUp {
    /// Ends the page behind so many posts; the others come on the next one.
    pub fn cut(&mut self, len: usize) {
        if len < self.posts.len() {
            self.posts.truncate(len);
            self.places.truncate(len);
            self.next = self.go_on();
        }
    }

    /// Behind the last post.
    fn go_on(&self) -> Option<GoOn> {
        Some(GoOn { after: self.after, until: self.until?, last: *self.places.last()? })
    }
}

/// Where a page of a catch-up goes on: among which posts, and behind which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoOn {
    /// The read marker of the first page.
    pub after: PostId,
    /// The newest post that was new then.
    pub until: PostId,
    /// Where the last post stands that was shown. It may be gone by now.
    pub last: Place,
}

/// Counts what is newer than the read marker in a home timeline, without the reader's own.
///
/// # Errors
/// If the store fails, or what the reader follows changes too fast.
pub async fn unread<S: Homes + Lookups>(
    store: &S,
    homes: &HomeTimelines<S>,
    user: UserId,
) -> Result<Unread, ReadError> {
    let read_marker = read_marker(store, user).await?;
    let everything = Filter::default();
    let Newer { ids: new, complete_down_to } =
        homes.newer_than(user, &everything, read_marker, None, 0, NEW_MAX).await?;
    let mut own = store.author_page(user, None, NEW_MAX).await?;
    own.retain(|id| *id > read_marker);
    let is_others =
        |id: &&PostId| own.binary_search_by_key(&Reverse(**id), |id| Reverse(*id)).is_err();
    let others: Vec<PostId> = new.iter().filter(is_others).copied().collect();
    Ok(Unread {
        read_marker,
        count: others.len(),
        newest: others.first().copied(),
        is_at_least: complete_down_to.is_some(),
    })
}

/// Reads up to `count_max` of the posts that a reader should not miss, `per_author_max` of each
/// author, from where the page before ended.
///
/// # Errors
/// If the store fails, or what the reader follows changes too fast.
pub async fn catch_up<S: Homes + Lookups>(
    store: &S,
    homes: &HomeTimelines<S>,
    user: UserId,
    per_author_max: u32,
    go_on: Option<GoOn>,
    count_max: usize,
) -> Result<CatchUp, ReadError> {
    let after = match go_on {
        Some(go_on) => go_on.after,
        None => read_marker(store, user).await?,
    };
    // What has come since the first page is none of it.
    let before = go_on.map(|go_on| PostId(go_on.until.0.saturating_add(1)));
    let everything = Filter::default();
    let Newer { ids: new, complete_down_to } =
        homes.newer_than(user, &everything, after, before, 0, NEW_MAX).await?;
    let until = go_on.map_or_else(|| new.first().copied(), |go_on| Some(go_on.until));
    let posts = store.posts(&new).await?;
    let mut places =
        catch_up::catch_up(user, posts.iter().flatten().map(|post| &**post), per_author_max);
    if let Some(go_on) = go_on {
        places.retain(|place| *place > go_on.last);
    }
    let more = places.len() > count_max;
    places.truncate(count_max);
    let place_of = |id: PostId| new.binary_search_by_key(&Reverse(id), |id| Reverse(*id));
    let posts =
        places.iter().filter_map(|place| posts[place_of(place.post.0).ok()?].clone()).collect();
    let looked_down_to = complete_down_to;
    let mut page = CatchUp { posts, next: None, until, places, after, looked_down_to };
    page.next = page.go_on().filter(|_| more);
    Ok(page)
}

async fn read_marker<S: Lookups>(store: &S, user: UserId) -> Result<PostId, StoreError> {
    match store.account(user).await? {
        Some(reader) => store.read_marker(reader).await,
        None => Ok(PostId(0)),
    }
}
