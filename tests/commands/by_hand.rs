//! The tour of the README, and what it says of a stop as rude as can be.

use std::{
    fs,
    net::SocketAddr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::program::{DEADLINE, Running, ended, failure, free_address, output, roost};

const COMPLETE: &str = "-- the timeline is complete to its very beginning";

#[test]
fn the_tour_goes_as_the_readme_tells_it() {
    let dir = TempDir::new().expect("a directory");
    let (_server, address) = Running::serve(dir.path());
    let by_hand = ByHand(address);
    assert_eq!(by_hand.run(&["follow", "1", "2"]), "1 follows 2\n");
    assert_eq!(by_hand.run(&["follow", "1", "3"]), "1 follows 3\n");
    let morning = by_hand.post(&["--author", "2", "good morning"]);
    let snow = "first snow on the lake 🐦";
    let snowing = by_hand.post(&["--author", "3", "--origin", "exclusive", snow]);
    by_hand.timeline_shows("1", &[&[&snowing, "3", snow], &[&morning, "2", "good morning"]]);

    let answer = by_hand.post(&["--author", "1", "--reply-to", &snowing, "where?"]);
    let repost = by_hand.post(&["--author", "2", "--repost-of", &snowing]);
    let reposted = format!("[reposts {snowing}]");
    let answered = format!("[answers {snowing}] where?");
    let all: [&[&str]; 3] = [&[&answer, "1", &answered], &[&snowing], &[&morning]];
    by_hand.timeline_shows("1", &all);
    let thread = by_hand.run(&["thread", &snowing]);
    let thread: Vec<&str> = thread.lines().collect();
    assert!(thread[0].starts_with(&snowing) && thread[0].ends_with(snow), "{thread:?}");
    assert_eq!(thread[1], "-- 1 answer, 1 repost, in 2 timelines");
    assert!(thread[2].starts_with(&answer) && thread.len() == 3, "{thread:?}");
    assert_eq!(by_hand.run(&["unfollow", "1", "3"]), "1 does not follow 3\n");
    // What is repeated is gone, so the repost is seen.
    let repeated: [&[&str]; 3] = [&[&repost, "2", &reposted, snow], &[&answer], &[&morning]];
    by_hand.timeline_shows("1", &repeated);
    by_hand.run(&["follow", "1", "3"]);
    assert_shows(&by_hand.run(&["timeline", "1"]), &all);
    let with_repost: [&[&str]; 4] = [&[&repost], &[&answer], &[&snowing], &[&morning]];
    assert_shows(&by_hand.run(&["timeline", "1", "--all-reposts"]), &with_repost);
    assert_eq!(by_hand.run(&["pull", "3"]), "posts of 3 are pulled by reads\n");
    assert_shows(&by_hand.run(&["timeline", "1"]), &all);
    assert_eq!(by_hand.run(&["push", "3"]), "posts of 3 are pushed into timelines\n");
    assert_shows(&by_hand.run(&["timeline", "1"]), &all);
    assert_eq!(by_hand.run(&["mute", "1", "2"]), "1 mutes 2\n");
    assert_shows(&by_hand.run(&["timeline", "1"]), &[&[&answer], &[&snowing]]);
    assert_eq!(by_hand.run(&["unmute", "1", "2"]), "1 does not mute 2\n");
    assert_eq!(by_hand.run(&["block", "2", "1"]), "2 blocks 1\n");
    assert_shows(&by_hand.run(&["timeline", "1"]), &[&[&answer], &[&snowing]]);
    assert_eq!(by_hand.run(&["unblock", "2", "1"]), "2 does not block 1\n");
    let noticed = by_hand.run(&["notifications", "3"]);
    let twice = ["message", "--from", "1", "--to", "2", "--to", "3", "psst", "--request-id", "a"];
    let message = by_hand.run(&twice);
    assert_eq!(by_hand.run(&twice), message);
    let message = message.trim_end();
    for args in [&["messages", "3"][..], &["messages", "1", "--sent"]] {
        assert_starts(&by_hand.run(args), &[(message, "1       now  to 2, 3: psst")]);
    }
    let unsent = by_hand.run(&["delete-message", message, "--from", "1"]);
    assert_eq!(unsent, format!("deleted message {message}\n"));
    assert_eq!(by_hand.run(&["messages", "3"]), "");
    assert_starts(&noticed, &[(&repost, "reposts you: "), (&answer, "answers you: ")]);
    assert_eq!(by_hand.run(&["delete", &snowing]), format!("deleted {snowing}\n"));
    assert_shows(&by_hand.run(&["timeline", "1"]), &[&[&answer], &[&morning]]);

    let again = failure(&mut by_hand.command(&["delete", &snowing]));
    assert!(again.contains("not found") && again.contains(&snowing), "{again}");
}

#[test]
fn an_edge_list_is_imported_and_a_broken_one_names_its_line() {
    let dir = TempDir::new().expect("a directory");
    let (_server, address) = Running::serve(&dir.path().join("data"));
    let by_hand = ByHand(address);
    let post = by_hand.post(&["--author", "12", "hello"]);
    let broken = file(&dir, "broken.txt", "10 12\n11 x\n");
    let refused = ended(&mut by_hand.command(&["import", &broken]));
    assert_eq!(refused.status.code(), Some(1));
    // The lines before the last one tell how far it has come.
    let error = String::from_utf8(refused.stderr).expect("UTF-8");
    let error = error.lines().last().expect("a line");
    assert!(error.starts_with("roost: ") && error.contains("broken.txt, line 2: "), "{error}");
    assert!(error.contains("\"11 x\""), "{error}");
    assert_shows(&by_hand.run(&["timeline", "10"]), &[]);

    let graph = file(&dir, "graph.txt", "# a comment\n10 12\n11 12\n10 11\n10 12\n11 11\n");
    assert_eq!(
        by_hand.run(&["import", &graph]),
        "imported 3 follows (skipped: 1 repeated, 1 of an account following itself)\n"
    );
    by_hand.timeline_shows("10", &[&[&post, "12", "hello"]]);
}

#[test]
fn everything_acknowledged_outlives_a_kill() {
    let dir = TempDir::new().expect("a directory");
    let (server, address) = Running::serve(dir.path());
    let by_hand = ByHand(address);
    by_hand.run(&["follow", "1", "2"]);
    let mut posts: Vec<String> = (0..10)
        .map(|number| by_hand.post(&["--author", "2", &format!("number {number}")]))
        .collect();
    let twice = ["--author", "2", "--request-id", "a", "once"];
    posts.push(by_hand.post(&twice));
    // That is `kill -9`.
    drop(server);

    let (_server, address) = Running::serve(dir.path());
    let by_hand = ByHand(address);
    assert_eq!(&by_hand.post(&twice), posts.last().expect("posts"));
    let shown: Vec<[&str; 1]> = posts.iter().rev().map(|post| [post.as_str()]).collect();
    let shown: Vec<&[&str]> = shown.iter().map(|post| &post[..]).collect();
    by_hand.timeline_shows("1", &shown);
}

#[test]
fn a_command_without_a_server_says_how_to_start_one() {
    let target = format!("http://{}", free_address());
    let error = failure(&mut roost(["timeline", "1", "--target", &target]));
    assert!(error.contains(&format!("no Roost answers at {target}")), "{error}");
    assert!(error.contains("roost serve") && error.contains("--target"), "{error}");
}

/// Types commands for the server at an address.
struct ByHand(SocketAddr);

impl ByHand {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = roost(args);
        command.args(["--target", &format!("http://{}", self.0)]);
        command
    }

    fn run(&self, args: &[&str]) -> String {
        output(&mut self.command(args))
    }

    /// Publishes a post and returns its id.
    fn post(&self, args: &[&str]) -> String {
        let id = self.run(&[&["post"], args].concat());
        assert!(id.trim_end().parse::<u64>().is_ok(), "{id:?}");
        id.trim_end().to_owned()
    }

    /// Waits until the posts have been delivered, and checks that they are shown.
    fn timeline_shows(&self, user: &str, posts: &[&[&str]]) {
        let begun = Instant::now();
        let mut timeline = self.run(&["timeline", user]);
        while timeline.lines().count() <= posts.len() && begun.elapsed() < DEADLINE {
            thread::sleep(Duration::from_millis(20));
            timeline = self.run(&["timeline", user]);
        }
        assert_shows(&timeline, posts);
    }
}

/// A timeline has exactly these posts, each by some of what its line must hold.
fn assert_shows(timeline: &str, posts: &[&[&str]]) {
    let lines: Vec<&str> = timeline.lines().collect();
    assert_eq!(lines.len(), posts.len() + 1, "{timeline}");
    assert_eq!(lines[posts.len()], COMPLETE);
    for (line, parts) in lines.into_iter().zip(posts) {
        assert!(line.starts_with(parts[0]), "{parts:?} in {timeline}");
        assert!(parts.iter().all(|part| line.contains(part)), "{parts:?} in {timeline}");
    }
}

/// Each line begins with an id and has a text.
fn assert_starts(lines: &str, expected: &[(&str, &str)]) {
    assert_eq!(lines.lines().count(), expected.len(), "{lines}");
    for (line, (id, text)) in lines.lines().zip(expected) {
        assert!(line.starts_with(id) && line.contains(text), "{id} {text:?} in {lines}");
    }
}

fn file(dir: &TempDir, name: &str, content: &str) -> String {
    let path = dir.path().join(name);
    fs::write(&path, content).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}
