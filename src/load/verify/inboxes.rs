//! Compares what accounts are told of.

use super::{Findings, Verifier, number_of};
use crate::{
    domain::PostId,
    load::{LoadError, difference::compare, graph::UserIndex, probe::channel_of, retry::retried},
    proto::v1::{
        ListNotificationsRequest, ListNotificationsResponse, Notification,
        notification_service_client::NotificationServiceClient,
    },
};

/// A page size that divides nothing, so that pages begin and end anywhere.
const PAGE_SIZE: i32 = 47;

impl Verifier {
    /// All notifications of one account, with the posts and the reasons.
    pub(super) async fn check_notifications(
        &self,
        user: UserIndex,
        by_id: &[(PostId, u32)],
    ) -> Result<Findings, LoadError> {
        let told = self.read_notifications(user).await?;
        let posts: Vec<_> = told.iter().flat_map(|it| it.post.clone()).collect();
        let ids: Vec<PostId> = posts.iter().map(|post| PostId(post.id)).collect();
        let expected = self.model.shown(&self.notifications, user);
        let expected: Vec<PostId> = expected.into_iter().map(PostId).collect();
        let mut problems = Vec::new();
        problems.extend(compare(&expected, &ids).map(|difference| difference.to_string()));
        problems.extend(self.post_problem(&ids, &posts, by_id));
        problems.extend(told.iter().zip(&ids).find_map(|(told, id)| {
            let reasons = self.workload.reasons(number_of(*id, by_id)?, user);
            let is_right = told.reasons().eq(reasons.iter().copied());
            (!is_right).then(|| format!("{told:?} should be told for {reasons:?}"))
        }));
        let problems = problems
            .into_iter()
            .map(|problem| format!("notifications of {}: {problem}", self.name(user)))
            .collect();
        Ok(Findings { notifications: ids.len() as u64, problems, ..Findings::default() })
    }

    async fn read_notifications(&self, user: UserIndex) -> Result<Vec<Notification>, LoadError> {
        let client = NotificationServiceClient::new(channel_of(&self.channels, user));
        let mut told = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListNotificationsRequest {
                user_id: self.workload.graph.id(user).0,
                page_size: PAGE_SIZE,
                page_token,
            };
            let page = retried(self.patience, || {
                let (mut client, request) = (client.clone(), request.clone());
                async move { client.list_notifications(request).await }
            });
            let ListNotificationsResponse { notifications, next_page_token } = page.await?;
            told.extend(notifications);
            page_token = next_page_token;
            if page_token.is_empty() || told.len() > self.model.cap() {
                return Ok(told);
            }
        }
    }
}
