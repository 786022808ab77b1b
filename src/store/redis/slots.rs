//! Which node has which key. Pure.
//!
//! ```text
//!  key ──► part in braces, or all of it ──► CRC16 mod 16,384 ──► slot ──► node
//! ```
//!
//! A standalone Redis is one node for all slots. The rule of the keys and the
//! redirections: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use super::resp::{HomeKey, Value};

/// How many slots there are.
pub const SLOTS: u16 = 16_384;
const UNASSIGNED: u16 = u16::MAX;

/// Where a node listens. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeAddress {
    /// A name or an address; an IPv6 address without brackets.
    pub host: Arc<str>,
    /// The TCP port.
    pub port: u16,
}

impl NodeAddress {
    /// The node at `host` and `port`.
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.into(), port }
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The slot of a key: of what stands in its first pair of braces, if anything
/// does, else of all of it.
pub fn key_slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) % SLOTS
}

/// The least number whose decimal digits are a key in `slot`.
pub(super) fn number_in(slot: u16) -> u32 {
    static NUMBERS: LazyLock<Vec<u32>> = LazyLock::new(|| {
        let mut numbers = vec![None; usize::from(SLOTS)];
        let mut left = numbers.len();
        for number in 0_u32.. {
            let place = &mut numbers[usize::from(key_slot(number.to_string().as_bytes()))];
            if place.is_none() {
                *place = Some(number);
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        numbers.into_iter().flatten().collect()
    });
    NUMBERS[usize::from(slot % SLOTS)]
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|&byte| byte == b'}') {
        Some(len) if len > 0 => &rest[..len],
        _ => key,
    }
}

/// The slot of a reader's home list, whose key has no braces.
#[inline]
pub fn home_slot(key: &HomeKey) -> u16 {
    crc16(key.as_bytes()) % SLOTS
}

/// CRC-16/XMODEM: polynomial 0x1021, from 0, not reflected. Four bytes a step:
/// the remainders of bytes with zeros behind them add up.
#[inline]
fn crc16(bytes: &[u8]) -> u16 {
    let [t0, t1, t2, t3] = &CRC16_TABLES;
    let mut fours = bytes.chunks_exact(4);
    let mut crc = 0_u16;
    for four in &mut fours {
        let [high, low] = crc.to_be_bytes();
        crc = t3[usize::from(four[0] ^ high)]
            ^ t2[usize::from(four[1] ^ low)]
            ^ t1[usize::from(four[2])]
            ^ t0[usize::from(four[3])];
    }
    fours.remainder().iter().fold(crc, |crc, &byte| {
        let [high, _] = crc.to_be_bytes();
        (crc << 8) ^ t0[usize::from(high ^ byte)]
    })
}

/// The remainder of each byte with 0, 1, 2 and 3 zero bytes behind it.
const CRC16_TABLES: [[u16; 256]; 4] = {
    let mut tables = [[0; 256]; 4];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut zeros = 0;
        while zeros < 4 {
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
                bit += 1;
            }
            tables[zeros][byte] = crc;
            zeros += 1;
        }
        byte += 1;
    }
    tables
};

/// Which node serves which slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotMap {
    nodes: Vec<NodeAddress>,
    /// For each slot the place of its node in `nodes`, or [`UNASSIGNED`]; empty
    /// where one node has them all and keys need no slot.
    by_slot: Vec<u16>,
}

impl SlotMap {
    /// All slots on one node, which is no Cluster.
    pub fn standalone(node: NodeAddress) -> Self {
        Self { nodes: vec![node], by_slot: Vec::new() }
    }

    /// Reads what `asked` answered to `CLUSTER SLOTS`.
    ///
    /// # Errors
    /// A sentence about what is wrong with the answer.
    pub fn from_cluster_slots(reply: &Value, asked: &NodeAddress) -> Result<Self, String> {
        let Value::Array(ranges) = reply else {
            return Err("CLUSTER SLOTS was not answered by a list".to_owned());
        };
        let mut map = Self { nodes: Vec::new(), by_slot: vec![UNASSIGNED; usize::from(SLOTS)] };
        for range in ranges {
            let (start, end, primary) = read_range(range)
                .ok_or_else(|| "CLUSTER SLOTS has an entry that is no range".to_owned())?;
            // A primary whose address the cluster does not know serves nobody.
            let Some(node) = read_node(primary, asked) else { continue };
            let place = map.place_of(node);
            map.by_slot[usize::from(start)..=usize::from(end)].fill(place);
        }
        Ok(map)
    }

    /// The nodes; [`SlotMap::place`] says where among them.
    pub fn nodes(&self) -> &[NodeAddress] {
        &self.nodes
    }

    /// Whether one node has all slots and is no Cluster.
    pub fn is_standalone(&self) -> bool {
        self.by_slot.is_empty()
    }

    /// The place in [`SlotMap::nodes`] of the node that serves `slot`, if any does.
    #[inline]
    pub fn place(&self, slot: u16) -> Option<usize> {
        if self.is_standalone() {
            return Some(0);
        }
        match self.by_slot.get(usize::from(slot)) {
            None | Some(&UNASSIGNED) => None,
            Some(place) => Some(usize::from(*place)),
        }
    }

    /// The first and the last slot of the node at a place among [`SlotMap::nodes`], if it
    /// has any; a standalone Redis has all.
    pub(super) fn ends(&self, place: usize) -> Option<(u16, u16)> {
        if self.is_standalone() {
            return Some((0, SLOTS - 1));
        }
        let is_there = |by: &u16| usize::from(*by) == place;
        let first = self.by_slot.iter().position(is_there)?;
        let last = self.by_slot.iter().rposition(is_there)?;
        Some((u16::try_from(first).ok()?, u16::try_from(last).ok()?))
    }

    /// Makes `node` serve `slot`, as a node that no longer does has said.
    pub fn assign(&mut self, slot: u16, node: NodeAddress) {
        let place = self.place_of(node);
        if let Some(old) = self.by_slot.get_mut(usize::from(slot)) {
            *old = place;
        }
    }

    fn place_of(&mut self, node: NodeAddress) -> u16 {
        let place = self.nodes.iter().position(|known| *known == node).unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        });
        // No more nodes than slots, since each was named by one.
        u16::try_from(place).unwrap_or(UNASSIGNED)
    }
}

/// First slot, last slot and primary.
fn read_range(range: &Value) -> Option<(u16, u16, &Value)> {
    let Value::Array(parts) = range else { return None };
    let [Value::Integer(start), Value::Integer(end), primary, ..] = &parts[..] else {
        return None;
    };
    let (start, end) = (u16::try_from(*start).ok()?, u16::try_from(*end).ok()?);
    (start <= end && end < SLOTS).then_some((start, end, primary))
}

/// No host, or an empty one, is the host that was asked; `?` is one that the
/// cluster does not know.
fn read_node(node: &Value, asked: &NodeAddress) -> Option<NodeAddress> {
    let Value::Array(parts) = node else { return None };
    let [host, Value::Integer(port), ..] = &parts[..] else { return None };
    let host = match host {
        Value::Text(host) => str::from_utf8(host).ok()?,
        Value::Nil => "",
        _ => return None,
    };
    named_node(host, u16::try_from(*port).ok()?, asked)
}

fn named_node(host: &str, port: u16, asked: &NodeAddress) -> Option<NodeAddress> {
    match host {
        "?" => None,
        "" => Some(NodeAddress { host: asked.host.clone(), port }),
        host => Some(NodeAddress::new(host, port)),
    }
}

/// A node's answer that a command belongs elsewhere; it was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// The slot is served by another node from now on.
    Moved {
        /// Which slot.
        slot: u16,
        /// By whom.
        node: NodeAddress,
    },
    /// The slot is on its way to another node: this command, after `ASKING`, and
    /// only this one, belongs there.
    Ask {
        /// Which slot.
        slot: u16,
        /// To whom.
        node: NodeAddress,
    },
}

impl Redirect {
    /// Reads an error that `asked` answered, such as `MOVED 3999 10.0.0.1:6379`;
    /// `None` if it redirects nowhere.
    pub fn parse(error: &[u8], asked: &NodeAddress) -> Option<Self> {
        let mut words = str::from_utf8(error).ok()?.split(' ');
        let (kind, slot, address) = (words.next()?, words.next()?, words.next()?);
        let slot = slot.parse().ok().filter(|slot| *slot < SLOTS)?;
        let (host, port) = address.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let node = named_node(host, port.parse().ok()?, asked)?;
        match kind {
            "MOVED" => Some(Self::Moved { slot, node }),
            "ASK" => Some(Self::Ask { slot, node }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::UserId;

    fn asked() -> NodeAddress {
        NodeAddress::new("10.0.0.9", 7000)
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(key_slot(b"foo"), 12_182);
        assert_eq!(key_slot(b"{user1000}.following"), key_slot(b"{user1000}.followers"));
        assert_eq!(key_slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(key_slot(b"foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
        assert_eq!(key_slot(b"foo{bar}{zap}"), crc16(b"bar") % SLOTS);
        assert_eq!(key_slot(b"foo{bar"), crc16(b"foo{bar") % SLOTS);
    }

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Integer(port), Value::Text(b"id".to_vec())])
    }

    fn text(text: &str) -> Value {
        Value::Text(text.as_bytes().to_vec())
    }

    fn range(start: i64, end: i64, node: Value) -> Value {
        Value::Array(vec![Value::Integer(start), Value::Integer(end), node])
    }

    #[test]
    fn a_map_knows_who_serves_what() {
        let reply = Value::Array(vec![
            range(0, 99, node(text("10.0.0.1"), 7001)),
            range(100, 12_182, node(text(""), 7002)),
            range(12_183, 12_999, node(text("?"), 7003)),
            range(13_000, 16_383, node(text("10.0.0.1"), 7001)),
        ]);
        let mut map = SlotMap::from_cluster_slots(&reply, &asked()).unwrap();
        let known = [NodeAddress::new("10.0.0.1", 7001), NodeAddress::new("10.0.0.9", 7002)];
        assert_eq!(map.nodes(), known);
        assert_eq!(map.place(12_182), Some(1));
        assert_eq!(map.place(12_500), None);
        map.assign(12_182, NodeAddress::new("10.0.0.4", 7004));
        assert_eq!(map.place(12_182), Some(2));
    }

    #[test]
    fn a_wrong_map_is_an_error() {
        let bad = [
            Value::Nil,
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![range(5, 4, node(Value::Nil, 1))]),
            Value::Array(vec![range(0, 16_384, node(Value::Nil, 1))]),
        ];
        for reply in bad {
            assert!(SlotMap::from_cluster_slots(&reply, &asked()).is_err(), "{reply:?}");
        }
    }

    #[test]
    fn redirections_are_read() {
        let moved = |host: &str, port| {
            Some(Redirect::Moved { slot: 3999, node: NodeAddress::new(host, port) })
        };
        for (error, expected) in [
            ("MOVED 3999 127.0.0.1:6381", moved("127.0.0.1", 6381)),
            ("MOVED 3999 :6381", moved("10.0.0.9", 6381)),
            ("MOVED 3999 ::1:6381", moved("::1", 6381)),
            ("MOVED 3999 ?:6381", None),
            ("MOVED 99999 127.0.0.1:6381", None),
            ("MOVED 3999 127.0.0.1", None),
            ("OOM command not allowed", None),
            (
                "ASK 3999 127.0.0.1:6381",
                Some(Redirect::Ask { slot: 3999, node: NodeAddress::new("127.0.0.1", 6381) }),
            ),
        ] {
            assert_eq!(Redirect::parse(error.as_bytes(), &asked()), expected, "{error}");
        }
    }

    proptest! {
        #[test]
        fn the_slot_of_a_home_list_is_that_of_its_key(reader in any::<u64>()) {
            let key = format!("h:{reader}");
            // Bit by bit, as the specification defines it.
            let crc = key.bytes().fold(0_u16, |crc, byte| {
                (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
                    if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
                })
            });
            prop_assert_eq!(home_slot(&HomeKey::of(UserId(reader))), crc % SLOTS);
            prop_assert_eq!(key_slot(key.as_bytes()), crc % SLOTS);
        }

        #[test]
        fn an_error_of_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            Redirect::parse(&bytes, &asked());
            Redirect::parse(&[b"MOVED 1 ", &bytes[..]].concat(), &asked());
        }
    }
}
