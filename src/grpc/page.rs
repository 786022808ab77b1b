//! Page sizes, and the tokens of pages and streams.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::writes::FieldError;

/// Which list, or stream, a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Home = 1,
    Author = 2,
    Followers = 3,
    Following = 4,
    Muted = 5,
    Blocked = 6,
    HomeStream = 7,
    CatchUp = 8,
    Notifications = 9,
    Messages = 10,
    SentMessages = 11,
    Replies = 12,
    Ancestors = 13,
}

/// Posts, or what takes no more than a post, on a page that does not ask for another number.
pub(super) const POSTS_DEFAULT: usize = 20;
/// The largest page of them.
pub(super) const POSTS_MAX: usize = 800;

/// The number of entries to answer with, for what a request asks for.
pub(super) fn size(asked: i32, default: usize, max: usize) -> Result<usize, FieldError> {
    match usize::try_from(asked) {
        Ok(0) => Ok(default),
        Ok(asked) => Ok(asked.min(max)),
        Err(_) => Err(FieldError::new("page_size", format!("is {asked}; it cannot be negative"))),
    }
}

/// The token of the next page of the list of `owner`, which goes on after `last`; empty if there
/// is none.
pub(super) fn next(list: List, owner: u64, last: Option<u64>) -> String {
    last.map_or_else(String::new, |last| seal(list, owner, &last.to_be_bytes()))
}

/// The `last` of a token for this list; `None` for an empty one.
pub(super) fn parse(token: &str, list: List, owner: u64) -> Result<Option<u64>, FieldError> {
    parse_field("page_token", token, list, owner)
}

/// The same of a token that came in `field`.
pub(super) fn parse_field(
    field: &'static str,
    token: &str,
    list: List,
    owner: u64,
) -> Result<Option<u64>, FieldError> {
    let Some(last) = unseal(field, token, list, owner)? else { return Ok(None) };
    match last.try_into() {
        Ok(last) => Ok(Some(u64::from_be_bytes(last))),
        Err(_) => Err(malformed(field)),
    }
}

const TOKEN_VERSION: u8 = 1;

/// A token that carries `content` and is good only for this list of this owner.
///
/// Version, list, owner, content and a checksum, so that a token that was cut, made
/// up, or belongs to another list is noticed. It holds nothing secret.
pub(super) fn seal(list: List, owner: u64, content: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(14 + content.len());
    bytes.extend([TOKEN_VERSION, list as u8]);
    bytes.extend(owner.to_be_bytes());
    bytes.extend(content);
    bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The content of a token for this list, which came in `field`; `None` for an empty one.
pub(super) fn unseal(
    field: &'static str,
    token: &str,
    list: List,
    owner: u64,
) -> Result<Option<Vec<u8>>, FieldError> {
    if token.is_empty() {
        return Ok(None);
    }
    let malformed = || malformed(field);
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| malformed())?;
    let (sealed, checksum) = bytes.split_last_chunk::<4>().ok_or_else(malformed)?;
    if u32::from_be_bytes(*checksum) != crc32c::crc32c(sealed) {
        return Err(malformed());
    }
    let (kind, rest) = sealed.split_first_chunk::<2>().ok_or_else(malformed)?;
    let (token_owner, content) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
    let error = |reason| Err(FieldError::new(field, reason));
    match *kind {
        [TOKEN_VERSION, kind] if kind == list as u8 && *token_owner == owner.to_be_bytes() => {
            let content_len = content.len();
            bytes.truncate(bytes.len() - 4);
            Ok(Some(bytes.split_off(bytes.len() - content_len)))
        }
        [TOKEN_VERSION, _] => {
            error("belongs to another list; a token is good only for the list that gave it")
        }
        _ => error("is of another version of the server; begin again with an empty one"),
    }
}

pub(super) fn malformed(field: &'static str) -> FieldError {
    let reason = "is malformed; use the token that the server gave last, unchanged, or leave it \
                  empty to begin anew";
    FieldError::new(field, reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_is_good_for_its_list_only(owner: u64, last: u64, other: u64) {
            let token = next(List::Home, owner, Some(last));
            prop_assert_eq!(parse(&token, List::Home, owner), Ok(Some(last)));
            prop_assert!(parse(&token, List::Author, owner).is_err());
            prop_assert!(owner == other || parse(&token, List::Home, other).is_err());
        }

        #[test]
        fn a_changed_token_is_noticed(owner: u64, last: u64, place in 0..30_usize, char: char) {
            let token = next(List::Followers, owner, Some(last));
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
