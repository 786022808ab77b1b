//! Which faults come, in which order and after which pauses: a pure function of the
//! seed. What exactly each one hits is drawn from what is whole at the time.

use std::time::Duration;

use rand::{
    RngExt, SeedableRng,
    rngs::Xoshiro256PlusPlus,
    seq::{IndexedRandom, SliceRandom},
};
use serde::Serialize;

use crate::settings::{Backend, Settings};

/// The longest pause between two faults.
const PAUSE_MS: std::ops::Range<u64> = 200..3_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `kill -9`, and a new process.
    KillWorker,
    /// Stopped for longer than its session with Kafka lasts, and continued.
    PauseWorker,
    /// One more worker.
    AddWorker,
    /// One worker less, in order.
    RemoveWorker,
    /// `kill -9`, and a new process at the same address.
    KillApi,
    /// Kafka, or one of three brokers.
    StopKafka,
    /// The same with `kill -9`.
    KillKafka,
    /// Two of three brokers, so that nothing can be written: `kill -9`, and started again.
    KillTwoBrokers,
    /// A broker is stopped, for long enough that others lead its partitions, and continued.
    PauseBroker,
    /// Every partition is led by another broker.
    MoveLeaders,
    /// All connections to Kafka broken, and new ones refused for a moment.
    CutKafka,
    DelayKafka,
    /// Redis, or one primary of the Cluster before its replica takes over, comes back
    /// empty.
    EmptyRedis,
    /// Redis comes back from a dump, or a replica that was behind takes over: the
    /// writes of the last second are lost.
    LoseWrites,
    CutRedis,
    DelayRedis,
    /// Redis, or one primary of the Cluster, is stopped for longer than anybody waits for
    /// an answer, and continued: in a Cluster before, while or after its replica takes
    /// over.
    FreezeRedis,
    /// A primary ends, its replica takes over, and it comes back as the replica's.
    CrashPrimary,
    MoveSlots,
}

impl Kind {
    pub const ALL: [Self; 19] = [
        Self::KillWorker,
        Self::PauseWorker,
        Self::AddWorker,
        Self::RemoveWorker,
        Self::KillApi,
        Self::StopKafka,
        Self::KillKafka,
        Self::KillTwoBrokers,
        Self::PauseBroker,
        Self::MoveLeaders,
        Self::CutKafka,
        Self::DelayKafka,
        Self::EmptyRedis,
        Self::LoseWrites,
        Self::CutRedis,
        Self::DelayRedis,
        Self::FreezeRedis,
        Self::CrashPrimary,
        Self::MoveSlots,
    ];

    /// Those that a backend can have.
    pub fn all_of(backend: Backend) -> impl Iterator<Item = Self> {
        let of_clusters = |kind: Self| {
            let of_brokers =
                matches!(kind, Self::KillTwoBrokers | Self::PauseBroker | Self::MoveLeaders);
            of_brokers || matches!(kind, Self::CrashPrimary | Self::MoveSlots)
        };
        Self::ALL.into_iter().filter(move |kind| backend == Backend::Cluster || !of_clusters(*kind))
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::KillWorker => "kill_worker",
            Self::PauseWorker => "pause_worker",
            Self::AddWorker => "add_worker",
            Self::RemoveWorker => "remove_worker",
            Self::KillApi => "kill_api",
            Self::StopKafka => "stop_kafka",
            Self::KillKafka => "kill_kafka",
            Self::KillTwoBrokers => "kill_two_brokers",
            Self::PauseBroker => "pause_broker",
            Self::MoveLeaders => "move_leaders",
            Self::CutKafka => "cut_kafka",
            Self::DelayKafka => "delay_kafka",
            Self::EmptyRedis => "empty_redis",
            Self::LoseWrites => "lose_writes",
            Self::CutRedis => "cut_redis",
            Self::DelayRedis => "delay_redis",
            Self::FreezeRedis => "freeze_redis",
            Self::CrashPrimary => "crash_primary",
            Self::MoveSlots => "move_slots",
        }
    }
}

/// A fault that is to come.
pub struct Planned {
    pub kind: Kind,
    /// Since the fault before began.
    pub pause: Duration,
    /// What the details are drawn from.
    pub draws: Draws,
}

/// The random numbers of one fault.
pub struct Draws(Xoshiro256PlusPlus);

impl Draws {
    pub fn ms(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.0.random_range(range))
    }

    pub fn number(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0.random_range(range)
    }

    pub fn yes(&mut self) -> bool {
        self.0.random()
    }

    pub fn one_of<'a, T>(&mut self, things: &'a [T]) -> Option<&'a T> {
        things.choose(&mut self.0)
    }

    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        things.shuffle(&mut self.0);
    }
}

/// As many rounds of all kinds, each in an order of its own, as it takes.
pub fn plan(settings: &Settings) -> Vec<Planned> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(settings.seed);
    let mut planned = Vec::new();
    while planned.len() < settings.fault_count {
        let mut round = settings.kinds.clone();
        round.shuffle(&mut random);
        planned.extend(round.into_iter().map(|kind| Planned {
            kind,
            pause: Duration::from_millis(random.random_range(PAUSE_MS)),
            draws: Draws(Xoshiro256PlusPlus::seed_from_u64(random.random())),
        }));
    }
    planned.truncate(settings.fault_count);
    planned
}
