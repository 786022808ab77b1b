//! Connections that break or fall silent, and servers that say no.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use roost::{
    domain::UserId,
    store::{
        Pushes,
        redis::{
            error::NodeError,
            node::ConnectionName,
            push::{PushReport, PushSettings, Pusher},
        },
    },
};
use tokio::time::timeout;

use super::{
    proxy::{Fault, Proxy},
    services::{self, Readers, address},
};

const READERS: u64 = 20_000;

/// What became of pushes, and which ones were not made.
async fn push_all(pusher: &Pusher, pushes: &Pushes<UserId>) -> (PushReport, Vec<usize>) {
    match pusher.push(pushes).await {
        Ok(report) => (report, Vec::new()),
        Err(error) => {
            assert!(!error.error.is_final(), "{error}");
            (error.report, error.unwritten)
        }
    }
}

/// A pusher that is connected already, and soon gives up a server that falls silent.
async fn impatient(proxy: &Proxy) -> Pusher {
    let settings =
        PushSettings { progress_timeout: Duration::from_millis(200), ..services::settings() };
    let pusher = Pusher::new(services::config(&format!("redis://{}", proxy.address)), settings);
    pusher.check().await.unwrap();
    pusher
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_cut_the_report_is_exact_but_for_the_unknown() {
    let Some(url) = services::standalone() else { return };
    let mut redis = services::look(&url).await;
    let readers = Readers::new(READERS);
    readers.wake(&mut redis).await;
    let proxy = Proxy::before(address(&url), Fault::Cut).await;
    let pusher = services::pusher(&format!("redis://{}", proxy.address));

    let (mut certain, mut possible) = (vec![0_usize; READERS as usize], vec![0; READERS as usize]);
    let mut cuts = 0;
    for round in 0..12_u64 {
        // A push of all readers has about a million bytes.
        proxy.fail_after(rand::random_range(1..1_000_000));
        let (report, unwritten) = push_all(&pusher, &readers.one_each(round + 1)).await;
        cuts += usize::from(!report.unknown.is_empty());
        let unwritten: BTreeSet<usize> = unwritten.into_iter().collect();
        let unknown: BTreeSet<usize> = report.unknown.iter().copied().collect();
        assert!(unknown.is_disjoint(&unwritten));
        let (mut pushed, mut skipped) = (0, 0);
        for (place, reader) in readers.all().enumerate() {
            let awake = readers.is_awake(reader);
            if unknown.contains(&place) {
                possible[place] += usize::from(awake);
            } else if !unwritten.contains(&place) {
                certain[place] += usize::from(awake);
                pushed += u64::from(awake);
                skipped += u64::from(!awake);
            }
        }
        assert_eq!((report.outcome.pushes, report.outcome.skipped), (pushed, skipped));
    }
    assert!(cuts > 0, "no cut left anything unknown");

    let lists = readers.lists(&mut redis).await;
    for (place, reader) in readers.all().enumerate() {
        let list = lists.get(&reader).map_or(&[][..], Vec::as_slice);
        let distinct: BTreeSet<&u64> = list.iter().collect();
        assert_eq!(distinct.len(), list.len(), "{reader} has a post twice: {list:?}");
        let (least, most) = (certain[place], certain[place] + possible[place]);
        assert!((least..=most).contains(&list.len()), "{reader}: {list:?} of {least} to {most}");
    }
    readers.clear(&mut redis).await;
}

#[tokio::test]
async fn what_a_silent_server_was_sent_is_unknown() {
    let Some(url) = services::standalone() else { return };
    let mut redis = services::look(&url).await;
    let readers = Readers::new(READERS);
    readers.wake(&mut redis).await;
    let proxy = Proxy::before(address(&url), Fault::Freeze).await;
    let pusher = impatient(&proxy).await;
    proxy.fail_after(300_000);

    let begin = std::time::Instant::now();
    let error = pusher.push(&readers.one_each(1)).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(matches!(error.error, NodeError::TimedOut { .. }), "{error}");
    let told = error.report.outcome;
    let answered = (told.pushes + told.skipped) as usize;
    assert!(answered > 0 && !error.report.unknown.is_empty() && !error.unwritten.is_empty());
    assert_eq!(answered + error.report.unknown.len() + error.unwritten.len(), READERS as usize);

    // What is known to be unwritten is written by another way, once.
    let rest = readers.one_each(1).only(&error.unwritten);
    services::pusher(&url).push(&rest).await.unwrap();
    let lists = readers.lists(&mut redis).await;
    let unknown: BTreeSet<usize> = error.report.unknown.iter().copied().collect();
    for (place, reader) in readers.all().enumerate().filter(|(_, r)| readers.is_awake(*r)) {
        let list = &lists[&reader];
        assert!(*list == [1] || (unknown.contains(&place) && list.is_empty()), "{list:?}");
    }
    readers.clear(&mut redis).await;
}

#[tokio::test]
async fn what_was_given_up_is_not_carried_out_after_what_makes_up_for_it() {
    let Some(url) = services::standalone() else { return };
    let mut redis = services::look(&url).await;
    let readers = Readers::new(20);
    readers.wake(&mut redis).await;
    let proxy = Proxy::before(address(&url), Fault::Hold).await;
    let pusher = impatient(&proxy).await;

    proxy.fail_after(0);
    let (report, unwritten) = push_all(&pusher, &readers.one_each(1)).await;
    assert_eq!((report.unknown.len(), unwritten.len()), (20, 0));
    pusher.push(&readers.one_each(2)).await.unwrap();
    timeout(Duration::from_secs(60), proxy.let_go()).await.expect("it ends");
    let lists = readers.lists(&mut redis).await;
    for reader in readers.all().filter(|reader| readers.is_awake(*reader)) {
        assert_eq!(lists[&reader], [2], "{reader}");
    }
    readers.clear(&mut redis).await;
}

#[tokio::test]
async fn a_server_that_is_away_is_named_and_found_again() {
    let Some(url) = services::standalone() else { return };
    let mut redis = services::look(&url).await;
    let readers = Readers::new(30);
    readers.wake(&mut redis).await;
    // An address that nobody listens at, until the proxy does.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = free.local_addr().unwrap();
    drop(free);
    let settings = PushSettings { retry_for: Duration::from_millis(100), ..services::settings() };
    let pusher = Pusher::new(services::config(&format!("redis://{away}")), settings);
    let pushes = readers.one_each(1);
    let error = pusher.push(&pushes).await.unwrap_err();
    assert!(matches!(error.error, NodeError::Unreachable { .. }) && !error.error.is_final());
    assert!(error.to_string().contains(&away.to_string()), "{error}");
    assert_eq!(error.unwritten.len(), 30);

    let listener = tokio::net::TcpListener::bind(away).await.unwrap();
    let server = services::address(&url);
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = tokio::net::TcpStream::connect(server).await.unwrap();
        tokio::io::copy_bidirectional(&mut client, &mut server).await
    });
    let report = pusher.push(&pushes).await.unwrap();
    assert_eq!((report.outcome.pushes, report.outcome.skipped), (20, 10));
    readers.clear(&mut redis).await;
}

#[tokio::test]
async fn a_refusal_says_what_to_do() {
    let Some(url) = services::standalone() else { return };
    let mut redis = services::look(&url).await;
    let user = format!("roost-test-{}", rand::random::<u32>());
    let rules = ["on", ">right", "~h:*", "+client", "+rpushx", "-rpushx"];
    let mut acl = redis::cmd("ACL");
    acl.arg("SETUSER").arg(&user).arg(&rules);
    acl.exec_async(&mut redis).await.unwrap();

    let readers = Readers::new(10);
    let as_user = |password: &str| format!("redis://{user}:{password}@{}", address(&url));
    let pushes = readers.one_each(1);
    let said = |error: &NodeError| error.to_string();
    let wrong = services::pusher(&as_user("wrong")).push(&pushes).await.unwrap_err();
    assert!(wrong.error.is_final() && said(&wrong.error).contains("check the user"), "{wrong}");
    assert!(!format!("{wrong} {wrong:?}").contains("wrong@"), "{wrong:?}");
    let denied = services::pusher(&as_user("right")).push(&pushes).await.unwrap_err();
    assert!(denied.error.is_final() && said(&denied.error).contains("ACL SETUSER"), "{denied}");
    for error in [wrong, denied] {
        assert_eq!(error.unwritten.len(), 10);
        assert_eq!(error.report, PushReport::default());
    }
    let no_cluster = services::pusher(&format!("{url}?cluster")).check().await.unwrap_err();
    assert!(said(&no_cluster).contains("take ?cluster out"), "{no_cluster}");
    redis::cmd("ACL").arg("DELUSER").arg(&user).exec_async(&mut redis).await.unwrap();

    let key = format!("h:{}", readers.first);
    redis::cmd("SET").arg(&key).arg("x").exec_async(&mut redis).await.unwrap();
    let taken = services::pusher(&url).push(&pushes).await.unwrap_err();
    assert_eq!(taken.unwritten, [0], "{taken}");
    assert_eq!(taken.report.outcome.skipped, 9);
    readers.clear(&mut redis).await;
}

#[tokio::test]
async fn a_cluster_taken_for_one_server_is_said() {
    let Some(urls) = services::cluster() else { return };
    let one = urls.split(',').next().unwrap();
    let one = one.trim_end_matches("?cluster");
    let error = services::pusher(one).push(&Readers::new(50).one_each(1)).await.unwrap_err();
    assert!(error.to_string().contains("add ?cluster"), "{error}");
}

#[tokio::test]
async fn connections_can_be_found_by_name_closed_and_kept_from_coming_back() {
    let Some(url) = services::standalone() else { return };
    let mut redis = services::look(&url).await;
    let readers = Readers::new(10);
    let worker = format!("w{}", rand::random::<u32>());
    let fenced = Arc::new(AtomicBool::new(false));
    let asked = fenced.clone();
    let settings = PushSettings {
        admission: Some(Arc::new(move || {
            let fenced = asked.load(Ordering::SeqCst);
            Box::pin(async move {
                if fenced {
                    Err(NodeError::Fenced { reason: "epoch 9 has begun".to_owned() })
                } else {
                    Ok(())
                }
            })
        })),
        ..services::settings()
    };
    let pusher = Pusher::new(services::config(&url), settings);
    pusher.rename(ConnectionName::new(&worker, 7));
    pusher.push(&readers.one_each(1)).await.unwrap();

    fenced.store(true, Ordering::SeqCst);
    let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.unwrap();
    let name = format!("name=roost:{worker}:7");
    let named: Vec<&str> =
        clients.lines().filter(|line| line.split(' ').any(|word| word == name)).collect();
    assert_eq!(named.len(), 1, "{clients}");
    let id = named[0].split(' ').next().unwrap().trim_start_matches("id=");
    redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).exec_async(&mut redis).await.unwrap();

    let error = loop {
        // Whether the end of the idle connection is seen in time is chance.
        match pusher.push(&readers.one_each(2)).await {
            Err(error) => break error,
            Ok(report) => assert_eq!(report.unknown.len(), 10),
        }
    };
    assert!(matches!(error.error, NodeError::Fenced { .. }), "{error}");
    assert!(error.error.is_final() && error.to_string().contains("epoch 9"), "{error}");
}
