//! What is drained: posts in their order, and who reads them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hashbrown::HashSet;
use rand::{SeedableRng, rngs::StdRng, seq::index};

use crate::{
    domain::{Event, Origin, Post, PostId, UserId},
    load::{Graph, UserIndex, Workload},
    post_id::PostIds,
    proto::v1::{self, PublishPostRequest},
    store::HOME_TIMELINE_CAP_DEFAULT,
    writes::{Draft, EVENT_FOLLOWERS_MAX, TEXT_CHARS_MAX_DEFAULT},
};

/// As many posts fill a timeline: a tenth more than the cap, what it has when it was trimmed.
pub(super) const FILLED: usize = HOME_TIMELINE_CAP_DEFAULT * 11 / 10;
/// When posts begin, in milliseconds of their ids, and when those that fill timelines
/// beforehand do: some seconds before.
const POSTS_MS: u64 = 10_000;
const WARM_UP_MS: u64 = 5_000;
const FILLER_MS: u64 = 1;

/// The posts of a load, with the follows that matter to them: those of their authors.
pub(super) struct Town {
    authors: Arc<[Author]>,
    posts: Vec<TownPost>,
}

struct Author {
    id: UserId,
    /// The followers and the author, ascending: whom a post reaches.
    readers: Vec<UserId>,
}

#[derive(Clone, Copy)]
pub(super) struct TownPost {
    id: PostId,
    /// By its place among the authors.
    author: usize,
}

impl TownPost {
    pub(super) fn id(self) -> PostId {
        self.id
    }
}

/// Authors to draw followers for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawn {
    /// How many.
    pub(super) authors: usize,
    /// The others' ids follow it.
    pub(super) first_id: u64,
    /// Of each of them.
    pub(super) followers: u32,
}

impl Author {
    fn new(id: UserId, mut readers: Vec<UserId>) -> Self {
        readers.push(id);
        readers.sort_unstable();
        readers.dedup();
        Self { id, readers }
    }
}

impl Town {
    /// The posts of a load, by its authors.
    pub(super) fn of(workload: &Workload) -> Self {
        let graph = &workload.graph;
        let mut places = BTreeMap::<UserIndex, usize>::new();
        let mut authors = Vec::new();
        let mut readers = Vec::new();
        let by = (0..workload.post_count()).map(|number| {
            let author = workload.author(number);
            *places.entry(author).or_insert_with(|| {
                graph.followers_into(author, &mut readers);
                let readers = readers.iter().map(|user| graph.id(*user)).collect();
                authors.push(Author::new(graph.id(author), readers));
                authors.len() - 1
            })
        });
        let posts = posts(POSTS_MS, by);
        Self { authors: authors.into(), posts }
    }

    /// Other posts, as many, of the same authors in the same order, from before its own.
    pub(super) fn warm_up(&self) -> Self {
        let by = self.posts.iter().map(|post| post.author);
        Self { authors: Arc::clone(&self.authors), posts: posts(WARM_UP_MS, by) }
    }

    /// The first so many of its posts, and the same readers.
    pub(super) fn first(&self, posts: usize) -> Self {
        let posts = self.posts[..posts.min(self.posts.len())].to_vec();
        Self { authors: Arc::clone(&self.authors), posts }
    }

    /// Authors whose followers are drawn from the accounts 1 to `users`, and who post in
    /// turn.
    pub(super) fn drawn(seed: u64, users: u32, drawn: Drawn, post_count: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let followers = drawn.followers.min(users) as usize;
        let authors = (drawn.first_id..).take(drawn.authors).map(|id| {
            let places = index::sample(&mut random, users as usize, followers);
            let readers = places.into_iter().map(|place| UserId(place as u64 + 1)).collect();
            Author::new(UserId(id), readers)
        });
        Self {
            authors: authors.collect(),
            posts: posts(POSTS_MS, in_turn(post_count, drawn.authors)),
        }
    }

    /// Authors whom all of `readers` follow, and who post in turn; before the others.
    pub(super) fn filler(readers: &[UserId], authors: usize, post_count: usize) -> Self {
        let first_id = readers.last().map_or(0, |last| last.0) + 1;
        let authors_of = |id| Author::new(UserId(id), readers.to_vec());
        Self {
            authors: (first_id..).take(authors).map(authors_of).collect(),
            posts: posts(FILLER_MS, in_turn(post_count, authors)),
        }
    }

    /// Its posts, in their order.
    pub(super) fn posts(&self) -> &[TownPost] {
        &self.posts
    }

    /// Its posts, and then others by the same authors in the same order, without end.
    pub(super) fn posts_for_ever(&self) -> impl Iterator<Item = TownPost> {
        let ids = PostIds::new(0, None);
        self.posts.iter().cycle().map_while(move |post| {
            Some(TownPost {
                id: ids.next(PostId::EPOCH_UNIX_MS + POSTS_MS, false).ok()?,
                author: post.author,
            })
        })
    }

    /// How many timelines these posts reach, each post counted.
    pub(super) fn delivery_count(&self) -> u64 {
        self.posts.iter().map(|post| self.reader_count(*post)).sum()
    }

    /// How many followers a post has on average; 0 where there is none.
    pub(super) fn followers_per_post(&self) -> f64 {
        // Each reaches its author too.
        let posts = self.posts.len() as f64;
        (self.delivery_count() as f64 - posts) / posts.max(1.0)
    }

    /// How many timelines a post reaches.
    pub(super) fn reader_count(&self, post: TownPost) -> u64 {
        self.authors[post.author].readers.len() as u64
    }

    /// Everybody whom a post reaches, ascending.
    pub(super) fn readers(&self) -> Vec<UserId> {
        let readers: HashSet<UserId, foldhash::fast::RandomState> =
            self.authors.iter().flat_map(|author| author.readers.iter().copied()).collect();
        let mut readers: Vec<UserId> = readers.into_iter().collect();
        readers.sort_unstable();
        readers
    }

    /// Its follows.
    pub(super) fn follows(&self) -> impl Iterator<Item = Event> {
        self.authors.iter().flat_map(|author| {
            author.readers.chunks(EVENT_FOLLOWERS_MAX).map(|readers| {
                let followers = readers.iter().copied().filter(|reader| *reader != author.id);
                Event::Followed { followee: author.id, followers: followers.collect() }
            })
        })
    }

    /// What publishing its posts writes into the log.
    pub(super) fn events(&self) -> impl Iterator<Item = Event> {
        self.posts.iter().map(|post| self.event(*post))
    }

    /// What publishing one of its posts writes into the log.
    pub(super) fn event(&self, post: TownPost) -> Event {
        let post = Post {
            id: post.id,
            author: self.author(post),
            text: text_of(post.id),
            origin: Origin::Shared,
            link: None,
            reply_to: None,
            repost_of: None,
            mentions: Vec::new(),
        };
        Event::PostPublished { post, request_id: None }
    }

    /// What a client asks for to publish a post.
    pub(super) fn draft(&self, post: TownPost) -> Draft {
        Draft {
            author: self.author(post),
            text: text_of(post.id),
            origin: Origin::Shared,
            link: None,
            reply_to: None,
            repost_of: None,
            mentions: BTreeSet::new(),
            request_id: None,
            is_retry: false,
        }
    }

    /// The same over gRPC.
    pub(super) fn request(&self, post: TownPost) -> PublishPostRequest {
        PublishPostRequest {
            author_id: self.author(post).0,
            text: text_of(post.id),
            origin: v1::Origin::Shared.into(),
            ..PublishPostRequest::default()
        }
    }

    /// The author of a post.
    pub(super) fn author(&self, post: TownPost) -> UserId {
        self.authors[post.author].id
    }

    /// The deliveries that posts ask for, in their order.
    pub(super) fn deliveries(&self, posts: &[TownPost]) -> Vec<(UserId, PostId)> {
        posts
            .iter()
            .flat_map(|post| {
                self.authors[post.author].readers.iter().map(|reader| (*reader, post.id))
            })
            .collect()
    }
}

/// Who follows whom, all of a graph, followee by followee.
pub(super) fn all_follows(graph: &Graph) -> impl Iterator<Item = Event> {
    let mut followers = Vec::new();
    (0..graph.user_count()).flat_map(move |followee| {
        graph.followers_into(followee, &mut followers);
        let pieces = followers.chunks(EVENT_FOLLOWERS_MAX).map(|piece| Event::Followed {
            followee: graph.id(followee),
            followers: piece.iter().map(|user| graph.id(*user)).collect(),
        });
        pieces.collect::<Vec<_>>()
    })
}

/// Whether so many readers are those of a million accounts, as some goals want them: nearly
/// all read one of those who post.
pub(super) fn is_of_a_million(readers: usize) -> bool {
    readers >= 900_000
}

/// A share of the readers, in percent, and always the same ones.
pub(super) fn share_of(readers: &[UserId], percent: u8) -> Vec<UserId> {
    // By a hash, so that they are spread over whatever readers are sorted by.
    let hash = |reader: &UserId| reader.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let is_in = |reader: &&UserId| hash(reader) % 100 < u64::from(percent);
    readers.iter().filter(is_in).copied().collect()
}

/// Posts of these authors, with ids from that millisecond on.
fn posts(ms: u64, authors: impl Iterator<Item = usize>) -> Vec<TownPost> {
    let ids = PostIds::new(0, None);
    authors
        // A clock that stands still gives out ids without end.
        .map_while(|author| {
            Some(TownPost { id: ids.next(PostId::EPOCH_UNIX_MS + ms, false).ok()?, author })
        })
        .collect()
}

fn in_turn(post_count: usize, authors: usize) -> impl Iterator<Item = usize> {
    (0..post_count).map(move |number| number % authors)
}

/// As long as a post may be, and not to be compressed to nothing: letters and spaces, the
/// same ones for the same post.
fn text_of(post: PostId) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz     e";
    let mut state = post.0;
    let letters = (0..TEXT_CHARS_MAX_DEFAULT).map(|_| {
        // Knuth's MMIX generator, whose high bits are the good ones.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(LETTERS[(state >> 59) as usize])
    });
    letters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Population;

    #[test]
    fn drawn_authors_have_as_many_readers_as_asked_for_and_post_in_turn() {
        let drawn = Drawn { authors: 3, first_id: 1_001, followers: 40 };
        let town = Town::drawn(1, 1_000, drawn, 7);
        assert_eq!(town.delivery_count(), 7 * 41);
        assert_eq!(town.followers_per_post(), 40.0);
        let authors: Vec<u64> = town.posts().iter().map(|post| town.author(*post).0).collect();
        assert_eq!(authors, [1_001, 1_002, 1_003, 1_001, 1_002, 1_003, 1_001]);
        for author in &*town.authors {
            assert!(author.readers.is_sorted_by(|a, b| a < b));
            assert!(author.readers.contains(&author.id));
        }
        // Nobody has more followers than there are accounts.
        assert_eq!(Town::drawn(1, 10, drawn, 1).delivery_count(), 11);
    }

    #[test]
    fn what_fills_timelines_has_other_and_older_ids() {
        let readers: Vec<UserId> = (1..=5).map(UserId).collect();
        let filler = Town::filler(&readers, 2, 900);
        let drawn = Drawn { authors: 1, first_id: 9, followers: 1 };
        let others = Town::drawn(1, 5, drawn, 900);
        assert!(filler.posts().iter().map(|post| post.id).max() < Some(others.posts()[0].id));
        assert_eq!(filler.delivery_count(), 900 * 6);
    }

    #[test]
    fn what_warms_up_are_other_and_older_posts_for_the_same_readers() {
        let drawn = Drawn { authors: 3, first_id: 1_001, followers: 40 };
        let town = Town::drawn(1, 1_000, drawn, 7);
        let warm_up = town.warm_up();
        assert!(warm_up.posts().iter().map(|post| post.id).max() < Some(town.posts()[0].id));
        assert_eq!(warm_up.delivery_count(), town.delivery_count());
        assert_eq!(warm_up.readers(), town.readers());
    }

    #[test]
    fn fewer_posts_are_the_first_ones_for_the_same_readers() {
        let drawn = Drawn { authors: 3, first_id: 1_001, followers: 40 };
        let town = Town::drawn(1, 1_000, drawn, 7);
        let two = town.first(2);
        assert_eq!(two.posts()[1].id, town.posts()[1].id);
        assert_eq!(two.delivery_count(), 2 * 41);
        assert_eq!(two.readers(), town.readers());
        assert_eq!(town.first(8).posts().len(), 7);
    }

    #[test]
    fn a_share_of_the_readers_is_about_that_large() {
        let readers: Vec<UserId> = (1..=10_000).map(UserId).collect();
        assert_eq!(share_of(&readers, 100), readers);
        let tenth = share_of(&readers, 10);
        assert!((900..1_100).contains(&tenth.len()), "{}", tenth.len());
        assert!(share_of(&readers, 0).is_empty());
    }

    #[test]
    fn all_follows_of_a_graph_are_there_once() {
        let population = Population::new(3, 500);
        let graph = Graph::Synthetic(population.clone());
        let listed: usize = all_follows(&graph)
            .map(|event| match event {
                Event::Followed { followee, followers } => {
                    assert_eq!(followers, population.followers_of(followee));
                    followers.len()
                }
                event => panic!("{event:?}"),
            })
            .sum();
        let all: usize = (1..=500).map(|user| population.followers_of(UserId(user)).len()).sum();
        assert_eq!(listed, all);
    }
}
