//! The Roost under test: API nodes and workers, each a process of its own, and
//! somebody who starts again what ends though it should not.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::PathBuf,
    process::{Command, ExitStatus},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use roost::{
    client::Target,
    proto::v1::{GetStatusRequest, status_service_client::StatusServiceClient},
};
use tokio::{
    sync::{Mutex as Turns, OwnedMutexGuard},
    time,
};

use crate::{
    failure::{Doing, Failure, Result},
    process::{Process, roost, signal},
    proxy::Proxy,
    record::{Ended, Record},
    services::Services,
    settings::{Backend, Settings},
};

pub const API_NODES: u16 = 2;
/// That of the fault run.
pub const SIZE: Size = Size { api_nodes: API_NODES, workers: 3 };
/// Between two looks for processes that have ended by themselves.
const SUPERVISE_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at a process that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The longest wait for a process to end that was told to.
const END_DEADLINE: Duration = Duration::from_secs(60);
/// The longest wait until an API node serves, which it does once the workers have
/// caught up, whatever else is hit meanwhile; shorter than the load's patience.
const SERVE_DEADLINE: Duration = Duration::from_secs(240);
/// A worker that is silent for longer has lost its partitions.
pub const SESSION: Duration = Duration::from_secs(6);

/// How many processes there are at first.
#[derive(Clone, Copy)]
pub struct Size {
    pub api_nodes: u16,
    pub workers: usize,
}

pub struct Fleet {
    make: Make,
    pub api_nodes: Vec<Arc<Node>>,
    workers: Mutex<Vec<Arc<Node>>>,
    made: AtomicUsize,
}

/// What all processes have in common.
struct Make {
    folder: PathBuf,
    backend: Backend,
    redis: Vec<SocketAddr>,
    kafka: Vec<SocketAddr>,
    record: Arc<Record>,
}

/// A process, by name: one after the other, and none in between.
pub struct Node {
    pub name: String,
    words: Vec<String>,
    /// Any port of a worker, which nobody calls.
    listen: SocketAddr,
    log: PathBuf,
    /// What the process has said on its standard output: that it has started.
    said: PathBuf,
    /// Where it is written down that it has ended by itself.
    record: Arc<Record>,
    /// Its own way to a standalone Redis.
    pub redis: Option<Proxy>,
    /// `None` while it is meant to be down.
    process: Mutex<Option<Process>>,
    /// Whoever does something to it holds this.
    pub turn: Arc<Turns<()>>,
}

impl Fleet {
    pub async fn start(
        settings: &Settings,
        size: Size,
        services: &Services,
        record: &Arc<Record>,
    ) -> Result<Self> {
        let redis = match settings.backend {
            Backend::Redis => vec![services.redis()],
            Backend::Cluster => services.cluster_nodes().collect(),
        };
        let make = Make {
            folder: settings.folder(),
            backend: settings.backend,
            redis,
            kafka: services.kafka_proxies(),
            record: Arc::clone(record),
        };
        let mut api_nodes = Vec::new();
        for number in 0..size.api_nodes {
            let name = format!("api-{}", number + 1);
            let node = make.node(name, "api", services.api_node(number)).await?;
            node.start()?;
            // The first one makes the topic.
            node.serves().await?;
            api_nodes.push(node);
        }
        let fleet =
            Self { make, api_nodes, workers: Mutex::default(), made: AtomicUsize::default() };
        for _ in 0..size.workers {
            fleet.add_worker().await?;
        }
        Ok(fleet)
    }

    /// Starts one more worker.
    pub async fn add_worker(&self) -> Result<Arc<Node>> {
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let node = self.make.node(format!("worker-{number}"), "worker", any).await?;
        node.start()?;
        self.lock().push(Arc::clone(&node));
        Ok(node)
    }

    /// Has one worker less from now on.
    pub fn forget_worker(&self, node: &Node) {
        self.lock().retain(|other| other.name != node.name);
    }

    pub fn workers(&self) -> Vec<Arc<Node>> {
        self.lock().clone()
    }

    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.api_nodes.iter().cloned().chain(self.workers()).collect()
    }

    /// Starts again what has ended by itself, for ever.
    pub async fn supervise(&self) -> Failure {
        loop {
            if let Err(failure) = self.revive() {
                return failure;
            }
            time::sleep(SUPERVISE_EVERY).await;
        }
    }

    /// Starts again what has ended by itself.
    pub fn revive(&self) -> Result<()> {
        self.nodes().iter().try_for_each(|node| node.revive())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Node>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Make {
    async fn node(&self, name: String, role: &str, listen: SocketAddr) -> Result<Arc<Node>> {
        // A Cluster tells its addresses itself, past any proxy.
        let redis = match self.backend {
            Backend::Redis => {
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                Some(Proxy::start(any, self.redis[0]).await?)
            }
            Backend::Cluster => None,
        };
        let to: Vec<String> = match &redis {
            Some(proxy) => vec![format!("redis://{}", proxy.address)],
            None => self.redis.iter().map(|node| format!("redis://{node}")).collect(),
        };
        let kafka: Vec<String> = self.kafka.iter().map(SocketAddr::to_string).collect();
        let words = [
            "serve",
            "--role",
            role,
            "--listen",
            &listen.to_string(),
            "--kafka",
            &kafka.join(","),
            "--partitions",
            "8",
            "--redis",
            &to.join(","),
            "--kafka-property",
            &format!("session.timeout.ms={}", SESSION.as_millis()),
            "--kafka-property",
            "heartbeat.interval.ms=1000",
        ];
        Ok(Arc::new(Node {
            log: self.folder.join(format!("{name}.log")),
            said: self.folder.join(format!("{name}.out")),
            record: Arc::clone(&self.record),
            words: words.map(str::to_owned).to_vec(),
            listen,
            name,
            redis,
            process: Mutex::default(),
            turn: Arc::default(),
        }))
    }
}

impl Node {
    /// Its turn, if nobody else does anything to it.
    pub fn free(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.turn).try_lock_owned().ok()
    }

    pub fn start(&self) -> Result<()> {
        let mut process = self.lock();
        if process.is_none() {
            *process = Some(self.spawn()?);
        }
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&self) -> Result<()> {
        let mut process = self.lock();
        self.note_end(&mut process)?;
        *process = None;
        Ok(())
    }

    /// While it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.lock().as_ref().map(|process| process.0.id())
    }

    /// Sends it a signal, named as `kill` names it.
    pub fn signal(&self, name: &str) {
        if let Some(process) = &*self.lock() {
            signal(&process.0, name);
        }
    }

    /// Tells it to end in order. Whether it did; if not, it is killed.
    pub async fn end(&self) -> Result<bool> {
        let begun = Instant::now();
        // From here on it is nobody's to be started again.
        let process = {
            let mut process = self.lock();
            self.note_end(&mut process)?;
            process.take()
        };
        let Some(mut process) = process else { return Ok(false) };
        signal(&process.0, "TERM");
        while begun.elapsed() < END_DEADLINE {
            if let Some(status) = process.0.try_wait().doing(&self.name)? {
                if status.code().is_none() {
                    self.record.ended_by_itself(self.ended(status));
                }
                return Ok(status.success());
            }
            time::sleep(LOOK_EVERY).await;
        }
        Ok(false)
    }

    /// Waits until it answers.
    pub async fn serves(&self) -> Result<()> {
        let target = Target::new(format!("http://{}", self.listen));
        let begun = Instant::now();
        loop {
            let said = match target.connect().await {
                Ok(channel) => {
                    let mut status = StatusServiceClient::new(channel);
                    match status.get_status(GetStatusRequest {}).await {
                        Ok(_) => return Ok(()),
                        Err(status) => status.to_string(),
                    }
                }
                Err(error) => error.to_string(),
            };
            if begun.elapsed() > SERVE_DEADLINE {
                return Err(Failure::new(format!("{} does not serve: {said}", self.name)));
            }
            time::sleep(LOOK_EVERY).await;
        }
    }

    /// Starts it again if it has ended though it should run.
    fn revive(&self) -> Result<()> {
        let mut process = self.lock();
        if self.note_end(&mut process)? {
            *process = Some(self.spawn()?);
        }
        Ok(())
    }

    /// Writes down that the process has ended, if it has, though nobody has ended it.
    fn note_end(&self, process: &mut Option<Process>) -> Result<bool> {
        let Some(running) = process else { return Ok(false) };
        let Some(status) = running.0.try_wait().doing(&self.name)? else { return Ok(false) };
        *process = None;
        self.record.ended_by_itself(self.ended(status));
        Ok(true)
    }

    fn ended(&self, status: ExitStatus) -> Ended {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or_default();
        let has_started = fs::read(&self.said).is_ok_and(|said| !said.is_empty());
        Ended {
            at_seconds: self.record.seconds(),
            process: self.name.clone(),
            how: format!("{status}: {last}"),
            refused_to_start: status.code() == Some(1) && !has_started,
        }
    }

    fn spawn(&self) -> Result<Process> {
        let log = File::options().create(true).append(true).open(&self.log).doing(&self.name)?;
        let said = File::create(&self.said).doing(&self.name)?;
        let mut command: Command = roost(&self.words);
        command.stdout(said).stderr(log);
        Ok(Process(command.spawn().doing(&self.name)?))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
