//! RESP2, the protocol of Redis: commands packed, replies scanned. Pure.
//!
//! ```text
//!  RPUSHX h:42 <8 bytes>   *3 $6 RPUSHX $4 h:42 $8 ........    one command
//!                          :17                                 its reply, the length
//! ```
//!
//! Packing appends to one buffer and scanning borrows from another, so that a
//! push allocates nothing. [`scan`] keeps no state: where a reply is cut off it
//! says so, and is called again at the same place when more has come.
//!
//! The protocol: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use crate::domain::{PostId, UserId};

/// The longest status or error line that is believed.
const LINE_BYTES_MAX: usize = 64 << 10;
/// The longest bulk string that is believed.
const BULK_BYTES_MAX: usize = 64 << 20;
/// The most elements of one array that are believed.
const ARRAY_ELEMENTS_MAX: usize = 1 << 20;
/// How deep arrays may be nested in a [`Value`].
const VALUE_DEPTH_MAX: usize = 8;
/// `i64::MIN` has this many bytes.
const INTEGER_BYTES_MAX: usize = 20;
/// All of a push before its ids, at the most.
const PUSH_HEAD_BYTES: usize = 64;
/// An id as an argument.
const ID_BULK_BYTES: usize = 14;

/// The key of a reader's home list: `h:` and the reader's id in decimal.
///
/// Decimal, so that it can be typed. The 8 raw bytes would save nothing in Redis
/// up to 12 digits, since both take 16 bytes there, and 8 bytes a timeline of
/// some 8,000 beyond; and a raw byte may be a brace, which would change its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeKey {
    /// Longer than any, so that it can be copied by whole words.
    bytes: [u8; Self::ROOM],
    len: u8,
}

impl HomeKey {
    const ROOM: usize = 24;

    /// The key of `reader`'s home list.
    #[inline]
    pub fn of(reader: UserId) -> Self {
        let len = 2 + decimal_len(reader.0);
        let mut bytes = [0; Self::ROOM];
        bytes[..2].copy_from_slice(b"h:");
        write_decimal(&mut bytes[2..len], reader.0);
        Self { bytes, len: len as u8 }
    }

    /// Its bytes, none of which is a brace.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Appends a command of any arguments, the first of which is its name.
pub fn pack_command(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    pack_header(out, b'*', arguments.len());
    for argument in arguments {
        pack_bulk(out, argument);
    }
}

/// Appends `RPUSHX key id…`, the ids as 8 big-endian bytes each, in the order
/// given: the last one ends up at the tail, where the newest belongs.
#[inline]
pub fn pack_push(out: &mut Vec<u8>, key: &HomeKey, ids: &[PostId]) {
    out.reserve(PUSH_HEAD_BYTES + ids.len() * ID_BULK_BYTES + 2);
    match ids {
        [_] => out.extend_from_slice(b"*3\r\n"),
        _ => pack_header(out, b'*', 2 + ids.len()),
    }
    // Copies of known sizes into one piece are twice as fast as a copy a part.
    let mut head = *b"$6\r\nRPUSHX\r\n$00\r\n........................";
    let at = match key.len {
        short @ 0..10 => {
            head[13..16].copy_from_slice(&[b'0' + short, b'\r', b'\n']);
            16
        }
        long => {
            head[13..15].copy_from_slice(&[b'0' + long / 10, b'0' + long % 10]);
            17
        }
    };
    head[at..at + HomeKey::ROOM].copy_from_slice(&key.bytes);
    out.extend_from_slice(&head[..at + usize::from(key.len)]);
    for id in ids {
        let mut bulk = *b"\r\n$8\r\n........";
        bulk[6..].copy_from_slice(&id.0.to_be_bytes());
        out.extend_from_slice(&bulk);
    }
    out.extend_from_slice(b"\r\n");
}

fn pack_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    pack_header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn pack_header(out: &mut Vec<u8>, kind: u8, count: usize) {
    let mut digits = [0; INTEGER_BYTES_MAX];
    let digits = &mut digits[..decimal_len(count as u64)];
    write_decimal(digits, count as u64);
    out.push(kind);
    out.extend_from_slice(digits);
    out.extend_from_slice(b"\r\n");
}

fn decimal_len(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Writes a number into `digits`, which is as long as it is: two digits a
/// division, from the end.
#[inline]
fn write_decimal(digits: &mut [u8], mut number: u64) {
    let mut pairs = digits.rchunks_exact_mut(2);
    for pair in &mut pairs {
        let two = (number % 100) as u8;
        number /= 100;
        pair.copy_from_slice(&[b'0' + two / 10, b'0' + two % 10]);
    }
    if let [first] = pairs.into_remainder() {
        *first = b'0' + number as u8;
    }
}

/// One reply, or the head of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// A number.
    Integer(i64),
    /// A status, as `OK`.
    Simple(&'a [u8]),
    /// A refusal: a word in capitals, and usually a sentence.
    Error(&'a [u8]),
    /// A string of bytes, or none.
    Bulk(Option<&'a [u8]>),
    /// How many replies follow as its elements, or no array.
    Array(Option<usize>),
}

/// What cannot be a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReply {
    /// It begins with a byte that no reply of RESP2 begins with.
    #[error("a reply begins with byte {0:#04x}; it does not speak the protocol of Redis")]
    Kind(u8),
    /// A number or length is none.
    #[error("a number in a reply is none")]
    Number,
    /// A line or string does not end where it should.
    #[error("a reply does not end in a line break")]
    End,
    /// It is longer than any reply to Roost.
    #[error("a reply is longer than any can be")]
    TooLong,
    /// Arrays are nested deeper than in any reply to Roost.
    #[error("a reply is nested deeper than any can be")]
    TooDeep,
}

/// The reply at the beginning of `bytes` and how long it is, or `None` while it
/// is not complete.
///
/// # Errors
/// [`BadReply`] as soon as what is there cannot become a reply.
#[inline]
pub fn scan(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, BadReply> {
    let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
    match kind {
        b':' => Ok(scan_integer(rest)?.map(|(number, len)| (Reply::Integer(number), 1 + len))),
        b'+' => Ok(scan_line(rest)?.map(|(line, len)| (Reply::Simple(line), 1 + len))),
        b'-' => Ok(scan_line(rest)?.map(|(line, len)| (Reply::Error(line), 1 + len))),
        b'$' => scan_bulk(rest),
        b'*' => Ok(scan_length(rest, ARRAY_ELEMENTS_MAX)?
            .map(|(count, len)| (Reply::Array(count), 1 + len))),
        other => Err(BadReply::Kind(other)),
    }
}

#[inline]
fn scan_integer(bytes: &[u8]) -> Result<Option<(i64, usize)>, BadReply> {
    let negative = bytes.first() == Some(&b'-');
    let start = usize::from(negative);
    // Downwards, where there is one number more.
    let mut number = 0_i64;
    for (place, &byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b'0'..=b'9' if place < INTEGER_BYTES_MAX => {
                number = number
                    .checked_mul(10)
                    .and_then(|tens| tens.checked_sub(i64::from(byte - b'0')))
                    .ok_or(BadReply::Number)?;
            }
            b'\r' if place > start => {
                let number =
                    if negative { number } else { number.checked_neg().ok_or(BadReply::Number)? };
                return match bytes.get(place + 1) {
                    None => Ok(None),
                    Some(b'\n') => Ok(Some((number, place + 2))),
                    Some(_) => Err(BadReply::End),
                };
            }
            _ => return Err(BadReply::Number),
        }
    }
    Ok(None)
}

fn scan_line(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, BadReply> {
    match bytes.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\r') {
        None if bytes.len() >= LINE_BYTES_MAX => Err(BadReply::TooLong),
        None => Ok(None),
        Some(end) => match bytes.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some((&bytes[..end], end + 2))),
            Some(_) => Err(BadReply::End),
        },
    }
}

fn scan_length(bytes: &[u8], max: usize) -> Result<Option<(Option<usize>, usize)>, BadReply> {
    let Some((length, len)) = scan_integer(bytes)? else { return Ok(None) };
    match usize::try_from(length) {
        Ok(length) if length <= max => Ok(Some((Some(length), len))),
        Ok(_) => Err(BadReply::TooLong),
        Err(_) if length == -1 => Ok(Some((None, len))),
        Err(_) => Err(BadReply::Number),
    }
}

fn scan_bulk(rest: &[u8]) -> Result<Option<(Reply<'_>, usize)>, BadReply> {
    let Some((length, start)) = scan_length(rest, BULK_BYTES_MAX)? else { return Ok(None) };
    let Some(length) = length else { return Ok(Some((Reply::Bulk(None), 1 + start))) };
    let end = start + length;
    match (rest.get(end), rest.get(end + 1)) {
        (Some(b'\r'), Some(b'\n')) => Ok(Some((Reply::Bulk(Some(&rest[start..end])), 1 + end + 2))),
        (None, _) | (Some(b'\r'), None) => Ok(None),
        _ => Err(BadReply::End),
    }
}

/// A whole reply with all its elements: for the few commands that are not pushes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Integer(i64),
    /// A status or a string of bytes.
    Text(Vec<u8>),
    /// A refusal.
    Error(Vec<u8>),
    /// No string or no array.
    Nil,
    /// An array.
    Array(Vec<Value>),
}

/// The whole reply at the beginning of `bytes` and how long it is, or `None`
/// while it is not complete.
///
/// # Errors
/// [`BadReply`] as soon as what is there cannot become a reply.
pub fn read_value(bytes: &[u8]) -> Result<Option<(Value, usize)>, BadReply> {
    read_nested(bytes, VALUE_DEPTH_MAX)
}

fn read_nested(bytes: &[u8], depth_max: usize) -> Result<Option<(Value, usize)>, BadReply> {
    let Some((reply, mut len)) = scan(bytes)? else { return Ok(None) };
    let value = match reply {
        Reply::Integer(number) => Value::Integer(number),
        Reply::Simple(text) | Reply::Bulk(Some(text)) => Value::Text(text.to_vec()),
        Reply::Error(text) => Value::Error(text.to_vec()),
        Reply::Bulk(None) | Reply::Array(None) => Value::Nil,
        Reply::Array(Some(count)) => {
            let depth_max = depth_max.checked_sub(1).ok_or(BadReply::TooDeep)?;
            // Not sized by what the other side claims.
            let mut elements = Vec::new();
            for _ in 0..count {
                let Some((element, element_len)) = read_nested(&bytes[len..], depth_max)? else {
                    return Ok(None);
                };
                elements.push(element);
                len += element_len;
            }
            Value::Array(elements)
        }
    };
    Ok(Some((value, len)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::fuzz;

    /// Inputs of an ordinary test run.
    const FUZZ_INPUTS: u64 = 20_000;

    fn packed_push(reader: u64, ids: &[u64]) -> Vec<u8> {
        let ids: Vec<PostId> = ids.iter().copied().map(PostId).collect();
        let mut out = Vec::new();
        pack_push(&mut out, &HomeKey::of(UserId(reader)), &ids);
        out
    }

    #[test]
    fn a_push_is_packed_as_the_protocol_says() {
        assert_eq!(
            packed_push(42, &[1]),
            b"*3\r\n$6\r\nRPUSHX\r\n$4\r\nh:42\r\n$8\r\n\0\0\0\0\0\0\0\x01\r\n"
        );
        assert!(
            packed_push(7, &[1; 30]).starts_with(b"*32\r\n$6\r\nRPUSHX\r\n$3\r\nh:7\r\n$8\r\n")
        );
    }

    #[test]
    fn what_cannot_be_a_reply_is_said_at_once() {
        for (bytes, expected) in [
            (&b"HTTP/1.1"[..], BadReply::Kind(b'H')),
            (b":12x", BadReply::Number),
            (b":\r\n", BadReply::Number),
            (b":9223372036854775808\r\n", BadReply::Number),
            (b":000000000000000000000000", BadReply::Number),
            (b":1\rx", BadReply::End),
            (b"+OK\rx", BadReply::End),
            (b"$3\r\nabcd", BadReply::End),
            (b"$-2\r\n", BadReply::Number),
            (b"$99999999999\r\n", BadReply::TooLong),
            (b"*99999999999\r\n", BadReply::TooLong),
        ] {
            assert_eq!(scan(bytes), Err(expected), "{}", bytes.escape_ascii());
        }
        assert_eq!(scan(&[b'+'; LINE_BYTES_MAX + 1]), Err(BadReply::TooLong));
        assert_eq!(read_value(&b"*1\r\n".repeat(20)), Err(BadReply::TooDeep));
        assert_eq!(
            scan(b":-9223372036854775808\r\n").unwrap().unwrap().0,
            Reply::Integer(i64::MIN)
        );
    }

    fn encode(value: &Value, out: &mut Vec<u8>) {
        match value {
            Value::Integer(number) => out.extend_from_slice(format!(":{number}\r\n").as_bytes()),
            Value::Text(text) => pack_bulk(out, text),
            Value::Error(text) => {
                out.push(b'-');
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            Value::Nil => out.extend_from_slice(b"$-1\r\n"),
            Value::Array(elements) => {
                pack_header(out, b'*', elements.len());
                elements.iter().for_each(|element| encode(element, out));
            }
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            4 => any::<i64>().prop_map(Value::Integer),
            2 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Text),
            1 => "[A-Z]{2,8} [a-z ]{0,20}".prop_map(|text| Value::Error(text.into_bytes())),
            1 => Just(Value::Nil),
        ];
        leaf.prop_recursive(3, 20, 5, |element| {
            proptest::collection::vec(element, 0..5).prop_map(Value::Array)
        })
    }

    /// Reads all replies of `stream`, which comes in pieces that end at `cuts`.
    fn read_in_pieces(stream: &[u8], mut cuts: Vec<usize>) -> Vec<Value> {
        cuts.sort_unstable();
        cuts.push(stream.len());
        let (mut start, mut values) = (0, Vec::new());
        for end in cuts {
            while let Some((value, len)) = read_value(&stream[start..end]).unwrap() {
                values.push(value);
                start += len;
            }
        }
        assert_eq!(start, stream.len());
        values
    }

    /// All values of a stream of which `ends` says how much has come after each read, and why
    /// it ends.
    fn read_as_it_comes(
        stream: &[u8],
        ends: impl Iterator<Item = usize>,
    ) -> (Vec<Value>, Option<BadReply>) {
        let (mut start, mut values) = (0, Vec::new());
        for end in ends {
            loop {
                match read_value(&stream[start..end]) {
                    Ok(Some((value, len))) => {
                        assert!(len > 0 && len <= end - start);
                        start += len;
                        values.push(value);
                    }
                    Ok(None) => break,
                    Err(error) => return (values, Some(error)),
                }
            }
        }
        (values, None)
    }

    /// Values with all their elements: as many as an allocation could be wanted for.
    fn count(values: &[Value]) -> usize {
        let nested = values.iter().map(|value| match value {
            Value::Array(elements) => count(elements),
            _ => 0,
        });
        values.len() + nested.sum::<usize>()
    }

    #[test]
    fn fuzzed_replies_split_anywhere_read_the_same() {
        let corpus: [&[u8]; 12] = [
            b":17\r\n:0\r\n:-1\r\n",
            b"+OK\r\n+QUEUED\r\n",
            b"-MOVED 3999 127.0.0.1:6381\r\n-NOPERM this user\r\n",
            b"$8\r\n\0\0\0\0\0\0\0\x01\r\n$-1\r\n$0\r\n\r\n",
            b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n*-1\r\n*0\r\n",
            b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:7001\r\n$2\r\nid\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
            b"$67108864\r\nabc",
            b"*1048576\r\n",
            b"*1048577\r\n",
            b":9223372036854775807\r\n:-9223372036854775808\r\n:18446744073709551615\r\n",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
        ];
        fuzz(&corpus, FUZZ_INPUTS, |input| {
            let whole = read_as_it_comes(input, std::iter::once(input.len()));
            // No element without a byte, so that no count that is only claimed costs memory.
            assert!(count(&whole.0) <= input.len());
            // Pieces of lengths that follow from the input.
            let mut state = input.iter().fold(input.len() as u64, |state, byte| {
                state.wrapping_mul(0x100_0000_01b3) ^ u64::from(*byte)
            });
            let (mut end, mut ends) = (0, Vec::new());
            while end < input.len() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                end = (end + 1 + (state >> 33) as usize % (1 + input.len() / 4)).min(input.len());
                ends.push(end);
            }
            assert_eq!(read_as_it_comes(input, ends.into_iter()), whole);
        });
    }

    proptest! {
        #[test]
        fn a_command_reads_back_as_its_arguments(
            arguments in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..9),
        ) {
            let mut out = Vec::new();
            pack_command(&mut out, &arguments.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let expected = Value::Array(arguments.into_iter().map(Value::Text).collect());
            prop_assert_eq!(read_value(&out), Ok(Some((expected, out.len()))));
        }

        #[test]
        fn a_push_is_the_command_it_stands_for(
            reader in any::<u64>(),
            ids in proptest::collection::vec(any::<u64>(), 1..120),
        ) {
            let key = format!("h:{reader}");
            let values: Vec<[u8; 8]> = ids.iter().map(|id| id.to_be_bytes()).collect();
            let mut arguments = vec![&b"RPUSHX"[..], key.as_bytes()];
            arguments.extend(values.iter().map(<[u8; 8]>::as_slice));
            let mut expected = Vec::new();
            pack_command(&mut expected, &arguments);
            prop_assert_eq!(packed_push(reader, &ids), expected);
        }

        #[test]
        fn replies_cut_anywhere_read_the_same(
            values in proptest::collection::vec(any_value(), 1..12),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let mut stream = Vec::new();
            values.iter().for_each(|value| encode(value, &mut stream));
            let cuts = cuts.iter().map(|cut| cut.index(stream.len())).collect();
            prop_assert_eq!(read_in_pieces(&stream, cuts), values.clone());
            prop_assert_eq!(read_in_pieces(&stream, (0..stream.len()).collect()), values);
        }

        #[test]
        fn bytes_of_any_kind_never_panic(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(&b":+-$*\r\n0123456789"[..])], 0..80),
        ) {
            if let Ok(Some((_, len))) = scan(&bytes) {
                prop_assert!(len <= bytes.len());
            }
            if let Ok(Some((_, len))) = read_value(&bytes) {
                prop_assert!(len <= bytes.len());
            }
        }
    }
}
