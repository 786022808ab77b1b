//! A Roost to test, and what the tests say to it in one word.

use std::{
    fmt::Debug,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use roost::{
    app::{self, App, AppError, Backend, Rebuilt, Settings},
    client::Target,
    domain::PostId,
    event_log::{
        EventLog,
        kafka::{self, KafkaLog},
    },
    proto::v1::{
        DeletePostRequest, FollowRequest, GetStatusRequest, GetStatusResponse,
        ImportFollowsRequest, ListAuthorTimelineRequest, ListAuthorTimelineResponse,
        ListHomeTimelineRequest, ListHomeTimelineResponse, PublishPostRequest, UnfollowRequest,
        graph_service_client::GraphServiceClient, message_service_client::MessageServiceClient,
        notification_service_client::NotificationServiceClient,
        post_service_client::PostServiceClient, status_service_client::StatusServiceClient,
        timeline_service_client::TimelineServiceClient,
    },
    store::redis::config::RedisConfig,
    writes,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Mutex, MutexGuard},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status, transport::Channel};
use tonic_types::StatusExt;

use crate::external;

/// The longest wait for something that must happen.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct Roost {
    app: App,
    settings: Settings,
    channel: Channel,
    place: Place,
}

/// Where a Roost keeps everything, which goes when this is dropped.
enum Place {
    Directory(#[allow(dead_code, reason = "held until it is dropped")] TempDir),
    /// Another one holds it.
    OfAnother,
    /// The Redis is this test's until it is dropped.
    Shared(#[allow(dead_code, reason = "held until it is dropped")] MutexGuard<'static, ()>),
}

/// The Redis that `ROOST_TEST_BACKEND` says, to look with; `None` without one.
fn redis_to_look() -> Option<RedisConfig> {
    let variable = match std::env::var("ROOST_TEST_BACKEND").as_deref() {
        Err(_) | Ok("embedded") => return None,
        Ok("redis") => "ROOST_TEST_REDIS",
        Ok("cluster") => "ROOST_TEST_REDIS_CLUSTER",
        Ok(other) => panic!("ROOST_TEST_BACKEND is {other}"),
    };
    let urls = std::env::var(variable).expect("the address of a Redis");
    Some(RedisConfig::from_urls(&urls, None).expect("an address"))
}

/// An empty place: what `ROOST_TEST_BACKEND` says, or a directory.
async fn empty_place() -> (Place, Backend) {
    static TURN: Mutex<()> = Mutex::const_new(());
    let Some(redis) = redis_to_look() else {
        let dir = TempDir::new().expect("a directory");
        let backend = Backend::Embedded { data_dir: dir.path().join("data"), partitions: None };
        return (Place::Directory(dir), backend);
    };
    let turn = TURN.lock().await;
    external::empty_redis(&redis).await;
    // It may do what README.md lists, and nothing else.
    let redis = Arc::new(external::as_restricted_user(&redis).await);
    let kafka = external::kafka_settings(4).expect("the address of a Kafka");
    (Place::Shared(turn), Backend::Shared { kafka: Box::new(kafka), redis })
}

impl Roost {
    pub async fn start() -> Self {
        Self::start_with_cap(800).await
    }

    pub async fn start_with_cap(home_timeline_cap: usize) -> Self {
        Self::start_with(|settings| settings.home_timeline_cap = home_timeline_cap).await
    }

    /// One that pulls authors with more followers than this.
    pub async fn start_pulling_above(followers: u64) -> Self {
        Self::start_with(|settings| settings.pull_rule.above = Some(followers)).await
    }

    /// One in which timelines that nobody reads for so long sleep.
    pub async fn start_sleeping_after(idle_max: Duration) -> Self {
        Self::start_with(|settings| settings.idle_max = idle_max).await
    }

    /// One whose settings are not the defaults.
    pub async fn start_with(set: impl FnOnce(&mut Settings)) -> Self {
        let (place, backend) = empty_place().await;
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut settings = Settings { backend, ..Settings::new(PathBuf::new(), listen) };
        set(&mut settings);
        Self::open(settings, place).await
    }

    async fn open(settings: Settings, place: Place) -> Self {
        let app = App::start(settings.clone(), &CancellationToken::new()).await.expect("started");
        let target = Target::new(format!("http://{}", app.address()));
        let channel = target.connect().await.expect("connected");
        Self { app, settings, channel, place }
    }

    /// One that answers over HTTP too.
    pub async fn start_with_metrics() -> Self {
        Self::start_watched(None).await
    }

    /// The same, which audits timelines as fast as that makes sense.
    pub async fn start_auditing() -> Self {
        Self::start_watched(Some(Duration::from_millis(20))).await
    }

    async fn start_watched(audit_every: Option<Duration>) -> Self {
        let (place, backend) = empty_place().await;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = Settings {
            metrics_listen: Some(address),
            backend,
            audit_every,
            settled_after: Duration::from_secs(2),
            ..Settings::new(PathBuf::new(), address)
        };
        Self::open(settings, place).await
    }

    /// What it answers over HTTP to a GET of `path`.
    pub async fn get(&self, path: &str) -> (u16, String) {
        get(self.app.metrics_address().expect("an address"), path).await
    }

    /// Stops it and starts another one in the same place.
    pub async fn restart(self) -> Self {
        self.restart_with(|_| {}).await
    }

    /// The same, with other settings.
    pub async fn restart_with(self, set: impl FnOnce(&mut Settings)) -> Self {
        let Self { app, mut settings, channel, place } = self;
        drop(channel);
        app.stop().await.expect("stopped");
        set(&mut settings);
        Self::open(settings, place).await
    }

    /// Starts another one on the same log and store, which must be shared.
    pub async fn beside(&self, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.settings.clone();
        set(&mut settings);
        Self::open(settings, Place::OfAnother).await
    }

    /// Stops it and makes its store one that has seen more than is in the log. Returns
    /// why no other one starts there.
    pub async fn restart_behind_its_store(self) -> AppError {
        let Self { app, settings, channel, place } = self;
        drop(channel);
        app.stop().await.expect("stopped");
        match &settings.backend {
            Backend::Embedded { data_dir, .. } => {
                std::fs::remove_dir_all(data_dir.join("log")).expect("removed");
            }
            Backend::Shared { .. } => {
                let mut command = redis::cmd("HSET");
                command.arg("roost:partition:0").arg("attempted").arg(1_000_000);
                let _: i64 = of_redis(&command).await;
            }
        }
        let error = App::start(settings, &CancellationToken::new()).await.err().expect("refused");
        drop(place);
        error
    }

    fn kafka(&self) -> &kafka::Settings {
        let Backend::Shared { kafka, .. } = &self.settings.backend else {
            panic!("it has no Kafka");
        };
        kafka
    }

    /// Drops the topic of its log.
    pub async fn drop_log(&self) {
        KafkaLog::remove(self.kafka().clone()).await.expect("dropped");
    }

    /// Makes the topic of its log.
    pub async fn make_log(&self) {
        KafkaLog::open(self.kafka().clone()).await.expect("made").close().await;
    }

    /// Starts another one on the same log and store, which is refused.
    pub async fn start_beside(&self) -> AppError {
        let started = App::start(self.settings.clone(), &CancellationToken::new()).await;
        started.err().expect("refused")
    }

    /// Stops it, rebuilds its store, and starts another one in the same place.
    pub async fn rebuild(self) -> (Rebuilt, Self) {
        let Self { app, settings, channel, place } = self;
        drop(channel);
        app.stop().await.expect("stopped");
        let rebuilt = rebuild(settings.clone()).await.expect("rebuilt");
        (rebuilt, Self::open(settings, place).await)
    }

    /// Rebuilds its store while it serves.
    pub async fn rebuild_beside(&self) -> Result<Rebuilt, AppError> {
        rebuild(self.settings.clone()).await
    }

    /// Whether its store is its own, and not shared by processes.
    pub fn is_alone(&self) -> bool {
        matches!(self.settings.backend, Backend::Embedded { .. })
    }

    /// The value of a key of its Redis.
    pub async fn key(&self, key: &str) -> Option<String> {
        self.redis(redis::cmd("GET").arg(key)).await
    }

    pub async fn set_key(&self, key: &str, value: &str) {
        let _: String = self.redis(redis::cmd("SET").arg(key).arg(value)).await;
    }

    pub async fn set_field(&self, key: &str, field: &str, value: &str) {
        let _: i64 = self.redis(redis::cmd("HSET").arg(key).arg(field).arg(value)).await;
    }

    /// Takes a post out of a list, as nobody should.
    pub async fn take_out_of_list(&self, key: &str, post: u64) {
        let id = post.to_be_bytes();
        let taken: i64 = self.redis(redis::cmd("LREM").arg(key).arg(0).arg(&id)).await;
        assert_eq!(taken, 1);
    }

    pub async fn delete_key(&self, key: &str) {
        assert_eq!(self.redis::<i64>(redis::cmd("DEL").arg(key)).await, 1);
    }

    pub async fn empty_redis(&self) {
        external::empty_redis(&redis_to_look().expect("it has a Redis")).await;
    }

    async fn redis<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> T {
        of_redis(command).await
    }

    pub async fn stop(self) {
        let Self { app, channel, .. } = self;
        drop(channel);
        app.stop().await.expect("stopped");
    }

    /// The address of its API.
    pub fn url(&self) -> String {
        format!("http://{}", self.app.address())
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub fn posts(&self) -> PostServiceClient<Channel> {
        PostServiceClient::new(self.channel())
    }

    pub fn graph(&self) -> GraphServiceClient<Channel> {
        GraphServiceClient::new(self.channel())
    }

    pub fn timelines(&self) -> TimelineServiceClient<Channel> {
        TimelineServiceClient::new(self.channel())
    }

    pub fn messages(&self) -> MessageServiceClient<Channel> {
        MessageServiceClient::new(self.channel())
    }

    pub fn notifications(&self) -> NotificationServiceClient<Channel> {
        NotificationServiceClient::new(self.channel())
    }

    pub async fn try_publish(&self, request: PublishPostRequest) -> Result<u64, Status> {
        Ok(self.posts().publish_post(request).await?.into_inner().post_id)
    }

    pub async fn publish(&self, request: PublishPostRequest) -> u64 {
        self.try_publish(request).await.expect("published")
    }

    /// Publishes one post after the other and returns their ids, newest first.
    pub async fn publish_many(&self, author_id: u64, count: usize) -> Vec<u64> {
        let mut ids = Vec::with_capacity(count);
        for number in 0..count {
            ids.insert(0, self.publish(post(author_id, &format!("number {number}"))).await);
        }
        ids
    }

    /// Deletes a post, which holds when this returns.
    pub async fn delete(&self, post_id: u64) {
        let deleted = self.posts().delete_post(DeletePostRequest { post_id }).await;
        assert!(deleted.expect("deleted").into_inner().applied);
    }

    /// Makes an account follow another, which holds when this returns.
    pub async fn follow(&self, follower_id: u64, followee_id: u64) {
        let followed = self.graph().follow(FollowRequest { follower_id, followee_id }).await;
        assert!(followed.expect("followed").into_inner().applied);
    }

    /// Ends a follow, which holds when this returns.
    pub async fn unfollow(&self, follower_id: u64, followee_id: u64) {
        let ended = self.graph().unfollow(UnfollowRequest { follower_id, followee_id }).await;
        assert!(ended.expect("unfollowed").into_inner().applied);
    }

    pub async fn import(&self, messages: Vec<ImportFollowsRequest>) -> Result<u64, Status> {
        let imported = self.graph().import_follows(tokio_stream::iter(messages)).await?;
        Ok(imported.into_inner().edge_count)
    }

    /// The newest page of a home timeline, of the greatest size.
    pub async fn home(&self, user_id: u64) -> ListHomeTimelineResponse {
        let request = ListHomeTimelineRequest { page_size: 800, ..home_of(user_id) };
        self.timelines().list_home_timeline(request).await.expect("a page").into_inner()
    }

    /// All pages of a home timeline, from the first one on.
    pub async fn home_pages(
        &self,
        mut request: ListHomeTimelineRequest,
    ) -> Vec<ListHomeTimelineResponse> {
        let mut pages = Vec::new();
        loop {
            let page = self.timelines().list_home_timeline(request.clone()).await;
            let page = page.expect("a page").into_inner();
            request.page_token.clone_from(&page.next_page_token);
            pages.push(page);
            if request.page_token.is_empty() {
                return pages;
            }
        }
    }

    /// The newest page of an author timeline, of the greatest size.
    pub async fn author(&self, author_id: u64) -> ListAuthorTimelineResponse {
        let request = ListAuthorTimelineRequest { page_size: 800, ..author_of(author_id) };
        self.timelines().list_author_timeline(request).await.expect("a page").into_inner()
    }

    /// Waits until everything acknowledged has reached every timeline.
    pub async fn delivered(&self) {
        let begun = Instant::now();
        loop {
            let partitions = self.status().await.partitions;
            if partitions.iter().all(|it| it.delivered_offset >= it.end_offset) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "not delivered: {partitions:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until all that is in the log now is delivered, whatever comes meanwhile.
    pub async fn delivered_so_far(&self) {
        let ends = self.status().await.partitions;
        let begun = Instant::now();
        loop {
            let partitions = self.status().await.partitions;
            let mut both = partitions.iter().zip(&ends);
            if both.all(|(now, then)| now.delivered_offset >= then.end_offset) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "not delivered: {partitions:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// How many events the log holds: as many after a call as before it, if the
    /// call has done nothing.
    pub async fn event_count(&self) -> u64 {
        self.status().await.partitions.iter().map(|partition| partition.end_offset).sum()
    }

    pub async fn status(&self) -> GetStatusResponse {
        let mut status = StatusServiceClient::new(self.channel());
        status.get_status(GetStatusRequest {}).await.expect("a status").into_inner()
    }
}

async fn of_redis<T: redis::FromRedisValue>(command: &redis::Cmd) -> T {
    let config = redis_to_look().expect("there is a Redis");
    let infos = config.connection_infos().to_vec();
    if config.is_cluster() {
        let client = redis::cluster::ClusterClient::new(infos).expect("an address");
        let mut connection = client.get_async_connection().await.expect("connected");
        return command.query_async(&mut connection).await.expect("an answer");
    }
    let client = redis::Client::open(infos[0].clone()).expect("an address");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connected");
    command.query_async(&mut connection).await.expect("an answer")
}

async fn rebuild(settings: Settings) -> Result<Rebuilt, AppError> {
    app::rebuild(settings, &mut |_| {}, &CancellationToken::new()).await
}

/// What is answered over HTTP at `address` to a GET of `path`: the status, the body.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: roost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, body.to_owned())
}

pub fn post(author_id: u64, text: &str) -> PublishPostRequest {
    PublishPostRequest { author_id, text: text.to_owned(), ..PublishPostRequest::default() }
}

/// A post under a request id.
pub fn request(author_id: u64, text: &str, request_id: &str) -> PublishPostRequest {
    PublishPostRequest { request_id: request_id.to_owned(), ..post(author_id, text) }
}

pub fn home_of(user_id: u64) -> ListHomeTimelineRequest {
    ListHomeTimelineRequest { user_id, ..ListHomeTimelineRequest::default() }
}

pub fn author_of(author_id: u64) -> ListAuthorTimelineRequest {
    ListAuthorTimelineRequest { author_id, ..ListAuthorTimelineRequest::default() }
}

/// The call was refused for this field, which its message names too.
pub fn assert_bad_field<T: Debug>(result: Result<T, Status>, field: &str) {
    let status = result.expect_err(field);
    assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
    let details = status.get_details_bad_request().expect("a BadRequest");
    let fields: Vec<&str> = details.field_violations.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(fields, [field], "{status:?}");
    assert!(status.message().contains(field), "{status:?}");
}

/// An id that no post has yet, nor will have for half a minute.
pub fn id_of_the_future() -> u64 {
    let unix_ms = writes::system_clock().unix_ms() + 30_000;
    PostId::first_of(unix_ms).0
}

/// The call was refused since this `id` names nothing of the `kind`.
pub fn assert_not_found<T: Debug>(result: Result<Response<T>, Status>, kind: &str, id: u64) {
    let status = result.expect_err("not found");
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    let details = status.get_details_resource_info().expect("a ResourceInfo");
    assert_eq!((details.resource_type.as_str(), details.resource_name), (kind, id.to_string()));
}
