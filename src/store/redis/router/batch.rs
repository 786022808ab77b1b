//! The commands of one node in one round, and what became of them.

use std::collections::BTreeMap;

use super::Work;
use crate::store::redis::{
    error::NodeError,
    node::Part,
    pool::Lease,
    resp::{self, Reply},
    slots::{NodeAddress, Redirect, SlotMap},
};

/// Some commands, by their places, for one node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) node: NodeAddress,
    places: Vec<u32>,
    /// Each is sent with `ASKING` before it.
    asking: bool,
    /// Whether the node may send them elsewhere.
    in_cluster: bool,
}

/// What became of some commands.
#[derive(Debug)]
pub(super) struct Outcome<W: Work> {
    /// What the replies of those that were carried out come to.
    pub(super) done: W::Done,
    /// Those that may have been carried out or not.
    pub(super) unknown: Vec<u32>,
    /// How many times one was sent elsewhere.
    pub(super) redirected: u64,
    /// Those that are not to be tried again within the call, and why.
    pub(super) refused: Vec<u32>,
    pub(super) refusal: Option<NodeError>,
    /// The others.
    pub(super) retry: Retry,
}

impl<W: Work> Default for Outcome<W> {
    fn default() -> Self {
        Self {
            done: W::Done::default(),
            unknown: Vec::new(),
            redirected: 0,
            refused: Vec::new(),
            refusal: None,
            retry: Retry::default(),
        }
    }
}

/// Commands that were not carried out and may be tried again.
#[derive(Debug, Default)]
pub(super) struct Retry {
    places: Vec<u32>,
    /// Those that belong to a certain node this once.
    asked: Vec<(NodeAddress, Vec<u32>)>,
    /// Slots that are elsewhere now.
    pub(super) moved: BTreeMap<u16, NodeAddress>,
    /// Nodes that are not to be reached.
    pub(super) away: Vec<NodeAddress>,
    /// Whether it needs a pause before.
    pub(super) must_wait: bool,
    /// Whether the map may be out of date, though nobody says in what.
    pub(super) map_doubtful: bool,
    /// Whether the connection is to be made anew: its node has forgotten a script, or
    /// is a replica now.
    connection_outlived: bool,
    /// Why they were not carried out.
    pub(super) reason: Option<NodeError>,
}

impl Retry {
    /// All of so many commands, none of which has been tried.
    pub(super) fn all(count: usize) -> Self {
        Self { places: (0..count as u32).collect(), ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.asked.is_empty()
    }

    /// All of them.
    pub(super) fn into_places(self) -> Vec<u32> {
        let asked = self.asked.into_iter().flat_map(|(_, places)| places);
        self.places.into_iter().chain(asked).collect()
    }

    /// Shares them out by node. Those that no node serves are left over.
    pub(super) fn batches(self, map: &SlotMap, work: &impl Work) -> (Vec<Batch>, Self) {
        let in_cluster = !map.is_standalone();
        let batch = |node: &NodeAddress, places: Vec<u32>, asking: bool| Batch {
            node: node.clone(),
            places,
            asking,
            in_cluster,
        };
        let mut homeless = Self::default();
        let by_node = match map.nodes() {
            [_] if !in_cluster => vec![self.places],
            nodes => {
                let room = self.places.len() / nodes.len().max(1);
                let mut by_node: Vec<Vec<u32>> =
                    nodes.iter().map(|_| Vec::with_capacity(room + room / 8)).collect();
                for place in self.places {
                    let slot = work.slot(place);
                    match map.place(slot) {
                        Some(node) => by_node[node].push(place),
                        None => homeless.leave(place, slot),
                    }
                }
                by_node
            }
        };
        let by_node = map.nodes().iter().zip(by_node);
        let mut batches: Vec<Batch> = by_node
            .filter(|(_, places)| !places.is_empty())
            .map(|(node, places)| batch(node, places, false))
            .collect();
        batches.extend(self.asked.into_iter().map(|(node, places)| batch(&node, places, true)));
        (batches, homeless)
    }

    fn leave(&mut self, place: u32, slot: u16) {
        self.places.push(place);
        self.must_wait = true;
        self.map_doubtful = true;
        self.reason.get_or_insert(NodeError::NoNode { slot });
    }

    fn ask(&mut self, node: NodeAddress, place: u32) {
        match self.asked.iter_mut().find(|(known, _)| *known == node) {
            Some((_, places)) => places.push(place),
            None => self.asked.push((node, vec![place])),
        }
    }

    fn absorb(&mut self, mut other: Self) {
        self.places.append(&mut other.places);
        for (node, places) in other.asked {
            places.into_iter().for_each(|place| self.ask(node.clone(), place));
        }
        self.moved.append(&mut other.moved);
        self.away.append(&mut other.away);
        self.must_wait |= other.must_wait;
        self.map_doubtful |= other.map_doubtful;
        note(&mut self.reason, other.reason);
    }
}

impl<W: Work> Outcome<W> {
    pub(super) fn absorb(&mut self, mut other: Self) {
        W::join(&mut self.done, other.done);
        self.unknown.append(&mut other.unknown);
        self.redirected += other.redirected;
        self.refused.append(&mut other.refused);
        note(&mut self.refusal, other.refusal);
        self.retry.absorb(other.retry);
    }
}

/// Keeps the first error, unless a later one is final and it is not.
fn note(first: &mut Option<NodeError>, other: Option<NodeError>) {
    let Some(other) = other else { return };
    match first {
        Some(first) if first.is_final() || !other.is_final() => {}
        _ => *first = Some(other),
    }
}

impl Batch {
    /// No connection could be had, so nothing was sent.
    pub(super) fn not_begun<W: Work>(self, error: NodeError) -> Outcome<W> {
        let mut outcome = Outcome::default();
        if error.is_final() {
            outcome.refused = self.places;
            outcome.refusal = Some(error);
        } else {
            outcome.retry.places = self.places;
            outcome.retry.away.push(self.node);
            outcome.retry.reason = Some(error);
        }
        outcome
    }

    /// Sends them, on a connection that it gives back whole or not at all.
    pub(super) async fn run<W: Work>(self, mut lease: Lease<'_>, work: &W) -> Outcome<W> {
        let messages_per_command = if self.asking { 2 } else { 1 };
        let mut outcome = Outcome::default();
        let mut packed = 0;
        let pack = |out: &mut Vec<u8>| {
            let Some(&place) = self.places.get(packed / messages_per_command) else { return false };
            packed += 1;
            if packed % messages_per_command == 1 {
                resp::pack_command(out, &[b"ASKING"]);
            } else {
                work.pack(place, out);
            }
            true
        };
        let on_reply = |message: usize, part: Part, reply: Reply<'_>| {
            if message % messages_per_command + 1 == messages_per_command {
                let place = self.places[message / messages_per_command];
                match part {
                    Part::Whole => self.take(place, reply, work, &mut outcome),
                    Part::Element => work.take_element(place, reply, &mut outcome.done),
                }
            }
        };
        match lease.connection.run(pack, on_reply).await {
            Ok(()) if outcome.retry.connection_outlived => {}
            Ok(()) => lease.give_back(),
            Err(interrupted) => {
                let answered = interrupted.answered / messages_per_command;
                let sent = interrupted.sent / messages_per_command;
                self.abandon(answered, sent, interrupted.error, &mut outcome);
            }
        }
        outcome
    }

    #[inline]
    fn take<W: Work>(&self, place: u32, reply: Reply<'_>, work: &W, outcome: &mut Outcome<W>) {
        match reply {
            Reply::Error(error) => self.take_error(place, error, outcome),
            reply => {
                if !work.take(place, reply, &mut outcome.done) {
                    outcome.unknown.push(place);
                }
            }
        }
    }

    /// A command that is answered by an error was not carried out.
    fn take_error<W: Work>(&self, place: u32, error: &[u8], outcome: &mut Outcome<W>) {
        let retry = &mut outcome.retry;
        let redirect = Redirect::parse(error, &self.node).filter(|_| self.in_cluster);
        match redirect {
            Some(Redirect::Moved { slot, node }) => {
                outcome.redirected += 1;
                retry.reason.get_or_insert_with(|| self.unsettled(slot));
                retry.places.push(place);
                retry.moved.insert(slot, node);
            }
            Some(Redirect::Ask { slot, node }) => {
                outcome.redirected += 1;
                retry.reason.get_or_insert_with(|| self.unsettled(slot));
                retry.ask(node, place);
            }
            None if passes(error) => {
                let word = first_word(error);
                retry.connection_outlived |= matches!(word, b"NOSCRIPT" | b"READONLY");
                retry.map_doubtful |= matches!(word, b"CLUSTERDOWN" | b"MASTERDOWN" | b"READONLY");
                retry.must_wait = true;
                retry.reason.get_or_insert_with(|| NodeError::refused(&self.node, error));
                retry.places.push(place);
            }
            None => {
                outcome.refused.push(place);
                outcome.refusal.get_or_insert_with(|| NodeError::refused(&self.node, error));
            }
        }
    }

    fn unsettled(&self, slot: u16) -> NodeError {
        NodeError::Unsettled { node: self.node.clone(), slot }
    }

    /// The connection failed: those before `answered` are done with, those before
    /// `sent` may have been carried out, and the others were not.
    fn abandon<W: Work>(
        self,
        answered: usize,
        sent: usize,
        error: NodeError,
        outcome: &mut Outcome<W>,
    ) {
        let unknown = &self.places[answered..sent];
        tracing::warn!(%error, unknown = unknown.len(), "a pipeline was interrupted");
        outcome.unknown.extend(unknown);
        let unsent = &self.places[sent..];
        if error.is_final() || matches!(error, NodeError::TimedOut { .. }) {
            // To wait for a silent node once is enough for one call.
            outcome.refused.extend(unsent);
            note(&mut outcome.refusal, Some(error));
        } else {
            outcome.retry.places.extend(unsent);
            outcome.retry.away.push(self.node);
            note(&mut outcome.retry.reason, Some(error));
        }
    }
}

/// Whether a refusal passes by itself, and soon.
fn passes(error: &[u8]) -> bool {
    matches!(
        first_word(error),
        b"LOADING"
            | b"TRYAGAIN"
            | b"CLUSTERDOWN"
            | b"MASTERDOWN"
            | b"BUSY"
            | b"NOSCRIPT"
            | b"READONLY"
    )
}

fn first_word(error: &[u8]) -> &[u8] {
    error.split(|&byte| byte == b' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{PostId, UserId},
        fanout::combine,
        store::redis::{
            push::{OverFull, PushWork},
            resp::Value,
        },
    };

    fn batch(asking: bool) -> Batch {
        let node = NodeAddress::new("a", 1);
        Batch { node, places: (0..6).collect(), asking, in_cluster: true }
    }

    #[test]
    fn only_what_was_refused_is_tried_again() {
        let pushes = combine((1..=6).map(|reader| (UserId(reader), PostId(9))).collect());
        let work = PushWork { pushes: &pushes, entries_max: 4 };
        let batch = batch(false);
        let mut outcome = Outcome::default();
        let replies = [
            Reply::Integer(5),
            Reply::Error(b"MOVED 7 b:2"),
            Reply::Error(b"ASK 8 b:2"),
            Reply::Error(b"OOM command not allowed"),
            Reply::Error(b"LOADING"),
            Reply::Integer(0),
        ];
        for (place, reply) in replies.into_iter().enumerate() {
            batch.take(place as u32, reply, &work, &mut outcome);
        }
        let done = &outcome.done;
        assert_eq!((done.outcome.pushes, done.outcome.skipped), (1, 1));
        assert_eq!(done.over_full, [OverFull { reader: UserId(1), length: 5 }]);
        assert_eq!(outcome.refused, [3]);
        assert_eq!(outcome.retry.places, [1, 4]);
        assert_eq!(outcome.retry.asked, [(NodeAddress::new("b", 2), vec![2])]);
        assert_eq!(outcome.retry.moved, BTreeMap::from([(7, NodeAddress::new("b", 2))]));
        let (batches, left) = outcome.retry.batches(&SlotMap::standalone(batch.node), &work);
        assert_eq!(batches.len(), 2);
        assert!(batches[1].asking && left.is_empty());
    }

    #[test]
    fn the_map_is_asked_for_anew_where_it_may_have_led_astray() {
        let pushes = combine((1..=6).map(|reader| (UserId(reader), PostId(9))).collect());
        let work = PushWork { pushes: &pushes, entries_max: 4 };
        for (error, map_doubtful) in
            [("CLUSTERDOWN Hash slot not served", true), ("READONLY", true), ("LOADING", false)]
        {
            let mut outcome = Outcome::default();
            batch(false).take(0, Reply::Error(error.as_bytes()), &work, &mut outcome);
            assert_eq!(outcome.retry.places, [0]);
            assert_eq!(outcome.retry.map_doubtful, map_doubtful, "{error}");
        }
        // No node is known for any slot.
        let asked = NodeAddress::new("a", 1);
        let empty = SlotMap::from_cluster_slots(&Value::Array(Vec::new()), &asked).unwrap();
        let (batches, left) = Retry::all(6).batches(&empty, &work);
        assert!(batches.is_empty() && left.map_doubtful);
    }

    #[test]
    fn a_failed_connection_leaves_three_parts() {
        let mut outcome = Outcome::<PushWork<'_>>::default();
        let closed = NodeError::Broken { node: NodeAddress::new("a", 1), reason: String::new() };
        batch(false).abandon(2, 5, closed, &mut outcome);
        assert_eq!(outcome.unknown, [2, 3, 4]);
        assert_eq!(outcome.retry.places, [5]);

        let mut outcome = Outcome::<PushWork<'_>>::default();
        let node = NodeAddress::new("a", 1);
        batch(false).abandon(0, 6, NodeError::TimedOut { node, waited_ms: 1 }, &mut outcome);
        assert_eq!(outcome.unknown.len(), 6);
        assert!(outcome.retry.is_empty() && outcome.refused.is_empty());
    }
}
