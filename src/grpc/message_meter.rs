//! Where the messages of a gRPC body begin and end, from the five bytes before each. Pure.

/// A flag and the length of the message in four bytes.
const PREFIX_BYTES: usize = 5;

/// Follows the bytes of one body.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MessageMeter {
    /// What has come of the next prefix.
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    /// Of the message whose prefix is whole.
    length: usize,
    missing: usize,
    messages: usize,
}

/// How far a body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Between two messages, or before the first one.
    Between,
    /// Within a prefix.
    Prefix,
    /// Within a message of so many bytes.
    Message(usize),
}

impl MessageMeter {
    /// Takes the next bytes; whether they have ended a message.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) -> bool {
        let before = self.messages;
        while !bytes.is_empty() {
            if self.missing > 0 {
                let taken = self.missing.min(bytes.len());
                self.missing -= taken;
                bytes = bytes.get(taken..).unwrap_or_default();
                self.messages += usize::from(self.missing == 0);
                continue;
            }
            let (Some((first, rest)), Some(next)) =
                (bytes.split_first(), self.prefix.get_mut(self.prefix_len))
            else {
                break;
            };
            *next = *first;
            bytes = rest;
            self.prefix_len += 1;
            if self.prefix_len == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                self.prefix_len = 0;
                self.length = u32::from_be_bytes(length) as usize;
                self.missing = self.length;
                self.messages += usize::from(self.missing == 0);
            }
        }
        self.messages > before
    }

    pub(super) fn place(&self) -> Place {
        match (self.missing, self.prefix_len) {
            (0, 0) => Place::Between,
            (0, _) => Place::Prefix,
            _ => Place::Message(self.length),
        }
    }

    /// Bytes that are still to come of the message that is coming, behind its prefix.
    pub(super) fn missing(&self) -> usize {
        self.missing
    }

    /// Messages that have come whole.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((length as u32).to_be_bytes());
        bytes.extend(vec![7; length]);
        bytes
    }

    #[test]
    fn a_message_is_whole_with_its_last_byte() {
        let mut meter = MessageMeter::default();
        let bytes = framed(10);
        assert!(!meter.advance(&bytes[..3]));
        assert_eq!(meter.place(), Place::Prefix);
        assert!(!meter.advance(&bytes[3..14]));
        assert_eq!(meter.place(), Place::Message(10));
        assert!(meter.advance(&bytes[14..]));
        assert_eq!((meter.place(), meter.messages()), (Place::Between, 1));
    }

    proptest! {
        #[test]
        fn messages_are_counted_however_they_are_cut(
            lengths in prop::collection::vec(0..50_usize, 0..10),
            cuts in prop::collection::vec(1..20_usize, 1..10),
        ) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|length| framed(*length)).collect();
            let mut meter = MessageMeter::default();
            let (mut rest, mut cuts) = (bytes.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                meter.advance(now);
                rest = later;
            }
            prop_assert_eq!((meter.place(), meter.messages()), (Place::Between, lengths.len()));
        }
    }
}
