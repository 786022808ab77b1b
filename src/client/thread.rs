//! `roost thread`.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use clap::Args;

use super::{ClientError, Target, lines::line_of, page::page_size};
use crate::{
    domain::{PostId, UserId},
    proto::v1::{
        BatchGetCountsRequest, GetThreadRequest, PostCounts, post_service_client::PostServiceClient,
    },
};

/// Prints what a post answers, the post, and what answers it, the oldest first.
#[derive(Args, Clone, Debug)]
pub struct ThreadArgs {
    /// The post
    pub post: PostId,
    /// Leave out what this account hides
    #[arg(long, value_name = "ACCOUNT")]
    pub reader: Option<UserId>,
    /// Print at most this many answers
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: u32,
    /// Where to read it.
    #[command(flatten)]
    pub target: Target,
}

impl ThreadArgs {
    /// Reads page by page and prints a line a post (id, author, age, text), the post itself
    /// with how many answer and repeat it.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses, or stdout is closed.
    pub async fn run(self) -> Result<(), ClientError> {
        let mut posts = PostServiceClient::new(self.target.connect().await?);
        let request = BatchGetCountsRequest { post_ids: vec![self.post.0] };
        let counts = posts.batch_get_counts(request).await?.into_inner().counts.pop();
        let (mut left, mut page_token, mut is_first) = (self.limit, String::new(), true);
        loop {
            let request = GetThreadRequest {
                post_id: self.post.0,
                reader_id: self.reader.map_or(0, |reader| reader.0),
                page_size: page_size(left),
                page_token,
                ..GetThreadRequest::default()
            };
            let page = posts.get_thread(request).await?.into_inner();
            let now = SystemTime::now();
            let mut out = io::stdout().lock();
            if is_first {
                for ancestor in &page.ancestors {
                    writeln!(out, "{}", line_of(ancestor, now))?;
                }
                let post = page.post.unwrap_or_default();
                writeln!(out, "{}", line_of(&post, now))?;
                writeln!(out, "-- {}", in_words(counts.unwrap_or_default()))?;
            }
            let shown = page.replies.len().min(left as usize);
            for reply in &page.replies[..shown] {
                writeln!(out, "{}", line_of(reply, now))?;
            }
            (left, page_token, is_first) = (left - shown as u32, page.next_page_token, false);
            if page_token.is_empty() {
                return Ok(());
            }
            if left == 0 {
                return Ok(writeln!(out, "-- there is more (raise --limit)")?);
            }
        }
    }
}

fn in_words(counts: PostCounts) -> String {
    let PostCounts { replies, reposts, home_timelines, .. } = counts;
    let times = |count: u64, one: &str, many: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    };
    let replies = times(replies.into(), "answer", "answers");
    let reposts = times(reposts.into(), "repost", "reposts");
    format!("{replies}, {reposts}, in {}", times(home_timelines, "timeline", "timelines"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_in_words() {
        let counts = |replies, reposts, home_timelines| {
            in_words(PostCounts { post_id: 7, replies, reposts, home_timelines })
        };
        assert_eq!(counts(1, 0, 2), "1 answer, 0 reposts, in 2 timelines");
        assert_eq!(counts(2, 1, 1), "2 answers, 1 repost, in 1 timeline");
    }
}
