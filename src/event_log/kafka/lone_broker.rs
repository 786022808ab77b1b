//! The only broker of a Kafka, which speaks as little of the protocol as it takes to ask
//! where a partition ends (<https://kafka.apache.org/protocol>), and can name no broker at
//! all: that is what a real one does for a moment while it shuts down.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::consumer::Consumer;

use super::{
    Settings,
    ends::Ends,
    group::{Group, Seat},
    member,
    trouble::Trouble,
};

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

struct LoneBroker {
    address: SocketAddr,
    names_nobody: Arc<AtomicBool>,
}

impl LoneBroker {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let names_nobody = Arc::new(AtomicBool::new(false));
        let broker = Self { address, names_nobody: Arc::clone(&names_nobody) };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let names_nobody = Arc::clone(&names_nobody);
                // It ends with its client.
                thread::spawn(move || serve(client, address, &names_nobody));
            }
        });
        broker
    }
}

fn serve(mut client: TcpStream, address: SocketAddr, names_nobody: &AtomicBool) -> io::Result<()> {
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
            METADATA => answer.metadata(address, names_nobody.load(Ordering::Relaxed)),
            _ => answer.list_offsets(),
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

    fn metadata(&mut self, address: SocketAddr, names_nobody: bool) {
        const NODE: u32 = 1;
        const NONE: u32 = u32::MAX;
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
        // One topic, without an error, not internal, with one partition without one.
        self.u32(1);
        self.u16(0);
        self.text(TOPIC);
        self.0.push(0);
        self.u32(1);
        self.u16(0);
        self.u32(0);
        self.u32(leader);
        // Its replicas, and those in sync.
        for _ in 0..2 {
            self.u32(1);
            self.u32(NODE);
        }
    }

    fn list_offsets(&mut self) {
        // One topic, and its one partition without an error or a time.
        self.u32(1);
        self.text(TOPIC);
        self.u32(1);
        self.u32(0);
        self.u16(0);
        self.0.extend(u64::MAX.to_be_bytes());
        self.0.extend(END.to_be_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_broker_is_found_again_after_it_has_named_none() {
    let broker = LoneBroker::start();
    let settings = Settings {
        brokers: broker.address.to_string(),
        topic: TOPIC.into(),
        request_timeout: Duration::from_secs(1),
        ..Settings::default()
    };
    let trouble = Arc::new(Trouble::new(Arc::default()));
    let closing = Arc::default();
    let first = Arc::new(member::new(&settings, &trouble, &closing).expect("a member"));
    let seat = Seat::new(&first);
    let group = Group::start(&settings, Arc::clone(&first), &seat, &closing, &trouble);
    let group = group.expect("a thread");
    let ends = Ends::new(TOPIC.into(), 1, settings.request_timeout, seat, trouble);
    assert_eq!(*ends.query().await.expect("the broker is there"), [END]);

    broker.names_nobody.store(true, Ordering::Relaxed);
    let asked = Arc::clone(&first);
    let asked = tokio::task::spawn_blocking(move || {
        asked.fetch_metadata(Some(TOPIC), Duration::from_secs(10)).map(|answer| {
            assert_eq!(answer.brokers().len(), 0);
        })
    });
    asked.await.expect("no panic").expect("the broker answers");
    broker.names_nobody.store(false, Ordering::Relaxed);
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
