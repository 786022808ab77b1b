//! A page of a timeline, of either kind, and how large a page may be.

use tonic::{Response, Status, transport::Channel};

use crate::{
    domain::UserId,
    proto::v1::{
        Floor, ListAuthorTimelineRequest, ListAuthorTimelineResponse, ListHomeTimelineRequest,
        ListHomeTimelineResponse, Post, timeline_service_client::TimelineServiceClient,
    },
};

/// The largest page of posts or messages that the API gives.
pub(crate) const PAGE_SIZE_MAX: i32 = 800;

/// The size of a page to ask for, where so many entries are wanted.
pub(crate) fn page_size(wanted: u32) -> i32 {
    wanted.clamp(1, PAGE_SIZE_MAX as u32) as i32
}

/// Which of the timelines of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimelineKind {
    /// What the account reads.
    Home,
    /// What the account has posted itself.
    Author,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct PageRequest {
    pub(crate) kind: TimelineKind,
    pub(crate) user: UserId,
    pub(crate) page_size: i32,
    pub(crate) page_token: String,
    pub(crate) ids_only: bool,
    /// Of home timelines: also reposts of what is shown near by.
    pub(crate) all_reposts: bool,
}

/// What home and author timelines have in common.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) post_ids: Vec<u64>,
    pub(crate) posts: Vec<Post>,
    pub(crate) next_page_token: String,
    pub(crate) floor: Option<Floor>,
}

impl PageRequest {
    pub(crate) async fn send(
        self,
        timelines: &mut TimelineServiceClient<Channel>,
    ) -> Result<Response<Page>, Status> {
        let Self { kind, user, page_size, page_token, ids_only, all_reposts } = self;
        match kind {
            TimelineKind::Home => {
                let user_id = user.0;
                let request = ListHomeTimelineRequest {
                    user_id,
                    page_size,
                    page_token,
                    ids_only,
                    all_reposts,
                    ..ListHomeTimelineRequest::default()
                };
                Ok(timelines.list_home_timeline(request).await?.map(Page::from))
            }
            TimelineKind::Author => {
                let author_id = user.0;
                let request =
                    ListAuthorTimelineRequest { author_id, page_size, page_token, ids_only };
                Ok(timelines.list_author_timeline(request).await?.map(Page::from))
            }
        }
    }
}

impl From<ListHomeTimelineResponse> for Page {
    fn from(response: ListHomeTimelineResponse) -> Self {
        let ListHomeTimelineResponse { post_ids, posts, next_page_token, floor } = response;
        Self { post_ids, posts, next_page_token, floor }
    }
}

impl From<ListAuthorTimelineResponse> for Page {
    fn from(response: ListAuthorTimelineResponse) -> Self {
        let ListAuthorTimelineResponse { post_ids, posts, next_page_token, floor } = response;
        Self { post_ids, posts, next_page_token, floor }
    }
}
