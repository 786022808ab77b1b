//! `roost post` and `roost delete`.

use std::num::NonZeroU64;

use clap::{Args, ValueEnum};

use super::{ClientError, Target, lines::when};
use crate::{
    domain::{PostId, UserId},
    proto::v1::{
        DeletePostRequest, Origin, PublishPostRequest, post_service_client::PostServiceClient,
    },
};

/// Publishes a post and prints its id.
#[derive(Args, Clone, Debug)]
pub struct PostArgs {
    /// What it says: 1 to 140 characters; may be left out with --repost-of
    #[arg(
        required_unless_present = "repost_of",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub text: String,
    /// The account that posts
    #[arg(long, value_name = "USER")]
    pub author: UserId,
    /// How the post came to be
    #[arg(long, value_enum, default_value_t = OriginArg::Shared)]
    pub origin: OriginArg,
    /// The http or https address that the post points to
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    pub link: String,
    /// The post that this one answers
    #[arg(long, value_name = "POST_ID")]
    pub reply_to: Option<NonZeroU64>,
    /// The post that this one repeats
    #[arg(long, value_name = "POST_ID")]
    pub repost_of: Option<NonZeroU64>,
    /// An account that the post mentions; may be said up to ten times
    #[arg(long = "mention", value_name = "USER")]
    pub mentions: Vec<UserId>,
    /// A name for this request, at most 64 bytes: repeating it for one author
    /// never makes a second post
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub request_id: String,
    /// It was sent before, and its answer is not known: the post that there is, is
    /// printed
    #[arg(long, requires = "request_id")]
    pub retry: bool,
    /// Where to do it.
    #[command(flatten)]
    pub target: Target,
}

/// How a post came to be, as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OriginArg {
    /// Posted automatically from a feed
    Rss,
    /// Shared by hand
    Shared,
    /// Written for this service and found nowhere else
    Exclusive,
}

/// Deletes a post, from every timeline.
#[derive(Args, Clone, Debug)]
pub struct DeleteArgs {
    /// The post to delete
    pub post_id: PostId,
    /// Where to do it.
    #[command(flatten)]
    pub target: Target,
}

impl PostArgs {
    /// Publishes and prints the post's id, alone on a line of stdout.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses.
    pub async fn run(self) -> Result<(), ClientError> {
        let mut posts = PostServiceClient::new(self.target.connect().await?);
        let request = PublishPostRequest {
            author_id: self.author.0,
            text: self.text,
            origin: Origin::from(self.origin).into(),
            link: self.link,
            reply_to_id: self.reply_to.map_or(0, NonZeroU64::get),
            repost_of_id: self.repost_of.map_or(0, NonZeroU64::get),
            request_id: self.request_id,
            is_retry: self.retry,
            mentioned_ids: self.mentions.into_iter().map(u64::from).collect(),
        };
        println!("{}", posts.publish_post(request).await?.into_inner().post_id);
        Ok(())
    }
}

impl DeleteArgs {
    /// Deletes and says so on stdout.
    ///
    /// # Errors
    /// If the server cannot be reached, or there is no such post.
    pub async fn run(self) -> Result<(), ClientError> {
        let mut posts = PostServiceClient::new(self.target.connect().await?);
        let request = DeletePostRequest { post_id: self.post_id.0 };
        let applied = posts.delete_post(request).await?.into_inner().applied;
        println!("deleted {}{}", self.post_id, when(applied));
        Ok(())
    }
}

impl From<OriginArg> for Origin {
    fn from(origin: OriginArg) -> Self {
        match origin {
            OriginArg::Rss => Self::Rss,
            OriginArg::Shared => Self::Shared,
            OriginArg::Exclusive => Self::Exclusive,
        }
    }
}
