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
    use std::cmp::Reverse;

    use proptest::prelude::*;

    use super::{super::reading, *};
    use crate::{
        domain::{PostId, UserId},
        fuzz::fuzz,
        home_stream::Position,
        home_timeline::catch_up::{Place, Reason},
        reading::GoOn,
    };

    const LISTS: [List; 13] = [
        List::Home,
        List::Author,
        List::Followers,
        List::Following,
        List::Muted,
        List::Blocked,
        List::HomeStream,
        List::CatchUp,
        List::Notifications,
        List::Messages,
        List::SentMessages,
        List::Replies,
        List::Ancestors,
    ];
    const OWNER: u64 = 7;

    /// Reads a token as the API reads those of a list or a stream. What can be read stays the same
    /// when it is written again.
    fn read_as(list: List, token: &str) {
        match list {
            List::HomeStream => {
                if let Ok(Some(content)) = unseal("resume_token", token, list, OWNER)
                    && let Some(position) = Position::of_bytes(&content)
                {
                    assert_eq!(Position::of_bytes(&position.to_bytes()), Some(position));
                }
            }
            List::CatchUp => {
                if let Ok(Some(go_on)) = reading::parse(token, UserId(OWNER)) {
                    let written = reading::token(go_on, UserId(OWNER));
                    assert_eq!(reading::parse(&written, UserId(OWNER)), Ok(Some(go_on)));
                }
            }
            _ => {
                if let Ok(Some(last)) = parse(token, list, OWNER) {
                    assert_eq!(parse(&next(list, OWNER, Some(last)), list, OWNER), Ok(Some(last)));
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_a_token_or_an_error() {
        let post = PostId(9 << PostId::NODE_AND_SEQUENCE_BITS);
        let mut corpus: Vec<Vec<u8>> =
            LISTS.iter().map(|list| next(*list, OWNER, Some(post.0)).into_bytes()).collect();
        let last = Place { reason: Reason::Voice, round: 2, post: Reverse(post) };
        let go_on = GoOn { after: PostId(1), until: PostId(u64::MAX), last };
        corpus.push(reading::token(go_on, UserId(OWNER)).into_bytes());
        let position: Vec<u8> = (1..=801_u64).flat_map(u64::to_be_bytes).collect();
        corpus.push(seal(List::HomeStream, OWNER, &position).into_bytes());
        // What stands in them, without the checksum.
        let opened: Vec<Vec<u8>> = corpus
            .iter()
            .filter_map(|token| BASE64_URL_SAFE_NO_PAD.decode(token).ok())
            .map(|bytes| bytes[..bytes.len() - 4].to_vec())
            .collect();
        corpus.extend(opened);
        corpus.push(position);
        let corpus: Vec<&[u8]> = corpus.iter().map(Vec::as_slice).collect();
        let mut lists = LISTS.into_iter().cycle();
        fuzz(&corpus, 20_000, |input| {
            let text = String::from_utf8_lossy(input);
            // Behind a checksum that is right: of the whole, and of the content.
            let checksum = crc32c::crc32c(input).to_be_bytes();
            let whole = BASE64_URL_SAFE_NO_PAD.encode([input, &checksum].concat());
            for list in [List::Home, List::HomeStream, List::CatchUp] {
                read_as(list, &text);
                read_as(list, &whole);
            }
            // Of one kind a time: a long run comes to all of them with all inputs.
            if let Some(list) = lists.next() {
                read_as(list, &seal(list, OWNER, input));
            }
        });
    }

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
