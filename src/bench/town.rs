//! What is drained: posts in their order, and who reads them.

use std::collections::BTreeMap;

use hashbrown::HashSet;

use crate::{
    domain::{Event, Origin, Post, PostId, UserId},
    load::{UserIndex, Workload},
    post_id::PostIds,
    writes::{EVENT_FOLLOWERS_MAX, TEXT_CHARS_MAX_DEFAULT},
};

/// The posts of a load, with the follows that matter to them: those of their authors.
pub(super) struct Town {
    authors: Vec<Author>,
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

impl Town {
    pub(super) fn of(workload: &Workload) -> Self {
        let graph = &workload.graph;
        let ids = PostIds::new(0, None);
        let mut places = BTreeMap::<UserIndex, usize>::new();
        let mut authors = Vec::new();
        let mut readers = Vec::new();
        let posts = (0..workload.post_count())
            .map_while(|number| {
                let author = workload.author(number);
                let author = *places.entry(author).or_insert_with(|| {
                    graph.followers_into(author, &mut readers);
                    readers.insert(readers.partition_point(|reader| *reader < author), author);
                    let readers = readers.iter().map(|user| graph.id(*user)).collect();
                    authors.push(Author { id: graph.id(author), readers });
                    authors.len() - 1
                });
                // A clock that stands still gives out ids without end.
                Some(TownPost { id: ids.next(PostId::EPOCH_UNIX_MS + 1)?, author })
            })
            .collect();
        Self { authors, posts }
    }

    /// Its posts, in their order.
    pub(super) fn posts(&self) -> &[TownPost] {
        &self.posts
    }

    /// Its posts, and then others by the same authors in the same order, without end.
    pub(super) fn posts_for_ever(&self) -> impl Iterator<Item = TownPost> {
        let ids = PostIds::new(0, None);
        self.posts.iter().cycle().map_while(move |post| {
            Some(TownPost { id: ids.next(PostId::EPOCH_UNIX_MS + 1)?, author: post.author })
        })
    }

    /// How many timelines these posts reach, each post counted.
    pub(super) fn delivery_count(&self) -> u64 {
        self.posts.iter().map(|post| self.authors[post.author].readers.len() as u64).sum()
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

    /// What publishing a post writes into the log.
    pub(super) fn event(&self, post: TownPost) -> Event {
        let post = Post {
            id: post.id,
            author: self.authors[post.author].id,
            text: "x".repeat(TEXT_CHARS_MAX_DEFAULT),
            origin: Origin::Shared,
            link: None,
            reply_to: None,
            repost_of: None,
        };
        Event::PostPublished { post, request_id: None }
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
