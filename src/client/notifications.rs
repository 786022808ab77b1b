//! `roost notifications`.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use clap::Args;

use super::{
    ClientError, Target,
    lines::{head_of, said_by},
    page::page_size,
};
use crate::{
    domain::UserId,
    proto::v1::{
        ListNotificationsRequest, Notification, NotificationReason,
        notification_service_client::NotificationServiceClient,
    },
};

/// Prints what an account is told of, newest post first.
#[derive(Args, Clone, Debug)]
pub struct NotificationsArgs {
    /// Whose notifications
    pub user: UserId,
    /// Print at most this many
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: u32,
    /// Where to read them.
    #[command(flatten)]
    pub target: Target,
}

impl NotificationsArgs {
    /// Reads page by page, and prints a line a post (id, author, age, why, text).
    ///
    /// # Errors
    /// If the server cannot be reached or refuses, or stdout is closed.
    pub async fn run(self) -> Result<(), ClientError> {
        let mut service = NotificationServiceClient::new(self.target.connect().await?);
        let (mut left, mut page_token) = (self.limit, String::new());
        while left > 0 {
            let (user_id, page_size) = (self.user.0, page_size(left));
            let request = ListNotificationsRequest { user_id, page_size, page_token };
            let page = service.list_notifications(request).await?.into_inner();
            let now = SystemTime::now();
            let mut out = io::stdout().lock();
            for notification in page.notifications.iter().take(left as usize) {
                writeln!(out, "{}", line_of(notification, now))?;
            }
            left = left.saturating_sub(page.notifications.len() as u32);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

fn line_of(notification: &Notification, now: SystemTime) -> String {
    let post = notification.post.clone().unwrap_or_default();
    let reasons = notification.reasons().map(|reason| match reason {
        NotificationReason::Mention => "mentions you",
        NotificationReason::Reply => "answers you",
        NotificationReason::Repost => "reposts you",
        NotificationReason::Unspecified => "for no known reason",
    });
    let reasons = reasons.collect::<Vec<_>>().join(", ");
    let head = head_of(post.id, post.author_id, post.create_time, now);
    format!("{head}{reasons}: {}", said_by(&post)).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::PostId, proto::v1::Post};

    #[test]
    fn a_notification_says_why_it_is_there_in_one_line() {
        let post = Post {
            id: 9 << PostId::NODE_AND_SEQUENCE_BITS,
            author_id: 7,
            text: "hello\nthere".to_owned(),
            reply_to_id: 3,
            ..Post::default()
        };
        let now = PostId(post.id).created_at();
        let reasons = vec![NotificationReason::Mention.into(), NotificationReason::Reply.into()];
        assert_eq!(
            line_of(&Notification { post: Some(post), reasons }, now),
            "37748736         7       now  mentions you, answers you: [answers 3] hello there"
        );
    }
}
