//! `roost bench`, at a size that shows that it works.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    program::{failure, output, roost},
    services,
};

/// What every scenario measures, in the order in which it stands in the report.
const SECTIONS: [(&str, usize); 17] = [
    ("drain, embedded", 2),
    ("drain, Redis", 1),
    ("ceiling", 2),
    ("naive", 5),
    // The highest rate, half of it, and those that were tried.
    ("sustain", 4),
    ("celebrity", 7),
    ("sleepers", 2),
    // The smallest twice.
    ("scale", 3),
    ("followers", 3),
    ("read, embedded", 22),
    ("read, Redis", 22),
    ("mixed, embedded", 4),
    ("mixed, Redis", 4),
    // Three loads.
    ("overload", 3),
    // All of them connected, readers, slow ones.
    ("streams, embedded", 3),
    ("streams, Redis", 3),
    // On the embedded log there is nothing beside it.
    ("publish", 0),
];
/// What may be 0.
const COUNTS: [&str; 13] = [
    "shed",
    "posts waiting, at most",
    "skipped, asleep",
    "own CPU, idle",
    "Redis CPU, idle",
    "memory a stream",
    "the same after the posts",
    "missed",
    "repeated",
    "told",
    "read after being told",
    // More than for the same posts without streams, which so few may not show.
    "own CPU a post",
    "Redis CPU a post",
];

#[test]
fn a_bench_measures_and_writes_both_reports() {
    let dir = TempDir::new().expect("a directory");
    let out = dir.path().join("new/folder");
    let mut bench = roost(["bench", "--smoke", "--out"]);
    let printed = output(bench.arg(&out).env("TMPDIR", dir.path()));

    let json = fs::read_to_string(out.join("bench.json")).expect("a report");
    let report: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["machine"]["log"], "the embedded log");
    assert_eq!(list(&report["missing"]).len(), 0);
    let sections = report["sections"].as_array().expect("sections");
    let found = sections
        .iter()
        .map(|section| (section["name"].as_str().expect("a name"), list(&section["rows"]).len()));
    assert_eq!(found.collect::<Vec<_>>(), SECTIONS, "{printed}");
    for (section, row) in rows(sections) {
        assert!(printed.contains(section["name"].as_str().expect("a name")), "{printed}");
        for figure in list(&row["figures"]) {
            let value = figure["value"].as_f64().expect("a number");
            let least = if COUNTS.iter().any(|name| figure["name"] == *name) { 0.0 } else { 1e-9 };
            assert!(value >= least, "{section:#}");
        }
    }
    assert_ratios(sections);
    let plots = || sections.iter().flat_map(|section| list(&section["plots"]));
    for series in plots().flat_map(|plot| list(&plot["series"])) {
        assert!(!list(&series["points"]).is_empty(), "{series}");
    }
    let page = fs::read_to_string(out.join("bench.html")).expect("a page");
    assert_eq!(page.matches("<svg").count(), plots().count());
    // What it needed is gone.
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1);
}

#[test]
fn a_bench_on_kafka_says_so() {
    let Some(brokers) = services::address("ROOST_TEST_KAFKA", "kafka") else { return };
    let dir = TempDir::new().expect("a directory");
    let mut bench = roost(["bench", "ceiling", "publish", "--smoke", "--kafka", &brokers, "--out"]);
    let printed = output(bench.arg(dir.path()));
    let json = fs::read_to_string(dir.path().join("bench.json")).expect("a report");
    let report: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["machine"]["log"], "Kafka, brokers that were given");
    // Roost, whose drain came from there, and the limit.
    let sections = list(&report["sections"]);
    assert_eq!(list(&sections[0]["rows"]).len(), 2, "{printed}");
    // Three ways to publish, and the bare producer.
    assert_eq!(list(&sections[1]["rows"]).len(), 4, "{printed}");
    assert_ratios(sections);
}

#[test]
fn a_bench_without_a_kafka_says_what_to_do() {
    let dir = TempDir::new().expect("a directory");
    let mut bench = roost(["bench", "drain", "--smoke", "--kafka-jars", "nowhere", "--out"]);
    let said = failure(bench.arg(dir.path()));
    assert!(said.contains("nowhere") && said.contains("--embedded-log"), "{said}");
}

/// Each is of something, by something; but of what is not to be there is nothing.
fn assert_ratios(sections: &[Value]) {
    for ratio in sections.iter().flat_map(|section| list(&section["ratios"])) {
        let value = ratio["value"].as_f64().expect("a number");
        let is_right = if ratio["goal"] == "zero" { value == 0.0 } else { value > 0.0 };
        assert!(is_right, "{ratio}");
    }
}

fn rows(sections: &[Value]) -> impl Iterator<Item = (&Value, &Value)> {
    sections.iter().flat_map(|section| list(&section["rows"]).iter().map(move |row| (section, row)))
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}
