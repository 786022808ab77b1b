//! A few accounts that follow each other, what they have published, and what their home
//! timelines must therefore be.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use roost::{
    client::Target,
    proto::v1::{
        BatchPublishPostsRequest, FollowRequest, ListHomeTimelineRequest, PublishPostRequest,
        graph_service_client::GraphServiceClient, post_service_client::PostServiceClient,
        timeline_service_client::TimelineServiceClient,
    },
};
use tokio::time;
use tonic::{Code, Status, transport::Channel};

use crate::failure::{Doing, Failure, Result};

/// Each of them writes, reads and is awake.
const USERS: u64 = 24;
/// Followees of those who follow most; so some timelines reach the cap, and others show
/// all that there is.
const FOLLOWEES_MAX: u64 = 6;
/// Somebody whom nobody follows, whose posts are in no home timeline.
pub const NOBODYS: u64 = 1_000;
/// An answer must come within this time, whatever is away.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub struct Town {
    channel: Channel,
    /// The authors of the acknowledged posts.
    posts: Mutex<BTreeMap<u64, u64>>,
}

/// How a call that need not succeed was answered.
pub type Answer<T> = std::result::Result<T, Status>;

/// The ids of a home timeline, newest first.
pub type Home = Vec<u64>;

impl Town {
    /// Everybody follows whom they follow.
    pub async fn new(api: &str) -> Result<Self> {
        let channel = Target::new(api).connect().await.doing(api)?;
        let mut graph = GraphServiceClient::new(channel.clone());
        for (follower_id, followee_id) in users().flat_map(|user| {
            followees(user).map(move |followee| (user, followee)).collect::<Vec<_>>()
        }) {
            let request = FollowRequest { follower_id, followee_id };
            graph.follow(request).await.doing("a follow")?;
        }
        Ok(Self { channel, posts: Mutex::default() })
    }

    /// Publishes so many posts of everybody, each of which must be acknowledged in time.
    pub async fn publish(&self, count: usize) -> Result<()> {
        for author in users() {
            let answer = within_deadline(self.try_publish(author, count)).await?;
            let posts = answer.doing("a publish")?;
            self.posts().extend(posts.into_iter().map(|post| (post, author)));
        }
        Ok(())
    }

    /// Publishes posts as large as they may be: one by itself, more as a batch.
    pub async fn try_publish(&self, author: u64, count: usize) -> Answer<Vec<u64>> {
        let mut client = PostServiceClient::new(self.channel.clone());
        if count == 1 {
            let published = client.publish_post(large_post(author)).await?;
            return Ok(vec![published.into_inner().post_id]);
        }
        let requests = vec![large_post(author); count];
        let published = client.batch_publish_posts(BatchPublishPostsRequest { requests }).await?;
        Ok(published.into_inner().post_ids)
    }

    /// Everybody's home timeline, all of it.
    pub async fn homes(&self) -> Answer<Vec<Home>> {
        let mut homes = Vec::new();
        for user in users() {
            homes.push(self.home(user).await?);
        }
        Ok(homes)
    }

    /// No home timeline is to be had, and each reader is told so in time.
    pub async fn nobody_reads(&self) -> Result<()> {
        for user in users() {
            must_be_unavailable(within_deadline(self.home(user)).await?)?;
        }
        Ok(())
    }

    /// What everybody's home timeline must be.
    pub fn model(&self) -> Vec<Home> {
        let posts = self.posts();
        let is_read = |user, author| author == user || followees(user).any(|one| one == author);
        users()
            .map(|user| {
                let newest_first = posts.iter().rev();
                let read = newest_first.filter(|(_, author)| is_read(user, **author));
                read.map(|(post, _)| *post).collect()
            })
            .collect()
    }

    /// Waits until everybody's home timeline is what it must be.
    pub async fn is_whole(&self, deadline: Duration) -> Result<()> {
        let begun = Instant::now();
        let model = self.model();
        loop {
            let difference = match self.homes().await {
                Ok(homes) => match difference(&homes, &model) {
                    Ok(()) => return Ok(()),
                    Err(failure) => failure,
                },
                Err(status) => Failure::new(status.to_string()),
            };
            if begun.elapsed() > deadline {
                return Err(Failure::new(format!("after {deadline:?}: {difference}")));
            }
            time::sleep(LOOK_EVERY).await;
        }
    }

    async fn home(&self, user_id: u64) -> Answer<Home> {
        let mut client = TimelineServiceClient::new(self.channel.clone());
        let (mut home, mut page_token) = (Home::new(), String::new());
        loop {
            let request = ListHomeTimelineRequest {
                user_id,
                page_size: 300,
                page_token,
                ids_only: true,
                ..ListHomeTimelineRequest::default()
            };
            let page = client.list_home_timeline(request).await?.into_inner();
            home.extend(page.post_ids);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(home);
            }
        }
    }

    fn posts(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for an answer, which may be a refusal, for as long as one may take.
pub async fn within_deadline<T>(call: impl Future<Output = T>) -> Result<T> {
    let answer = time::timeout(ANSWER_DEADLINE, call).await;
    answer.map_err(|_| Failure::new(format!("no answer within {ANSWER_DEADLINE:?}")))
}

pub fn must_be_unavailable<T>(answer: Answer<T>) -> Result<()> {
    match answer {
        Err(status) if status.code() == Code::Unavailable => Ok(()),
        Err(status) => Err(Failure::new(format!("another answer than UNAVAILABLE: {status}"))),
        Ok(_) => Err(Failure::new("an answer, though there is nothing to answer from")),
    }
}

/// Where timelines differ.
pub fn difference(homes: &[Home], expected: &[Home]) -> Result<()> {
    for ((user, home), expected) in users().zip(homes).zip(expected) {
        if home != expected {
            let missing = expected.iter().filter(|post| !home.contains(post)).count();
            let unexpected = home.iter().filter(|post| !expected.contains(post)).count();
            return Err(Failure::new(format!(
                "the home timeline of {user} has {} posts and should have {}: {missing} are \
                 missing, {unexpected} should not be there",
                home.len(),
                expected.len()
            )));
        }
    }
    Ok(())
}

fn users() -> impl Iterator<Item = u64> {
    1..=USERS
}

fn followees(user: u64) -> impl Iterator<Item = u64> {
    (1..=user % (FOLLOWEES_MAX + 1)).map(move |step| (user + step) % USERS + 1)
}

/// 2.6 KB: the longest text, of the longest characters, and almost the longest link.
fn large_post(author_id: u64) -> PublishPostRequest {
    PublishPostRequest {
        author_id,
        text: "\u{1f426}".repeat(140),
        link: format!("https://example.org/{}", "a".repeat(2_000)),
        ..PublishPostRequest::default()
    }
}
