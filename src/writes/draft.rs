//! A post that somebody wants to publish, and what may be wrong with it. Pure.

use std::collections::BTreeSet;

use crate::domain::{Origin, Post, PostId, Reference, UserId};

/// The longest link, in bytes.
pub const LINK_BYTES_MAX: usize = 2_048;
/// How many accounts a post may mention.
pub const MENTIONS_MAX: usize = 10;
/// The longest request id, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

/// What a client asks to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Who posts.
    pub author: UserId,
    /// What the post says.
    pub text: String,
    /// How it came to be.
    pub origin: Origin,
    /// Where it points to.
    pub link: Option<String>,
    /// The post that it answers.
    pub reply_to: Option<PostId>,
    /// The post that it repeats.
    pub repost_of: Option<PostId>,
    /// The accounts that it mentions.
    pub mentions: BTreeSet<UserId>,
    /// The client's own name for the request.
    pub request_id: Option<String>,
    /// Whether a request of that name may have made its post before, so that the
    /// answer must be certain.
    pub is_retry: bool,
}

/// How a draft refers to a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Referring {
    ReplyTo,
    RepostOf,
}

impl Referring {
    /// The name of the field in the API.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::ReplyTo => "reply_to_id",
            Self::RepostOf => "repost_of_id",
        }
    }
}

/// The posts that a draft refers to, found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct References {
    pub(super) reply_to: Option<Reference>,
    pub(super) repost_of: Option<Reference>,
}

impl References {
    /// Notes one that was found.
    pub(super) fn set(&mut self, how: Referring, post: &Post) {
        let reference = Some(Reference { post: post.id, author: post.author });
        match how {
            Referring::ReplyTo => self.reply_to = reference,
            Referring::RepostOf => self.repost_of = reference,
        }
    }
}

/// A field of a request that is out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FieldError {
    /// The name of the field in the API.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl FieldError {
    pub(crate) fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }
}

impl Draft {
    /// The posts that it refers to.
    pub(super) fn references(&self) -> impl Iterator<Item = (Referring, PostId)> + use<> {
        [(Referring::ReplyTo, self.reply_to), (Referring::RepostOf, self.repost_of)]
            .into_iter()
            .filter_map(|(how, post)| Some((how, post?)))
    }

    /// Whether it repeats a post and adds nothing to it.
    pub(super) fn is_plain_repost(&self) -> bool {
        self.repost_of.is_some() && self.text.is_empty()
    }

    /// Whether it may have this id: a plain repost is to be known by its own.
    pub(super) fn may_have(&self, id: PostId) -> bool {
        id.may_be_repost() || !self.is_plain_repost()
    }

    /// The client's name for the request; every author has its own names.
    pub(super) fn request_key(&self) -> Option<(UserId, String)> {
        Some((self.author, self.request_id.clone()?))
    }

    /// About how many bytes of memory it takes.
    pub(super) fn size_bytes(&self) -> usize {
        let len = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let mentions = self.mentions.len() * size_of::<UserId>();
        size_of::<Self>() + self.text.len() + len(&self.link) + len(&self.request_id) + mentions
    }

    /// The post that it makes, and the client's name for the request.
    pub(super) fn into_post(self, id: PostId, references: References) -> (Post, Option<String>) {
        let post = Post {
            id,
            author: self.author,
            text: self.text,
            origin: self.origin,
            link: self.link,
            reply_to: references.reply_to,
            repost_of: references.repost_of,
            mentions: self.mentions.into_iter().collect(),
        };
        (post, self.request_id)
    }

    /// Checks every field by itself. `text_chars_max` counts Unicode scalar values.
    pub fn check(&self, text_chars_max: usize) -> Result<(), FieldError> {
        check_user("author_id", self.author)?;
        if self.repost_of.is_none() || !self.text.is_empty() {
            check_text(&self.text, text_chars_max)?;
        }
        if let Some(link) = &self.link {
            check_link(link)?;
        }
        check_mentions(self.author, &self.mentions)?;
        self.request_id.as_deref().map_or(Ok(()), check_request_id)
    }
}

/// Checks a text that must say something.
pub(super) fn check_text(text: &str, chars_max: usize) -> Result<(), FieldError> {
    // A character takes a byte at least.
    if text.len() > chars_max {
        let chars = text.chars().count();
        if chars > chars_max {
            let reason = format!("has {chars} characters; the limit is {chars_max}");
            return Err(FieldError::new("text", reason));
        }
    }
    if text.trim().is_empty() {
        let reason = format!("is empty; write 1 to {chars_max} characters");
        return Err(FieldError::new("text", reason));
    }
    Ok(())
}

/// Checks a client's name for a request.
pub(super) fn check_request_id(request_id: &str) -> Result<(), FieldError> {
    if request_id.len() > REQUEST_ID_BYTES_MAX {
        let reason = format!(
            "has {} bytes; the limit is {REQUEST_ID_BYTES_MAX}, a UUID has 36",
            request_id.len()
        );
        return Err(FieldError::new("request_id", reason));
    }
    Ok(())
}

/// Checks that an account id can be one.
pub fn check_user(field: &'static str, user: UserId) -> Result<(), FieldError> {
    if user.0 == 0 {
        return Err(FieldError::new(field, "is required; account ids start at 1"));
    }
    Ok(())
}

/// Checks that a post id can be one.
pub fn check_post(field: &'static str, post: PostId) -> Result<(), FieldError> {
    if post.0 == 0 {
        return Err(FieldError::new(field, "is required; post ids are never 0"));
    }
    Ok(())
}

/// Checks both ends of a follow.
pub fn check_follow(follower: UserId, followee: UserId) -> Result<(), FieldError> {
    check_pair(("follower_id", follower), ("followee_id", followee))
}

/// Checks two accounts, with the names of their fields, that must not be the same.
pub(super) fn check_pair(
    (field, user): (&'static str, UserId),
    (other_field, other): (&'static str, UserId),
) -> Result<(), FieldError> {
    check_user(field, user)?;
    check_user(other_field, other)?;
    if user == other {
        return Err(FieldError::new(other_field, format!("is account {user} itself")));
    }
    Ok(())
}

fn check_mentions(author: UserId, mentions: &BTreeSet<UserId>) -> Result<(), FieldError> {
    let field = "mentioned_ids";
    if mentions.len() > MENTIONS_MAX {
        let reason = format!("names {} accounts; the limit is {MENTIONS_MAX}", mentions.len());
        return Err(FieldError::new(field, reason));
    }
    for user in mentions {
        check_user(field, *user)?;
        if *user == author {
            return Err(FieldError::new(field, format!("names account {user}, the author itself")));
        }
    }
    Ok(())
}

fn check_link(link: &str) -> Result<(), FieldError> {
    if link.len() > LINK_BYTES_MAX {
        let reason = format!("has {} bytes; the limit is {LINK_BYTES_MAX}", link.len());
        return Err(FieldError::new("link", reason));
    }
    let is_address = link.split_once("://").is_some_and(|(scheme, rest)| {
        // A scheme is the same in either case (RFC 3986, section 3.1).
        let is_web = ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web));
        is_web && !rest.is_empty()
    });
    if !is_address || link.chars().any(|char| char.is_whitespace() || char.is_control()) {
        return Err(FieldError::new("link", "must be an http:// or https:// address"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(text: &str) -> Draft {
        Draft {
            author: UserId(1),
            text: text.to_owned(),
            origin: Origin::Shared,
            link: None,
            reply_to: None,
            repost_of: None,
            mentions: BTreeSet::new(),
            request_id: None,
            is_retry: false,
        }
    }

    fn bad_field(draft: &Draft) -> Option<&'static str> {
        draft.check(140).err().map(|error| error.field)
    }

    #[test]
    fn text_has_one_to_the_limit_of_characters_as_people_count_them() {
        for good in ["a", &"é".repeat(140), &"🐦".repeat(140)] {
            assert_eq!(bad_field(&draft(good)), None);
        }
        for bad in ["", "   \n", &"a".repeat(141), &"🐦".repeat(141)] {
            assert_eq!(bad_field(&draft(bad)), Some("text"), "{bad:?}");
        }
    }

    #[test]
    fn a_plain_repost_needs_no_text() {
        let repost = Draft { repost_of: Some(PostId(5)), ..draft("") };
        assert_eq!(bad_field(&repost), None);
    }

    #[test]
    fn links_are_web_addresses() {
        for (link, good) in [
            ("HTTP://example.org/a", true),
            ("hTTps://example.org", true),
            ("HTTPS://", false),
            ("xhttp://example.org", false),
            ("https://example.org/a?b=c", true),
            ("http://example.org", true),
            ("https://", false),
            ("javascript:alert(1)", false),
            ("https://example.org/a b", false),
            (&format!("https://{}", "a".repeat(2_048)), false),
        ] {
            let draft = Draft { link: Some(link.to_owned()), ..draft("hello") };
            assert_eq!(bad_field(&draft), (!good).then_some("link"), "{link}");
        }
    }

    #[test]
    fn a_post_mentions_a_few_others() {
        let mentioning = |users: &[u64]| Draft {
            mentions: users.iter().copied().map(UserId).collect(),
            ..draft("hello")
        };
        let ten: Vec<u64> = (2..12).collect();
        assert_eq!(bad_field(&mentioning(&ten)), None);
        for bad in [&[0, 2][..], &[1, 2], &(2..13).collect::<Vec<u64>>()] {
            assert_eq!(bad_field(&mentioning(bad)), Some("mentioned_ids"), "{bad:?}");
        }
    }

    #[test]
    fn the_other_fields_have_their_ranges() {
        let nobody = Draft { author: UserId(0), ..draft("hello") };
        assert_eq!(bad_field(&nobody), Some("author_id"));
        let long = Draft { request_id: Some("r".repeat(65)), ..draft("hello") };
        assert_eq!(bad_field(&long), Some("request_id"));
        assert!(check_follow(UserId(1), UserId(1)).is_err());
        assert!(check_follow(UserId(1), UserId(0)).is_err());
        assert!(check_follow(UserId(1), UserId(2)).is_ok());
        assert!(check_post("post_id", PostId(0)).is_err());
    }
}
