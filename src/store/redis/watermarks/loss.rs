//! What the watermarks say: whether a node has lost anything, and how far back. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    domain::UserId,
    store::{Resumed, redis::slots::NodeAddress},
};

/// What a node is told of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store::redis) struct Watermark {
    /// Everything below it had been delivered before this was written.
    pub(super) offset: u64,
    /// The run id of the node that it was written on.
    pub(super) run_id: String,
    /// Who wrote it: the name of a worker.
    pub(super) worker: String,
}

impl Watermark {
    /// As it stands in Redis.
    pub(super) fn text(&self) -> String {
        let Self { offset, run_id, worker } = self;
        format!("{offset} {run_id} {worker}")
    }

    /// The same, read.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        Some(Self {
            offset: words.next()?.parse().ok()?,
            run_id: words.next()?.to_owned(),
            worker: words.next()?.to_owned(),
        })
    }
}

/// The watermarks of one partition, by the slot that they are in.
pub(in crate::store::redis) type Watermarks = BTreeMap<u16, Written>;

/// What was written into one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store::redis) struct Written {
    /// What is there. `None`: nobody has told this process.
    pub(super) known: Option<Watermark>,
    /// What is there instead, if the write of it was carried out.
    pub(super) perhaps: Option<Watermark>,
}

/// A node that serves slots.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) address: NodeAddress,
    pub(super) run_id: String,
    /// Where it is given a watermark that it has not.
    pub(super) spare_slot: u16,
}

/// What all nodes say.
#[derive(Debug)]
pub(in crate::store::redis) struct Look {
    pub(super) nodes: Vec<Node>,
    /// The place among the nodes of the one that serves a slot, and has what is in it.
    pub(super) places: HashMap<u16, usize>,
    pub(super) found: HashMap<(u32, u16), Watermark>,
}

/// That a node has lost something of a partition.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store::redis) struct Loss {
    /// Below it, no node has lost anything.
    pub(super) offset: u64,
    /// Who may still be writing: the marks may not name them any more.
    pub(in crate::store::redis) workers: BTreeSet<String>,
}

impl Loss {
    /// Moves a partition's marks back to where nothing is lost. `end` is the log's.
    pub(in crate::store::redis) fn go_back(&self, resumed: &mut Resumed<UserId>, end: u64) {
        let marks = &mut resumed.marks;
        marks.applied = marks.applied.min(self.offset);
        marks.delivered = marks.delivered.map(|delivered| delivered.min(self.offset));
        marks.shown = marks.shown.min(self.offset);
        // The marks themselves may be among what is lost.
        marks.attempted = end.max(marks.attempted);
        // They tell of writes behind the offset, any of which may be lost.
        resumed.cursors.clear();
    }
}

impl Look {
    /// What nodes have lost of a partition, if they have. Where nobody knows of any
    /// watermarks, that is all of it: other nodes may have what the one that said where
    /// they are has lost.
    pub(in crate::store::redis) fn lost(
        &self,
        partition: u32,
        watermarks: &Watermarks,
    ) -> Option<Loss> {
        let alive: BTreeSet<&str> = self.nodes.iter().map(|node| node.run_id.as_str()).collect();
        let is_whole = |(slot, written): (&u16, &Written)| {
            let Some(found) = self.found.get(&(partition, *slot)) else { return false };
            let is_expected = match written {
                Written { known: None, .. } => true,
                Written { known, perhaps } => {
                    known.as_ref() == Some(found) || perhaps.as_ref() == Some(found)
                }
            };
            is_expected && alive.contains(found.run_id.as_str())
        };
        if !watermarks.is_empty() && watermarks.iter().all(is_whole) {
            return None;
        }
        let slots = watermarks.keys();
        let found: BTreeMap<u16, &Watermark> =
            slots.filter_map(|slot| Some((*slot, self.found.get(&(partition, *slot))?))).collect();
        let told: BTreeSet<&usize> =
            found.keys().filter_map(|slot| self.places.get(slot)).collect();
        let offset = if found.len() < watermarks.len() || told.len() < self.nodes.len() {
            0
        } else {
            found.values().map(|watermark| watermark.offset).min().unwrap_or_default()
        };
        let workers = found.values().map(|watermark| watermark.worker.clone()).collect();
        Some(Loss { offset, workers })
    }

    /// Where a partition's watermarks are to be written: one slot of each node, one
    /// that has a watermark already if there is any.
    pub(super) fn slots(&self, watermarks: &Watermarks) -> Vec<u16> {
        let slots = self.nodes.iter().enumerate().map(|(place, node)| {
            let mut known = watermarks.keys().copied();
            known.find(|slot| self.places.get(slot) == Some(&place)).unwrap_or(node.spare_slot)
        });
        slots.collect()
    }
}

/// The slots of watermarks as the marks of their partition name them.
pub(in crate::store::redis) fn slots_text(watermarks: &Watermarks) -> String {
    let slots: Vec<String> = watermarks.keys().map(u16::to_string).collect();
    slots.join(",")
}

/// The same, read: what is in the slots is yet to be looked up. None of them where any cannot
/// be read: the partition then goes back to the beginning, and no loss is missed.
pub(in crate::store::redis) fn of_slots(text: &str) -> Watermarks {
    let slots = text.split(',').map(|slot| slot.parse().ok());
    let slots: Option<Vec<u16>> = slots.collect();
    let slots = slots.unwrap_or_default().into_iter();
    slots.map(|slot| (slot, Written { known: None, perhaps: None })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: u32 = 3;

    fn watermark(offset: u64, run_id: &str) -> Watermark {
        let worker = format!("the worker of {run_id}");
        Watermark { offset, run_id: run_id.to_owned(), worker }
    }

    fn lost(look: &Look, watermarks: &Watermarks) -> Option<u64> {
        look.lost(PARTITION, watermarks).map(|loss| loss.offset)
    }

    fn look(run_ids: &[&str], found: &[(u16, u64, &str)]) -> Look {
        let nodes = run_ids.iter().zip(0..).map(|(run_id, port)| Node {
            address: NodeAddress::new("a", port),
            run_id: (*run_id).to_owned(),
            spare_slot: port * 100,
        });
        Look {
            nodes: nodes.collect(),
            places: found.iter().map(|(slot, ..)| (*slot, usize::from(slot / 100))).collect(),
            found: found
                .iter()
                .map(|(slot, offset, run_id)| ((PARTITION, *slot), watermark(*offset, run_id)))
                .collect(),
        }
    }

    fn written(watermarks: &[(u16, u64, &str)]) -> Watermarks {
        let written = watermarks.iter().map(|(slot, offset, run_id)| {
            (*slot, Written { known: Some(watermark(*offset, run_id)), perhaps: None })
        });
        written.collect()
    }

    #[test]
    fn nothing_is_lost_while_every_node_is_who_it_was() {
        let watermarks = written(&[(0, 70, "A"), (100, 70, "B")]);
        let look = look(&["A", "B"], &[(0, 70, "A"), (100, 70, "B")]);
        assert_eq!(lost(&look, &watermarks), None);
    }

    #[test]
    fn a_replica_that_took_over_says_how_far_back() {
        let watermarks = written(&[(0, 70, "A"), (100, 70, "B")]);
        let whole = look(&["A", "C"], &[(0, 70, "A"), (100, 70, "B")]);
        assert_eq!(lost(&whole, &watermarks), Some(70));
        let behind = look(&["A", "C"], &[(0, 70, "A"), (100, 58, "B")]);
        assert_eq!(lost(&behind, &watermarks), Some(58));
        // One that does not know what was written before finds the same.
        assert_eq!(lost(&behind, &of_slots("0,100")), Some(58));
    }

    #[test]
    fn a_node_that_lost_that_the_partition_had_gone_back_does_not_lead_past_it() {
        // A was emptied, so all went back to 0, which B has lost: C knows 70 only.
        let look = look(&["A", "C"], &[(0, 0, "A"), (100, 70, "B")]);
        assert_eq!(lost(&look, &written(&[(0, 0, "A"), (100, 0, "B")])), Some(0));
        assert_eq!(lost(&look, &of_slots("0,100")), Some(0));
    }

    #[test]
    fn a_loss_names_all_who_may_write_still() {
        let watermarks = of_slots("0,100");
        let look = look(&["A", "C"], &[(0, 60, "A"), (100, 70, "B")]);
        let workers = look.lost(PARTITION, &watermarks).unwrap().workers;
        assert!(workers.iter().eq(["the worker of A", "the worker of B"]));
    }

    #[test]
    fn a_node_of_which_nothing_is_known_may_have_lost_all() {
        // The marks are from before slot 0 moved and A was given another slot.
        let mut look = look(&["A", "C"], &[(0, 60, "A"), (100, 70, "B")]);
        look.places.insert(0, 1);
        assert_eq!(lost(&look, &of_slots("0,100")), Some(0));
    }

    #[test]
    fn a_partition_without_watermarks_goes_back_to_the_beginning() {
        assert_eq!(lost(&look(&["A", "B"], &[]), &Watermarks::new()), Some(0));
    }

    #[test]
    fn an_emptied_node_goes_back_to_the_beginning() {
        let watermarks = written(&[(0, 70, "A"), (100, 70, "B")]);
        let look = look(&["A", "D"], &[(0, 70, "A")]);
        assert_eq!(lost(&look, &watermarks), Some(0));
    }

    #[test]
    fn a_slot_that_moves_loses_nothing() {
        // Slot 0 has gone from A to B, and A is there still.
        let watermarks = written(&[(0, 70, "A"), (100, 70, "B")]);
        let mut look = look(&["A", "B"], &[(0, 70, "A"), (100, 70, "B")]);
        look.places.insert(0, 1);
        look.nodes[0].spare_slot = 1;
        assert_eq!(lost(&look, &watermarks), None);
        // A is given one in a slot that it has still, B keeps one of its two.
        assert_eq!(look.slots(&watermarks), [1, 0]);
    }

    #[test]
    fn a_write_of_which_nobody_knows_is_no_loss() {
        let mut watermarks = written(&[(0, 70, "A")]);
        watermarks.get_mut(&0).unwrap().perhaps = Some(watermark(90, "A"));
        for offset in [70, 90] {
            assert_eq!(lost(&look(&["A"], &[(0, offset, "A")]), &watermarks), None);
        }
        assert_eq!(lost(&look(&["A"], &[(0, 50, "A")]), &watermarks), Some(50));
    }

    #[test]
    fn slots_are_read_as_they_are_named() {
        let watermarks = of_slots(&slots_text(&written(&[(3, 1, "A"), (900, 2, "B")])));
        assert_eq!(watermarks.keys().copied().collect::<Vec<_>>(), [3, 900]);
        assert!(of_slots("").is_empty() && of_slots("3,x").is_empty());
    }
}
