//! Readers who wake and fall asleep, and a worker that pushes, on nodes that lose their
//! last writes, between any two steps: in the end every live list has every post.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::domain::PostId;

const READERS: [UserId; 3] = [UserId(1), UserId(1 << 63), UserId(u64::MAX)];
/// Who reads; every reader from two places at once.
const CLIENTS: usize = 6;
/// So few that whoever has not heard for a while has missed some.
const WAKES_MAX: usize = 4;

/// The node of the lists.
type Lists = BTreeMap<UserId, List>;

#[derive(Clone, Debug)]
struct List {
    is_live: bool,
    ticket: u64,
    posts: BTreeSet<PostId>,
}

/// What a node holds, and what it held after each write.
struct Node<T> {
    /// With its watermark: how many posts were delivered.
    now: (T, usize),
    before: Vec<(T, usize)>,
}

impl<T: Clone> Node<T> {
    fn new(now: T) -> Self {
        Self { before: vec![(now.clone(), 0)], now: (now, 0) }
    }

    fn write<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let done = change(&mut self.now.0);
        self.before.push(self.now.clone());
        done
    }

    fn put_watermark(&mut self, delivered: usize) {
        self.now.1 = delivered;
        self.before.push(self.now.clone());
    }

    /// Loses the last writes.
    fn lose(&mut self, count: usize) {
        self.before.truncate(self.before.len().saturating_sub(count).max(1));
        self.now = self.before.last().expect("one is left").clone();
    }
}

/// Where a client is in its read.
#[derive(Clone, Debug)]
enum Client {
    Idle,
    Begun { ticket: u64 },
    Announced { ticket: u64 },
    Read { ticket: u64, posts: BTreeSet<PostId> },
}

/// Where the worker is in its flush.
enum Flush {
    Idle,
    Given(Vec<PostId>),
    Heard { pushes: Vec<(UserId, Vec<PostId>)>, asleep: Vec<UserId> },
}

struct World {
    lists: Node<Lists>,
    wakes: Node<Vec<Wake>>,
    /// All posts of one author, whom everybody follows.
    ledger: BTreeSet<PostId>,
    clients: [Client; CLIENTS],
    flush: Flush,
    sleepers: Sleepers,
    resumed: u64,
    /// Whether a node has lost something since the worker has looked.
    has_lost: bool,
    /// For posts and tickets.
    count: u64,
}

impl World {
    fn new() -> Self {
        Self {
            lists: Node::new(Lists::new()),
            wakes: Node::new(Vec::new()),
            ledger: BTreeSet::new(),
            clients: [const { Client::Idle }; CLIENTS],
            flush: Flush::Idle,
            sleepers: Sleepers::new(16),
            resumed: 0,
            has_lost: false,
            count: 0,
        }
    }

    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn announce(&mut self, reader: UserId) -> Wake {
        self.wakes.write(|wakes| {
            // A place that is lost is given out again.
            let last = wakes.last().map_or(0, place_of);
            let wake = Wake { id: (last + 1).to_be_bytes().to_vec(), reader };
            wakes.push(wake.clone());
            if wakes.len() > WAKES_MAX {
                wakes.remove(0);
            }
            wake
        })
    }

    /// One step of a client.
    fn read(&mut self, client: usize) {
        let reader = READERS[client % READERS.len()];
        self.clients[client] = match self.clients[client].clone() {
            Client::Idle if self.lists.now.0.get(&reader).is_some_and(|list| list.is_live) => {
                Client::Idle
            }
            Client::Idle => {
                let new = self.next();
                let ticket = self.lists.write(|lists| {
                    let list = List { is_live: false, ticket: new, posts: BTreeSet::new() };
                    lists.entry(reader).or_insert(list).ticket
                });
                Client::Begun { ticket }
            }
            Client::Begun { ticket } => {
                self.announce(reader);
                Client::Announced { ticket }
            }
            Client::Announced { ticket } => Client::Read { ticket, posts: self.ledger.clone() },
            Client::Read { ticket, posts } => {
                self.lists.write(|lists| {
                    let list = lists.get_mut(&reader).filter(|list| list.ticket == ticket);
                    if let Some(list) = list.filter(|list| !list.is_live) {
                        list.posts.extend(posts);
                        list.is_live = true;
                    }
                });
                Client::Idle
            }
        };
    }

    /// A list that nobody has read for long goes.
    fn expire(&mut self, reader: UserId) {
        self.lists.write(|lists| lists.remove(&reader));
    }

    /// One step of the worker.
    fn work(&mut self, posts: usize) {
        self.flush = match std::mem::replace(&mut self.flush, Flush::Idle) {
            Flush::Idle => {
                if std::mem::take(&mut self.has_lost) {
                    self.resume();
                }
                let posts: Vec<PostId> = (0..posts).map(|_| PostId(self.next())).collect();
                self.ledger.extend(&posts);
                Flush::Given(posts)
            }
            Flush::Given(posts) => {
                self.sleepers.resumed(self.resumed);
                self.hear();
                let everybody = READERS
                    .into_iter()
                    .flat_map(|reader| posts.iter().map(move |post| (reader, *post)));
                let pushes = crate::fanout::combine(everybody.collect());
                let awake = self.sleepers.leave_out(&pushes);
                let pushes = awake.iter().map(|(reader, ids)| (reader, ids.to_vec())).collect();
                Flush::Heard { pushes, asleep: Vec::new() }
            }
            Flush::Heard { mut pushes, mut asleep } => match pushes.pop() {
                Some((reader, ids)) => {
                    if !self.push(reader, &ids) {
                        asleep.push(reader);
                    }
                    Flush::Heard { pushes, asleep }
                }
                None => {
                    self.sleepers.learn(&asleep);
                    // A node that has lost something is none to write watermarks to.
                    if !self.has_lost {
                        self.put_watermarks();
                    }
                    Flush::Idle
                }
            },
        };
    }

    fn hear(&mut self) {
        if let Some(last) = self.sleepers.last() {
            let from = self.wakes.now.0.iter().filter(|wake| wake.id >= last.id);
            let wakes: Vec<Wake> = from.cloned().collect();
            if self.sleepers.hear(&wakes) {
                return;
            }
        }
        let wake = self.announce(UserId(NOBODY));
        self.sleepers.begin(wake);
    }

    /// Whether there is a list.
    fn push(&mut self, reader: UserId, ids: &[PostId]) -> bool {
        self.lists
            .write(|lists| lists.get_mut(&reader).map(|list| list.posts.extend(ids)).is_some())
    }

    /// Delivers again, to everybody, what may not have been delivered.
    fn resume(&mut self) {
        self.resumed += 1;
        let delivered = self.lists.now.1.min(self.wakes.now.1);
        let again: Vec<PostId> = self.ledger.iter().skip(delivered).copied().collect();
        for reader in READERS {
            self.push(reader, &again);
        }
        self.put_watermarks();
    }

    fn put_watermarks(&mut self) {
        let delivered = self.ledger.len();
        self.lists.put_watermark(delivered);
        self.wakes.put_watermark(delivered);
    }

    /// All come to the end of what they are at, and a last post is delivered.
    fn end(&mut self) {
        for client in 0..CLIENTS {
            while !matches!(self.clients[client], Client::Idle) {
                self.read(client);
            }
        }
        for posts in [0, 1] {
            self.work(posts);
            while !matches!(self.flush, Flush::Idle) {
                self.work(posts);
            }
        }
        // Nothing is lost any more.
        self.work(0);
    }
}

fn place_of(wake: &Wake) -> u64 {
    u64::from_be_bytes(wake.id.as_slice().try_into().expect("8 bytes"))
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Read(usize),
    Work(usize),
    Expire(usize),
    LoseLists(usize),
    LoseWakes(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..CLIENTS).prop_map(Act::Read),
        8 => (1..3_usize).prop_map(Act::Work),
        2 => (0..READERS.len()).prop_map(Act::Expire),
        1 => (1..6_usize).prop_map(Act::LoseLists),
        1 => (1..6_usize).prop_map(Act::LoseWakes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_live_list_has_every_post(acts in prop::collection::vec(act(), 1..120)) {
        let mut world = World::new();
        for act in acts {
            match act {
                Act::Read(client) => world.read(client),
                Act::Work(posts) => world.work(posts),
                Act::Expire(reader) => world.expire(READERS[reader]),
                Act::LoseLists(count) => world.lists.lose(count),
                Act::LoseWakes(count) => world.wakes.lose(count),
            }
            world.has_lost |= matches!(act, Act::LoseLists(_) | Act::LoseWakes(_));
        }
        world.end();
        for (reader, list) in &world.lists.now.0 {
            if list.is_live {
                prop_assert_eq!(&list.posts, &world.ledger, "reader {}", reader);
            }
        }
    }
}
