//! How a loss is noticed of what Redis was given, and how far it reaches back.
//!
//! Redis answers before a write is on a replica or on a disk. So a node that was
//! started again, or a replica that has taken over, may have lost the last writes;
//! what it still has is a beginning of what it was given, in the order in which it
//! was given. So about once a second a worker writes into every node the offset
//! below which everything had been delivered before: a watermark, and beside it the
//! node's run id, which is another after every start, and the worker's name.
//!
//! ```text
//!  delivered below 70 ──► watermark 70 on A, on B ──► …    B fails; its replica C takes over
//!                                                          C has the watermark 58 of B
//!  go back to 58 ◄── B is not among the nodes any more ◄───┘
//! ```
//!
//! What a node has lost may be that the partition had gone back already, on another
//! node's account: then its marks and its own watermark are from before, and say too
//! much. So one goes back to the least that any node was told.
//!
//! A slot that moves takes its watermark along, and may leave a node without: it is
//! given one in another of its slots. While the slot is on its way the watermark may have
//! gone before, and is read where it is.

mod loss;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use self::loss::{Look, Node, Watermark, Written};
pub(super) use self::loss::{Watermarks, of_slots, slots_text};
use super::{
    Claim, ClaimState, Inner, error::NodeError, info, keys, ledger, resp::Value, scripts,
    slots::NodeAddress,
};
use crate::store::StoreError;

/// How often watermarks are looked at and written.
const INTERVAL: Duration = Duration::from_secs(1);

impl Inner {
    /// Writes the first watermarks of a partition that is this process's now, after a
    /// look at those from before.
    pub(super) async fn begin_watermarks(
        &self,
        look: &Look,
        partition: u32,
        before: &Watermarks,
        delivered: u64,
    ) -> Result<Watermarks, StoreError> {
        let (written, result) = self.put(look, vec![(partition, before, delivered)]).await;
        result?;
        Ok(written.into_values().next().unwrap_or_default())
    }

    /// Looks at the watermarks of all partitions that are this process's, and writes
    /// new ones, if it is time. A partition of which something is lost is told so, and
    /// keeps its old ones.
    ///
    /// They are those of all workers of this process, so the look goes on to its end
    /// even if the worker that happens to make it is broken off.
    pub(super) async fn keep_watermarks(self: &Arc<Self>) {
        // Whoever finds it locked is being served.
        if self.looked_at.try_lock().is_ok_and(|looked_at| looked_at.elapsed() >= INTERVAL) {
            let this = Arc::clone(self);
            let look = tokio::spawn(async move { this.keep_watermarks_of_all().await });
            if let Err(error) = look.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    async fn keep_watermarks_of_all(&self) {
        let Ok(mut looked_at) = self.looked_at.try_lock() else { return };
        if looked_at.elapsed() < INTERVAL {
            return;
        }
        if let Err(error) = self.look_and_put().await {
            tracing::warn!(%error, "not every node of Redis could be asked what it has lost");
        }
        *looked_at = Instant::now();
    }

    async fn look_and_put(&self) -> Result<(), StoreError> {
        let claims: Vec<(u32, Claim)> = self
            .claims()
            .iter()
            .filter(|(_, claim)| claim.state == ClaimState::Held)
            .map(|(partition, claim)| (*partition, claim.clone()))
            .collect();
        let wanted: Vec<(u32, &Watermarks)> =
            claims.iter().map(|(partition, claim)| (*partition, &claim.watermarks)).collect();
        let look = self.look(&wanted).await?;
        let mut whole = Vec::new();
        for (partition, claim) in &claims {
            match look.lost(*partition, &claim.watermarks) {
                Some(loss) => {
                    tracing::warn!(
                        partition,
                        offset = loss.offset,
                        "a node of Redis has lost what it was given; the partition goes back"
                    );
                    self.change_claim(*partition, claim, |claim| {
                        claim.state = ClaimState::Lost;
                    });
                }
                None => whole.push((*partition, &claim.watermarks, claim.delivered)),
            }
        }
        let (written, mut result) = self.put(&look, whole).await;
        for (partition, claim) in claims {
            let Some(written) = written.get(&partition) else { continue };
            let mut marked = Ok(());
            if !written.keys().eq(claim.watermarks.keys()) {
                let slots = slots_text(written);
                marked = self.mark(partition, &claim.epoch, &[("watermarks", &slots)]).await;
            }
            self.change_claim(partition, &claim, |claim| match &marked {
                Ok(()) => claim.watermarks = written.clone(),
                // The marks name the slots of before.
                Err(_) => claim.watermarks.iter_mut().for_each(|(slot, before)| {
                    if let Some(written) = written.get(slot) {
                        *before = written.clone();
                    }
                }),
            });
            result = result.and(marked);
        }
        result
    }

    /// Changes a claim, if it is the same still.
    fn change_claim(&self, partition: u32, before: &Claim, change: impl FnOnce(&mut Claim)) {
        let mut claims = self.claims();
        if let Some(claim) = claims.get_mut(&partition)
            && claim.epoch == before.epoch
        {
            change(claim);
        }
    }

    /// Asks every node who it is, and what it has of these watermarks.
    pub(super) async fn look(&self, wanted: &[(u32, &Watermarks)]) -> Result<Look, StoreError> {
        let look = self.try_look(wanted).await;
        if look.is_err() {
            // The slots may be elsewhere by now; the next look will find them.
            let _ = self.pusher.router.refresh().await;
        }
        Ok(look?)
    }

    /// The partitions, by their marks, of which a node has lost something that no worker
    /// has taken note of: whoever took such a one over now would go back. One of which
    /// nothing holds has nothing to lose.
    pub(super) async fn unnoticed(
        &self,
        marks: &[HashMap<Vec<u8>, Vec<u8>>],
    ) -> Result<Vec<u32>, StoreError> {
        let mut known = Vec::new();
        for (partition, marks) in (0..).zip(marks) {
            if ledger::resume_of(marks)?.shown > 0 {
                known.push((partition, of_slots(&ledger::text(marks, "watermarks"))));
            }
        }
        let wanted: Vec<(u32, &Watermarks)> =
            known.iter().map(|(partition, watermarks)| (*partition, watermarks)).collect();
        let look = self.look(&wanted).await?;
        let lost =
            wanted.into_iter().filter(|(partition, known)| look.lost(*partition, known).is_some());
        Ok(lost.map(|(partition, _)| partition).collect())
    }

    /// A number made of the run ids of all nodes.
    pub(super) async fn incarnation(&self) -> Result<u64, StoreError> {
        let run_ids = self.run_ids().await;
        if run_ids.is_err() {
            let _ = self.pusher.router.refresh().await;
        }
        let mut hasher = DefaultHasher::new();
        run_ids?.hash(&mut hasher);
        Ok(hasher.finish())
    }

    async fn run_ids(&self) -> Result<BTreeSet<String>, NodeError> {
        let map = self.pusher.router.fresh_map().await?;
        let mut run_ids = BTreeSet::new();
        for (place, node) in map.nodes().iter().enumerate() {
            let questions: [&[&[u8]]; 2] = [&[b"INFO", b"server"], &[b"INFO", b"replication"]];
            let replies = self.pusher.router.on_node(node, &questions).await?;
            let [server, replication] = &replies[..] else { continue };
            // The slots of one that became a replica are elsewhere by now.
            if !map.is_standalone() && info_field(replication, "role") != "master" {
                let (slot, _) = map.ends(place).unwrap_or_default();
                return Err(NodeError::Unsettled { node: node.clone(), slot });
            }
            run_ids.insert(run_id(server));
        }
        Ok(run_ids)
    }

    async fn try_look(&self, wanted: &[(u32, &Watermarks)]) -> Result<Look, NodeError> {
        let map = self.pusher.router.fresh_map().await?;
        let mut look = Look { nodes: Vec::new(), places: HashMap::new(), found: HashMap::new() };
        let slots: BTreeSet<u16> =
            wanted.iter().flat_map(|(_, watermarks)| watermarks.keys().copied()).collect();
        let partitions: Vec<(u32, String)> =
            wanted.iter().map(|(partition, _)| (*partition, partition.to_string())).collect();
        let fields: Vec<&[u8]> = partitions.iter().map(|(_, field)| field.as_bytes()).collect();
        let router = &self.pusher.router;
        for (place, address) in map.nodes().iter().enumerate() {
            let Some((first_slot, last_slot)) = map.ends(place) else { continue };
            let run_id = self.run_id(address).await?;
            // Slots are moved from the first on, so the last one is most likely to stay.
            let mut spare_slot = last_slot;
            let here = slots.iter().copied().filter(|slot| map.place(*slot) == Some(place));
            // Most often that is where the watermark is: each is asked for once.
            let asked: BTreeSet<u16> =
                if wanted.is_empty() { BTreeSet::new() } else { here.chain([last_slot]).collect() };
            for slot in asked {
                let key = keys::watermark(slot);
                let command: Vec<&[u8]> =
                    [b"HMGET", key.as_slice()].into_iter().chain(fields.iter().copied()).collect();
                let (reply, has_gone) = router.on_node_or_next(address, &command).await?;
                if !has_gone {
                    look.places.insert(slot, look.nodes.len());
                } else if slot == last_slot {
                    spare_slot = first_slot;
                }
                let Some(Value::Array(values)) = reply else { continue };
                for ((partition, _), value) in partitions.iter().zip(values) {
                    if let Some(watermark) = read(&value) {
                        look.found.insert((*partition, slot), watermark);
                    }
                }
            }
            // What it said is not that of one that was started again meanwhile.
            if self.run_id(address).await? != run_id {
                return Err(is_another(address));
            }
            look.nodes.push(Node { address: address.clone(), run_id, spare_slot });
        }
        Ok(look)
    }

    async fn run_id(&self, node: &NodeAddress) -> Result<String, NodeError> {
        let info = self.pusher.router.on_node(node, &[&[b"INFO", b"server"]]).await?;
        Ok(run_id(info.first().unwrap_or(&Value::Nil)))
    }

    /// Writes watermarks of partitions with these offsets into every node. Returns
    /// what is there then, also where a node failed.
    async fn put(
        &self,
        look: &Look,
        partitions: Vec<(u32, &Watermarks, u64)>,
    ) -> (BTreeMap<u32, Watermarks>, Result<(), StoreError>) {
        let mut all = BTreeMap::<u32, Watermarks>::new();
        let mut result = Ok(());
        for (place, node) in look.nodes.iter().enumerate() {
            let mut by_slot = BTreeMap::<u16, Vec<(u32, Watermark, Option<Watermark>)>>::new();
            for (partition, before, offset) in &partitions {
                let slot = look.slots(before)[place];
                let known = look.found.get(&(*partition, slot)).cloned();
                let watermark = Watermark {
                    offset: *offset,
                    run_id: node.run_id.clone(),
                    worker: self.settings.worker.clone(),
                };
                by_slot.entry(slot).or_default().push((*partition, watermark, known));
            }
            for (slot, watermarks) in by_slot {
                let done = self.put_on(node, slot, &watermarks).await;
                for (partition, watermark, known) in watermarks {
                    let written = match (&done, known) {
                        (Ok(()), _) => Written { known: Some(watermark), perhaps: None },
                        (Err(_), Some(known)) => {
                            Written { known: Some(known), perhaps: Some(watermark) }
                        }
                        // Nothing is known to be there.
                        (Err(_), None) => continue,
                    };
                    all.entry(partition).or_default().insert(slot, written);
                }
                result = result.and(done);
            }
        }
        (all, result.map_err(StoreError::from))
    }

    async fn put_on(
        &self,
        node: &Node,
        slot: u16,
        watermarks: &[(u32, Watermark, Option<Watermark>)],
    ) -> Result<(), NodeError> {
        let texts: Vec<[String; 3]> = watermarks
            .iter()
            .map(|(partition, watermark, known)| {
                let known = known.as_ref().map_or_else(String::new, Watermark::text);
                [partition.to_string(), known, watermark.text()]
            })
            .collect();
        let key = keys::watermark(slot);
        let script = scripts::PUT_WATERMARKS.text();
        let mut command: Vec<&[u8]> =
            vec![b"EVAL", script.as_bytes(), b"1", &key, node.run_id.as_bytes()];
        command.extend(texts.iter().flatten().map(String::as_bytes));
        let replies = self.pusher.router.on_node(&node.address, &[&command]).await?;
        if matches!(replies[..], [Value::Integer(1)]) {
            return Ok(());
        }
        Err(is_another(&node.address))
    }
}

fn is_another(node: &NodeAddress) -> NodeError {
    let reason = "it has been started again, or emptied, meanwhile".to_owned();
    NodeError::Broken { node: node.clone(), reason }
}

fn run_id(info: &Value) -> String {
    info_field(info, "run_id")
}

fn info_field(reply: &Value, name: &str) -> String {
    let Value::Text(text) = reply else { return String::new() };
    let text = String::from_utf8_lossy(text);
    info::field(&text, name).unwrap_or_default().to_owned()
}

fn read(value: &Value) -> Option<Watermark> {
    let Value::Text(text) = value else { return None };
    Watermark::read(str::from_utf8(text).ok()?)
}

#[cfg(test)]
mod simulation;
