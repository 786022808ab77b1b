//! Reading home timelines.
//!
//! ```text
//!  read ──► live? ──► page ──► posts on it? ──► those that its reader sees (`view`)
//!             │                 │ no, it is below CAP
//!             │                 ▼
//!             │               pull: read followees, their older posts ──► the newest of them
//!             │ no: asleep, or some of what it held was taken away
//!             ▼
//!           rebuild: announce ──► read followees, their newest posts ──► merge ──► live
//! ```
//!
//! The announcement comes first, see [`store`](crate::store): a post that the
//! rebuild reads too early to see is pushed, one that it sees too is there once,
//! and one that is taken away meanwhile is left out.

pub mod catch_up;
mod filter;
pub mod merge;
mod newer;
mod once;
pub mod pull;
mod rebuild;
mod view;

use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

pub use self::{filter::Filter, newer::Newer};
use self::{
    pull::{Newest, merge_pulled},
    rebuild::Rebuilds,
    view::Viewer,
};
use crate::{
    domain::{PostId, UserId},
    store::{Floor, HomePage, HomeRead, Homes, Lookups, StoreError},
};

/// How often a read that finds the timeline gone again asks for a rebuild.
const READ_ATTEMPTS_MAX: usize = 10;
/// Rebuilds and pulls at work at once, each with a few megabytes in hand at the most.
const REBUILDS_MAX: usize = 64;
/// Followees who are asked for older posts at once.
const PULL_FOLLOWEES_AT_ONCE: usize = 64;
/// Posts that are looked at for one page, about, however few of them are shown.
const LOOKED_AT_MAX: usize = 2_000;
/// Posts that are looked at together, once the first page was not enough.
const LOOKED_AT_MIN: usize = 100;
/// Who follows more accounts reads no further than CAP: every page would ask all of them.
const PULL_FOLLOWEES_MAX: usize = 5_000;

/// Reads home timelines, and rebuilds those that sleep: one rebuild at a time for
/// each reader, however many ask.
pub struct HomeTimelines<S: Homes> {
    inner: Arc<Inner<S>>,
}

struct Inner<S: Homes> {
    store: Arc<S>,
    rebuilds: Rebuilds<S::Account>,
    /// One permit for each rebuild or pull at work; the others wait.
    at_work: Semaphore,
}

/// One page of a home timeline, as its reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Newest first. There may be none, or few, and more on the next page all the same.
    pub ids: Vec<PostId>,
    /// The next page has what is older than this; `None` on the last one.
    pub next: Option<PostId>,
    /// How far down the timeline is held ready or, below that, can be read.
    pub floor: Floor,
}

/// Why a home timeline cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the reader follows changes faster than it can be read.
    #[error("the timeline changes too fast to be rebuilt; try again")]
    Busy,
}

impl<S: Homes + Lookups> HomeTimelines<S> {
    /// Reads from this store.
    pub fn new(store: Arc<S>) -> Self {
        let at_work = Semaphore::new(REBUILDS_MAX);
        Self { inner: Arc::new(Inner { store, rebuilds: Mutex::default(), at_work }) }
    }

    /// Reads up to `count_max` posts older than `before` (or the newest) that `filter` shows,
    /// newest first, past CAP too. An account that no event has named has an empty timeline.
    ///
    /// # Errors
    /// If the timeline cannot be read.
    pub async fn read(
        &self,
        user: UserId,
        filter: &Filter,
        before: Option<PostId>,
        count_max: usize,
    ) -> Result<Page, ReadError> {
        self.read_above(user, filter, PostId(0), before, count_max).await
    }

    /// The same of those that are newer than `after`; what is older is not looked at.
    async fn read_above(
        &self,
        user: UserId,
        filter: &Filter,
        after: PostId,
        before: Option<PostId>,
        count_max: usize,
    ) -> Result<Page, ReadError> {
        let Some(reader) = self.inner.store.account(user).await? else {
            return Ok(Page { ids: Vec::new(), next: None, floor: Floor::Beginning });
        };
        let viewer = Viewer { user, reader, filter };
        let mut read = self.read_all(reader, before, count_max).await?;
        let mut page = Page { ids: Vec::new(), next: None, floor: read.floor };
        let mut looked_at = 0;
        loop {
            let shown = self.shown(&viewer, &read).await?;
            looked_at += read.ids.len();
            for (place, id) in read.ids.iter().enumerate() {
                if *id <= after {
                    page.next = None;
                    return Ok(page);
                }
                if shown[place] {
                    page.ids.push(*id);
                }
                let is_last = place + 1 == read.ids.len() && !read.more;
                page.next = (!is_last).then_some(*id);
                if is_last {
                    // Why it ends.
                    page.floor = read.floor;
                }
                if page.ids.len() == count_max {
                    return Ok(page);
                }
            }
            // A page is cut short only where something is left out of it.
            let is_whole = shown.iter().all(|shown| *shown);
            if is_whole || page.next.is_none() || looked_at >= LOOKED_AT_MAX {
                return Ok(page);
            }
            let wanted = count_max.max(LOOKED_AT_MIN);
            read = self.read_all(reader, page.next, wanted).await?;
            if read.ids.is_empty() {
                return Ok(Page { next: None, floor: read.floor, ..page });
            }
        }
    }

    /// Up to `count_max` posts older than `before`, with those that are hidden.
    async fn read_all(
        &self,
        reader: S::Account,
        before: Option<PostId>,
        count_max: usize,
    ) -> Result<HomePage, ReadError> {
        for _ in 0..READ_ATTEMPTS_MAX {
            // First: who is no longer among them is in the timeline.
            let pulled = self.inner.store.pulled_authors();
            let page = self.inner.store.page(reader, before, count_max);
            let (page, pulled) =
                tokio::try_join!(page, self.inner.store.read_among(reader, &pulled))?;
            match page {
                HomeRead::Page(page) => {
                    let page = self.inner.with_pulled(page, &pulled, before, count_max).await?;
                    // Otherwise what was pulled is read anew.
                    if let Some(page) = page {
                        return Ok(self.go_on(reader, before, count_max, page).await?);
                    }
                }
                HomeRead::Asleep => self.rebuild(reader).await?,
            }
        }
        Err(ReadError::Busy)
    }

    /// The page that follows on those that are held ready, if there are none of them on it.
    async fn go_on(
        &self,
        reader: S::Account,
        before: Option<PostId>,
        count_max: usize,
        page: HomePage,
    ) -> Result<HomePage, StoreError> {
        let Floor::Cap(oldest) = page.floor else { return Ok(page) };
        if !page.ids.is_empty() {
            return Ok(HomePage { more: true, ..page });
        }
        let before = before.map_or(oldest, |before| before.min(oldest));
        // One more tells whether another page follows.
        let Some(mut ids) = self.older_of_all(reader, before, count_max + 1).await? else {
            return Ok(HomePage { floor: Floor::Followees(oldest), ..page });
        };
        let more = ids.len() > count_max;
        ids.truncate(count_max);
        Ok(HomePage { ids, more, floor: Floor::Beginning, ..page })
    }

    /// The newest posts older than `before` of all whom the reader reads; none if those
    /// are too many to be asked.
    async fn older_of_all(
        &self,
        reader: S::Account,
        before: PostId,
        count_max: usize,
    ) -> Result<Option<Vec<PostId>>, StoreError> {
        // The semaphore is never closed.
        let _permit = self.inner.at_work.acquire().await;
        let store = &self.inner.store;
        let Some(authors) = self.inner.few_authors(reader).await? else { return Ok(None) };
        let mut newest = Newest::new(count_max);
        for authors in authors.chunks(PULL_FOLLOWEES_AT_ONCE) {
            for older in store.older_of(authors, before, count_max).await? {
                newest.add(older);
            }
            tokio::task::yield_now().await;
        }
        Ok(Some(newest.finish()))
    }
}

impl<S: Homes + Lookups> Inner<S> {
    /// A page of what is held ready together with the posts of authors who are pulled; none if
    /// some of those were deleted meanwhile.
    async fn with_pulled(
        &self,
        page: HomePage,
        authors: &[S::Account],
        before: Option<PostId>,
        count_max: usize,
    ) -> Result<Option<HomePage>, StoreError> {
        if authors.is_empty() {
            return Ok(Some(page));
        }
        let before = before.unwrap_or(PostId(u64::MAX));
        // One more tells whether there are more.
        let lists = self.store.older_of(authors, before, count_max + 1).await?;
        let newest_pulled = lists.iter().filter_map(|list| list.first()).max().copied();
        let page = merge_pulled(page, lists, count_max);
        // All of the page is asked for: to find out which of it is pulled would cost more.
        let has_pulled = page.ids.last().is_some_and(|oldest| newest_pulled >= Some(*oldest));
        let are_outdated = has_pulled && self.store.are_outdated(&page.ids).await?;
        Ok((!are_outdated).then_some(page))
    }

    /// Whose posts a reader reads: of those whom it follows, and its own.
    async fn authors(&self, reader: S::Account) -> Result<Vec<S::Account>, StoreError> {
        let mut authors = self.store.following(reader).await?;
        authors.push(reader);
        Ok(authors)
    }

    /// The same; none if they are too many to be asked by the way.
    async fn few_authors(&self, reader: S::Account) -> Result<Option<Vec<S::Account>>, StoreError> {
        let authors = self.authors(reader).await?;
        // The reader is one of them.
        Ok((authors.len() <= PULL_FOLLOWEES_MAX + 1).then_some(authors))
    }
}
