//! Page sizes and page tokens.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::writes::FieldError;

/// Which list a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Home = 1,
    Author = 2,
    Followers = 3,
    Following = 4,
    Muted = 5,
    Blocked = 6,
}

/// The number of entries to answer with, for what a request asks for.
pub(super) fn size(asked: i32, default: usize, max: usize) -> Result<usize, FieldError> {
    match usize::try_from(asked) {
        Ok(0) => Ok(default),
        Ok(asked) => Ok(asked.min(max)),
        Err(_) => Err(FieldError::new("page_size", format!("is {asked}; it cannot be negative"))),
    }
}

/// A token that says: go on after `last` in the list of `owner`.
///
/// Version, list, owner, last and a checksum, so that a token that was cut, made
/// up, or belongs to another list is noticed. It holds nothing secret.
pub(super) fn token(list: List, owner: u64, last: u64) -> String {
    let mut bytes = Vec::with_capacity(22);
    bytes.extend([TOKEN_VERSION, list as u8]);
    bytes.extend(owner.to_be_bytes());
    bytes.extend(last.to_be_bytes());
    bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

const TOKEN_VERSION: u8 = 1;

/// The `last` of a token for this list; `None` for an empty one.
pub(super) fn parse(token: &str, list: List, owner: u64) -> Result<Option<u64>, FieldError> {
    if token.is_empty() {
        return Ok(None);
    }
    let error = |reason| Err(FieldError::new("page_token", reason));
    let malformed = "is malformed; use the next_page_token of the page before, unchanged, \
                     or leave it empty for the first page";
    let Ok(bytes) = BASE64_URL_SAFE_NO_PAD.decode(token) else { return error(malformed) };
    let Some((content, checksum)) = bytes.split_last_chunk::<4>() else { return error(malformed) };
    if u32::from_be_bytes(*checksum) != crc32c::crc32c(content) {
        return error(malformed);
    }
    let Some((last, head)) = split_last_u64(content) else { return error(malformed) };
    let Some((token_owner, kind)) = split_last_u64(head) else { return error(malformed) };
    match kind {
        [TOKEN_VERSION, kind] if *kind == list as u8 && token_owner == owner => Ok(Some(last)),
        [TOKEN_VERSION, _] => {
            error("belongs to another list; a token is good only for the list that gave it")
        }
        _ => error("is of another version of the server; begin again with an empty one"),
    }
}

fn split_last_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, last) = bytes.split_last_chunk::<8>()?;
    Some((u64::from_be_bytes(*last), head))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_is_good_for_its_list_only(owner: u64, last: u64, other: u64) {
            let token = token(List::Home, owner, last);
            prop_assert_eq!(parse(&token, List::Home, owner), Ok(Some(last)));
            prop_assert!(parse(&token, List::Author, owner).is_err());
            prop_assert!(owner == other || parse(&token, List::Home, other).is_err());
        }

        #[test]
        fn a_changed_token_is_noticed(owner: u64, last: u64, place in 0..30_usize, char: char) {
            let token = token(List::Followers, owner, last);
            let mut changed: Vec<char> = token.chars().collect();
            prop_assume!(changed[place % changed.len()] != char);
            let place = place % changed.len();
            changed[place] = char;
            let changed: String = changed.into_iter().collect();
            prop_assert!(parse(&changed, List::Followers, owner).is_err());
        }

        #[test]
        fn any_text_is_a_token_or_an_error(text: String) {
            let _ = parse(&text, List::Home, 1);
        }
    }

    #[test]
    fn sizes_are_cut_and_never_negative() {
        assert_eq!(size(0, 20, 800), Ok(20));
        assert_eq!(size(900, 20, 800), Ok(800));
        assert_eq!(size(7, 20, 800), Ok(7));
        assert!(size(-1, 20, 800).is_err());
    }
}
