//! `roost rebuild` on disk.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::program::{Running, failure, files, output, roost};

fn rebuild(data_dir: &Path) -> std::process::Command {
    let mut command = roost(["rebuild", "--data-dir"]);
    command.arg(data_dir);
    command
}

/// The first and the last word of each line: without how old a post is, which goes on
/// while a test runs.
fn ageless(timeline: &str) -> Vec<(&str, &str)> {
    let ends = |line| {
        let mut words = str::split_whitespace(line);
        Some((words.next()?, words.next_back()?))
    };
    timeline.lines().filter_map(ends).collect()
}

#[test]
fn it_makes_the_store_again_and_leaves_the_log_alone() {
    let dir = TempDir::new().expect("a directory");
    let (server, address) = Running::serve(dir.path());
    let target = format!("http://{address}");
    let run = |args: &[&str]| output(roost(args).args(["--target", &target]));
    run(&["follow", "1", "2"]);
    for text in ["one", "two", "three"] {
        run(&["post", "--author", "2", text]);
    }
    let deleted = run(&["post", "--author", "2", "four"]);
    run(&["delete", deleted.trim()]);
    let author = run(&["timeline", "--author", "2"]);
    let refused = failure(&mut rebuild(dir.path()));
    assert!(refused.contains(&format!("in use by process {}", server.id())), "{refused}");
    assert_eq!(ageless(&run(&["timeline", "--author", "2"])), ageless(&author));
    server.signal("INT");
    assert!(server.wait().success());

    // A store that is no good to anybody.
    let store = dir.path().join("store");
    for (path, _) in files(&store) {
        fs::write(path, "nonsense").expect("written");
    }
    let log = files(&dir.path().join("log"));
    let said = output(&mut rebuild(dir.path()));
    assert!(said.starts_with("rebuilt the store from 6 events of 4 partitions in "), "{said}");
    let segments = |files: std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>| {
        files.into_iter().filter(|(path, _)| path.extension().is_some_and(|it| it == "log"))
    };
    assert!(segments(log).eq(segments(files(&dir.path().join("log")))), "the log has changed");

    let (_server, address) = Running::serve(dir.path());
    let target = format!("http://{address}");
    let run = |args: &[&str]| output(roost(args).args(["--target", &target]));
    assert_eq!(ageless(&run(&["timeline", "--author", "2"])), ageless(&author));
    let home = run(&["timeline", "1"]);
    assert_eq!(home.lines().filter(|line| !line.starts_with("--")).count(), 3, "{home}");
}

#[test]
fn where_no_data_directory_is_none_is_made() {
    let dir = TempDir::new().expect("a directory");
    let missing = dir.path().join("typo");
    let error = failure(&mut rebuild(&missing));
    assert!(error.contains("no data directory") && error.contains("typo"), "{error}");
    assert!(!missing.exists());
}
