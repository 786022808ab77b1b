//! A Roost that is attacked, and another client of it.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use roost::{
    client::Target,
    proto::v1::{
        BatchPublishPostsRequest, FollowRequest, ListAuthorTimelineRequest, PublishPostRequest,
        graph_service_client::GraphServiceClient, post_service_client::PostServiceClient,
        timeline_service_client::TimelineServiceClient,
    },
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::transport::Channel;

use crate::process::{Process, roost};

/// The longest wait for something that must happen.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// What a process may have resident at any time.
pub const RESIDENT_BYTES_MAX: u64 = 300 << 20;
/// What another client's slowest call may take, with other tests beside it.
const SLOWEST_MAX: Duration = Duration::from_secs(5);
/// Its author.
const NEIGHBOUR: u64 = 77;

pub struct Victim {
    process: Process,
    pub address: SocketAddr,
    pub metrics_address: SocketAddr,
    _dir: TempDir,
}

impl Victim {
    pub fn start() -> Self {
        Self::start_with(roost(["serve"]))
    }

    /// One that may have so many files open.
    pub fn start_with_open_files(limit: u32) -> Self {
        let program = roost(["serve"]);
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(program.get_program()).arg("serve").stdin(Stdio::null());
        Self::start_with(command)
    }

    fn start_with(mut command: Command) -> Self {
        let dir = TempDir::new().expect("a directory");
        command.args(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(dir.path().join("data")).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Process::start(&mut command);
        let mut lines = BufReader::new(process.0.stdout.take().expect("its output")).lines();
        let mut said = |before: &str| {
            let line = lines.next().expect("a line").expect("text");
            let rest = line.strip_prefix(before).unwrap_or_else(|| panic!("{line}")).to_owned();
            let end = rest.find([';', '/']).unwrap_or(rest.len());
            rest[..end].parse().unwrap_or_else(|_| panic!("{line}"))
        };
        let address = said("roost listens on ");
        let metrics_address = said("metrics are at http://");
        Self { process, address, metrics_address, _dir: dir }
    }

    /// The most that it has had resident.
    pub fn resident_bytes_max(&self) -> u64 {
        let status = format!("/proc/{}/status", self.process.0.id());
        let status = fs::read_to_string(status).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a figure");
        let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        kib << 10
    }

    pub fn assert_memory(&self) {
        let resident = self.resident_bytes_max();
        println!("resident at most: {} MB", resident / 1_000_000);
        assert!(resident < RESIDENT_BYTES_MAX, "{} MB", resident / 1_000_000);
    }

    /// A metric, all of its labels together; 0 where there is none yet.
    pub async fn metric(&self, name: &str) -> f64 {
        let mut connection = TcpStream::connect(self.metrics_address).await.expect("connected");
        let request = b"GET /metrics HTTP/1.1\r\nhost: roost\r\nconnection: close\r\n\r\n";
        connection.write_all(request).await.expect("sent");
        let mut text = String::new();
        connection.read_to_string(&mut text).await.expect("an answer");
        let of_name =
            |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let values = text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next());
        values.map(|value| value.parse::<f64>().expect("a number")).sum()
    }

    /// Waits until a metric is as it should be.
    pub async fn until(&self, name: &str, is_good: impl Fn(f64) -> bool) {
        let begun = Instant::now();
        loop {
            let value = self.metric(name).await;
            if is_good(value) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "{name} is {value}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn channel(&self) -> Channel {
        let target = Target::new(format!("http://{}", self.address));
        target.connect().await.expect("connected")
    }

    /// A client that is served. As clients do, it connects again where its connection was
    /// refused, which it is while no other has been idle for a second.
    pub async fn neighbour(&self) -> Neighbour {
        let channel = self.channel().await;
        // Its author is known from now on.
        let follow = FollowRequest { follower_id: NEIGHBOUR + 1, followee_id: NEIGHBOUR };
        let begun = Instant::now();
        while let Err(status) = GraphServiceClient::new(channel.clone()).follow(follow).await {
            assert!(begun.elapsed() < DEADLINE, "not served: {status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Neighbour { channel, calls: Vec::new() }
    }

    /// A connection of HTTP/2 whose streams have this window, with a task that drives it.
    pub async fn h2(&self, window_bytes: u32) -> h2::client::SendRequest<Bytes> {
        let socket = TcpStream::connect(self.address).await.expect("connected");
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window_bytes).initial_connection_window_size(1 << 30);
        let (client, connection) = builder.handshake(socket).await.expect("HTTP/2");
        tokio::spawn(async move {
            // How it ends is the server's business.
            let _ = connection.await;
        });
        client
    }

    /// A request of a method, as HTTP/2 has it.
    pub fn request(&self, method: &str) -> http::Request<()> {
        http::Request::post(format!("http://{}/roost.v1.{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a request")
    }
}

/// A message with its prefix.
pub fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    message.encode(&mut bytes).expect("there is room");
    bytes.freeze()
}

pub fn post(author_id: u64, text: String) -> PublishPostRequest {
    PublishPostRequest { author_id, text, ..PublishPostRequest::default() }
}

/// Another client: what its calls take.
pub struct Neighbour {
    channel: Channel,
    calls: Vec<Duration>,
}

impl Neighbour {
    /// Publishes and reads so often, one call after the other.
    pub async fn call(&mut self, times: usize) {
        let mut posts = PostServiceClient::new(self.channel.clone());
        let mut timelines = TimelineServiceClient::new(self.channel.clone());
        for number in 0..times {
            let begun = Instant::now();
            posts.publish_post(post(NEIGHBOUR, format!("{number}"))).await.expect("published");
            self.calls.push(begun.elapsed());
            let request = ListAuthorTimelineRequest {
                author_id: NEIGHBOUR,
                page_size: 20,
                ..ListAuthorTimelineRequest::default()
            };
            let begun = Instant::now();
            timelines.list_author_timeline(request).await.expect("a page");
            self.calls.push(begun.elapsed());
        }
    }

    /// Publishes in messages of megabytes, which need room.
    pub async fn publish_large(&self) {
        let text = "x".repeat(140);
        let requests = vec![post(NEIGHBOUR, text); 1_000];
        let mut posts = PostServiceClient::new(self.channel.clone());
        posts.batch_publish_posts(BatchPublishPostsRequest { requests }).await.expect("published");
    }

    pub fn assert_served(mut self) {
        self.calls.sort_unstable();
        let at = |share: usize| self.calls[(self.calls.len() - 1) * share / 100];
        println!("the neighbour's calls: p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100));
        assert!(at(99) < SLOWEST_MAX, "{:?}", at(99));
    }
}
