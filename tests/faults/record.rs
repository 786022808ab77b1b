//! What happened in a run, and its verdict, kept as JSON whatever the end.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    failure::{Doing, Failure, Result},
    plan::Kind,
    settings::Settings,
};

pub struct Record {
    path: PathBuf,
    begun: Instant,
    content: Mutex<Content>,
}

#[derive(Serialize)]
struct Content {
    backend: &'static str,
    seed: u64,
    command: String,
    seconds: f64,
    verdict: Verdict,
    /// Why there is none, or why it is bad.
    failure: Option<String>,
    faults_planned: usize,
    counts: BTreeMap<Kind, usize>,
    slots_moved: u64,
    posts_published: u64,
    checks: Vec<Check>,
    /// What the last check found.
    differences: Vec<String>,
    /// Processes that ended though nobody had told them to, and were started again.
    ended_by_themselves: Vec<Ended>,
    faults: Vec<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The run is under way, or has failed before its end.
    None,
    NoDifference,
    Differences,
    /// Not everything was delivered, or could be read, in time.
    NotCompared,
}

/// A comparison of every timeline with the model.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub at_seconds: f64,
    pub difference_count: u64,
    /// Why nothing could be compared.
    pub failure: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Ended {
    pub at_seconds: f64,
    pub process: String,
    pub how: String,
    /// It had not come so far as to serve, and said why: what it needs was away. That is
    /// what it should do; whoever has started it starts it again.
    pub refused_to_start: bool,
}

#[derive(Serialize)]
struct Fault {
    number: usize,
    kind: Kind,
    begun_seconds: f64,
    /// When what it had hit was whole again.
    ended_seconds: Option<f64>,
    details: Details,
}

/// What a fault hit, and how hard.
pub type Details = Map<String, Value>;

/// The details of a fault, from `json!({…})`.
pub fn details(value: Value) -> Details {
    match value {
        Value::Object(details) => details,
        other => Map::from_iter([("details".to_owned(), other)]),
    }
}

impl Record {
    pub fn new(settings: &Settings) -> Self {
        let content = Content {
            backend: settings.backend.name(),
            seed: settings.seed,
            command: settings.command(),
            seconds: 0.0,
            verdict: Verdict::None,
            failure: None,
            faults_planned: settings.fault_count,
            counts: BTreeMap::new(),
            slots_moved: 0,
            posts_published: 0,
            checks: Vec::new(),
            differences: Vec::new(),
            ended_by_themselves: Vec::new(),
            faults: Vec::new(),
        };
        Self { path: settings.record(), begun: Instant::now(), content: Mutex::new(content) }
    }

    /// A fault begins: its number, from 0.
    pub fn begin(&self, kind: Kind) -> usize {
        let begun_seconds = self.seconds();
        let mut content = self.content();
        let number = content.faults.len();
        *content.counts.entry(kind).or_default() += 1;
        let details = Details::new();
        content.faults.push(Fault { number, kind, begun_seconds, ended_seconds: None, details });
        self.say(&format!("{:>3} of {} {}", number + 1, content.faults_planned, kind.name()));
        number
    }

    /// What was hit is whole again.
    pub fn end(&self, number: usize, details: Details) -> Result<()> {
        let ended_seconds = self.seconds();
        let mut content = self.content();
        content.slots_moved += details.get("slots").and_then(Value::as_u64).unwrap_or(0);
        let fault = &mut content.faults[number];
        let text = json!(details);
        self.say(&format!(
            "{:>3} over after {:.1} s: {} {text}",
            number + 1,
            ended_seconds - fault.begun_seconds,
            fault.kind.name()
        ));
        fault.ended_seconds = Some(ended_seconds);
        fault.details = details;
        drop(content);
        self.write()
    }

    pub fn ended_by_itself(&self, ended: Ended) {
        self.say(&format!("{} has ended: {}", ended.process, ended.how));
        self.content().ended_by_themselves.push(ended);
    }

    /// No process may end that no fault has ended.
    pub fn nobody_ended(&self) -> Result<()> {
        let content = self.content();
        match content.ended_by_themselves.iter().find(|ended| !ended.refused_to_start) {
            Some(Ended { at_seconds, process, how, .. }) => {
                Err(Failure::new(format!("{process} ended by itself at {at_seconds} s: {how}")))
            }
            None => Ok(()),
        }
    }

    pub fn published(&self, posts: u64) {
        self.content().posts_published = posts;
    }

    pub fn checked(&self, difference_count: u64, failure: Option<String>, found: Vec<String>) {
        let at_seconds = self.seconds();
        self.say(&match &failure {
            Some(failure) => format!("not compared: {failure}"),
            None => format!("compared: {difference_count} differences"),
        });
        let mut content = self.content();
        content.checks.push(Check { at_seconds, difference_count, failure });
        content.differences = found;
    }

    /// Writes down how it ended.
    pub fn close(&self, verdict: Verdict, failure: Option<String>) -> Result<()> {
        let mut content = self.content();
        content.verdict = verdict;
        content.failure = failure;
        drop(content);
        self.write()
    }

    pub fn say(&self, line: &str) {
        println!("{:7.1} s  {line}", self.seconds());
    }

    pub fn seconds(&self) -> f64 {
        (self.begun.elapsed().as_secs_f64() * 1e3).round() / 1e3
    }

    fn write(&self) -> Result<()> {
        let mut content = self.content();
        content.seconds = self.seconds();
        let text = serde_json::to_string_pretty(&*content).doing("the record")?;
        fs::write(&self.path, text + "\n").doing(self.path.display())
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
