//! Numbers in replies of Redis. Pure.
//!
//! An account id goes up to 2^64 - 1, which neither an integer of Redis (64 bits, signed) nor
//! a number of Lua (53 bits) can hold. So ids stand in Redis as decimal text or as 8 bytes,
//! and are read here and nowhere through a signed or floating type. What is not the number
//! that Roost has written is an error: read as 0, it would be another account.

use std::collections::HashMap;

use redis::Value;

use super::damaged;
use crate::{domain::UserId, store::StoreError};

/// A number from 0 to 2^64 - 1 as Roost writes it: decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let is_number = text.iter().all(u8::is_ascii_digit);
    // Digits alone are UTF-8; without any, parsing fails.
    is_number.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

/// A reply as a number from 0 to 2^64 - 1, be it one that Redis has counted or one that Roost
/// has written. `what` says what it should have been.
///
/// # Errors
/// If it is no such number.
pub(super) fn number(reply: &Value, what: &str) -> Result<u64, StoreError> {
    let number = match reply {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::Boolean(yes) => Some(u64::from(*yes)),
        Value::BulkString(text) => decimal(text),
        Value::SimpleString(text) => decimal(text.as_bytes()),
        _ => None,
    };
    number.ok_or_else(|| damaged(what))
}

/// The same, where no value is 0.
///
/// # Errors
/// If there is a value that is no number.
pub(super) fn number_or_zero(reply: &Value, what: &str) -> Result<u64, StoreError> {
    match reply {
        Value::Nil => Ok(0),
        reply => number(reply, what),
    }
}

/// A reply of 1 for yes and 0 for no.
///
/// # Errors
/// If it is neither.
pub(super) fn yes_or_no(reply: &Value) -> Result<bool, StoreError> {
    match number(reply, "an answer of yes or no")? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(damaged("an answer of yes or no")),
    }
}

/// The accounts that are the members of a set, ascending. `what` says which set.
///
/// # Errors
/// If a member is no account id.
pub(super) fn accounts(members: &[Value], what: &str) -> Result<Vec<UserId>, StoreError> {
    let accounts = members.iter().map(|member| number(member, what).map(UserId));
    let mut accounts: Vec<UserId> = accounts.collect::<Result<_, _>>()?;
    accounts.sort_unstable();
    Ok(accounts)
}

/// A number in a field of a hash; 0 where there is no such field.
///
/// # Errors
/// If the field holds no number.
pub(super) fn field(fields: &HashMap<Vec<u8>, Vec<u8>>, name: &str) -> Result<u64, StoreError> {
    match fields.get(name.as_bytes()) {
        Some(text) => decimal(text).ok_or_else(|| damaged(&format!("the field {name}"))),
        None => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the widths of numbers end: of 31, 32, 53, 63 and 64 bits.
    const EDGES: [u64; 9] =
        [0, 1, 1 << 31, 1 << 32, (1 << 53) + 1, u64::MAX >> 1, 1 << 63, (1 << 63) + 1, u64::MAX];

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn number_at_every_edge_is_read_as_written() {
        for edge in EDGES {
            let text = edge.to_string();
            assert_eq!(number(&bulk(&text), "").unwrap(), edge);
            assert_eq!(decimal(text.as_bytes()), Some(edge));
            let fields = HashMap::from([(b"name".to_vec(), text.into_bytes())]);
            assert_eq!(field(&fields, "name").unwrap(), edge);
        }
        assert_eq!(number(&Value::Int(i64::MAX), "").unwrap(), u64::MAX >> 1);
    }

    #[test]
    fn number_that_is_none_is_damage() {
        let texts = ["", "-1", "+1", " 1", "1 ", "1e3", "x", "0x1", "18446744073709551616"];
        for text in texts {
            assert!(number(&bulk(text), "").is_err(), "{text:?}");
            assert!(number_or_zero(&bulk(text), "").is_err(), "{text:?}");
            let fields = HashMap::from([(b"name".to_vec(), text.as_bytes().to_vec())]);
            assert!(field(&fields, "name").is_err(), "{text:?}");
        }
        for reply in [Value::Nil, Value::Int(-1), Value::Double(1.0), Value::Array(vec![])] {
            let error = number(&reply, "the count of something").unwrap_err();
            assert!(error.to_string().contains("the count of something"), "{error}");
            assert!(error.is_final());
        }
    }

    #[test]
    fn missing_value_is_zero_only_where_asked_for() {
        assert_eq!(number_or_zero(&Value::Nil, "").unwrap(), 0);
        assert_eq!(field(&HashMap::new(), "name").unwrap(), 0);
        assert!(number(&Value::Nil, "").is_err());
    }

    #[test]
    fn flag_is_one_or_zero_and_nothing_else() {
        let of = |number| yes_or_no(&Value::Int(number)).ok();
        assert_eq!([0, 1, 2, -1].map(of), [Some(false), Some(true), None, None]);
        assert!(yes_or_no(&Value::Nil).is_err());
    }

    #[test]
    fn accounts_ascend_and_one_bad_member_fails_all() {
        let members: Vec<Value> = EDGES.iter().rev().map(|id| bulk(&id.to_string())).collect();
        assert!(accounts(&members, "").unwrap().iter().map(|id| id.0).eq(EDGES));
        let members = [bulk("7"), bulk("seven")];
        assert!(accounts(&members, "whom an account follows").is_err());
    }
}
