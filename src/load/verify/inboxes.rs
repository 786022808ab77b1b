//! Compares what accounts are told of, and their messages.

use tonic::{Response, Status};

use super::{Findings, Verifier, posts::number_of};
use crate::{
    domain::{MessageId, PostId},
    load::{
        LoadError, difference::compare, graph::UserIndex, model::Inboxes, probe::channel_of,
        retry::retried,
    },
    proto::v1::{
        BatchGetPostsRequest, ListMessagesRequest, ListNotificationsRequest,
        ListSentMessagesRequest, Message, Notification,
        message_service_client::MessageServiceClient,
        notification_service_client::NotificationServiceClient,
        post_service_client::PostServiceClient,
    },
};

/// A page size that divides nothing, so that pages begin and end anywhere.
const PAGE_SIZE: i32 = 47;
/// How many posts are asked for at once.
const POSTS_MAX: usize = 1_000;

impl Verifier {
    /// What one account is told of, and the messages that it has received and sent.
    pub(super) async fn check_inboxes(
        &self,
        user: UserIndex,
        by_id: &[(PostId, u32)],
    ) -> Result<Findings, LoadError> {
        let mut findings = self.check_notifications(user, by_id).await?;
        let received = self.read_received(user).await?;
        let sent = self.read_sent(user).await?;
        for (what, list, read) in [
            ("messages received by", &self.inboxes.received, received),
            ("messages sent by", &self.inboxes.sent, sent),
        ] {
            findings.messages += read.len() as u64;
            let problems = self.message_problems(user, list, &read).into_iter();
            let named = problems.map(|problem| format!("{what} {}: {problem}", self.name(user)));
            findings.problems.extend(named);
        }
        Ok(findings)
    }

    /// No message can be read as if it were a post. (That none is in a timeline is seen where
    /// the timelines are compared.)
    pub(super) async fn check_messages_are_no_posts(&self) -> Result<Findings, LoadError> {
        let client = PostServiceClient::new(self.channels[0].clone());
        let ids: Vec<u64> = self.messages.keys().map(|id| id.0).collect();
        let mut problems = Vec::new();
        for ids in ids.chunks(POSTS_MAX) {
            let request = BatchGetPostsRequest { post_ids: ids.to_owned() };
            let found = retried(self.patience, || {
                let (mut client, request) = (client.clone(), request.clone());
                async move { client.batch_get_posts(request).await }
            });
            let posts = found.await?.posts.into_iter();
            problems.extend(posts.map(|post| format!("message {} is read as {post:?}", post.id)));
        }
        Ok(Findings { problems, ..Findings::default() })
    }

    /// All notifications of one account, with the posts and the reasons.
    async fn check_notifications(
        &self,
        user: UserIndex,
        by_id: &[(PostId, u32)],
    ) -> Result<Findings, LoadError> {
        let notifications = self.read_notifications(user).await?;
        let posts: Vec<_> = notifications.iter().flat_map(|it| it.post.clone()).collect();
        let ids: Vec<PostId> = posts.iter().map(|post| PostId(post.id)).collect();
        let expected = self.model.shown(&self.inboxes.notifications, user);
        let mut problems = Vec::new();
        problems
            .extend(compare(&as_posts(expected), &ids).map(|difference| difference.to_string()));
        problems.extend(self.post_problem(&ids, &posts, by_id));
        problems.extend(notifications.iter().zip(&ids).find_map(|(notification, id)| {
            let reasons = self.workload.reasons(number_of(*id, by_id)?, user);
            let is_right = notification.reasons().eq(reasons.iter().copied());
            (!is_right).then(|| format!("{notification:?} should be told for {reasons:?}"))
        }));
        let problems = problems
            .into_iter()
            .map(|problem| format!("notifications of {}: {problem}", self.name(user)))
            .collect();
        Ok(Findings { notifications: ids.len() as u64, problems, ..Findings::default() })
    }

    /// What is wrong with one list of messages.
    fn message_problems(&self, user: UserIndex, list: &Inboxes, read: &[Message]) -> Vec<String> {
        let expected = self.model.shown(list, user);
        let ids = read.iter().map(|message| message.id).collect();
        let difference = compare(&as_posts(expected), &as_posts(ids));
        let mut problems: Vec<String> = difference.iter().map(ToString::to_string).collect();
        problems.extend(read.iter().find_map(|message| {
            let sent = self.workload.message_request(*self.messages.get(&MessageId(message.id))?);
            let is_as_sent = message.sender_id == sent.sender_id
                && message.recipient_ids == sent.recipient_ids
                && message.text == sent.text;
            (!is_as_sent).then(|| format!("{message:?} was sent as {sent:?}"))
        }));
        problems
    }

    async fn read_notifications(&self, user: UserIndex) -> Result<Vec<Notification>, LoadError> {
        let client = NotificationServiceClient::new(channel_of(&self.channels, user));
        let user_id = self.workload.graph.id(user).0;
        self.read_list(|page_token| {
            let mut client = client.clone();
            let request = ListNotificationsRequest { user_id, page_size: PAGE_SIZE, page_token };
            async move {
                let page = client.list_notifications(request).await?;
                Ok(page.map(|page| (page.notifications, page.next_page_token)))
            }
        })
        .await
    }

    async fn read_received(&self, user: UserIndex) -> Result<Vec<Message>, LoadError> {
        let client = MessageServiceClient::new(channel_of(&self.channels, user));
        let user_id = self.workload.graph.id(user).0;
        self.read_list(|page_token| {
            let mut client = client.clone();
            let request = ListMessagesRequest { user_id, page_size: PAGE_SIZE, page_token };
            async move {
                let page = client.list_messages(request).await?;
                Ok(page.map(|page| (page.messages, page.next_page_token)))
            }
        })
        .await
    }

    async fn read_sent(&self, user: UserIndex) -> Result<Vec<Message>, LoadError> {
        let client = MessageServiceClient::new(channel_of(&self.channels, user));
        let user_id = self.workload.graph.id(user).0;
        self.read_list(|page_token| {
            let mut client = client.clone();
            let request = ListSentMessagesRequest { user_id, page_size: PAGE_SIZE, page_token };
            async move {
                let page = client.list_sent_messages(request).await?;
                Ok(page.map(|page| (page.messages, page.next_page_token)))
            }
        })
        .await
    }

    /// All pages of a list, or as many as have more than there may be.
    async fn read_list<T, F>(&self, mut page: impl FnMut(String) -> F) -> Result<Vec<T>, LoadError>
    where
        F: Future<Output = Result<Response<(Vec<T>, String)>, Status>>,
    {
        let (mut read, mut token) = (Vec::new(), String::new());
        loop {
            let (entries, next) = retried(self.patience, || page(token.clone())).await?;
            // A page that is empty and not the last leads nowhere.
            let is_last = next.is_empty() || entries.is_empty();
            read.extend(entries);
            if is_last || read.len() > self.model.cap() {
                return Ok(read);
            }
            token = next;
        }
    }
}

/// Ids of either kind, to be compared.
fn as_posts(ids: Vec<u64>) -> Vec<PostId> {
    ids.into_iter().map(PostId).collect()
}
