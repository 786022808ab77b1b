//! A fault run from beginning to end.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{task::JoinSet, time};

use crate::{
    failure::{Doing, Failure, Result},
    faults::World,
    fleet::{Fleet, SIZE},
    load::Load,
    plan::plan,
    proxy::Proxy,
    record::{Record, Verdict},
    services::Services,
    settings::Settings,
};

/// How long timelines may take to become what they should be, once all is whole; and
/// longer for each fault, since more was published meanwhile.
const REPAIR_DEADLINE: Duration = Duration::from_secs(120);
const REPAIR_DEADLINE_PER_FAULT: Duration = Duration::from_secs(1);
/// And longer where a trace is replayed to its end before.
const TRACE_DEADLINE: Duration = Duration::from_secs(600);
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// How many differences a failure tells in full; the record has more.
const DIFFERENCES_TOLD: usize = 5;

/// Runs it; the record says how, whatever the end.
pub async fn run(settings: &Settings) -> Result<()> {
    prepare_folder(settings)?;
    let Some(services) = Services::up(settings).await? else { return Ok(()) };
    let record = Arc::new(Record::new(settings));
    let measured = measure(settings, services, &record).await;
    let measured = measured.and_then(|()| {
        let nobody_failed =
            nobody_panicked(&settings.folder()).and_then(|()| record.nobody_ended());
        nobody_failed.map_err(|failure| (Verdict::None, failure))
    });
    match measured {
        Ok(()) => record.close(Verdict::NoDifference, None),
        Err((verdict, failure)) => {
            record.close(verdict, Some(failure.to_string()))?;
            Err(failure)
        }
    }
}

/// Makes the folder for what the processes say.
pub fn prepare_folder(settings: &Settings) -> Result<()> {
    let folder = settings.folder();
    // The logs of a run of the same name.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).doing(folder.display())
}

/// Whatever is put right afterwards: no fault may lead to a panic.
pub fn nobody_panicked(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).doing(folder.display())? {
        let path = entry.doing(folder.display())?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let log = fs::read(&path).doing(path.display())?;
            let log = String::from_utf8_lossy(&log);
            if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
                return Err(Failure::new(format!("{}: {line}", path.display())));
            }
        }
    }
    Ok(())
}

async fn measure(
    settings: &Settings,
    services: Services,
    record: &Arc<Record>,
) -> std::result::Result<(), (Verdict, Failure)> {
    let unjudged = |failure| (Verdict::None, failure);
    let (from, to) = (services.kafka_proxies(), services.kafka_behind_proxies());
    let kafka = Proxy::start_all(&from, &to);
    let kafka = kafka.await.map_err(unjudged)?;
    let fleet = Fleet::start(settings, SIZE, &services, record).await.map_err(unjudged)?;
    let load = Load::new(settings, &services);
    let world = Arc::new(World::new(settings.backend, services, fleet, kafka));
    let measured = tokio::select! {
        failure = world.fleet.supervise() => Err(unjudged(failure)),
        done = async {
            break_things(settings, &world, &load, record).await.map_err(unjudged)?;
            judge(settings, &world, &load, record).await?;
            // What has ended since the last look.
            world.fleet.revive().map_err(unjudged)
        } => done,
    };
    if measured.is_err()
        && let Err(failure) = world.services.keep_events(&settings.folder().join("events"))
    {
        record.say(&format!("the events of the run are not kept: {failure}"));
    }
    measured
}

/// All faults, one after the other, while the load publishes. Those that last do so
/// while the next ones come, as far as they hit something else.
async fn break_things(
    settings: &Settings,
    world: &Arc<World>,
    load: &Load,
    record: &Arc<Record>,
) -> Result<()> {
    record.say("importing the load's follows");
    let mut publishing = load.publish().await?;
    let mut under_way: JoinSet<Result<()>> = JoinSet::new();
    for mut planned in plan(settings) {
        time::sleep(planned.pause).await;
        let target = world.target(planned.kind, &mut planned.draws).await;
        while let Some(done) = under_way.try_join_next() {
            done.doing("a fault")??;
        }
        publishing.must_run()?;
        let (world, record) = (Arc::clone(world), Arc::clone(record));
        under_way.spawn(async move {
            let number = record.begin(planned.kind);
            let doing = format!("fault {} ({})", number + 1, planned.kind.name());
            let details = world.hit(planned.kind, target, &mut planned.draws).await;
            record.end(number, details.doing(doing)?)
        });
    }
    while let Some(done) = under_way.join_next().await {
        done.doing("a fault")??;
    }
    let report = publishing.stop().await?;
    record.published(report["posts"].as_u64().unwrap_or(0));
    match report["wrong_reads"].as_u64() {
        Some(0) => Ok(()),
        wrong => Err(Failure::new(format!("{wrong:?} reads had a post twice or out of order"))),
    }
}

/// Compares every timeline with the model, again and again until there is no
/// difference or it has taken too long.
async fn judge(
    settings: &Settings,
    world: &World,
    load: &Load,
    record: &Record,
) -> std::result::Result<(), (Verdict, Failure)> {
    for node in &world.fleet.api_nodes {
        node.serves().await.map_err(|failure| (Verdict::None, failure))?;
    }
    let begun = Instant::now();
    let replay = settings.trace.as_ref().map_or(Duration::ZERO, |_| TRACE_DEADLINE);
    let faults = REPAIR_DEADLINE_PER_FAULT * settings.fault_count as u32;
    let deadline = REPAIR_DEADLINE + faults + replay;
    for attempt in 1.. {
        // One that begins late has time as well.
        let patience = deadline.saturating_sub(begun.elapsed()).max(deadline / 2);
        let (verdict, failure) = match load.verify(attempt, patience).await {
            Ok(report) => {
                let found = &report["verification"];
                let count = found["difference_count"].as_u64();
                record.checked(count.unwrap_or(0), None, texts(&found["differences"]));
                record.published(report["posts"].as_u64().unwrap_or(0));
                match count {
                    Some(0) => return Ok(()),
                    Some(count) => {
                        let some = texts(&found["differences"]).into_iter().take(DIFFERENCES_TOLD);
                        let some: Vec<String> = some.collect();
                        let told = format!("{count} differences:\n  {}", some.join("\n  "));
                        (Verdict::Differences, told)
                    }
                    None => (Verdict::None, "the load has compared nothing".to_owned()),
                }
            }
            Err(failure) => {
                record.checked(0, Some(failure.to_string()), Vec::new());
                (Verdict::NotCompared, failure.to_string())
            }
        };
        if begun.elapsed() > deadline {
            return Err((verdict, Failure::new(failure)));
        }
        time::sleep(CHECK_EVERY).await;
    }
    unreachable!("attempts do not run out")
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
