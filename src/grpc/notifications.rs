//! `roost.v1.NotificationService`.

use tonic::{Request, Response, Status};

use super::{
    Api,
    answer_size::{ANSWER_BYTES_MAX, Budget},
    page::{self, List},
};
use crate::{
    domain::{Post, PostId, UserId},
    event_log::EventLog,
    inbox,
    proto::v1,
    store::{NotifyReason, Store, notified},
    writes::check_user,
};

#[tonic::async_trait]
impl<L: EventLog, S: Store> v1::notification_service_server::NotificationService for Api<L, S> {
    async fn list_notifications(
        &self,
        request: Request<v1::ListNotificationsRequest>,
    ) -> Result<Response<v1::ListNotificationsResponse>, Status> {
        let v1::ListNotificationsRequest { user_id, page_size, page_token } = request.into_inner();
        let user = UserId(user_id);
        check_user("user_id", user)?;
        let count_max = page::size(page_size, page::POSTS_DEFAULT, page::POSTS_MAX)?;
        let count_max = count_max.min(self.posts_max());
        let before = page::parse(&page_token, List::Notifications, user_id)?.map(PostId);
        let page = inbox::notifications(&*self.store, user, before, count_max).await?;
        let mut budget = Budget::new(ANSWER_BYTES_MAX);
        let fit = self.with_originals(page.entries.iter().map(Some), &mut budget).await?;
        let more = page.more || fit.taken < page.entries.len();
        let last = fit.posts.last().filter(|_| more);
        let next_page_token = page::next(List::Notifications, user_id, last.map(|last| last.id));
        let notifications = page.entries.iter().zip(fit.posts).map(|(post, shown)| {
            v1::Notification { post: Some(shown), reasons: reasons(post, user) }
        });
        let notifications = notifications.collect();
        Ok(Response::new(v1::ListNotificationsResponse { notifications, next_page_token }))
    }
}

/// Why a reader is told of a post.
fn reasons(post: &Post, reader: UserId) -> Vec<i32> {
    let reasons = notified(post).into_iter().filter(|(user, _)| *user == reader);
    let reasons = reasons.map(|(_, reason)| match reason {
        NotifyReason::Mention => v1::NotificationReason::Mention.into(),
        NotifyReason::Reply => v1::NotificationReason::Reply.into(),
        NotifyReason::Repost => v1::NotificationReason::Repost.into(),
    });
    reasons.collect()
}
