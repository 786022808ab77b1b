//! Which connections there are: bounded in all and for each peer.
//!
//! Where there is no room, the connection that has had no call for longest makes room, so
//! that connections that are of no use to their clients cannot keep others out. One that
//! never had a call goes before one that has.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::Activity;
use crate::telemetry::{ConnectionMetrics, Held, Kind};

/// A connection is idle enough to make room for another after so long.
const EVICT_AFTER: Duration = Duration::from_secs(1);
/// Connections that are looked at for one that can make room, the oldest first.
const LOOKED_AT_MAX: usize = 256;

/// Room for the connections of one listener. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct ConnectionSlots {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    listener: &'static str,
    connections_max: usize,
    peer_connections_max: usize,
    metrics: Arc<ConnectionMetrics>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    /// In the order in which they were accepted.
    connections: BTreeMap<u64, Connection>,
    peers: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Connection {
    peer: IpAddr,
    activity: Arc<Activity>,
    evicted: CancellationToken,
}

/// Why a connection was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There are as many as there may be, all of them in use.
    Full,
    /// Its peer has as many as it may have, all of them in use.
    PeerFull,
}

/// What an open connection holds.
#[derive(Debug)]
pub struct ConnectionSlot {
    slots: ConnectionSlots,
    id: u64,
    activity: Arc<Activity>,
    evicted: CancellationToken,
    _open: Held,
}

impl ConnectionSlots {
    /// Room for so many connections in all and from one address, to the listener that metrics
    /// call by this name.
    pub fn new(
        listener: &'static str,
        connections_max: usize,
        peer_connections_max: usize,
        metrics: Arc<ConnectionMetrics>,
    ) -> Self {
        let open = Mutex::default();
        let inner = Inner { listener, connections_max, peer_connections_max, metrics, open };
        Self { inner: Arc::new(inner) }
    }

    /// Takes a slot for a connection that was just accepted.
    ///
    /// # Errors
    /// If there is no room, and no idle connection makes any.
    pub fn take(&self, peer: IpAddr, now: Instant) -> Result<ConnectionSlot, Refusal> {
        let peer = network_of(peer);
        let mut open = self.lock();
        let refusal = if open.of_peer(peer) >= self.inner.peer_connections_max {
            Some((Refusal::PeerFull, Some(peer)))
        } else if open.connections.len() >= self.inner.connections_max {
            Some((Refusal::Full, None))
        } else {
            None
        };
        if let Some((refusal, of_peer)) = refusal
            && !self.evict(&mut open, of_peer, now)
        {
            let kind = match refusal {
                Refusal::Full => "full",
                Refusal::PeerFull => "peer",
            };
            self.inner.metrics.refused_connections.get_or_create(&Kind { kind }).inc();
            return Err(refusal);
        }
        let id = open.next_id;
        open.next_id += 1;
        let activity = Arc::new(Activity::new(now));
        let evicted = CancellationToken::new();
        let connection =
            Connection { peer, activity: Arc::clone(&activity), evicted: evicted.clone() };
        open.connections.insert(id, connection);
        *open.peers.entry(peer).or_default() += 1;
        let label = Kind { kind: self.inner.listener };
        let gauge = self.inner.metrics.connections.get_or_create(&label).clone();
        let held = Held::new(&gauge, 1);
        Ok(ConnectionSlot { slots: self.clone(), id, activity, evicted, _open: held })
    }

    /// Closes an idle connection, if there is one. For when the process has no descriptors.
    pub fn evict_idle(&self, now: Instant) -> bool {
        self.evict(&mut self.lock(), None, now)
    }

    pub(super) fn metrics(&self) -> &ConnectionMetrics {
        &self.inner.metrics
    }

    fn evict(&self, open: &mut Open, of_peer: Option<IpAddr>, now: Instant) -> bool {
        let Some(id) = open.longest_idle(of_peer, now) else { return false };
        if let Some(connection) = open.remove(id) {
            connection.evicted.cancel();
            self.inner.metrics.closed("evicted");
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Whole even after a panic: nothing in between can panic.
        self.inner.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn of_peer(&self, peer: IpAddr) -> usize {
        self.peers.get(&peer).copied().unwrap_or_default()
    }

    fn longest_idle(&self, of_peer: Option<IpAddr>, now: Instant) -> Option<u64> {
        self.connections
            .iter()
            .filter(|(_, it)| of_peer.is_none_or(|peer| peer == it.peer))
            .take(LOOKED_AT_MAX)
            .filter_map(|(id, it)| Some((id, it.activity.idle_for(now)?, &it.activity)))
            .filter(|(_, idle, _)| *idle >= EVICT_AFTER)
            .max_by_key(|(_, idle, activity)| (!activity.has_had_call(), *idle))
            .map(|(id, _, _)| *id)
    }

    fn remove(&mut self, id: u64) -> Option<Connection> {
        let connection = self.connections.remove(&id)?;
        if let Some(count) = self.peers.get_mut(&connection.peer) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&connection.peer);
            }
        }
        Some(connection)
    }
}

impl ConnectionSlot {
    /// What happens on the connection.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Counts that the connection is closed for this reason.
    pub fn closed(&self, reason: &'static str) {
        self.slots.metrics().closed(reason);
    }

    /// Waits until the connection has to make room for another, and is closed.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.slots.lock().remove(self.id);
    }
}

/// What counts as one peer: an IPv4 address, or a network of IPv6 that one client is given.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(max: usize, peer_max: usize) -> ConnectionSlots {
        ConnectionSlots::new("grpc", max, peer_max, Arc::default())
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_peer_leaves_room_for_others() {
        let (slots, now) = (slots(3, 2), Instant::now());
        let held: Vec<_> = (0..2).map(|_| slots.take(peer(1), now).expect("room")).collect();
        assert_eq!(slots.take(peer(1), now).err(), Some(Refusal::PeerFull));
        let other = slots.take(peer(2), now).expect("room");
        assert_eq!(slots.take(peer(3), now).err(), Some(Refusal::Full));
        drop(other);
        slots.take(peer(3), now).expect("room again");
        drop(held);
        assert!(slots.lock().peers.is_empty());
    }

    #[test]
    fn the_connection_that_is_idle_longest_makes_room() {
        let (slots, now) = (slots(3, 3), Instant::now());
        let used = slots.take(peer(1), now).expect("room");
        used.activity().begin_call();
        let had_a_call = slots.take(peer(1), now).expect("room");
        had_a_call.activity().begin_call();
        had_a_call.activity().end_call();
        let never_called = slots.take(peer(2), now).expect("room");
        assert!(slots.take(peer(3), now).is_err(), "it is too early");

        let later = now + Duration::from_secs(2);
        let next = slots.take(peer(3), later).expect("room");
        assert!(never_called.evicted.is_cancelled() && !had_a_call.evicted.is_cancelled());
        next.activity().begin_call();
        let _last = slots.take(peer(3), later).expect("room");
        assert!(had_a_call.evicted.is_cancelled() && !used.evicted.is_cancelled());
        // The slots of the evicted ones are given back once.
        drop((never_called, had_a_call));
        assert_eq!(slots.lock().connections.len(), 3);
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        let of = |text: &str| network_of(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), peer(1));
    }
}
