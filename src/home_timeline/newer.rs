//! What has come to a home timeline since a post.

use super::{Filter, HomeTimelines, ReadError};
use crate::{
    domain::{PostId, UserId},
    store::{Floor, Homes, Lookups},
};

/// Reads in which it is looked for, each of which looks at so many posts as one page may, or a
/// few more.
const READS_MAX: usize = 5;
/// Posts that are read first beyond those that are expected.
const FIRST_BEYOND: usize = 20;

/// Posts that are newer than another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Newer {
    /// Newest first.
    pub ids: Vec<PostId>,
    /// Older ones than this are missing, or may be; `None` where all are there.
    pub complete_down_to: Option<PostId>,
}

impl<S: Homes + Lookups> HomeTimelines<S> {
    /// The posts newer than `after` and older than `before` (or the newest), `count_max` of them
    /// at the most. As many as are expected are read at once.
    ///
    /// Where there may be more, or so many are not shown that the search is given up, it says
    /// down to where they are complete. It does not look for one more: that may be below CAP,
    /// where all followees are asked.
    ///
    /// # Errors
    /// If the timeline cannot be read.
    pub async fn newer_than(
        &self,
        user: UserId,
        filter: &Filter,
        after: PostId,
        mut before: Option<PostId>,
        expected: usize,
        count_max: usize,
    ) -> Result<Newer, ReadError> {
        let (mut ids, mut count) = (Vec::new(), (expected + FIRST_BEYOND).min(count_max));
        for _ in 0..READS_MAX {
            let page = self.read_above(user, filter, after, before, count).await?;
            ids.extend_from_slice(&page.ids);
            let Some(next) = page.next.filter(|next| *next > after) else {
                let complete_down_to = match page.floor {
                    // What is older is not read.
                    Floor::Followees(oldest) if page.next.is_none() && oldest > after => {
                        Some(oldest)
                    }
                    _ => None,
                };
                return Ok(Newer { ids, complete_down_to });
            };
            before = Some(next);
            count = count_max - ids.len();
            if count == 0 {
                break;
            }
        }
        Ok(Newer { ids, complete_down_to: before })
    }
}
