//! `roost timeline`.

use std::{
    collections::HashSet,
    io::{self, Write},
    time::{Duration, SystemTime},
};

use clap::Args;
use tonic::{Status, Streaming, transport::Channel};

use super::{
    ClientError, Target, is_transient,
    lines::line_of,
    page::{PageRequest, TimelineKind, page_size},
};
use crate::{
    domain::UserId,
    proto::v1::{
        Floor, FloorReason, StreamHomeTimelineRequest, StreamHomeTimelineResponse,
        timeline_service_client::TimelineServiceClient,
    },
};

/// Prints a timeline, newest post first.
#[derive(Args, Clone, Debug)]
pub struct TimelineArgs {
    /// Whose timeline
    pub user: UserId,
    /// What the account has posted itself, in place of its home timeline
    #[arg(long)]
    pub author: bool,
    /// Print at most this many posts
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: u32,
    /// Also print reposts of what is among the 40 posts that show below them
    #[arg(long, conflicts_with = "author")]
    pub all_reposts: bool,
    /// Then print what comes, until Ctrl-C; home timelines only
    #[arg(long, conflicts_with = "author")]
    pub follow: bool,
    /// Where to read it.
    #[command(flatten)]
    pub target: Target,
}

/// How long to wait before a stream that was broken goes on.
const RESUME_AFTER: Duration = Duration::from_secs(1);

impl TimelineArgs {
    /// Reads page by page, prints a line a post (id, author, age, text), and at
    /// the end says in words how complete the timeline is.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses, or stdout is closed.
    pub async fn run(self) -> Result<(), ClientError> {
        let mut timelines = TimelineServiceClient::new(self.target.connect().await?);
        if self.follow {
            // First, so that nothing comes between the page and what follows.
            let mut stream = timelines.stream_home_timeline(self.stream_from("")).await?;
            let first = stream.get_mut().message().await?.unwrap_or_default();
            let printed = self.print(&mut timelines).await?;
            print_new(&first, &printed)?;
            return self.follow(timelines, stream.into_inner(), first.resume_token, printed).await;
        }
        self.print(&mut timelines).await.map(drop)
    }

    fn stream_from(&self, resume_token: &str) -> StreamHomeTimelineRequest {
        let resume_token = resume_token.to_owned();
        let Self { user, all_reposts, .. } = *self;
        StreamHomeTimelineRequest {
            user_id: user.0,
            resume_token,
            all_reposts,
            ..StreamHomeTimelineRequest::default()
        }
    }

    /// Prints what comes and was not printed before, for ever: over a stream, and where that
    /// ends over another one.
    async fn follow(
        &self,
        mut timelines: TimelineServiceClient<Channel>,
        mut stream: Streaming<StreamHomeTimelineResponse>,
        mut resume_token: String,
        printed: HashSet<u64>,
    ) -> Result<(), ClientError> {
        loop {
            let broken = match stream.message().await {
                Ok(Some(message)) => {
                    print_new(&message, &printed)?;
                    resume_token = message.resume_token;
                    continue;
                }
                Ok(None) => Status::unavailable("the server ended the stream"),
                Err(status) => status,
            };
            if !is_transient(&broken) {
                return Err(broken.into());
            }
            eprintln!("-- the server has ended the stream, or is away; trying again every second");
            stream = loop {
                tokio::time::sleep(RESUME_AFTER).await;
                match timelines.stream_home_timeline(self.stream_from(&resume_token)).await {
                    Ok(stream) => break stream.into_inner(),
                    Err(status) if is_transient(&status) => {}
                    Err(status) => return Err(status.into()),
                }
            };
        }
    }

    /// Prints what is there, and returns which posts that was.
    async fn print(
        &self,
        timelines: &mut TimelineServiceClient<Channel>,
    ) -> Result<HashSet<u64>, ClientError> {
        let mut printed = HashSet::new();
        let kind = if self.author { TimelineKind::Author } else { TimelineKind::Home };
        let mut left = self.limit;
        let mut page_token = String::new();
        loop {
            let request = PageRequest {
                kind,
                user: self.user,
                page_size: page_size(left),
                page_token,
                ids_only: false,
                all_reposts: self.all_reposts,
            };
            let page = request.send(timelines).await?.into_inner();
            // The page is read; only now does stdout come into play.
            let now = SystemTime::now();
            let mut out = io::stdout().lock();
            let shown = page.posts.len().min(left as usize);
            for post in &page.posts[..shown] {
                writeln!(out, "{}", line_of(post, now))?;
                printed.insert(post.id);
            }
            left -= shown as u32;
            if page.next_page_token.is_empty() || left == 0 {
                let more = !page.next_page_token.is_empty() || shown < page.posts.len();
                writeln!(out, "{}", end_line(more, page.floor.as_ref()))?;
                return Ok(printed);
            }
            page_token = page.next_page_token;
        }
    }
}

fn print_new(
    message: &StreamHomeTimelineResponse,
    printed: &HashSet<u64>,
) -> Result<(), ClientError> {
    let mut out = io::stdout().lock();
    if message.missed_before_id != 0 {
        let id = message.missed_before_id;
        writeln!(out, "-- so much has come that some of what is older than {id} is not shown")?;
    }
    for post in message.posts.iter().filter(|post| !printed.contains(&post.id)) {
        writeln!(out, "{}", line_of(post, SystemTime::now()))?;
    }
    Ok(out.flush()?)
}

fn end_line(more: bool, floor: Option<&Floor>) -> String {
    let complete = match floor.map(|floor| (floor.reason(), floor.complete_down_to_id)) {
        Some((FloorReason::Beginning, _)) => {
            "the timeline is complete to its very beginning".to_owned()
        }
        Some((FloorReason::Cap, id)) => format!(
            "down to post {id} the timeline is held ready; older posts are read from the author \
             timelines"
        ),
        Some((FloorReason::Followees, id)) => format!(
            "the timeline is complete down to post {id}; its reader follows too many accounts to \
             ask all of them for older posts, which are in the author timelines"
        ),
        Some((FloorReason::Unspecified, _)) | None => {
            "the server does not say how complete the timeline is".to_owned()
        }
    };
    let rest = if more { "there is more (raise --limit); " } else { "" };
    format!("-- {rest}{complete}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_says_how_complete_the_timeline_is() {
        let cap = Floor { complete_down_to_id: 12, reason: FloorReason::Cap.into() };
        assert!(end_line(true, Some(&cap)).contains("there is more"));
        assert!(end_line(false, Some(&cap)).contains("down to post 12"));
        let beginning = Floor { complete_down_to_id: 0, reason: FloorReason::Beginning.into() };
        assert_eq!(
            end_line(false, Some(&beginning)),
            "-- the timeline is complete to its very beginning"
        );
    }
}
