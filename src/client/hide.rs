//! `roost mute`, `unmute`, `block` and `unblock`.

use clap::Args;
use tonic::transport::Channel;

use super::{ClientError, Target, lines::when};
use crate::{
    domain::UserId,
    proto::v1::{
        BlockRequest, MuteRequest, UnblockRequest, UnmuteRequest,
        graph_service_client::GraphServiceClient,
    },
};

/// Whom an account hides, or no longer does.
#[derive(Args, Clone, Debug)]
pub struct HideArgs {
    /// The account that does
    pub user: UserId,
    /// The other account
    pub other: UserId,
    /// Where to do it.
    #[command(flatten)]
    pub target: Target,
}

impl HideArgs {
    /// Mutes and says so on stdout.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses; as with all of these.
    pub async fn mute(self) -> Result<(), ClientError> {
        let request = MuteRequest { muter_id: self.user.0, muted_id: self.other.0 };
        let applied = self.graph().await?.mute(request).await?.into_inner().applied;
        self.say("mutes", applied);
        Ok(())
    }

    /// Ends a mute and says so on stdout.
    pub async fn unmute(self) -> Result<(), ClientError> {
        let request = UnmuteRequest { muter_id: self.user.0, muted_id: self.other.0 };
        let applied = self.graph().await?.unmute(request).await?.into_inner().applied;
        self.say("does not mute", applied);
        Ok(())
    }

    /// Blocks and says so on stdout.
    pub async fn block(self) -> Result<(), ClientError> {
        let request = BlockRequest { blocker_id: self.user.0, blocked_id: self.other.0 };
        let applied = self.graph().await?.block(request).await?.into_inner().applied;
        self.say("blocks", applied);
        Ok(())
    }

    /// Ends a block and says so on stdout.
    pub async fn unblock(self) -> Result<(), ClientError> {
        let request = UnblockRequest { blocker_id: self.user.0, blocked_id: self.other.0 };
        let applied = self.graph().await?.unblock(request).await?.into_inner().applied;
        self.say("does not block", applied);
        Ok(())
    }

    async fn graph(&self) -> Result<GraphServiceClient<Channel>, ClientError> {
        Ok(GraphServiceClient::new(self.target.connect().await?))
    }

    fn say(&self, does: &str, applied: bool) {
        println!("{} {does} {}{}", self.user, self.other, when(applied));
    }
}
