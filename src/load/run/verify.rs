//! Comparing with the model, once everything is delivered.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use tokio::task;

use super::Load;
use crate::{
    client::progress::Reporter,
    domain::UserId,
    load::{
        LoadError, Verification,
        graph::UserIndex,
        model::{ExpectedInboxes, Model},
        retry::retried,
        verify::Verifier,
    },
    proto::v1::{ListPulledAuthorsRequest, graph_service_client::GraphServiceClient},
};

impl Load {
    pub(super) async fn verify(
        &self,
        cap: usize,
        reporter: &mut impl Reporter,
    ) -> Result<Verification, LoadError> {
        reporter.begin("computing the model", None);
        let pulled = self.pulled().await?;
        let messages = self.messages.all();
        let (model, inboxes) = task::spawn_blocking({
            let (workload, board) = (Arc::clone(&self.workload), Arc::clone(&self.board));
            let (changes, pulled) = (self.changes.clone(), pulled.clone());
            move || {
                let changes = changes.lock();
                let posts = (0..workload.post_count())
                    .filter(|number| !changes.is_deleted(*number))
                    .filter_map(|number| board.id(number).map(|id| (workload.author(number), id)));
                let referred = (0..workload.post_count()).filter_map(|number| {
                    Some((board.id(number)?, workload.author(workload.meant(number)?)))
                });
                let model = Model::new(&workload.graph, &changes, posts, referred, &pulled, cap);
                let inboxes = ExpectedInboxes::new(&workload, &board, &messages, &changes, cap);
                (model, inboxes)
            }
        })
        .await?;
        reporter.end();
        let kept_pulled = &self.churning.kept_pulled;
        let mut asked_for = self.changes.lock().pulled().clone();
        for author in kept_pulled.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            asked_for.remove(author);
        }
        let verifier = Verifier {
            workload: Arc::clone(&self.workload),
            board: Arc::clone(&self.board),
            model: Arc::new(model),
            inboxes: Arc::new(inboxes),
            pulled,
            asked_for,
            messages: self.messages.all().into_iter().map(|(number, id)| (id, number)).collect(),
            channels: self.channels.clone(),
            patience: self.settings.retry_for,
        };
        verifier.verify(reporter).await
    }

    /// The authors of the load who are pulled. Asked where everything is known to be
    /// delivered, since it is then known there who is pulled, too.
    async fn pulled(&self) -> Result<BTreeSet<UserIndex>, LoadError> {
        let client = GraphServiceClient::new(self.channels[0].clone());
        let listed = retried(self.settings.retry_for, || {
            let mut client = client.clone();
            async move { client.list_pulled_authors(ListPulledAuthorsRequest {}).await }
        });
        let ids = listed.await?.author_ids.into_iter();
        Ok(ids.filter_map(|id| self.workload.graph.index_of(UserId(id))).collect())
    }
}
