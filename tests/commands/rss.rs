//! `roost rss`, with feeds of all kinds and a real server.

use std::{fs, io::Write};

use flate2::{Compression, write::GzEncoder};
use roost::proto::v1::Origin;
use tokio::runtime::Runtime;

use crate::{
    feeds::{Page, rss},
    process::{Process, serve_on},
    program::{Running, ended, failure, free_address},
    town::{Town, polled, posts, texts, titles, tls_before, tls_file, wait_until},
};

#[test]
fn entries_of_all_kinds_of_feeds_are_posted_once() {
    let town = Town::new();
    let (_server, roost) = Running::serve(&town.path("data"));
    let long = "word ".repeat(60);
    town.feeds
        .set_feed("/rss", &rss(&[("Tom &amp;amp; &lt;b&gt;Jerry&lt;/b&gt;", "b"), (&long, "a")]));
    let atom = "<feed xmlns='http://www.w3.org/2005/Atom'><title>t</title><id>f</id><entry>\
                <title>Atom</title><id>urn:1</id><link href='/one'/></entry></feed>";
    town.feeds.set_feed("/atom", atom);
    let json = r#"{"version":"https://jsonfeed.org/version/1.1","title":"t","items":[
                  {"id":"1","title":"JSON","url":"https://example.org/json"}]}"#;
    // It comes packed, and without a name.
    town.feeds.set("/json", Page::Bytes { encoding: "gzip", bytes: gzip(json.as_bytes()) });
    town.list(&[(7, "/rss"), (8, "/atom"), (8, "/json")]);

    let polled = town.once(roost, &["--first", "10"]);
    assert_eq!(polled.said, "3 feeds, 3 polls, 0 of them failed; 4 entries posted, 0 wait\n");
    assert!(polled.log.contains("line 1, http://"), "{}", polled.log);
    assert!(polled.log.contains("/rss: 2 entries, 2 new; 2 posted, 0 wait"), "{}", polled.log);
    let posts = posts(roost, 7);
    assert_eq!(posts.len(), 2);
    assert_eq!(posts[1].text, "Tom & Jerry https://example.org/b");
    let (cut, link) = posts[0].text.split_once("… ").expect("a cut title");
    assert!(cut.starts_with("word word") && cut.ends_with(" word"), "{cut}");
    assert_eq!((link, posts[0].link.as_str()), ("https://example.org/a", "https://example.org/a"));
    assert!((130..=140).contains(&posts[0].text.chars().count()), "{}", posts[0].text);
    assert!(posts.iter().all(|post| post.origin() == Origin::Rss));
    let mut others = texts(roost, 8);
    others.sort();
    let one = format!("Atom {}", town.feeds.url("/one"));
    assert_eq!(others, [one.as_str(), "JSON https://example.org/json"]);

    // Nothing has changed, and the feeds say so.
    let again = town.once(roost, &[]);
    assert_eq!(again.said, "3 feeds, 3 polls, 0 of them failed; 0 entries posted, 0 wait\n");
    assert_eq!(town.feeds.answers("/rss"), [200, 304]);
    // What is new is posted, oldest first, and the rest is known.
    town.feeds.set_feed("/rss", &rss(&[("new 2", "d"), ("new 1", "c"), ("Tom, corrected", "b")]));
    town.once(roost, &[]);
    assert_eq!(town.feeds.answers("/rss"), [200, 304, 200]);
    let texts = texts(roost, 7);
    assert_eq!(texts[2..], ["new 1 https://example.org/c", "new 2 https://example.org/d"]);
    assert_eq!(texts.len(), 4);
}

#[test]
fn of_a_new_feed_the_newest_is_posted_and_what_is_too_much_waits_though_it_leaves_the_feed() {
    let town = Town::new();
    let (_server, roost) = Running::serve(&town.path("data"));
    town.feeds.set_feed("/rss", &rss(&[("3", "3"), ("2", "2"), ("1", "1")]));
    town.list(&[(7, "/rss")]);
    town.once(roost, &[]);
    assert_eq!(titles(roost, 7), ["3"]);
    let more = rss(&[("6", "6"), ("5", "5"), ("4", "4"), ("3", "3"), ("2", "2")]);
    town.feeds.set_feed("/rss", &more);
    let two = ["--entries-max", "2"];
    assert!(town.once(roost, &two).said.contains("2 entries posted, 1 wait"));
    // 6 is in it no more.
    town.feeds.set_feed("/rss", &rss(&[("8", "8"), ("7", "7")]));
    let all = ["3", "4", "5", "6", "7", "8"];
    for expected in [&all[..5], &all, &all] {
        town.once(roost, &two);
        assert_eq!(titles(roost, 7), expected);
    }
    assert_eq!(town.feeds.answers("/rss"), [200, 200, 200, 304, 304]);
}

#[test]
fn entries_with_one_guid_are_posted_once_and_warned_about_once() {
    let town = Town::new();
    let (_server, roost) = Running::serve(&town.path("data"));
    let feed = |titles: &[&str]| {
        let item = |title: &&str| format!("<item><title>{title}</title><guid>N/A</guid></item>");
        let items: String = titles.iter().map(item).collect();
        format!("<rss version='2.0'><channel>{items}</channel></rss>")
    };
    town.list(&[(7, "/rss")]);
    let mut warnings = 0;
    for (titles, posted) in [
        (&["3", "2", "1"][..], &["1", "2", "3"][..]),
        (&["2"], &["1", "2", "3"]),
        (&["4", "3", "2"], &["1", "2", "3", "4"]),
    ] {
        town.feeds.set_feed("/rss", &feed(titles));
        let polled = town.once(roost, &["--first", "10"]);
        warnings += polled.log.matches("have the same guid or link").count();
        assert_eq!(texts(roost, 7), posted);
    }
    assert_eq!(warnings, 1);
}

#[test]
fn cut_feed_is_read_whole_at_next_poll() {
    let town = Town::new();
    let (_server, roost) = Running::serve(&town.path("data"));
    let whole = rss(&[("2", "2"), ("1", "1")]);
    let cut = whole.find("<title>1</title>").expect("the last entry") + 10;
    town.list(&[(7, "/rss")]);
    let page = |text: &str| Page::Feed { text: text.to_owned(), etag: "\"1\"".to_owned() };
    town.feeds.set("/rss", page(&whole[..cut]));
    let polled = town.once(roost, &["--first", "10"]);
    assert!(polled.log.contains("1 entries, 1 new, and it ends too early"), "{}", polled.log);
    // Under the same name: it is asked for as a whole all the same.
    town.feeds.set("/rss", page(&whole));
    town.once(roost, &[]);
    assert_eq!(titles(roost, 7), ["2", "1"]);
}

#[test]
fn a_state_that_is_old_or_gone_posts_nothing_twice() {
    let town = Town::new();
    let (_server, roost) = Running::serve(&town.path("data"));
    let feed = rss(&[("3", "3"), ("2", "2"), ("1", "1")]);
    town.feeds.set_feed("/rss", &feed);
    town.list(&[(7, "/rss")]);
    let ten = ["--first", "10"];
    // Read and written down; nobody was there to post to.
    town.once_failing(free_address(), &ten);
    let written = town.state();
    assert_eq!(titles(roost, 7), [""; 0]);

    assert!(town.once(roost, &ten).said.contains("3 entries posted"));
    // As if it had died before it wrote that down.
    town.restore(&written);
    assert!(town.once(roost, &ten).said.contains("3 entries posted"));
    assert_eq!(titles(roost, 7), ["1", "2", "3"]);

    fs::remove_dir_all(town.path("state")).expect("removed");
    town.once(roost, &ten);
    assert_eq!(titles(roost, 7), ["1", "2", "3"]);
    // What its users have deleted stays deleted.
    let newest = posts(roost, 7).pop().expect("a post").id.to_string();
    let target = format!("http://{roost}");
    assert!(
        ended(&mut crate::program::roost(["delete", &newest, "--target", &target]))
            .status
            .success()
    );
    town.restore(&written);
    town.once(roost, &ten);
    assert_eq!(titles(roost, 7), ["1", "2"]);
}

#[test]
fn while_roost_is_away_entries_wait_though_they_leave_the_feed() {
    let town = Town::new();
    let address = free_address();
    town.feeds.set_feed("/rss", &rss(&[("2", "2"), ("1", "1")]));
    town.list(&[(7, "/rss")]);
    let away = town.once_failing(address, &["--first", "10"]);
    assert!(away.log.contains("Roost takes no posts now"), "{}", away.log);
    assert!(away.said.contains("0 entries posted, 2 wait"), "{}", away.said);
    assert!(away.log.contains("roost: 1 of 1 feeds failed"), "{}", away.log);
    town.feeds.set_feed("/rss", &rss(&[("3", "3")]));
    town.once_failing(address, &[]);
    town.feeds.set_feed("/rss", &rss(&[]));

    let server = Running::start(&mut serve_on(&town.path("data"), address));
    let roost = server.address();
    assert!(town.once(roost, &[]).said.contains("3 entries posted, 0 wait"));
    assert_eq!(titles(roost, 7), ["1", "2", "3"]);
}

#[test]
fn a_feed_of_which_too_much_waits_is_not_polled_until_it_is_posted() {
    let town = Town::new();
    let address = free_address();
    let names: Vec<String> = (0..1_001).rev().map(|number| number.to_string()).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    town.feeds.set_feed("/rss", &rss(&entries[1..]));
    town.list(&[(7, "/rss")]);
    let all = ["--first", "1000", "--entries-max", "1000"];
    town.once_failing(address, &all);
    town.feeds.set_feed("/rss", &rss(&entries));
    let full = town.once_failing(address, &all);
    assert!(full.log.contains("not polled while 1000 entries wait"), "{}", full.log);
    assert_eq!(town.feeds.answers("/rss"), [200]);

    let server = Running::start(&mut serve_on(&town.path("data"), address));
    let mut follow = town.follow(server.address());
    let _following = Process::start(follow.args(["--entries-max", "1000"]));
    wait_until("posted", || texts(address, 7).last().is_some_and(|last| last.starts_with("1000 ")));
    // Those before are on the next page of the timeline.
    let newest: Vec<String> = (201..=1_000).map(|number| number.to_string()).collect();
    assert_eq!(titles(address, 7), newest);
}

#[test]
fn a_bad_feed_is_named_and_holds_up_no_other() {
    let town = Town::new();
    let (_server, roost) = Running::serve(&town.path("data"));
    town.feeds.set_feed("/good", &rss(&[("good", "good")]));
    let redirect = |to: &str| Page::Status(302, vec![("location", to.to_owned())]);
    let pages = [
        ("/page", Page::Feed { text: "<html></html>".to_owned(), etag: "\"1\"".to_owned() }),
        (
            "/cut",
            Page::Feed { text: rss(&[("a", "a")])[..90].to_owned(), etag: "\"1\"".to_owned() },
        ),
        ("/loop", redirect("/loop")),
        ("/file", redirect("file:///etc/passwd")),
        ("/endless", Page::Endless),
        ("/bomb", Page::Bytes { encoding: "gzip", bytes: gzip(&vec![b' '; 64 << 20]) }),
        ("/brotli", Page::Bytes { encoding: "br", bytes: vec![0; 10] }),
        ("/silent", Page::Silent),
        ("/broken", Page::Status(500, vec![])),
    ];
    let problems = [
        "is a web page, no feed",
        "ends before its first entry does",
        "redirects more than 5 times, at last to",
        "redirects to \"file:///etc/passwd\", and only http:// and https:// are followed",
        "is longer than 8 MiB",
        "is longer than 8 MiB",
        "comes as \"br\"",
        "not there within 1 s",
        "answers 500 Internal Server Error",
    ];
    let mut list: Vec<(u64, &str)> = pages.iter().map(|(path, _)| (7, *path)).collect();
    list.extend([(7, "/missing"), (9, "/good")]);
    for (path, page) in pages {
        town.feeds.set(path, page);
    }
    town.list(&list);
    let more = format!("7 http://{}/\n", free_address());
    fs::OpenOptions::new()
        .append(true)
        .open(town.path("feeds"))
        .and_then(|mut file| file.write_all(more.as_bytes()))
        .expect("a longer list");

    let polled = town.once_failing(roost, &["--fetch-timeout", "1"]);
    assert_eq!(polled.said, "12 feeds, 12 polls, 11 of them failed; 1 entries posted, 0 wait\n");
    assert!(polled.log.contains("roost: 11 of 12 feeds failed"), "{}", polled.log);
    let problems = problems.into_iter().chain(["answers 404 Not Found"]);
    for ((line, (_, path)), problem) in (1..).zip(list).zip(problems) {
        let told = format!("line {line}, {}: ", town.feeds.url(path));
        let said = polled.log.lines().find(|said| said.contains(&told)).expect(&told);
        assert!(said.contains(problem) && said.contains("polled again in"), "{problem}: {said}");
    }
    assert!(polled.log.contains("line 12, ") && polled.log.contains("refused"), "{}", polled.log);
    assert_eq!(titles(roost, 9), ["good"]);
    assert_eq!(town.feeds.answers("/loop").len(), 6);
}

#[test]
fn feeds_that_say_nothing_any_more_hold_up_none_that_does() {
    let town = Town::new();
    let (_server, roost) = Running::serve(&town.path("data"));
    // More than are fetched at once, of any kind.
    let mut list: Vec<(u64, &str)> = (100..180).map(|account| (account, "/silent")).collect();
    list.push((7, "/good"));
    town.list(&list);
    town.feeds.set("/silent", Page::Status(500, vec![]));
    town.feeds.set_feed("/good", &rss(&[("1", "1")]));
    town.once_failing(roost, &["--interval", "1"]);
    assert_eq!(titles(roost, 7), ["1"]);

    town.feeds.set("/silent", Page::Silent);
    let mut follow = town.follow(roost);
    let _following = Process::start(follow.args(["--fetch-timeout", "600"]));
    // As many as may, which go on for longer than this test.
    wait_until("silent", || town.feeds.requests("/silent") >= 80 + 16);
    for count in 2..5 {
        let names: Vec<String> = (1..=count).rev().map(|number| number.to_string()).collect();
        let entries: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
        town.feeds.set_feed("/good", &rss(&entries));
        wait_until("posted", || titles(roost, 7).len() == count);
    }
}

#[test]
fn a_feed_that_fails_is_left_alone_for_a_while_and_one_that_is_gone_for_good() {
    let town = Town::new();
    let (_server, roost) = Running::serve(&town.path("data"));
    let later = |status, after: &str| Page::Status(status, vec![("retry-after", after.to_owned())]);
    town.feeds.set("/broken", later(500, "9000"));
    town.feeds.set("/busy", later(429, "7200"));
    town.feeds.set("/gone", Page::Status(410, vec![]));
    town.list(&[(7, "/broken"), (7, "/busy"), (7, "/gone")]);
    let interval = ["--interval", "600"];
    let first = town.once_failing(roost, &interval);
    assert!(first.log.contains("answers 410: it is gone for good"), "{}", first.log);
    assert!(first.log.contains("polled again in 7200 s"), "{}", first.log);
    // They are well, but nobody looks.
    for path in ["/broken", "/busy", "/gone"] {
        town.feeds.set_feed(path, &rss(&[(path, path)]));
    }
    let second = town.once_failing(roost, &interval);
    assert_eq!(second.log.matches("has failed 1 times in a row").count(), 2, "{}", second.log);
    assert!(second.log.contains("remove "), "{}", second.log);
    for (path, answers) in [("/broken", [500]), ("/busy", [429]), ("/gone", [410])] {
        assert_eq!(town.feeds.answers(path), answers, "{path}");
    }

    // With the shortest interval, a second or two after an error.
    town.feeds.set("/flaky", Page::Status(500, vec![]));
    town.list(&[(9, "/flaky")]);
    let following = Process::start(&mut town.follow(roost));
    wait_until("polled three times", || town.feeds.answers("/flaky").len() == 3);
    town.feeds.set_feed("/flaky", &rss(&[("well", "well")]));
    wait_until("posted", || titles(roost, 9) == ["well"]);
    drop(following);
}

#[test]
fn a_feed_that_has_moved_is_found_and_known_again_there() {
    let town = Town::new();
    let (_server, roost) = Running::serve(&town.path("data"));
    let moved = |status, to: &str| Page::Status(status, vec![("location", to.to_owned())]);
    town.feeds.set("/old", moved(301, "/newer"));
    town.feeds.set("/newer", moved(308, "/rss"));
    town.feeds.set("/short", moved(302, "/rss"));
    town.feeds.set_feed("/rss", &rss(&[("one", "one")]));
    town.list(&[(7, "/old"), (8, "/short")]);
    let polled = town.once(roost, &[]);
    let told = format!("/old: has moved for good to {};", town.feeds.url("/rss"));
    assert!(polled.log.contains(&told), "{}", polled.log);
    assert!(!polled.log.contains("/short: has moved"), "{}", polled.log);
    assert_eq!(
        (titles(roost, 7), titles(roost, 8)),
        (vec!["one".to_owned()], vec!["one".to_owned()])
    );

    // It is told once, and what was there is known.
    let again = town.once(roost, &[]);
    assert!(!again.log.contains("has moved"), "{}", again.log);
    assert_eq!(town.feeds.answers("/rss"), [200, 200, 304, 304]);
    // The name is the other address's.
    town.feeds.set("/old", moved(301, "/copy"));
    let text = rss(&[("one", "one")]);
    town.feeds.set_feed("/copy", &text);
    town.once(roost, &[]);
    assert_eq!(town.feeds.answers("/copy"), [200]);
    assert_eq!(titles(roost, 7), ["one"]);
}

#[test]
fn feeds_are_followed_through_crashes_of_either_side() {
    let town = Town::new();
    let address = free_address();
    let serve = || Running::start(&mut serve_on(&town.path("data"), address));
    let mut server = serve();
    server.address();
    let feed = |count: usize| {
        let names: Vec<String> = (0..count).rev().map(|number| number.to_string()).collect();
        let entries: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
        // The oldest leave the feed.
        rss(&entries[..entries.len().min(15)])
    };
    town.feeds.set_feed("/rss", &feed(1));
    town.list(&[(7, "/rss")]);
    let mut following = Some(Process::start(&mut town.follow(address)));
    let mut count = 1;
    for crash in 0..6 {
        wait_until("posted", || titles(address, 7).len() >= count);
        count += 10;
        town.feeds.set_feed("/rss", &feed(count));
        // Somewhere in the middle of it.
        wait_until("begun", || titles(address, 7).len() > count - 10);
        if crash % 2 == 0 {
            following = None;
            following.get_or_insert_with(|| Process::start(&mut town.follow(address)));
        } else {
            drop(server);
            server = serve();
            server.address();
        }
    }
    wait_until("posted", || titles(address, 7).len() >= count);
    let expected: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    assert_eq!(titles(address, 7), expected);
    drop(following);
}

#[test]
fn a_signal_ends_it_with_a_summary() {
    for name in ["INT", "TERM"] {
        let town = Town::new();
        let (_server, roost) = Running::serve(&town.path("data"));
        town.feeds.set_feed("/rss", &rss(&[("one", "one")]));
        // One is on its way.
        town.feeds.set("/silent", Page::Silent);
        town.list(&[(7, "/rss"), (7, "/silent")]);
        let following = Running::start(&mut town.follow(roost));
        wait_until("posted", || titles(roost, 7) == ["one"]);
        following.signal(name);
        let (status, said) = following.rest();
        assert_eq!(status.code(), Some(0), "{said}");
        assert!(said.starts_with("2 feeds, ") && said.contains("1 entries posted"), "{said}");
    }
}

#[test]
fn a_feed_is_read_over_https_if_its_certificate_is_trusted() {
    let town = Town::new();
    let (_server, roost) = Running::serve(&town.path("data"));
    town.feeds.set_feed("/rss", &rss(&[("secret", "secret")]));
    let runtime = Runtime::new().expect("a runtime");
    let address = runtime.block_on(tls_before(town.feeds.address));
    let url = format!("7 https://localhost:{}/rss\n", address.port());
    fs::write(town.path("feeds"), url).expect("a list");
    let with_ca = |name: &str, more: &[&str]| {
        let mut command = town.command(roost, &[&["--once"], more].concat());
        polled(ended(command.env("SSL_CERT_FILE", tls_file(name))))
    };
    let refused = with_ca("other_ca.pem", &["--state", &town.text("other")]);
    assert!(refused.log.contains("certificate"), "{}", refused.log);
    assert_eq!(titles(roost, 7), [""; 0]);
    with_ca("ca.pem", &["--state", &town.text("state")]);
    assert_eq!(titles(roost, 7), ["secret"]);
}

#[test]
fn what_cannot_begin_is_told_in_one_line() {
    let town = Town::new();
    let command = || town.command(free_address(), &["--once"]);
    let missing = failure(&mut command());
    assert!(missing.contains("cannot open"), "{missing}");
    fs::write(town.path("feeds"), "7 https://a/\n7\n\n# x\nx https://a/\n").expect("a list");
    let broken = failure(&mut command());
    assert!(broken.contains("feeds, line 2: not of the form"), "{broken}");
    assert!(broken.contains("feeds, line 5: the account is"), "{broken}");
    assert!(!town.path("state").exists());

    town.feeds.set("/silent", Page::Silent);
    town.list(&[(7, "/silent")]);
    let _following = Process::start(&mut town.follow(free_address()));
    wait_until("begun", || town.path("state").join("LOCK").exists());
    let in_use = failure(&mut command());
    assert!(in_use.contains("in use by another `roost rss`"), "{in_use}");
}

pub fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).expect("compressed");
    encoder.finish().expect("compressed")
}
