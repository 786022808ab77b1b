//! `roost bench`, at a size that shows that it works.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{output, roost};

#[test]
fn a_bench_measures_and_writes_both_reports() {
    let dir = TempDir::new().expect("a directory");
    let out = dir.path().join("new/folder");
    let mut bench = roost(["bench", "--smoke", "--out"]);
    bench.arg(&out).env("TMPDIR", dir.path());
    // What is published goes into Kafka, where there is one.
    let kafka = std::env::var("ROOST_TEST_KAFKA").ok();
    if let Some(kafka) = &kafka {
        bench.env("ROOST_BENCH_KAFKA", kafka);
    }
    let printed = output(&mut bench);
    assert!(printed.contains("drain, Redis"), "{printed}");

    let json = fs::read_to_string(out.join("bench.json")).expect("a report");
    let report: Value = serde_json::from_str(&json).expect("JSON");
    let sections = report["sections"].as_array().expect("sections");
    let names = sections.iter().map(|section| section["name"].as_str().expect("a name"));
    let mut expected = vec![
        "drain, embedded",
        "drain, Redis",
        "read, embedded",
        "read, Redis",
        "mixed, embedded",
        "mixed, Redis",
    ];
    expected.extend(kafka.map(|_| "publish, Kafka"));
    assert_eq!(names.collect::<Vec<_>>(), expected);
    for row in sections.iter().flat_map(|section| section["rows"].as_array().expect("rows")) {
        for figure in row["figures"].as_array().expect("figures") {
            assert!(figure["value"].as_f64().expect("a number") > 0.0, "{row}");
        }
    }
    assert_eq!(sections[1]["rows"].as_array().map(Vec::len), Some(6), "{report}");
    let page = fs::read_to_string(out.join("bench.html")).expect("a page");
    assert!(page.contains("drain, Redis"));
    // What it needed is gone.
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1);
}
