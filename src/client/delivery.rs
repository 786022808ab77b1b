//! `roost pull` and `push`.

use clap::Args;

use super::{ClientError, Target, lines::when};
use crate::{
    domain::UserId,
    proto::v1::{Delivery, SetDeliveryRequest, graph_service_client::GraphServiceClient},
};

/// Whose posts are pulled by reads, or pushed into timelines.
#[derive(Args, Clone, Debug)]
pub struct DeliveryArgs {
    /// The author
    pub author: UserId,
    /// Where to say so.
    #[command(flatten)]
    pub target: Target,
}

impl DeliveryArgs {
    /// Has the author pulled and says so on stdout.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses; as with the other.
    pub async fn pull(self) -> Result<(), ClientError> {
        let applied = self.set(Delivery::Pull).await?;
        println!("posts of {} are pulled by reads{}", self.author, when(applied));
        Ok(())
    }

    /// Has the author pushed and says so on stdout.
    pub async fn push(self) -> Result<(), ClientError> {
        let applied = self.set(Delivery::Push).await?;
        println!("posts of {} are pushed into timelines{}", self.author, when(applied));
        Ok(())
    }

    async fn set(&self, delivery: Delivery) -> Result<bool, ClientError> {
        let mut graph = GraphServiceClient::new(self.target.connect().await?);
        let request = SetDeliveryRequest { author_id: self.author.0, delivery: delivery.into() };
        Ok(graph.set_delivery(request).await?.into_inner().applied)
    }
}
