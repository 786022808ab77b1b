//! `roost.v1.GraphService`.

use std::ops::Bound;

use futures::{StreamExt, stream::FuturesUnordered};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

use super::{
    Api, not_found,
    page::{self, List},
    with_taken,
};
use crate::{
    domain::UserId,
    event_log::EventLog,
    proto::v1,
    store::{FollowSide, HideReason, Store},
    writes::{FieldError, check_follow, check_user},
};

const PAGE_SIZE_DEFAULT: usize = 100;
const PAGE_SIZE_MAX: usize = 10_000;
/// Edges of one message of an import.
const IMPORT_EDGES_MAX: usize = 100_000;
/// Messages of an import under way at once; with more, the stream is not read.
const IMPORTS_IN_FLIGHT_MAX: usize = 4;

#[tonic::async_trait]
impl<L: EventLog, S: Store> v1::graph_service_server::GraphService for Api<L, S> {
    async fn follow(
        &self,
        request: Request<v1::FollowRequest>,
    ) -> Result<Response<v1::FollowResponse>, Status> {
        let v1::FollowRequest { follower_id, followee_id } = request.into_inner();
        let applied = self.writes.follow(UserId(follower_id), UserId(followee_id)).await?;
        Ok(Response::new(v1::FollowResponse { applied }))
    }

    async fn unfollow(
        &self,
        request: Request<v1::UnfollowRequest>,
    ) -> Result<Response<v1::UnfollowResponse>, Status> {
        let v1::UnfollowRequest { follower_id, followee_id } = request.into_inner();
        let applied = self.writes.unfollow(UserId(follower_id), UserId(followee_id)).await?;
        Ok(Response::new(v1::UnfollowResponse { applied }))
    }

    async fn set_delivery(
        &self,
        request: Request<v1::SetDeliveryRequest>,
    ) -> Result<Response<v1::SetDeliveryResponse>, Status> {
        let request = request.into_inner();
        let pulled = match request.delivery() {
            v1::Delivery::Push => false,
            v1::Delivery::Pull => true,
            v1::Delivery::Unspecified => {
                let reason = "is required: DELIVERY_PUSH or DELIVERY_PULL";
                return Err(FieldError::new("delivery", reason).into());
            }
        };
        let applied = self.writes.set_delivery(UserId(request.author_id), pulled).await?;
        Ok(Response::new(v1::SetDeliveryResponse { applied }))
    }

    async fn list_pulled_authors(
        &self,
        _: Request<v1::ListPulledAuthorsRequest>,
    ) -> Result<Response<v1::ListPulledAuthorsResponse>, Status> {
        let mut author_ids = self.store.pulled_users();
        author_ids.sort_unstable();
        let author_ids = author_ids.into_iter().map(|author| author.0).collect();
        Ok(Response::new(v1::ListPulledAuthorsResponse { author_ids }))
    }

    async fn mute(
        &self,
        request: Request<v1::MuteRequest>,
    ) -> Result<Response<v1::MuteResponse>, Status> {
        let v1::MuteRequest { muter_id, muted_id } = request.into_inner();
        let applied = self.writes.mute(UserId(muter_id), UserId(muted_id), true).await?;
        Ok(Response::new(v1::MuteResponse { applied }))
    }

    async fn unmute(
        &self,
        request: Request<v1::UnmuteRequest>,
    ) -> Result<Response<v1::UnmuteResponse>, Status> {
        let v1::UnmuteRequest { muter_id, muted_id } = request.into_inner();
        let applied = self.writes.mute(UserId(muter_id), UserId(muted_id), false).await?;
        Ok(Response::new(v1::UnmuteResponse { applied }))
    }

    async fn block(
        &self,
        request: Request<v1::BlockRequest>,
    ) -> Result<Response<v1::BlockResponse>, Status> {
        let v1::BlockRequest { blocker_id, blocked_id } = request.into_inner();
        let applied = self.writes.block(UserId(blocker_id), UserId(blocked_id), true).await?;
        Ok(Response::new(v1::BlockResponse { applied }))
    }

    async fn unblock(
        &self,
        request: Request<v1::UnblockRequest>,
    ) -> Result<Response<v1::UnblockResponse>, Status> {
        let v1::UnblockRequest { blocker_id, blocked_id } = request.into_inner();
        let applied = self.writes.block(UserId(blocker_id), UserId(blocked_id), false).await?;
        Ok(Response::new(v1::UnblockResponse { applied }))
    }

    async fn list_muted(
        &self,
        request: Request<v1::ListMutedRequest>,
    ) -> Result<Response<v1::ListMutedResponse>, Status> {
        let v1::ListMutedRequest { user_id, page_size, page_token } = request.into_inner();
        let (list, reason) = (List::Muted, HideReason::Muted);
        let (user_ids, next_page_token) =
            self.list_hidden(list, user_id, reason, page_size, &page_token).await?;
        Ok(Response::new(v1::ListMutedResponse { user_ids, next_page_token }))
    }

    async fn list_blocked(
        &self,
        request: Request<v1::ListBlockedRequest>,
    ) -> Result<Response<v1::ListBlockedResponse>, Status> {
        let v1::ListBlockedRequest { user_id, page_size, page_token } = request.into_inner();
        let (list, reason) = (List::Blocked, HideReason::Blocked);
        let (user_ids, next_page_token) =
            self.list_hidden(list, user_id, reason, page_size, &page_token).await?;
        Ok(Response::new(v1::ListBlockedResponse { user_ids, next_page_token }))
    }

    async fn import_follows(
        &self,
        request: Request<Streaming<v1::ImportFollowsRequest>>,
    ) -> Result<Response<v1::ImportFollowsResponse>, Status> {
        let mut messages = request.into_inner();
        let mut imports = FuturesUnordered::new();
        let mut edge_count = 0;
        // A message is begun only once it is checked, and after a bad one none is.
        let mut refused = None;
        let mut number = 0;
        loop {
            tokio::select! {
                Some(imported) = imports.next() => edge_count += imported?,
                message = messages.message(), if imports.len() < IMPORTS_IN_FLIGHT_MAX => {
                    let Some(message) = message.transpose() else { break };
                    match message.and_then(|message| follower_lists(number, message)) {
                        Ok(lists) => imports.push(self.writes.import(lists)),
                        Err(error) => {
                            refused = Some(error);
                            break;
                        }
                    }
                    number += 1;
                }
            }
        }
        while let Some(imported) = imports.next().await {
            edge_count += imported?;
        }
        match refused {
            Some(status) => {
                let taken = format!("the {edge_count} edges of the messages before are imported");
                Err(with_taken(&status, &taken))
            }
            None => Ok(Response::new(v1::ImportFollowsResponse { edge_count })),
        }
    }

    async fn list_followers(
        &self,
        request: Request<v1::ListFollowersRequest>,
    ) -> Result<Response<v1::ListFollowersResponse>, Status> {
        let v1::ListFollowersRequest { user_id, page_size, page_token } = request.into_inner();
        let (user_ids, next_page_token) =
            self.list_follows(user_id, FollowSide::Followers, page_size, &page_token).await?;
        Ok(Response::new(v1::ListFollowersResponse { user_ids, next_page_token }))
    }

    async fn list_following(
        &self,
        request: Request<v1::ListFollowingRequest>,
    ) -> Result<Response<v1::ListFollowingResponse>, Status> {
        let v1::ListFollowingRequest { user_id, page_size, page_token } = request.into_inner();
        let (user_ids, next_page_token) =
            self.list_follows(user_id, FollowSide::Following, page_size, &page_token).await?;
        Ok(Response::new(v1::ListFollowingResponse { user_ids, next_page_token }))
    }

    async fn get_account(
        &self,
        request: Request<v1::GetAccountRequest>,
    ) -> Result<Response<v1::Account>, Status> {
        let user = UserId(request.into_inner().user_id);
        let account = self.known_account("user_id", user).await?;
        let counts = self.store.count_follows(account).await?;
        Ok(Response::new(v1::Account {
            user_id: user.0,
            follower_count: counts.followers,
            following_count: counts.following,
        }))
    }
}

impl<L: EventLog, S: Store> Api<L, S> {
    /// The handle of an account that must be known.
    pub(super) async fn known_account(
        &self,
        field: &'static str,
        user: UserId,
    ) -> Result<S::Account, Status> {
        check_user(field, user)?;
        if self.store.exists(user).await?
            && let Some(account) = self.store.account(user).await?
        {
            return Ok(account);
        }
        let message = format!("account {user} is unknown: no post and no follow has named it");
        Err(not_found("account", user.0, message))
    }

    async fn list_follows(
        &self,
        user_id: u64,
        side: FollowSide,
        page_size: i32,
        page_token: &str,
    ) -> Result<(Vec<u64>, String), Status> {
        let list = match side {
            FollowSide::Followers => List::Followers,
            FollowSide::Following => List::Following,
        };
        let count_max = page::size(page_size, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)?;
        let after = page::parse(page_token, list, user_id)?.map(UserId);
        let account = self.known_account("user_id", UserId(user_id)).await?;
        // One more tells whether another page follows.
        let users = self.store.list_follows(account, side, after, count_max + 1).await?;
        Ok(user_page(list, user_id, users, count_max))
    }

    /// `list` is that of the accounts that are hidden for `reason`.
    async fn list_hidden(
        &self,
        list: List,
        user_id: u64,
        reason: HideReason,
        page_size: i32,
        page_token: &str,
    ) -> Result<(Vec<u64>, String), Status> {
        let count_max = page::size(page_size, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)?;
        let after = Bound::Excluded(UserId(page::parse(page_token, list, user_id)?.unwrap_or(0)));
        let account = self.known_account("user_id", UserId(user_id)).await?;
        let hides = self.store.hides(account).await?;
        let later = hides.for_reason(reason).range((after, Bound::Unbounded));
        Ok(user_page(list, user_id, later.copied().take(count_max + 1).collect(), count_max))
    }
}

/// The ids of a page and the token of the next, out of one account more than a page has, if
/// there is one more.
fn user_page(
    list: List,
    owner: u64,
    mut users: Vec<UserId>,
    count_max: usize,
) -> (Vec<u64>, String) {
    let more = users.len() > count_max;
    users.truncate(count_max);
    let last = users.last().filter(|_| more);
    let next_page_token = page::next(list, owner, last.map(|last| last.0));
    (users.into_iter().map(|user| user.0).collect(), next_page_token)
}

/// The lists of one message of an import, checked.
fn follower_lists(
    number: u64,
    message: v1::ImportFollowsRequest,
) -> Result<Vec<(UserId, Vec<UserId>)>, Status> {
    let edge_count: usize = message.lists.iter().map(|list| list.follower_ids.len()).sum();
    if edge_count > IMPORT_EDGES_MAX {
        let reason = format!(
            "message {number} of the stream has {edge_count} edges; send at most {IMPORT_EDGES_MAX}"
        );
        return Err(FieldError { field: "lists", reason }.into());
    }
    let mut lists = Vec::with_capacity(message.lists.len());
    for (place, list) in message.lists.into_iter().enumerate() {
        let followee = UserId(list.followee_id);
        let followers: Vec<UserId> = list.follower_ids.into_iter().map(UserId).collect();
        check_user("followee_id", followee)
            .map_err(|error| bad_edge(number, &format!("lists[{place}].followee_id"), &error))?;
        for (edge, follower) in followers.iter().enumerate() {
            check_follow(*follower, followee).map_err(|error| {
                bad_edge(number, &format!("lists[{place}].follower_ids[{edge}]"), &error)
            })?;
        }
        lists.push((followee, followers));
    }
    Ok(lists)
}

/// Names the message of the stream, counted from 0, and the field in it.
fn bad_edge(number: u64, field: &str, error: &FieldError) -> Status {
    let reason = format!("message {number} of the stream, {}", error.reason);
    let details = ErrorDetails::with_bad_request_violation(field, &reason);
    Status::with_error_details(Code::InvalidArgument, format!("{field}: {reason}"), details)
}
