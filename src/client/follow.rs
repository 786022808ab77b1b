//! `roost follow` and `roost unfollow`.

use clap::Args;

use super::{ClientError, Target, lines::when};
use crate::{
    domain::UserId,
    proto::v1::{FollowRequest, UnfollowRequest, graph_service_client::GraphServiceClient},
};

/// Makes an account follow another: its home timeline shows the other's posts
/// from now on, the past ones too.
#[derive(Args, Clone, Debug)]
pub struct FollowArgs {
    /// The account that wants to read
    pub follower: UserId,
    /// The account to be read
    pub followee: UserId,
    /// Where to do it.
    #[command(flatten)]
    pub target: Target,
}

/// Ends a follow: the posts of the account that was followed leave the home
/// timeline, the past ones too.
#[derive(Args, Clone, Debug)]
pub struct UnfollowArgs {
    /// The account that no longer wants to read
    pub follower: UserId,
    /// The account no longer to be read
    pub followee: UserId,
    /// Where to do it.
    #[command(flatten)]
    pub target: Target,
}

impl FollowArgs {
    /// Follows and says so on stdout.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses.
    pub async fn run(self) -> Result<(), ClientError> {
        let mut graph = GraphServiceClient::new(self.target.connect().await?);
        let request = FollowRequest { follower_id: self.follower.0, followee_id: self.followee.0 };
        let applied = graph.follow(request).await?.into_inner().applied;
        println!("{} follows {}{}", self.follower, self.followee, when(applied));
        Ok(())
    }
}

impl UnfollowArgs {
    /// Unfollows and says so on stdout.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses.
    pub async fn run(self) -> Result<(), ClientError> {
        let mut graph = GraphServiceClient::new(self.target.connect().await?);
        let request =
            UnfollowRequest { follower_id: self.follower.0, followee_id: self.followee.0 };
        let applied = graph.unfollow(request).await?.into_inner().applied;
        println!("{} does not follow {}{}", self.follower, self.followee, when(applied));
        Ok(())
    }
}
