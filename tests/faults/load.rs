//! The load meanwhile: `roost load`, a process like the others, which publishes,
//! changes follows, hides accounts, has authors pulled, sends messages, deletes and reads,
//! and in the end compares.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::time;

use crate::{
    failure::{Doing, Failure, Result},
    fleet::API_NODES,
    process::{Process, roost, signal},
    services::Services,
    settings::Settings,
};

/// Actions a second.
const RATE: u32 = 60;
/// Posts of a trace a second.
const TRACE_RATE: u32 = 1_000;
/// The load lasts at least so long for each fault, and is ended when the faults are.
const SECONDS_PER_FAULT: u32 = 8;
/// So few posts an account that most timelines show all of theirs at the end.
const POSTS_PER_USER: u32 = 8;
const USERS_MIN: u32 = 300;
/// What else goes on, in percent of all actions.
const BESIDE: [&str; 6] = ["--pulls", "1", "--hides", "5", "--messages", "5"];
/// The same beside a trace, whose actions are so many that more would hold them up.
const BESIDE_TRACE: [&str; 6] = ["--pulls", "1", "--hides", "1", "--messages", "1"];
/// For how long an API node may fail.
const PATIENCE_SECONDS: &str = "300";
/// The longest wait until the load has begun to publish, or has stopped.
const DEADLINE: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub struct Load {
    folder: PathBuf,
    words: Vec<String>,
    /// Actions a second.
    rate: u32,
}

/// A load that is under way.
pub struct Publishing {
    process: Process,
    log: PathBuf,
    report: PathBuf,
}

impl Load {
    pub fn new(settings: &Settings, services: &Services) -> Self {
        let targets: Vec<String> =
            (0..API_NODES).map(|node| format!("http://{}", services.api_node(node))).collect();
        let (rate, source, beside) = match &settings.trace {
            Some(file) => {
                let source = vec!["--trace".to_owned(), file.display().to_string()];
                (TRACE_RATE, source, BESIDE_TRACE)
            }
            None => (RATE, synthetic(settings), BESIDE),
        };
        let mut words = vec!["load".to_owned(), "--target".to_owned(), targets.join(",")];
        words.extend(source);
        words.extend(beside.map(str::to_owned));
        words.extend(["--seed".to_owned(), settings.seed.to_string()]);
        words.extend(["--retry-for", PATIENCE_SECONDS].map(str::to_owned));
        // What was acknowledged under faults is never sent again: a server that has
        // forgotten it cannot make it good.
        let journal = settings.folder().join("journal.txt");
        words.extend(["--journal".to_owned(), journal.display().to_string()]);
        Self { folder: settings.folder(), words, rate }
    }

    /// Starts it, and waits until it publishes.
    pub async fn publish(&self) -> Result<Publishing> {
        let rate = ["--rate".to_owned(), self.rate.to_string()];
        let mut publishing = self.start("load", &rate)?;
        let begun = Instant::now();
        // The line that ends the phase before; those that say how far it is look otherwise.
        let are_awake = |line: &str| line.starts_with("waking readers: ") && line.contains(" in ");
        while !fs::read_to_string(&publishing.log).unwrap_or_default().lines().any(are_awake) {
            publishing.must_run()?;
            if begun.elapsed() > DEADLINE {
                return Err(Failure::new("the load does not come to publish"));
            }
            time::sleep(LOOK_EVERY).await;
        }
        Ok(publishing)
    }

    /// Runs it again, as fast as it goes, and compares every timeline.
    pub async fn verify(&self, attempt: usize, patience: Duration) -> Result<Value> {
        let mut verifying = self.start(&format!("verify-{attempt}"), &["--verify".to_owned()])?;
        verifying.wait(patience).await?;
        verifying.report()
    }

    fn start(&self, name: &str, more: &[String]) -> Result<Publishing> {
        let (log, report) =
            (self.folder.join(format!("{name}.log")), self.folder.join(format!("{name}.json")));
        let mut command = roost(self.words.iter().chain(more));
        let stderr = File::create(&log).doing(log.display())?;
        command.arg("--json").arg(&report).stdout(Stdio::null()).stderr(stderr);
        let process = Process(command.spawn().doing(name)?);
        Ok(Publishing { process, log, report })
    }
}

/// A population that lasts for all faults.
fn synthetic(settings: &Settings) -> Vec<String> {
    let posts = RATE * SECONDS_PER_FAULT * settings.fault_count as u32;
    let users = (posts / POSTS_PER_USER).max(USERS_MIN);
    let (users, posts) = (users.to_string(), posts.to_string());
    let words = ["--users", &users, "--posts", &posts, "--churn", "10", "--mentions", "20"];
    words.map(str::to_owned).to_vec()
}

impl Publishing {
    /// Faults count only while somebody publishes.
    pub fn must_run(&mut self) -> Result<()> {
        match self.process.0.try_wait().doing("the load")? {
            None => Ok(()),
            Some(status) => Err(self.failed(&format!("has ended before the faults: {status}"))),
        }
    }

    /// Ends it with what is under way: its report.
    pub async fn stop(mut self) -> Result<Value> {
        self.must_run()?;
        signal(&self.process.0, "INT");
        let status = self.wait(DEADLINE).await?;
        if !status.success() {
            return Err(self.failed(&status.to_string()));
        }
        let report = self.report()?;
        if report["interrupted"] != true {
            return Err(self.failed("had published everything before the faults were over"));
        }
        Ok(report)
    }

    async fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.0.try_wait().doing("the load")? {
                return Ok(status);
            }
            if begun.elapsed() > patience {
                return Err(self.failed(&format!("does not end within {patience:?}")));
            }
            time::sleep(LOOK_EVERY).await;
        }
    }

    fn report(&self) -> Result<Value> {
        match fs::read(&self.report) {
            Ok(text) => serde_json::from_slice(&text).doing(self.report.display()),
            // It says why on stderr.
            Err(_) => Err(self.failed("has made no report")),
        }
    }

    fn failed(&self, how: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        Failure::new(format!("the load {how}: {}", log.lines().last().unwrap_or_default()))
    }
}
