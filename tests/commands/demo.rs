//! `roost demo`.

use std::fs;

use tempfile::TempDir;

use crate::program::{Running, output, roost};

#[test]
fn the_demo_shows_its_figures_serves_on_and_leaves_nothing_behind() {
    let dir = TempDir::new().expect("a directory");
    let mut demo = roost(["demo", "--users", "1000", "--listen", "127.0.0.1:0"]);
    let demo = Running::start(demo.env("TMPDIR", dir.path()));
    let target = format!("http://{}", demo.address());
    let printed = demo.printed("Serving until Ctrl-C").join("\n");
    for part in ["posts", "p50", "p99", "Try it by hand", &format!("--target {target}")] {
        assert!(printed.contains(part), "no {part:?} in {printed}");
    }
    let timeline = output(&mut roost(["timeline", "7", "--target", &target]));
    assert!(timeline.lines().count() > 1, "{timeline}");

    demo.signal("INT");
    assert_eq!(demo.wait().code(), Some(0));
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
}
