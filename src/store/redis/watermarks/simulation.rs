//! Workers that crash, on nodes that lose their last writes, or all of them, between
//! any two steps: in the end every node has every event.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::{
    domain::{PostId, UserId},
    store::{Cursor, Resume, Resumed, Work},
};

const PARTITION: u32 = 0;
const NODES: usize = 3;
/// The node of the marks.
const MARKS: usize = 0;
const SLOTS_PER_NODE: u16 = 100;
/// More than any run needs.
const RESUMES_MAX: u32 = 1_000;

#[derive(Clone, Debug)]
enum Write {
    Event(u64),
    Watermark(Watermark),
    /// And the cursor beside it.
    DeliveredMark(u64, Option<HalfDone>),
    WatermarksMark(String),
}

/// An event that every node has up to this one.
#[derive(Clone, Copy, Debug)]
struct HalfDone {
    event: u64,
    node: usize,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// A node is started again, or its replica takes over, without its last writes.
    Lose {
        node: usize,
        count: usize,
    },
    Empty {
        node: usize,
    },
    /// A node forgets everything, and is the same as before.
    Flush {
        node: usize,
    },
    /// The worker ends, and another one takes over.
    Crash,
}

/// A worker has crashed.
struct Crashed;

#[derive(Default)]
struct Server {
    writes: Vec<Write>,
    starts: u32,
}

struct World {
    servers: [Server; NODES],
    /// Each comes so many steps after the one before.
    faults: VecDeque<(usize, Fault)>,
    /// The end of the log.
    end: u64,
}

/// What a worker knows.
struct Claimed {
    delivered: u64,
    half_done: Option<HalfDone>,
    watermarks: Watermarks,
}

impl World {
    fn step(&mut self) -> Result<(), Crashed> {
        while let Some((steps, fault)) = self.faults.front_mut() {
            if *steps > 0 {
                *steps -= 1;
                break;
            }
            let fault = *fault;
            self.faults.pop_front();
            match fault {
                Fault::Lose { node, count } => {
                    let server = &mut self.servers[node];
                    server.starts += 1;
                    server.writes.truncate(server.writes.len().saturating_sub(count));
                }
                Fault::Empty { node } => {
                    self.servers[node] =
                        Server { writes: Vec::new(), starts: self.servers[node].starts + 1 };
                }
                Fault::Flush { node } => self.servers[node].writes.clear(),
                Fault::Crash => return Err(Crashed),
            }
        }
        Ok(())
    }

    fn write(&mut self, node: usize, write: Write) -> Result<(), Crashed> {
        self.step()?;
        self.servers[node].writes.push(write);
        Ok(())
    }

    fn run_id(&self, node: usize) -> String {
        format!("{node}-{}", self.servers[node].starts)
    }

    fn last<T>(&self, node: usize, pick: impl Fn(&Write) -> Option<T>) -> Option<T> {
        self.servers[node].writes.iter().rev().find_map(pick)
    }

    fn watermark(&self, node: usize) -> Option<Watermark> {
        self.last(node, |write| match write {
            Write::Watermark(watermark) => Some(watermark.clone()),
            _ => None,
        })
    }

    fn look(&mut self) -> Result<Look, Crashed> {
        let mut look = Look { nodes: Vec::new(), places: HashMap::new(), found: HashMap::new() };
        for (node, port) in (0..NODES).zip(0..) {
            self.step()?;
            let slot = port * SLOTS_PER_NODE;
            let (address, run_id) = (NodeAddress::new("a", port), self.run_id(node));
            look.places.insert(slot, node);
            look.nodes.push(Node { address, run_id, spare_slot: slot });
            if let Some(found) = self.watermark(node) {
                look.found.insert((PARTITION, slot), found);
            }
        }
        Ok(look)
    }

    /// False: a node is another one by now, or has not what it had.
    fn put(&mut self, look: &Look, offset: u64) -> Result<(Watermarks, bool), Crashed> {
        let (mut all, mut is_done) = (Watermarks::new(), true);
        for (place, node) in look.nodes.iter().enumerate() {
            let worker = "w".to_owned();
            let watermark = Watermark { offset, run_id: node.run_id.clone(), worker };
            self.step()?;
            let had = look.found.get(&(PARTITION, node.spare_slot));
            let has_it = had.is_none() || had == self.watermark(place).as_ref();
            let written = if self.run_id(place) == node.run_id && has_it {
                self.servers[place].writes.push(Write::Watermark(watermark.clone()));
                Written { known: Some(watermark), perhaps: None }
            } else {
                is_done = false;
                let Some(had) = had else { continue };
                Written { known: Some(had.clone()), perhaps: Some(watermark) }
            };
            all.insert(node.spare_slot, written);
        }
        Ok((all, is_done))
    }

    fn resume(&mut self) -> Result<Option<Claimed>, Crashed> {
        let marked = |write: &Write| match write {
            Write::DeliveredMark(offset, half_done) => Some((*offset, *half_done)),
            _ => None,
        };
        let (delivered, half_done) = self.last(MARKS, marked).unwrap_or_default();
        let slots = self.last(MARKS, |write| match write {
            Write::WatermarksMark(slots) => Some(slots.clone()),
            _ => None,
        });
        let cursors = half_done.map(|HalfDone { event, node }| Cursor {
            author: UserId(0),
            work: Work::Deliver(vec![PostId(event)]),
            reached: UserId(node as u64),
        });
        let mut resumed = Resumed {
            pulled: Vec::new(),
            marks: Resume {
                applied: delivered,
                shown: delivered,
                attempted: delivered,
                delivered: Some(delivered),
                history: 0,
            },
            cursors: cursors.into_iter().collect(),
        };
        let watermarks = of_slots(&slots.unwrap_or_default());
        let look = self.look()?;
        if let Some(loss) = look.lost(PARTITION, &watermarks) {
            loss.go_back(&mut resumed, self.end);
        }
        let delivered = resumed.marks.delivered.unwrap_or_default();
        let half_done = half_done.filter(|_| !resumed.cursors.is_empty());
        self.write(MARKS, Write::DeliveredMark(delivered, half_done))?;
        let (watermarks, is_done) = self.put(&look, delivered)?;
        if !is_done {
            return Ok(None);
        }
        self.write(MARKS, Write::WatermarksMark(slots_text(&watermarks)))?;
        Ok(Some(Claimed { delivered, half_done, watermarks }))
    }

    /// Works until a round after the last fault has found nothing lost.
    fn work(&mut self) -> Result<(), Crashed> {
        for _ in 0..RESUMES_MAX {
            let Some(mut claimed) = self.resume()? else { continue };
            loop {
                let is_last = self.faults.is_empty();
                if !self.round(&mut claimed)? {
                    break;
                }
                if is_last {
                    return Ok(());
                }
            }
        }
        panic!("no end of resuming");
    }

    /// Returns whether nothing is found to be lost.
    fn round(&mut self, claimed: &mut Claimed) -> Result<bool, Crashed> {
        self.end += 2;
        let half_done = claimed.half_done.take();
        for event in claimed.delivered..self.end {
            let reached = half_done.filter(|half_done| half_done.event == event);
            for node in reached.map_or(0, |reached| reached.node + 1)..NODES {
                self.write(node, Write::Event(event))?;
                let half_done = Some(HalfDone { event, node });
                self.write(MARKS, Write::DeliveredMark(claimed.delivered, half_done))?;
            }
        }
        claimed.delivered = self.end;
        self.write(MARKS, Write::DeliveredMark(claimed.delivered, None))?;
        loop {
            let look = self.look()?;
            if look.lost(PARTITION, &claimed.watermarks).is_some() {
                return Ok(false);
            }
            let (written, is_done) = self.put(&look, claimed.delivered)?;
            if !written.keys().eq(claimed.watermarks.keys()) {
                self.write(MARKS, Write::WatermarksMark(slots_text(&written)))?;
            }
            claimed.watermarks = written;
            if is_done {
                return Ok(true);
            }
        }
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => (0..NODES, 1..20_usize).prop_map(|(node, count)| Fault::Lose { node, count }),
        1 => (0..NODES).prop_map(|node| Fault::Empty { node }),
        1 => (0..NODES).prop_map(|node| Fault::Flush { node }),
        2 => Just(Fault::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_node_has_every_event_in_the_end(
        faults in prop::collection::vec((0..60_usize, fault()), 0..12)
    ) {
        let mut world = World { servers: Default::default(), faults: faults.into(), end: 0 };
        while world.work().is_err() {}
        for (node, server) in world.servers.iter().enumerate() {
            let has: BTreeSet<u64> = server.writes.iter().filter_map(|write| match write {
                Write::Event(event) => Some(*event),
                _ => None,
            }).collect();
            let missing: Vec<u64> = (0..world.end).filter(|event| !has.contains(event)).collect();
            prop_assert!(missing.is_empty(), "node {node} of {} events: {missing:?}", world.end);
        }
    }
}
