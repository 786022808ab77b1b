//! The faults themselves: each hits one thing, lasts a while, and ends when that
//! thing is whole again.

mod brokers;
mod kafka;
mod redis_cluster;
mod redis_standalone;
mod roost;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time,
};

use crate::{
    failure::Result,
    fleet::{Fleet, Node},
    plan::{Draws, Kind},
    proxy::Proxy,
    record::Details,
    services::Services,
    settings::Backend,
};

/// Between two looks for a node that nobody else does something to.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// For how long a Redis is frozen: longer than a worker waits for an answer, 5 s.
const FROZEN_MS: std::ops::Range<u64> = 6_000..10_000;

/// Everything that can be hit.
pub struct World {
    backend: Backend,
    pub fleet: Fleet,
    /// Before each broker.
    kafka: Vec<Proxy>,
    turns: Turns,
    // Goes last: the processes above end before what they need does.
    pub services: Services,
}

/// Whoever breaks a thing holds its turn until it is whole, so that no two faults
/// break the same one: a Cluster loses no primary whose replica is behind, and one
/// API node is always left.
#[derive(Default)]
struct Turns {
    api: Arc<Mutex<()>>,
    kafka: Arc<Mutex<()>>,
    kafka_link: Arc<Mutex<()>>,
    redis: Arc<Mutex<()>>,
    redis_link: Arc<Mutex<()>>,
}

/// What a fault hits, for as long as it lasts.
pub struct Target {
    node: Option<Arc<Node>>,
    #[allow(dead_code, reason = "held until the fault is over")]
    turns: Vec<OwnedMutexGuard<()>>,
}

impl World {
    pub fn new(backend: Backend, services: Services, fleet: Fleet, kafka: Vec<Proxy>) -> Self {
        Self { backend, fleet, kafka, turns: Turns::default(), services }
    }

    /// Waits until what a fault of this kind hits is whole, and takes its turn.
    pub async fn target(&self, kind: Kind, draws: &mut Draws) -> Target {
        let turn = match kind {
            Kind::KillWorker | Kind::PauseWorker | Kind::RemoveWorker => {
                return self.free_worker(draws).await;
            }
            // Nobody else has it yet.
            Kind::AddWorker => Arc::default(),
            Kind::KillApi => Arc::clone(&self.turns.api),
            Kind::StopKafka
            | Kind::KillKafka
            | Kind::KillTwoBrokers
            | Kind::PauseBroker
            | Kind::MoveLeaders => Arc::clone(&self.turns.kafka),
            Kind::CutKafka | Kind::DelayKafka => Arc::clone(&self.turns.kafka_link),
            Kind::CutRedis | Kind::DelayRedis if self.backend == Backend::Redis => {
                Arc::clone(&self.turns.redis_link)
            }
            // In a Cluster what breaks connections would break those that move slots.
            Kind::CutRedis
            | Kind::DelayRedis
            | Kind::EmptyRedis
            | Kind::LoseWrites
            | Kind::FreezeRedis
            | Kind::CrashPrimary
            | Kind::MoveSlots => Arc::clone(&self.turns.redis),
        };
        let mut turns = vec![turn.lock_owned().await];
        if kind == Kind::LoseWrites {
            // Without Kafka nothing is written that could be lost.
            turns.push(Arc::clone(&self.turns.kafka).lock_owned().await);
        }
        Target { node: None, turns }
    }

    async fn free_worker(&self, draws: &mut Draws) -> Target {
        loop {
            let mut workers = self.fleet.workers();
            draws.shuffle(&mut workers);
            for node in workers {
                if let Some(turn) = node.free() {
                    return Target { node: Some(node), turns: vec![turn] };
                }
            }
            time::sleep(LOOK_EVERY).await;
        }
    }

    /// Breaks it, and waits until it is whole again.
    pub async fn hit(&self, kind: Kind, target: Target, draws: &mut Draws) -> Result<Details> {
        let is_cluster = self.backend == Backend::Cluster;
        match (kind, &target.node) {
            (Kind::KillWorker, Some(node)) => self.kill_worker(node, draws).await,
            (Kind::PauseWorker, Some(node)) => self.pause_worker(node, draws).await,
            (Kind::RemoveWorker, Some(node)) => self.remove_worker(node).await,
            (Kind::KillWorker | Kind::PauseWorker | Kind::RemoveWorker, None) => {
                unreachable!("a worker was chosen")
            }
            (Kind::AddWorker, _) => self.add_worker().await,
            (Kind::KillApi, _) => self.kill_api(draws).await,
            (Kind::StopKafka, _) if is_cluster => self.restart_broker("stop", draws).await,
            (Kind::KillKafka, _) if is_cluster => self.restart_broker("kill", draws).await,
            (Kind::KillTwoBrokers, _) => self.kill_two_brokers(draws).await,
            (Kind::PauseBroker, _) => self.pause_broker(draws).await,
            (Kind::MoveLeaders, _) => self.move_leaders(draws).await,
            (Kind::StopKafka, _) => self.stop_kafka(draws).await,
            (Kind::KillKafka, _) => self.kill_kafka(draws).await,
            (Kind::CutKafka, _) => self.cut_kafka(draws).await,
            (Kind::DelayKafka, _) => self.delay_kafka(draws).await,
            (Kind::EmptyRedis, _) if is_cluster => self.empty_primary(draws).await,
            (Kind::EmptyRedis, _) => self.empty_redis(draws).await,
            (Kind::LoseWrites, _) if is_cluster => self.fail_over_behind(draws).await,
            (Kind::LoseWrites, _) => self.restart_from_dump().await,
            (Kind::CutRedis, _) if is_cluster => self.cut_cluster(draws).await,
            (Kind::CutRedis, _) => self.cut_redis(draws).await,
            (Kind::DelayRedis, _) if is_cluster => self.delay_cluster(draws).await,
            (Kind::DelayRedis, _) => self.delay_redis(draws).await,
            (Kind::FreezeRedis, _) if is_cluster => self.freeze_primary(draws).await,
            (Kind::FreezeRedis, _) => self.freeze_redis(draws).await,
            (Kind::CrashPrimary, _) => self.crash_primary(draws).await,
            (Kind::MoveSlots, _) => self.move_slots(draws).await,
        }
    }
}
