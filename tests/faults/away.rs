//! What goes on while Kafka or Redis is away, what is refused, and in which time: one API
//! node and one worker, each a process of its own.
//!
//! ```text
//!               publish                       home timelines
//!  Kafka away   UNAVAILABLE, in time          as they were
//!  Redis away   acknowledged                  UNAVAILABLE; right by themselves, later on
//! ```
//!
//! Meanwhile clients offer so much that memory shows whether anything is kept that has no
//! bound.

mod town;

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time};

use crate::{
    failure::{Doing, Failure, Result},
    fleet::{Fleet, Node, Size},
    proxy::Proxy,
    record::Record,
    run::{nobody_panicked, prepare_folder},
    services::{KAFKA, REDIS, Services},
    settings::Settings,
};
use town::{NOBODYS, Town, difference, must_be_unavailable, within_deadline};

const SIZE: Size = Size { api_nodes: 1, workers: 1 };
/// The longest wait until all is right again once what was away is back.
const REPAIR_DEADLINE: Duration = Duration::from_secs(90);
/// Posts of everybody before anything is away.
const POSTS_BEFORE: usize = 40;
/// Posts that are refused, all at once, to those who wait for it.
const REFUSED: usize = 300;
/// What clients without patience try: each of them so many batches, one after the other,
/// and each batch for so long. What they have given up is still on its way to Kafka.
const IMPATIENT: usize = 8;
const IMPATIENT_BATCHES: usize = 12;
const PATIENCE: Duration = Duration::from_millis(500);
/// 2.6 MB.
const BATCH_POSTS: usize = 1_000;
/// Posts of everybody while Redis is away: one by one, and in batches.
const ALONE_MEANWHILE: usize = 5;
const BATCHES_MEANWHILE: usize = 4;
const BATCH_MEANWHILE: usize = 40;
/// What is published beside them, and wanted by nobody: 105 MB.
const UNWANTED_BATCHES: usize = 40;
/// By how much an API node may grow. What is written and under way is 64 MiB at most, but
/// is there twice, as clients have sent it and in the queue to Kafka; and each of those
/// who wait has sent a batch.
const API_GROWTH_MAX: u64 = 256 << 20;
/// By how much a worker may. It has read ahead, of each partition and of all together, 8
/// MiB at most.
const WORKER_GROWTH_MAX: u64 = 64 << 20;

/// Runs it; what the processes say is kept.
pub async fn run(settings: &Settings) -> Result<()> {
    prepare_folder(settings)?;
    let Some(services) = Services::up(settings).await? else { return Ok(()) };
    let record = Arc::new(Record::new(settings));
    let (from, to) = (services.kafka_proxies(), services.kafka_behind_proxies());
    let kafka = Proxy::start_all(&from, &to).await?;
    let fleet = Fleet::start(settings, SIZE, &services, &record).await?;
    let town = Town::new(&format!("http://{}", services.api_node(0))).await?;
    let world = World { services, fleet, town: Arc::new(town), record, _kafka: kafka };
    world.town.publish(POSTS_BEFORE).await?;
    world.town.is_whole(REPAIR_DEADLINE).await.doing("before anything is away")?;
    world.without_kafka().await.doing("Kafka away")?;
    world.without_redis().await.doing("Redis away")?;
    world.fleet.revive()?;
    world.record.nobody_ended()?;
    nobody_panicked(&settings.folder())
}

struct World {
    fleet: Fleet,
    town: Arc<Town>,
    record: Arc<Record>,
    _kafka: Vec<Proxy>,
    // Goes last: the processes above end before what they need does.
    services: Services,
}

impl World {
    async fn without_kafka(&self) -> Result<()> {
        let before = Memory::of(&self.fleet)?;
        let homes = self.town.model();
        self.services.kill(KAFKA).await?;
        self.record.say("kafka is away");

        // Kafka is away until the last of them has failed, so that none may turn up later.
        let mut refusals = JoinSet::new();
        for number in 0..REFUSED {
            let town = Arc::clone(&self.town);
            let author = 1 + number as u64 % 8;
            refusals.spawn(async move {
                must_be_unavailable(within_deadline(town.try_publish(author, 1)).await?)
            });
        }
        while !refusals.is_empty() {
            self.reads_go_on(&homes).await?;
            while let Some(refusal) = refusals.try_join_next() {
                refusal.doing("a publish")??;
            }
        }
        self.record.say("every publish was refused");

        let mut impatient = JoinSet::new();
        for _ in 0..IMPATIENT {
            let town = Arc::clone(&self.town);
            impatient.spawn(async move {
                for _ in 0..IMPATIENT_BATCHES {
                    let batch = town.try_publish(NOBODYS, BATCH_POSTS);
                    if let Ok(answer) = time::timeout(PATIENCE, batch).await {
                        must_be_unavailable(answer)?;
                    }
                }
                Ok::<_, Failure>(())
            });
        }
        while let Some(done) = impatient.join_next().await {
            done.doing("an impatient client")??;
            self.reads_go_on(&homes).await?;
        }
        self.grown_little(&before)?;

        self.services.start(KAFKA).await?;
        self.record.say("kafka is back");
        let begun = Instant::now();
        while let Err(status) = within_deadline(self.town.try_publish(NOBODYS, 1)).await? {
            if begun.elapsed() > REPAIR_DEADLINE {
                return Err(Failure::new(format!("nothing is published again: {status}")));
            }
        }
        self.town.publish(1).await?;
        self.town.is_whole(REPAIR_DEADLINE).await?;
        self.record.say("every timeline is right");
        Ok(())
    }

    async fn reads_go_on(&self, expected: &[town::Home]) -> Result<()> {
        let homes = within_deadline(self.town.homes()).await?;
        difference(&homes.doing("a read")?, expected)
    }

    async fn without_redis(&self) -> Result<()> {
        let before = Memory::of(&self.fleet)?;
        self.services.kill(REDIS).await?;
        self.record.say("redis is away");
        let counts = [[1; ALONE_MEANWHILE].as_slice(), &[BATCH_MEANWHILE; BATCHES_MEANWHILE]];
        let unwanted = async {
            for _ in 0..UNWANTED_BATCHES {
                let answer = within_deadline(self.town.try_publish(NOBODYS, BATCH_POSTS)).await?;
                answer.doing("a publish")?;
            }
            Ok::<_, Failure>(())
        };
        let wanted = async {
            for count in counts.concat() {
                self.town.publish(count).await?;
                self.town.nobody_reads().await?;
            }
            Ok(())
        };
        tokio::try_join!(unwanted, wanted)?;
        self.record.say("everything was published, and nothing read");
        self.grown_little(&before)?;

        self.services.start(REDIS).await?;
        self.record.say("redis is back, and empty");
        self.town.is_whole(REPAIR_DEADLINE).await?;
        self.record.say("every timeline is right");
        Ok(())
    }

    fn grown_little(&self, before: &Memory) -> Result<()> {
        let now = Memory::of(&self.fleet)?;
        let grown =
            now.resident.iter().zip(&before.resident).map(|(now, then)| now.saturating_sub(*then));
        for (node, grown) in self.fleet.nodes().iter().zip(grown) {
            let is_api = self.fleet.api_nodes.iter().any(|api| api.name == node.name);
            let grown_max = if is_api { API_GROWTH_MAX } else { WORKER_GROWTH_MAX };
            let told = format!("{} has grown by {} MiB", node.name, grown >> 20);
            self.record.say(&told);
            if grown > grown_max {
                return Err(Failure::new(format!("{told}, more than {}", grown_max >> 20)));
            }
        }
        Ok(())
    }
}

/// What the processes hold in memory, in the order of the fleet.
struct Memory {
    resident: Vec<u64>,
}

impl Memory {
    fn of(fleet: &Fleet) -> Result<Self> {
        let nodes = fleet.nodes();
        let resident: Result<_> = nodes.iter().map(|node| resident_bytes(node)).collect();
        Ok(Self { resident: resident? })
    }
}

fn resident_bytes(node: &Node) -> Result<u64> {
    let process = node.process_id().ok_or_else(|| Failure::new(format!("no {}", node.name)))?;
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).doing(&path)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| Failure::new(format!("{path} has no VmRSS")))
}
