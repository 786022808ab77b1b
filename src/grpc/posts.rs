//! `roost.v1.PostService`.

use std::{collections::BTreeSet, pin::Pin, sync::Arc};

use futures::Stream;
use prost::Message;
use prost_types::Timestamp;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Api,
    answer_size::{ANSWER_BYTES_MAX, Budget},
    at_place, not_found,
    page::{self, List},
    publish_stream,
};
use crate::{
    domain::{Origin, Post, PostId, UserId},
    event_log::EventLog,
    post_counts,
    proto::v1,
    store::{Hides, Store},
    thread,
    writes::{Draft, FieldError, check_post},
};

/// Posts of one batch, published or got.
const BATCH_POSTS_MAX: usize = 1_000;
/// Posts that are read together for an answer, at the least.
const READ_TOGETHER_MIN: usize = 20;

#[tonic::async_trait]
impl<L: EventLog, S: Store> v1::post_service_server::PostService for Api<L, S> {
    async fn publish_post(
        &self,
        request: Request<v1::PublishPostRequest>,
    ) -> Result<Response<v1::PublishPostResponse>, Status> {
        let draft = draft(request.into_inner())?;
        let post = self.publish_one(draft).await?;
        Ok(Response::new(v1::PublishPostResponse { post_id: post.0 }))
    }

    async fn batch_publish_posts(
        &self,
        request: Request<v1::BatchPublishPostsRequest>,
    ) -> Result<Response<v1::BatchPublishPostsResponse>, Status> {
        let requests = request.into_inner().requests;
        check_count("requests", requests.len())?;
        let mut drafts = Vec::with_capacity(requests.len());
        for (place, request) in requests.into_iter().enumerate() {
            drafts.push(draft(request).map_err(|error| at_place(place, error.into()))?);
        }
        self.writes.check(&drafts).await.map_err(|(place, error)| at_place(place, error))?;
        let mut post_ids = Vec::with_capacity(drafts.len());
        for result in self.writes.publish(drafts).await {
            post_ids.push(result?.0);
        }
        Ok(Response::new(v1::BatchPublishPostsResponse { post_ids }))
    }

    type StreamPublishPostsStream =
        Pin<Box<dyn Stream<Item = Result<v1::StreamPublishPostsResponse, Status>> + Send>>;

    async fn stream_publish_posts(
        &self,
        request: Request<Streaming<v1::PublishPostRequest>>,
    ) -> Result<Response<Self::StreamPublishPostsStream>, Status> {
        let answers = publish_stream::one_by_one(self.writes.clone(), request.into_inner());
        Ok(Response::new(Box::pin(answers)))
    }

    type StreamBatchPublishPostsStream =
        Pin<Box<dyn Stream<Item = Result<v1::StreamBatchPublishPostsResponse, Status>> + Send>>;

    async fn stream_batch_publish_posts(
        &self,
        request: Request<Streaming<v1::BatchPublishPostsRequest>>,
    ) -> Result<Response<Self::StreamBatchPublishPostsStream>, Status> {
        let answers = publish_stream::in_batches(self.writes.clone(), request.into_inner());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn delete_post(
        &self,
        request: Request<v1::DeletePostRequest>,
    ) -> Result<Response<v1::DeletePostResponse>, Status> {
        let applied = self.writes.delete(PostId(request.into_inner().post_id)).await?;
        Ok(Response::new(v1::DeletePostResponse { applied }))
    }

    async fn get_post(
        &self,
        request: Request<v1::GetPostRequest>,
    ) -> Result<Response<v1::Post>, Status> {
        let id = PostId(request.into_inner().post_id);
        check_post("post_id", id)?;
        let post = self.post(id).await?;
        Ok(Response::new(post_to_proto(&post)))
    }

    async fn batch_get_posts(
        &self,
        request: Request<v1::BatchGetPostsRequest>,
    ) -> Result<Response<v1::BatchGetPostsResponse>, Status> {
        let ids = request.into_inner().post_ids;
        check_count("post_ids", ids.len())?;
        let ids: Vec<PostId> = ids.into_iter().map(PostId).collect();
        let mut response = v1::BatchGetPostsResponse::default();
        let (mut budget, piece_len) = (Budget::new(ANSWER_BYTES_MAX), self.read_together());
        for (start, piece) in (0..).step_by(piece_len).zip(ids.chunks(piece_len)) {
            let found = self.writes.find(piece).await?;
            for (index, (id, post)) in (start..).zip(piece.iter().zip(found)) {
                let Some(post) = post else {
                    response.missing_ids.push(id.0);
                    continue;
                };
                let post = post_to_proto(&post);
                if !budget.take(&post) {
                    response.unprocessed_ids = ids[index..].iter().map(|id| id.0).collect();
                    return Ok(Response::new(response));
                }
                response.posts.push(post);
            }
        }
        Ok(Response::new(response))
    }

    async fn get_thread(
        &self,
        request: Request<v1::GetThreadRequest>,
    ) -> Result<Response<v1::Thread>, Status> {
        Ok(Response::new(self.thread(request.into_inner()).await?))
    }

    async fn batch_get_counts(
        &self,
        request: Request<v1::BatchGetCountsRequest>,
    ) -> Result<Response<v1::BatchGetCountsResponse>, Status> {
        let ids = request.into_inner().post_ids;
        check_count("post_ids", ids.len())?;
        let ids: Vec<PostId> = ids.into_iter().map(PostId).collect();
        let counts = post_counts::read(&*self.store, &ids).await?;
        let counts = ids.iter().zip(counts).map(|(id, counts)| v1::PostCounts {
            post_id: id.0,
            replies: counts.replies as u32,
            reposts: counts.reposts as u32,
            home_timelines: counts.home_timelines,
        });
        Ok(Response::new(v1::BatchGetCountsResponse { counts: counts.collect() }))
    }
}

impl<L: EventLog, S: Store> Api<L, S> {
    async fn thread(&self, request: v1::GetThreadRequest) -> Result<v1::Thread, Status> {
        let v1::GetThreadRequest { post_id, reader_id, page_size, page_token, ancestor_page_token } =
            request;
        let id = PostId(post_id);
        check_post("post_id", id)?;
        let count_max = page::size(page_size, page::POSTS_DEFAULT, page::POSTS_MAX)?;
        let count_max = count_max.min(self.posts_max());
        let after = page::parse(&page_token, List::Replies, post_id)?.map(PostId);
        let field = "ancestor_page_token";
        let from = page::parse_field(field, &ancestor_page_token, List::Ancestors, post_id)?;
        if after.is_some() && from.is_some() {
            return Err(FieldError::new(field, "is not to be set with page_token").into());
        }
        let store = &*self.store;
        let post = self.post(id).await?;
        let hides = thread::hides_of(store, (reader_id != 0).then_some(UserId(reader_id))).await?;
        let mut thread =
            v1::Thread { post: self.thread_post(&post, &hides).await?, ..v1::Thread::default() };
        let post_bytes = thread.post.as_ref().map_or(0, Message::encoded_len);
        let bytes_left = ANSWER_BYTES_MAX.saturating_sub(post_bytes);

        // The nearest of the ancestors, in half of what is left, and then the answers.
        let from = from.map(PostId).or(post.reply_to.map(|reference| reference.post));
        let ancestors = thread::ancestors(store, from, &hides, bytes_left / 2).await?;
        let mut budget = Budget::new(bytes_left / 2);
        let fit = self.with_originals(ancestors.posts.iter().map(Some), &mut budget).await?;
        let cut = ancestors.posts.get(fit.taken).map(|ancestor| ancestor.id);
        let next = cut.or(ancestors.next).map(|next| next.0);
        thread.next_ancestor_page_token = page::next(List::Ancestors, post_id, next);
        thread.ancestors = fit.posts;
        thread.ancestors.reverse();
        if !ancestor_page_token.is_empty() {
            return Ok(thread);
        }

        let (replies, next) = thread::replies(store, id, &hides, after, count_max).await?;
        let mut budget = Budget::new(bytes_left / 2 + budget.bytes_left());
        let fit = self.with_originals(replies.iter().map(Some), &mut budget).await?;
        let is_cut = fit.taken < replies.len();
        let next =
            if is_cut { fit.posts.last().map(|last| last.id) } else { next.map(|next| next.0) };
        thread.next_page_token = page::next(List::Replies, post_id, next);
        thread.replies = fit.posts;
        Ok(thread)
    }

    /// The post that a thread is read of, which is shown whatever its reader hides, but for what
    /// it repeats.
    async fn thread_post(
        &self,
        post: &Arc<Post>,
        hides: &Hides,
    ) -> Result<Option<v1::Post>, Status> {
        if hides.hide_original(post) {
            return Ok(Some(post_to_proto(post)));
        }
        let mut budget = Budget::new(ANSWER_BYTES_MAX);
        Ok(self.with_originals([Some(post)], &mut budget).await?.posts.pop())
    }

    /// A post that must be there.
    async fn post(&self, id: PostId) -> Result<Arc<Post>, Status> {
        let post = self.writes.find(&[id]).await?.pop().flatten();
        post.ok_or_else(|| not_found("post", id.0, format!("there is no post {id}")))
    }

    async fn publish_one(&self, draft: Draft) -> Result<PostId, Status> {
        let result = self.writes.publish(vec![draft]).await.pop();
        Ok(result.ok_or_else(|| Status::internal("a publish had no result"))??)
    }

    /// Posts as they are shown in timelines, with what they repeat, as many as fit. Those that
    /// are not there are left out.
    pub(super) async fn with_originals<'a>(
        &self,
        posts: impl IntoIterator<Item = Option<&'a Arc<Post>>>,
        budget: &mut Budget,
    ) -> Result<Fit, Status> {
        let posts: Vec<Option<&Arc<Post>>> = posts.into_iter().collect();
        let mut fit = Fit::default();
        for piece in posts.chunks(self.read_together()) {
            let repeated = piece.iter().flatten().filter_map(|post| post.repost_of);
            let ids: BTreeSet<PostId> = repeated.map(|original| original.post).collect();
            let ids: Vec<PostId> = ids.into_iter().collect();
            let originals =
                if ids.is_empty() { Vec::new() } else { self.store.posts(&ids).await? };
            for post in piece {
                if let Some(post) = post {
                    let index = post.repost_of.and_then(|of| ids.binary_search(&of.post).ok());
                    let original = index.and_then(|index| originals[index].as_ref());
                    let original = original.map(|original| Box::new(post_to_proto(original)));
                    let post = v1::Post { original, ..post_to_proto(post) };
                    if !budget.take(&post) {
                        return Ok(fit);
                    }
                    fit.posts.push(post);
                }
                fit.taken += 1;
            }
        }
        Ok(fit)
    }

    /// The same of ids.
    pub(super) async fn posts_with_originals(
        &self,
        ids: &[PostId],
        budget: &mut Budget,
    ) -> Result<Fit, Status> {
        let mut fit = Fit::default();
        for piece in ids.chunks(self.read_together()) {
            let found = self.store.posts(piece).await?;
            let fitting = self.with_originals(found.iter().map(Option::as_ref), budget).await?;
            fit.taken += fitting.taken;
            fit.posts.extend(fitting.posts);
            if fitting.taken < piece.len() {
                break;
            }
        }
        Ok(fit)
    }

    /// How many posts are read together for an answer, however many it asks for: as many as fit
    /// into it for sure, but enough of them where they may be large and are not.
    fn read_together(&self) -> usize {
        self.posts_max().max(READ_TOGETHER_MIN)
    }
}

/// What of a list of posts fits into an answer.
#[derive(Debug, Default)]
pub(super) struct Fit {
    /// In their order.
    pub(super) posts: Vec<v1::Post>,
    /// How many entries of the list these are, with those that are not there.
    pub(super) taken: usize,
}

/// Checks that a batch has as many entries as one may have.
pub(super) fn check_count(field: &'static str, count: usize) -> Result<(), FieldError> {
    if (1..=BATCH_POSTS_MAX).contains(&count) {
        return Ok(());
    }
    Err(FieldError::new(field, format!("has {count} entries; send 1 to {BATCH_POSTS_MAX}")))
}

/// The post that a request asks for.
pub(super) fn draft(request: v1::PublishPostRequest) -> Result<Draft, FieldError> {
    let origin = match v1::Origin::try_from(request.origin) {
        Ok(v1::Origin::Unspecified) => Origin::Shared,
        _ => parse_origin("origin", request.origin)?,
    };
    let reference = |id: u64| (id != 0).then_some(PostId(id));
    Ok(Draft {
        author: UserId(request.author_id),
        text: request.text,
        origin,
        link: (!request.link.is_empty()).then_some(request.link),
        reply_to: reference(request.reply_to_id),
        repost_of: reference(request.repost_of_id),
        mentions: request.mentioned_ids.into_iter().map(UserId).collect(),
        request_id: (!request.request_id.is_empty()).then_some(request.request_id),
        is_retry: request.is_retry,
    })
}

/// The origin that `field` of a request names.
pub(super) fn parse_origin(field: &'static str, origin: i32) -> Result<Origin, FieldError> {
    match v1::Origin::try_from(origin) {
        Ok(v1::Origin::Rss) => Ok(Origin::Rss),
        Ok(v1::Origin::Shared) => Ok(Origin::Shared),
        Ok(v1::Origin::Exclusive) => Ok(Origin::Exclusive),
        Ok(v1::Origin::Unspecified) | Err(_) => {
            Err(FieldError::new(field, format!("{origin} is not a known origin")))
        }
    }
}

/// A post as clients see it.
pub(super) fn post_to_proto(post: &Post) -> v1::Post {
    let origin = match post.origin {
        Origin::Rss => v1::Origin::Rss,
        Origin::Shared => v1::Origin::Shared,
        Origin::Exclusive => v1::Origin::Exclusive,
    };
    v1::Post {
        id: post.id.0,
        author_id: post.author.0,
        text: post.text.clone(),
        origin: origin.into(),
        link: post.link.clone().unwrap_or_default(),
        reply_to_id: post.reply_to.map_or(0, |reference| reference.post.0),
        repost_of_id: post.repost_of.map_or(0, |reference| reference.post.0),
        create_time: Some(Timestamp::from(post.id.created_at())),
        original: None,
        mentioned_ids: post.mentions.iter().map(|user| user.0).collect(),
    }
}
