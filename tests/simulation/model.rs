//! The pull definition, by brute force, from the log alone.
//!
//! home(u) = the posts among those written by u and by the accounts u follows now, newest
//! first, without the deleted, the muted and the blocked, and without what repeats or answers
//! these. The newest CAP are held ready, the hidden and reposts of the deleted among them; the
//! others are pulled. A plain repost is left out where what it repeats is gone, or where that, or
//! another repost of it, is among the 40 posts that show below it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use roost::{
    domain::{Event, Message, MessageId, PostId, UserId},
    event_log::codec,
    store::{MessageSide, ReferrerKind},
};

/// How many posts that show below a plain repost are near it, each counted once.
const NEAR_MAX: usize = 40;
/// How far below a plain repost they are looked for.
const LOOKED_AT_MAX: usize = 1_000;

#[derive(Debug, Default)]
pub struct Model {
    /// Every post that counts, and who is told of it, deleted or not.
    pub told: BTreeMap<PostId, BTreeSet<UserId>>,
    /// The posts that are there, by id.
    pub posts: BTreeMap<PostId, UserId>,
    /// What plain reposts repeat, deleted or not.
    pub reposts: HashMap<PostId, PostId>,
    /// What posts answer, deleted or not.
    pub replies: HashMap<PostId, PostId>,
    /// Whose posts other posts repeat, with a text of their own or without, or answer.
    pub referred: HashMap<PostId, Vec<UserId>>,
    /// Authors whose posts are pulled.
    pub pulled: BTreeSet<UserId>,
    /// Whether there ever were some.
    pub were_pulled: bool,
    /// Follower, followee.
    pub follows: BTreeSet<(UserId, UserId)>,
    pub read_markers: HashMap<UserId, PostId>,
    /// Every message that counts, deleted or not.
    pub messages: BTreeMap<MessageId, Message>,
    pub deleted_messages: BTreeSet<MessageId>,
    pub message_requests: HashMap<(UserId, String), MessageId>,
    /// Muter, muted.
    pub mutes: BTreeSet<(UserId, UserId)>,
    /// Blocker, blocked.
    pub blocks: BTreeSet<(UserId, UserId)>,
    /// What each request made.
    pub requests: HashMap<(UserId, String), PostId>,
    /// Everyone who ever posted what, deleted or not.
    pub authors: HashMap<PostId, UserId>,
}

impl Model {
    /// What a log says. An author's events are all in one partition, so the order
    /// between partitions does not matter.
    pub fn of(log: &[Vec<Bytes>]) -> Self {
        let mut model = Self::default();
        for payload in log.iter().flatten() {
            match codec::decode(payload).expect("the simulation wrote it") {
                Event::PostPublished { post, request_id } => {
                    if let Some(request_id) = request_id {
                        let key = (post.author, request_id);
                        if model.requests.contains_key(&key) {
                            continue;
                        }
                        model.requests.insert(key, post.id);
                    }
                    model.posts.insert(post.id, post.author);
                    model.authors.insert(post.id, post.author);
                    let references = [post.reply_to, post.repost_of].into_iter().flatten();
                    let referred: Vec<UserId> = references.map(|it| it.author).collect();
                    let told = post.mentions.iter().chain(&referred).copied();
                    let told = told.filter(|user| *user != post.author).collect();
                    model.told.insert(post.id, told);
                    model.referred.insert(post.id, referred);
                    model.replies.extend(post.reply_to.map(|of| (post.id, of.post)));
                    if let Some(original) = post.repost_of.filter(|_| post.text.is_empty()) {
                        model.reposts.insert(post.id, original.post);
                    }
                }
                Event::PostDeleted { post, .. } => {
                    model.posts.remove(&post);
                }
                Event::Followed { followee, followers } => {
                    model
                        .follows
                        .extend(followers.into_iter().map(|follower| (follower, followee)));
                }
                Event::Unfollowed { followee, follower } => {
                    model.follows.remove(&(follower, followee));
                }
                Event::PullChanged { author, pulled } => {
                    model.were_pulled |= pulled;
                    if pulled {
                        model.pulled.insert(author);
                    } else {
                        model.pulled.remove(&author);
                    }
                }
                Event::MessageSent { message, request_id } => {
                    if let Some(request_id) = request_id {
                        let key = (message.sender, request_id);
                        if model.message_requests.contains_key(&key) {
                            continue;
                        }
                        model.message_requests.insert(key, message.id);
                    }
                    model.messages.insert(message.id, message);
                }
                Event::MessageDeleted { message, .. } => {
                    model.deleted_messages.insert(message);
                }
                Event::ReadMarkerMoved { reader, post } => {
                    let marker = model.read_markers.entry(reader).or_insert(post);
                    *marker = post.max(*marker);
                }
                Event::MuteChanged { muter, muted, mutes: true } => {
                    model.mutes.insert((muter, muted));
                }
                Event::MuteChanged { muter, muted, mutes: false } => {
                    model.mutes.remove(&(muter, muted));
                }
                Event::BlockChanged { blocker, blocked, blocks: true } => {
                    model.blocks.insert((blocker, blocked));
                }
                Event::BlockChanged { blocker, blocked, blocks: false } => {
                    model.blocks.remove(&(blocker, blocked));
                }
            }
        }
        model
    }

    pub fn home(&self, reader: UserId, all_reposts: bool) -> Vec<PostId> {
        let delivered = self.delivered(reader);
        let original = |id: PostId| self.reposts.get(&id).copied().unwrap_or(id);
        let is_seen =
            |id: PostId| self.posts.contains_key(&original(id)) && !self.hides_post(reader, id);
        let is_repeated = |place: usize| {
            let mut near = Vec::new();
            for id in delivered[place + 1..].iter().take(LOOKED_AT_MAX).filter(|id| is_seen(**id)) {
                if !near.contains(&original(*id)) {
                    near.push(original(*id));
                }
            }
            near.iter().take(NEAR_MAX).any(|id| *id == original(delivered[place]))
        };
        (0..delivered.len())
            .filter(|place| is_seen(delivered[*place]))
            .filter(|place| {
                let is_repost = self.reposts.contains_key(&delivered[*place]);
                all_reposts || !is_repost || !is_repeated(*place)
            })
            .map(|place| delivered[place])
            .collect()
    }

    /// The posts that answer a post, or only repeat it.
    pub fn referrers(&self, post: PostId, kind: ReferrerKind) -> Vec<PostId> {
        let of = match kind {
            ReferrerKind::Reply => &self.replies,
            ReferrerKind::Repost => &self.reposts,
        };
        self.posts.keys().copied().filter(|id| of.get(id) == Some(&post)).collect()
    }

    /// The home timeline as it is held ready: with all that its reader does not see.
    pub fn delivered(&self, reader: UserId) -> Vec<PostId> {
        let is_read = |author| author == reader || self.follows.contains(&(reader, author));
        let of_those = self.posts.iter().rev().filter(|(_, author)| is_read(**author));
        of_those.map(|(id, _)| *id).collect()
    }

    /// The posts that are left of those that the reader was told of last.
    pub fn notifications(&self, reader: UserId, count_max: usize) -> Vec<PostId> {
        let told = self.told.iter().rev().filter(|(_, users)| users.contains(&reader));
        let told = told.map(|(id, _)| (*id, self.authors[id])).collect();
        let kept = kept(told, count_max).into_iter();
        let is_there = |id: &PostId| {
            let original = self.reposts.get(id).is_none_or(|of| self.posts.contains_key(of));
            original && self.posts.contains_key(id)
        };
        let is_shown = |id: &PostId| is_there(id) && !self.hides_post(reader, *id);
        kept.filter(is_shown).collect()
    }

    /// The messages that are left of those that the account has received last, or sent.
    pub fn messages_of(&self, user: UserId, side: MessageSide, count_max: usize) -> Vec<MessageId> {
        let is_of_user = |message: &&Message| match side {
            MessageSide::Received => message.recipients.contains(&user),
            MessageSide::Sent => message.sender == user,
        };
        let all = self.messages.values().rev().filter(is_of_user);
        let kept = kept(all.map(|message| (message.id, message.sender)).collect(), count_max);
        let is_shown = |id: &MessageId| {
            !self.deleted_messages.contains(id) && !self.hides(user, self.messages[id].sender)
        };
        kept.into_iter().filter(is_shown).collect()
    }

    /// Whether a reader hides the author of a post, or of what it repeats or answers.
    fn hides_post(&self, reader: UserId, post: PostId) -> bool {
        let mut authors = self.referred[&post].iter().chain([&self.authors[&post]]);
        authors.any(|author| self.hides(reader, *author))
    }

    fn hides(&self, reader: UserId, author: UserId) -> bool {
        self.mutes.contains(&(reader, author))
            || self.blocks.contains(&(reader, author))
            || self.blocks.contains(&(author, reader))
    }
}

/// What is kept of a list, newest first: as long as there are more than so many, the oldest
/// of whoever has the most goes.
fn kept<Id: Copy>(mut entries: Vec<(Id, UserId)>, count_max: usize) -> Vec<Id> {
    while entries.len() > count_max {
        let count = |of| entries.iter().filter(|(_, from)| *from == of).count();
        let most = entries.iter().map(|(_, from)| count(*from)).max();
        let goes = entries.iter().rposition(|(_, from)| Some(count(*from)) == most);
        entries.remove(goes.expect("somebody has the most"));
    }
    entries.into_iter().map(|(id, _)| id).collect()
}
