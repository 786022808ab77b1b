//! The load generator against the real server: what it publishes can be verified,
//! survives crashes, and is not published twice.

#[path = "common/process.rs"]
mod process;

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use roost::{
    app::{self, App},
    client::{ClientError, ImportArgs, Target, progress::Silent},
    fanout::PullRule,
    load::{self, LoadError, Report, Settings, Source, Verification},
    proto::v1::{
        FollowRequest, GetAccountRequest, GetStatusRequest, ListPulledAuthorsRequest,
        PublishPostRequest, SendMessageRequest, graph_service_client::GraphServiceClient,
        message_service_client::MessageServiceClient, post_service_client::PostServiceClient,
        status_service_client::StatusServiceClient,
    },
};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::process::{Process, free_address, serve_on, signal};

/// The longest wait for something that must happen.
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_synthetic_load_with_churn_verifies_and_is_not_published_twice() {
    let roost = InProcess::start().await;
    let mut settings = Settings::synthetic(roost.target(), 400);
    settings.source = Source::Synthetic { users: 400, posts: Some(4_000) };
    settings.churn_percent = 20;
    settings.active_percent = 70;
    settings.verify = true;

    let first = load(settings.clone()).await.expect("a load");
    assert_verified(&first, 400);
    assert_eq!(first.posts, 4_000);
    let churn = first.churn_follows + first.churn_unfollows + first.churn_deletions;
    assert!((990..=1_010).contains(&churn), "{churn} of 5,000 actions");
    assert_eq!(first.missed_posts, 0);
    assert!(first.latencies.publish.count == 4_000 && first.latencies.delivery.count > 0);

    let again = load(settings).await.expect("the same load");
    assert_verified(&again, 400);
    assert_eq!(again.run, first.run);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authors_who_are_pulled_and_pushed_again_make_no_difference() {
    let roost = InProcess::start_with_cap(100).await;
    let mut settings = Settings::synthetic(roost.target(), 300);
    settings.source = Source::Synthetic { users: 300, posts: Some(3_000) };
    settings.churn_percent = 10;
    settings.pulls_percent = 2;
    // As fast as it goes, the last posts would be there before most authors are switched.
    settings.actions_per_second = Some(1_000.0);
    settings.active_percent = 70;
    settings.verify = true;
    let first = load(settings.clone()).await.expect("a load");
    assert_verified(&first, 300);
    assert!((65..=70).contains(&first.switches), "{} of 3,409 actions", first.switches);
    let channel = roost.target().connect().await.expect("connected");
    let mut graph = GraphServiceClient::new(channel);
    let pulled = graph.list_pulled_authors(ListPulledAuthorsRequest {}).await.expect("listed");
    let pulled = pulled.into_inner().author_ids;
    assert!((1..16).contains(&pulled.len()), "{pulled:?}");
    assert_verified(&load(settings).await.expect("the same load"), 300);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authors_whom_the_server_itself_pulls_make_no_difference() {
    let rule = PullRule { above: Some(60) };
    let roost = InProcess::start_with(|settings| {
        settings.home_timeline_cap = 100;
        settings.pull_rule = rule;
    })
    .await;
    let mut settings = Settings::synthetic(roost.target(), 200);
    settings.source = Source::Synthetic { users: 200, posts: Some(2_000) };
    settings.churn_percent = 10;
    settings.pulls_percent = 2;
    settings.verify = true;
    assert_verified(&load(settings).await.expect("a load"), 200);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mutes_and_blocks_are_in_the_model() {
    let roost = InProcess::start_with_cap(100).await;
    let mut settings = Settings::synthetic(roost.target(), 200);
    settings.source = Source::Synthetic { users: 200, posts: Some(2_000) };
    settings.churn_percent = 10;
    settings.hides_percent = 20;
    settings.verify = true;
    let report = load(settings.clone()).await.expect("a load");
    assert_verified(&report, 200);
    assert!((560..=575).contains(&report.hides), "{} of 2,857 actions", report.hides);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_accounts_are_told_of_is_verified_too() {
    let roost = InProcess::start_with_cap(100).await;
    let mut settings = Settings::synthetic(roost.target(), 100);
    settings.source = Source::Synthetic { users: 100, posts: Some(3_000) };
    settings.churn_percent = 10;
    settings.hides_percent = 5;
    settings.mentions_percent = 50;
    settings.messages_percent = 25;
    settings.verify = true;
    let report = load(settings.clone()).await.expect("a load");
    assert!(report.messages > 800 && report.message_deletions > 200, "{report}");
    let found = verification(report);
    assert_eq!(found.difference_count, 0, "{:?}", found.differences);
    assert!(found.notifications > 1_000, "{}", found.notifications);
    assert!(found.messages > 1_000, "{}", found.messages);

    let channel = roost.target().connect().await.expect("connected");
    let foreign = SendMessageRequest {
        sender_id: 1_000,
        recipient_ids: vec![7],
        text: "by somebody else".to_owned(),
        ..SendMessageRequest::default()
    };
    MessageServiceClient::new(channel.clone()).send_message(foreign).await.expect("sent");
    let foreign = PublishPostRequest {
        author_id: 1_000,
        text: "by somebody else".to_owned(),
        mentioned_ids: vec![7],
        ..PublishPostRequest::default()
    };
    PostServiceClient::new(channel).publish_post(foreign).await.expect("published");
    let found = verification(load(settings).await.expect("the same load"));
    assert_eq!(found.difference_count, 2, "{:?}", found.differences);
    for what in ["notifications of account 7", "messages received by account 7"] {
        let extra = format!("{what}: extra at position 0");
        assert!(found.differences.iter().any(|it| it.starts_with(&extra)), "{found:?}");
    }
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_list_loads_at_a_given_rate() {
    let roost = InProcess::start().await;
    let dir = TempDir::new().expect("a directory");
    // A ring of 60 accounts, each followed by the next three.
    let edges: String = (0..60)
        .flat_map(|user| (1..=3).map(move |next| format!("{} {user}\n", (user + next) % 60)))
        .collect();
    let mut settings = Settings::synthetic(roost.target(), 2);
    settings.source = Source::EdgeList { file: file(&dir, "ring.txt", &edges), posts: Some(500) };
    settings.id_offset = 1;
    settings.actions_per_second = Some(1_000.0);
    settings.verify = true;
    let report = load(settings).await.expect("a load");
    assert_verified(&report, 60);
    assert_eq!(report.follows, 180);
    assert!((0.45..5.0).contains(&report.publish_seconds), "{}", report.publish_seconds);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_finds_what_is_not_of_the_load() {
    let roost = InProcess::start().await;
    let mut settings = Settings::synthetic(roost.target(), 50);
    settings.verify = true;
    assert_verified(&load(settings.clone()).await.expect("a load"), 50);

    let channel = roost.target().connect().await.expect("connected");
    let foreign = PublishPostRequest {
        author_id: 7,
        text: "not of this load".to_owned(),
        ..PublishPostRequest::default()
    };
    PostServiceClient::new(channel).publish_post(foreign).await.expect("published");
    let report = load(settings).await.expect("the same load");
    let found = report.verification.expect("a comparison");
    assert!(found.difference_count > 0);
    assert!(found.differences[0].contains("extra at position 0"), "{:?}", found.differences);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_verifies_though_the_server_is_killed_in_the_middle() {
    let dir = TempDir::new().expect("a directory");
    let data_dir = dir.path().join("data");
    let address = free_address();
    let mut settings = Settings::synthetic(Target::new(format!("http://{address}")), 2);
    settings.source = Source::Trace {
        file: file(&dir, "trace.txt", &small_trace()),
        // Two seconds of posts.
        speed: Some(300.0),
    };
    settings.pulls_percent = 1;
    settings.hides_percent = 5;
    settings.verify = true;

    let server = serve(&data_dir, address).await;
    let killing = tokio::spawn({
        let data_dir = data_dir.clone();
        async move {
            wait_for_events(address, 2_000).await;
            drop(server);
            serve(&data_dir, address).await
        }
    });
    let first = load(settings.clone()).await.expect("a load over a crash");
    let server = killing.await.expect("restarted");
    assert_verified(&first, 200);
    assert!(first.reconnects > 0, "the crash came too late to be noticed");

    drop(server);
    let server = serve(&data_dir, address).await;
    let again = load(settings).await.expect("the same load after a restart");
    assert_verified(&again, 200);
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_load_reports_what_it_did_and_goes_on_later() {
    let roost = InProcess::start().await;
    let mut settings = Settings::synthetic(roost.target(), 300);
    settings.source = Source::Synthetic { users: 300, posts: Some(6_000) };
    settings.churn_percent = 10;
    settings.messages_percent = 5;
    settings.verify = true;
    let stop = CancellationToken::new();
    let stopping = tokio::spawn({
        let (stop, address) = (stop.clone(), roost.app.address());
        async move {
            // The import is some 300 events.
            wait_for_events(address, 1_500).await;
            stop.cancel();
        }
    });
    let stopped = timeout(DEADLINE, load::run(settings.clone(), &mut Silent, stop))
        .await
        .expect("it hangs")
        .expect("a part of a load");
    stopping.await.expect("stopped");
    assert!(stopped.interrupted && stopped.verification.is_none());
    assert!(stopped.posts < 6_000, "{} posts", stopped.posts);

    assert_verified(&load(settings).await.expect("the rest"), 300);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_stopped_though_the_server_answers_nothing() {
    let dir = TempDir::new().expect("a directory");
    let address = free_address();
    let server = serve(dir.path(), address).await;
    let mut settings = Settings::synthetic(Target::new(format!("http://{address}")), 300);
    settings.source = Source::Synthetic { users: 300, posts: Some(200_000) };
    settings.churn_percent = 10;
    let stop = CancellationToken::new();
    let freezing = tokio::spawn({
        let stop = stop.clone();
        async move {
            wait_for_events(address, 1_500).await;
            signal(&server.0, "STOP");
            // Until all lanes are full and all workers wait.
            tokio::time::sleep(Duration::from_secs(1)).await;
            stop.cancel();
            server
        }
    });
    let stopped = timeout(DEADLINE, load::run(settings, &mut Silent, stop)).await;
    let stopped = stopped.expect("it hangs").expect("a part of a load");
    assert!(stopped.interrupted && stopped.posts > 0 && stopped.missed_posts == 0);
    drop(freezing.await.expect("frozen"));
}

#[tokio::test]
async fn a_load_stopped_before_anything_is_sent_ends_at_once() {
    // It takes connections and answers nothing.
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let target = format!("http://{}", silent.local_addr().expect("its address"));
    let settings = Settings::synthetic(Target::new(target), 10);
    let stop = CancellationToken::new();
    let stopping = tokio::spawn({
        let stop = stop.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            stop.cancel();
        }
    });
    let stopped = timeout(DEADLINE, load::run(settings, &mut Silent, stop)).await;
    stopping.await.expect("stopped");
    let error = stopped.expect("it hangs").expect_err("nothing to report");
    assert!(matches!(error, LoadError::Interrupted), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_edge_list_imports_nothing() {
    let roost = InProcess::start().await;
    let dir = TempDir::new().expect("a directory");
    let import = |name: &str, content: &str| ImportArgs {
        file: file(&dir, name, content),
        id_offset: 0,
        target: roost.target(),
    };
    let error = import("bad.txt", "1 2\n3 2\n4 zwei\n").run().await.expect_err("broken");
    assert!(matches!(error, ClientError::EdgeList(_)));
    assert!(error.to_string().contains("line 3"), "{error}");
    let mut graph = GraphServiceClient::new(roost.target().connect().await.expect("connected"));
    let account = graph.get_account(GetAccountRequest { user_id: 2 }).await;
    assert!(account.is_err(), "something was imported: {account:?}");

    import("good.txt", "1 2\n3 2\n").run().await.expect("imported");
    // Follows are in the order of their followee: after this one they hold.
    graph.follow(FollowRequest { follower_id: 9, followee_id: 2 }).await.expect("followed");
    let account = graph.get_account(GetAccountRequest { user_id: 2 }).await.expect("known");
    assert_eq!(account.into_inner().follower_count, 3);
    roost.stop().await;
}

#[tokio::test]
async fn a_load_without_a_server_says_how_to_start_one() {
    let settings = Settings::synthetic(Target::new(format!("http://{}", free_address())), 10);
    let error = load(settings).await.expect_err("nobody there").to_string();
    assert!(error.contains("roost serve"), "{error}");
}

fn verification(report: Report) -> Verification {
    report.verification.expect("a comparison")
}

fn assert_verified(report: &Report, users: u64) {
    let found = report.verification.as_ref().expect("a comparison");
    assert_eq!(found.differences, Vec::<String>::new());
    assert_eq!((found.difference_count, found.home_timelines), (0, users));
    assert!(found.entries > 0 && found.sampled_users > 0);
}

async fn load(settings: Settings) -> Result<Report, LoadError> {
    load::run(settings, &mut Silent, CancellationToken::new()).await
}

/// 6,000 actions of 200 accounts in ten minutes, the same every time.
fn small_trace() -> String {
    let mut state = 1u64;
    let mut below = move |bound: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let mut trace = String::new();
    for number in 0..6_000u64 {
        // The first 200 name every account once; a few are much talked about.
        let (a, b) = if number < 200 { (number, 199 - number) } else { (below(200), below(20)) };
        let kind = ["RT", "MT", "RE"][below(3) as usize];
        trace.push_str(&format!("{} {} {} {kind}\n", a + 1, b + 1, 1_341_100_972 + number / 10));
    }
    trace
}

fn file(dir: &TempDir, name: &str, content: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, content).expect("written");
    path
}

/// A Roost in the process of the test.
struct InProcess {
    app: App,
    _data_dir: TempDir,
}

impl InProcess {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with_cap(cap: usize) -> Self {
        Self::start_with(|settings| settings.home_timeline_cap = cap).await
    }

    async fn start_with(change: impl FnOnce(&mut app::Settings)) -> Self {
        let data_dir = TempDir::new().expect("a directory");
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut settings = app::Settings::new(data_dir.path().join("data"), listen);
        change(&mut settings);
        Self {
            app: App::start(settings, &CancellationToken::new()).await.expect("started"),
            _data_dir: data_dir,
        }
    }

    fn target(&self) -> Target {
        Target::new(format!("http://{}", self.app.address()))
    }

    async fn stop(self) {
        self.app.stop().await.expect("stopped");
    }
}

/// A Roost in a process of its own.
async fn serve(data_dir: &Path, address: SocketAddr) -> Process {
    let mut command = serve_on(data_dir, address);
    let server = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let target = Target::new(format!("http://{address}"));
    let mut status = StatusServiceClient::new(target.connect_lazily().expect("an address"));
    for _ in 0..600 {
        // It answers only once it has started.
        if status.get_status(GetStatusRequest {}).await.is_ok() {
            return server;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the server at {address} did not come up");
}

async fn wait_for_events(address: SocketAddr, count: u64) {
    let target = Target::new(format!("http://{address}"));
    let mut status = StatusServiceClient::new(target.connect_lazily().expect("an address"));
    loop {
        let now = status.get_status(GetStatusRequest {}).await.expect("a status").into_inner();
        if now.fanout.unwrap_or_default().events >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
