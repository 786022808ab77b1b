//! The fault run: real processes, real Kafka and Redis, real faults, and at the end
//! every timeline compared with a brute-force model.
//!
//! ```text
//!  plan (seed) ─► run ─┬─► faults ──► workers, API nodes, Kafka, Redis, connections
//!                      └─► load ────► `roost load`: publishes, churns and reads meanwhile
//!                                     `roost load --verify`, once all is whole again
//!                           record ─► target/faults/<backend>-<seed>.json
//! ```
//!
//! Beside it `away` says what goes on while all of Kafka or Redis is away for long.
//!
//! `settings` says how a longer one, another seed, or some kinds of faults alone are run.

#[allow(dead_code, reason = "each suite uses a part of it")]
#[path = "../common/process.rs"]
mod process;

#[path = "../services/leaders.rs"]
mod leaders;

mod away;
mod cluster;
mod failure;
mod faults;
mod fleet;
mod load;
mod plan;
mod proxy;
mod record;
mod redis_node;
mod run;
mod services;
mod settings;

use settings::{Backend, Settings};
use tokio::sync::Mutex;

/// One run at a time has the machine, and the ports.
static TURN: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_on_kafka_and_redis() {
    fault_run(Backend::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_on_three_brokers_and_a_redis_cluster() {
    fault_run(Backend::Cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_need_what_is_away_goes_on() {
    let _turn = TURN.lock().await;
    let Some(settings) = Settings::from_environment(Backend::Redis) else { return };
    let settings = Settings { test: "away", ..settings };
    if let Err(failure) = away::run(&settings).await {
        panic!("{failure}\n  logs     {}", settings.folder().display());
    }
}

async fn fault_run(backend: Backend) {
    let _turn = TURN.lock().await;
    let Some(settings) = Settings::from_environment(backend) else { return };
    for run in settings.runs() {
        println!("seed {}, {} faults, {}", run.seed, run.fault_count, backend.name());
        if let Err(failure) = run::run(&run).await {
            panic!(
                "{failure}\n  record   {}\n  logs     {}\n  again    {}",
                run.record().display(),
                run.folder().display(),
                run.command(),
            );
        }
    }
}
