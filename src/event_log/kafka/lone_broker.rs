//! The only broker of a Kafka, which speaks as little of the protocol as it takes to ask
//! where a partition ends (<https://kafka.apache.org/protocol>). It can name no broker at
//! all, as a real one does for a moment while it shuts down; answer an earlier end, as a
//! leader does that was replaced and has not heard of it; and not know the topic, as a
//! broker that has just started.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::consumer::Consumer;
use tokio::time::timeout;

use super::{
    Settings,
    ends::Ends,
    fetcher::Fetcher,
    group::{Group, Seat},
    member::{self, Member},
    topic,
    trouble::Trouble,
};
use crate::event_log::LogError;

const TOPIC: &str = "events";
const END: u64 = 7;
/// Far more than it takes.
const DEADLINE: Duration = Duration::from_secs(60);

const LIST_OFFSETS: u16 = 2;
const METADATA: u16 = 3;
const API_VERSIONS: u16 = 18;
/// What it speaks: a request, and its first and last version.
const SPOKEN: [(u16, u16, u16); 3] = [(LIST_OFFSETS, 1, 1), (METADATA, 1, 1), (API_VERSIONS, 0, 0)];
const UNSUPPORTED_VERSION: u16 = 35;
const UNKNOWN_TOPIC_OR_PARTITION: u16 = 3;

struct LoneBroker {
    address: SocketAddr,
    view: Arc<View>,
}

/// What the broker says.
struct View {
    names_nobody: AtomicBool,
    knows_topic: AtomicBool,
    /// Where the partition ends.
    end: AtomicU64,
    /// How often it was asked for the end, or for the topic.
    questions: AtomicU64,
}

impl LoneBroker {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let view = Arc::new(View {
            names_nobody: AtomicBool::new(false),
            knows_topic: AtomicBool::new(true),
            end: AtomicU64::new(END),
            questions: AtomicU64::new(0),
        });
        let broker = Self { address, view: Arc::clone(&view) };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let view = Arc::clone(&view);
                // It ends with its client.
                thread::spawn(move || serve(client, address, &view));
            }
        });
        broker
    }

    fn settings(&self) -> Settings {
        Settings {
            brokers: self.address.to_string(),
            topic: TOPIC.into(),
            request_timeout: Duration::from_secs(1),
            ..Settings::default()
        }
    }

    /// Waits until it has answered so many more questions.
    fn wait_for_questions(&self, count: u64) {
        let asked = self.view.questions.load(Ordering::Relaxed);
        let begun = Instant::now();
        while self.view.questions.load(Ordering::Relaxed) < asked + count {
            assert!(begun.elapsed() < DEADLINE, "the broker is not asked");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn serve(mut client: TcpStream, address: SocketAddr, view: &View) -> io::Result<()> {
    loop {
        let mut size = [0; 4];
        client.read_exact(&mut size)?;
        let mut request = vec![0; u32::from_be_bytes(size) as usize];
        client.read_exact(&mut request)?;
        let number = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
        let (kind, version) = (number(0), number(2));
        let mut answer = Answer(request[4..8].to_vec());
        match kind {
            API_VERSIONS => answer.api_versions(version),
            METADATA => answer.metadata(address, view),
            _ => answer.list_offsets(view.end.load(Ordering::Relaxed)),
        }
        if kind != API_VERSIONS {
            view.questions.fetch_add(1, Ordering::Relaxed);
        }
        client.write_all(&(answer.0.len() as u32).to_be_bytes())?;
        client.write_all(&answer.0)?;
    }
}

/// An answer as far as it is written: the number of its request comes first.
struct Answer(Vec<u8>);

impl Answer {
    fn u16(&mut self, value: u16) {
        self.0.extend(value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u16(text.len() as u16);
        self.0.extend(text.as_bytes());
    }

    fn api_versions(&mut self, version: u16) {
        self.u16(if version == 0 { 0 } else { UNSUPPORTED_VERSION });
        self.u32(SPOKEN.len() as u32);
        for (kind, first, last) in SPOKEN {
            [kind, first, last].into_iter().for_each(|number| self.u16(number));
        }
    }

    fn metadata(&mut self, address: SocketAddr, view: &View) {
        const NODE: u32 = 1;
        const NONE: u32 = u32::MAX;
        let names_nobody = view.names_nobody.load(Ordering::Relaxed);
        let nodes: &[u32] = if names_nobody { &[] } else { &[NODE] };
        self.u32(nodes.len() as u32);
        for node in nodes {
            self.u32(*node);
            self.text(&address.ip().to_string());
            self.u32(address.port().into());
            // It is in no rack.
            self.u16(u16::MAX);
        }
        let leader = nodes.first().copied().unwrap_or(NONE);
        self.u32(leader);
        // One topic, not internal, with one partition without an error.
        let knows_topic = view.knows_topic.load(Ordering::Relaxed);
        self.u32(1);
        self.u16(if knows_topic { 0 } else { UNKNOWN_TOPIC_OR_PARTITION });
        self.text(TOPIC);
        self.0.push(0);
        self.u32(knows_topic.into());
        if !knows_topic {
            return;
        }
        self.u16(0);
        self.u32(0);
        self.u32(leader);
        // Its replicas, and those in sync.
        for _ in 0..2 {
            self.u32(1);
            self.u32(NODE);
        }
    }

    fn list_offsets(&mut self, end: u64) {
        // One topic, and its one partition without an error or a time.
        self.u32(1);
        self.text(TOPIC);
        self.u32(1);
        self.u32(0);
        self.u16(0);
        self.0.extend(u64::MAX.to_be_bytes());
        self.0.extend(end.to_be_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_broker_is_found_again_after_it_has_named_none() {
    let broker = LoneBroker::start();
    let settings = broker.settings();
    let trouble = Arc::new(Trouble::new(Arc::default()));
    let closing = Arc::default();
    let first = Arc::new(member::new(&settings, &trouble, &closing).expect("a member"));
    let seat = Seat::new(&first);
    let group = Group::start(&settings, Arc::clone(&first), &seat, &closing, &trouble);
    let group = group.expect("a thread");
    let ends = Ends::new(TOPIC.into(), 1, settings.request_timeout, seat, trouble);
    assert_eq!(*ends.query().await.expect("the broker is there"), [END]);

    broker.view.names_nobody.store(true, Ordering::Relaxed);
    let asked = Arc::clone(&first);
    let asked = tokio::task::spawn_blocking(move || {
        asked.fetch_metadata(Some(TOPIC), Duration::from_secs(10)).map(|answer| {
            assert_eq!(answer.brokers().len(), 0);
        })
    });
    asked.await.expect("no panic").expect("the broker answers");
    broker.view.names_nobody.store(false, Ordering::Relaxed);
    drop(first);

    let begun = Instant::now();
    let found = loop {
        match ends.query().await {
            Err(error) if begun.elapsed() > DEADLINE => panic!("{error}"),
            Err(_) => {}
            Ok(ends) => break ends,
        }
    };
    assert_eq!(*found, [END]);
    group.close(true);
}

/// A reader of a broker, and what it takes to ask that.
fn reader(broker: &LoneBroker, confirm_loss_after: Duration) -> (Arc<Fetcher>, Arc<Member>) {
    let settings = Settings { confirm_loss_after, ..broker.settings() };
    let trouble = Arc::new(Trouble::new(Arc::default()));
    let member = Arc::new(member::new(&settings, &trouble, &Arc::default()).expect("a member"));
    let seat = Seat::new(&member);
    let trouble_of_ends = Arc::clone(&trouble);
    let ends = Ends::new(TOPIC.into(), 1, settings.request_timeout, seat, trouble_of_ends);
    let fetcher = Fetcher::start(&settings, 1, ends, &trouble).expect("a thread");
    (Arc::new(fetcher), member)
}

/// An answer of a leader that was replaced is no loss.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn earlier_end_is_not_believed_at_once() {
    let broker = LoneBroker::start();
    broker.view.end.store(END - 2, Ordering::Relaxed);
    let (fetcher, _member) = reader(&broker, DEADLINE);
    let reaching = tokio::spawn({
        let fetcher = Arc::clone(&fetcher);
        async move { fetcher.end_reaching(0, END).await }
    });
    let waiting = tokio::spawn({
        let fetcher = Arc::clone(&fetcher);
        async move { fetcher.wait_past(0, END).await }
    });
    tokio::task::block_in_place(|| broker.wait_for_questions(20));
    assert!(!reaching.is_finished() && !waiting.is_finished());
    broker.view.end.store(END + 1, Ordering::Relaxed);
    let reached = timeout(DEADLINE, reaching).await.expect("in time").expect("no panic");
    assert_eq!(reached.expect("the end"), END + 1);
    let waited = timeout(DEADLINE, waiting).await.expect("in time").expect("no panic");
    waited.expect("more than there was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn earlier_end_is_believed_once_confirmed() {
    let broker = LoneBroker::start();
    broker.view.end.store(END - 2, Ordering::Relaxed);
    let (fetcher, _member) = reader(&broker, Duration::from_secs(1));
    let reached = timeout(DEADLINE, fetcher.end_reaching(0, END)).await.expect("in time");
    assert_eq!(reached.expect("the end"), END - 2);
    // As a worker waits: it gives up each second, and begins again.
    let lost = timeout(DEADLINE, async {
        loop {
            let waited = timeout(Duration::from_secs(1), fetcher.wait_past(0, END)).await;
            if let Ok(waited) = waited {
                break waited;
            }
        }
    });
    let error = lost.await.expect("in time").expect_err("it has lost its end");
    assert!(matches!(error, LogError::Incomplete { offset: END, .. }), "{error}");
}

/// A broker that has just started may not know a topic that there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_topic_is_not_believed_at_once() {
    let broker = LoneBroker::start();
    broker.view.knows_topic.store(false, Ordering::Relaxed);
    let opened = tokio::task::spawn_blocking({
        let settings = Settings { confirm_no_topic_after: DEADLINE, ..broker.settings() };
        move || open_existing(&settings)
    });
    tokio::task::block_in_place(|| broker.wait_for_questions(20));
    assert!(!opened.is_finished());
    broker.view.knows_topic.store(true, Ordering::Relaxed);
    let error = opened.await.expect("no panic").expect_err("the stub tells no settings");
    assert!(!matches!(error, LogError::NoTopic { .. }), "{error}");

    broker.view.knows_topic.store(false, Ordering::Relaxed);
    let settings = Settings { confirm_no_topic_after: Duration::from_secs(1), ..broker.settings() };
    let opened = tokio::task::spawn_blocking(move || open_existing(&settings));
    let error = opened.await.expect("no panic").expect_err("there is none");
    assert!(matches!(&error, LogError::NoTopic { topic } if topic == TOPIC), "{error}");
}

fn open_existing(settings: &Settings) -> Result<u32, LogError> {
    let settings = Settings { create: false, ..settings.clone() };
    let trouble = Arc::new(Trouble::new(Arc::default()));
    let member = member::new(&settings, &trouble, &Arc::default())?;
    topic::open(&settings, &member, &trouble, Instant::now() + Duration::from_secs(2))
}
