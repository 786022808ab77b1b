//! `roost.v1.TimelineService`.

use std::{pin::Pin, sync::Arc};

use futures::Stream;
use tonic::{Request, Response, Status};

use super::{
    Api,
    answer_size::{ANSWER_BYTES_MAX, Budget},
    home_stream,
    page::{self, List},
    posts::{Fit, parse_origin},
};
use crate::{
    domain::{PostId, UserId},
    event_log::EventLog,
    home_stream::HomeStream,
    home_timeline::{Filter, Page},
    proto::v1,
    store::{Floor, Store},
    writes::{FieldError, LINK_BYTES_MAX, check_user},
};

/// What a post takes in a message beside its text and its link, with all that it mentions.
const POST_OVERHEAD_BYTES_MAX: usize = 256;
/// Posts that a stream sends together, at the most.
const STREAMED_TOGETHER_MAX: usize = 100;

#[tonic::async_trait]
impl<L: EventLog, S: Store> v1::timeline_service_server::TimelineService for Api<L, S> {
    async fn list_home_timeline(
        &self,
        request: Request<v1::ListHomeTimelineRequest>,
    ) -> Result<Response<v1::ListHomeTimelineResponse>, Status> {
        let v1::ListHomeTimelineRequest {
            user_id,
            page_size,
            page_token,
            ids_only,
            origins,
            followed_replies_only,
            all_reposts,
        } = request.into_inner();
        check_user("user_id", UserId(user_id))?;
        let filter = parse_filter(&origins, followed_replies_only, all_reposts)?;
        let count_max = page::size(page_size, page::POSTS_DEFAULT, page::POSTS_MAX)?;
        let before = page::parse(&page_token, List::Home, user_id)?.map(PostId);
        let mut page = self.homes.read(UserId(user_id), &filter, before, count_max).await?;
        let (post_ids, posts) = self.show(&mut page, ids_only).await?;
        let next_page_token = page::next(List::Home, user_id, page.next.map(|next| next.0));
        let floor = Some(floor_to_proto(page.floor));
        Ok(Response::new(v1::ListHomeTimelineResponse { post_ids, posts, next_page_token, floor }))
    }

    type StreamHomeTimelineStream =
        Pin<Box<dyn Stream<Item = Result<v1::StreamHomeTimelineResponse, Status>> + Send>>;

    async fn stream_home_timeline(
        &self,
        request: Request<v1::StreamHomeTimelineRequest>,
    ) -> Result<Response<Self::StreamHomeTimelineStream>, Status> {
        let v1::StreamHomeTimelineRequest {
            user_id,
            resume_token,
            resume_after_id,
            ids_only,
            origins,
            followed_replies_only,
            all_reposts,
        } = request.into_inner();
        let user = UserId(user_id);
        check_user("user_id", user)?;
        let filter = parse_filter(&origins, followed_replies_only, all_reposts)?;
        let position =
            home_stream::position(&self.writes, user, &resume_token, PostId(resume_after_id))
                .await?;
        let slot = self.stream_slots.take()?;
        let (homes, watch) = (Arc::clone(&self.homes), Arc::clone(&self.watch));
        let together_max = STREAMED_TOGETHER_MAX.min(self.posts_max());
        let home = HomeStream::open(homes, watch, user, filter, position, together_max).await?;
        let responses = home_stream::responses(self.clone(), home, user, ids_only, slot);
        Ok(Response::new(Box::pin(responses)))
    }

    async fn move_read_marker(
        &self,
        request: Request<v1::MoveReadMarkerRequest>,
    ) -> Result<Response<v1::MoveReadMarkerResponse>, Status> {
        let v1::MoveReadMarkerRequest { user_id, post_id } = request.into_inner();
        let applied = self.writes.move_read_marker(UserId(user_id), PostId(post_id)).await?;
        Ok(Response::new(v1::MoveReadMarkerResponse { applied }))
    }

    async fn get_unread(
        &self,
        request: Request<v1::GetUnreadRequest>,
    ) -> Result<Response<v1::Unread>, Status> {
        let user = UserId(request.into_inner().user_id);
        Ok(Response::new(self.unread(user).await?))
    }

    async fn list_catch_up(
        &self,
        request: Request<v1::ListCatchUpRequest>,
    ) -> Result<Response<v1::ListCatchUpResponse>, Status> {
        Ok(Response::new(self.catch_up(request.into_inner()).await?))
    }

    async fn list_author_timeline(
        &self,
        request: Request<v1::ListAuthorTimelineRequest>,
    ) -> Result<Response<v1::ListAuthorTimelineResponse>, Status> {
        let v1::ListAuthorTimelineRequest { author_id, page_size, page_token, ids_only } =
            request.into_inner();
        let count_max = page::size(page_size, page::POSTS_DEFAULT, page::POSTS_MAX)?;
        let before = page::parse(&page_token, List::Author, author_id)?.map(PostId);
        self.known_account("author_id", UserId(author_id)).await?;
        // One more tells whether another page follows.
        let mut ids = self.store.author_page(UserId(author_id), before, count_max + 1).await?;
        let more = ids.len() > count_max;
        ids.truncate(count_max);
        let next = ids.last().copied().filter(|_| more);
        let mut page = Page { ids, next, floor: Floor::Beginning };
        let (post_ids, posts) = self.show(&mut page, ids_only).await?;
        let next_page_token = page::next(List::Author, author_id, page.next.map(|next| next.0));
        let floor = Some(floor_to_proto(page.floor));
        Ok(Response::new(v1::ListAuthorTimelineResponse {
            post_ids,
            posts,
            next_page_token,
            floor,
        }))
    }
}

impl<L: EventLog, S: Store> Api<L, S> {
    /// How many posts a message holds for sure, as large as the text limit lets them be now;
    /// they may be older than the limit.
    pub(super) fn posts_max(&self) -> usize {
        let post_bytes_max =
            POST_OVERHEAD_BYTES_MAX + LINK_BYTES_MAX + 4 * self.limits.text_chars_max;
        // Each may come with another one, which it repeats.
        (ANSWER_BYTES_MAX / (2 * post_bytes_max)).max(1)
    }

    /// The ids and, unless only they are wanted, the posts of a page. A post that
    /// was deleted since the page was read is in neither. A page with too many bytes
    /// of posts is cut short.
    async fn show(
        &self,
        page: &mut Page,
        ids_only: bool,
    ) -> Result<(Vec<u64>, Vec<v1::Post>), Status> {
        if ids_only {
            return Ok((page.ids.iter().map(|id| id.0).collect(), Vec::new()));
        }
        let mut budget = Budget::new(ANSWER_BYTES_MAX);
        let Fit { posts, taken } = self.posts_with_originals(&page.ids, &mut budget).await?;
        if taken < page.ids.len() {
            page.ids.truncate(taken);
            page.next = page.ids.last().copied();
        }
        Ok((posts.iter().map(|post| post.id).collect(), posts))
    }
}

/// What a request asks to see of a home timeline.
fn parse_filter(
    origins: &[i32],
    followed_replies_only: bool,
    all_reposts: bool,
) -> Result<Filter, FieldError> {
    let origins = origins.iter().map(|origin| parse_origin("origins", *origin));
    Ok(Filter { origins: origins.collect::<Result<_, _>>()?, followed_replies_only, all_reposts })
}

fn floor_to_proto(floor: Floor) -> v1::Floor {
    let (id, reason) = match floor {
        Floor::Beginning => (0, v1::FloorReason::Beginning),
        Floor::Cap(oldest) => (oldest.0, v1::FloorReason::Cap),
        Floor::Followees(oldest) => (oldest.0, v1::FloorReason::Followees),
    };
    v1::Floor { complete_down_to_id: id, reason: reason.into() }
}
