//! A load as plain data: who is there, what is posted, in which order.
//!
//! Everything here is a pure function of the settings and the input file, so
//! that a run can be repeated, resumed, and compared with the model.

mod message;
mod notifications;

use std::{sync::Arc, time::Duration};

use rand::rngs::Xoshiro256PlusPlus;

pub(super) use self::message::MessageParties;
use super::{
    LoadError,
    graph::{Graph, ListedGraph, UserIndex},
    population::Population,
    random::{Purpose, below, generator},
    settings::{Settings, Source},
    trace::{self, TraceKind, TracePost},
};
use crate::{
    client::{
        edge_list::{self, EdgeListError},
        text_file::{FileError, Fingerprint},
    },
    domain::PostId,
    proto::v1::{Origin, PublishPostRequest},
};

/// How many posts reach a timeline on average, at least, by default.
const POSTS_PER_TIMELINE: f64 = 24.0;

/// How many accounts count as the most followed ones.
const POPULAR_COUNT: usize = 16;

/// The words of synthetic posts; not all of them are ASCII.
const WORDS: [&str; 24] = [
    "the", "a", "new", "boson", "coffee", "früh", "train", "late", "again", "today", "who", "saw",
    "that", "goal", "rain", "東京", "release", "green", "tests", "at", "last", "café", "🚲",
    "home",
];

/// A load, ready to be published.
pub struct Workload {
    /// Who follows whom.
    pub graph: Arc<Graph>,
    /// The front of every request id.
    pub(super) run: String,
    /// Follows of an account by itself and repeated ones, which were left out.
    pub(super) skipped_follow_count: u64,
    seed: u64,
    posts: Posts,
    /// The most followed accounts, at least one; none where nothing needs them.
    popular: Vec<UserIndex>,
    text_chars_max: usize,
}

enum Posts {
    /// Each by an author drawn for it, at the pace of the settings.
    Drawn {
        count: u32,
        authors: Authors,
        mentions_percent: u8,
    },
    Traced {
        posts: Vec<TracePost>,
        speed: Option<f64>,
    },
}

/// Who posts.
enum Authors {
    All,
    /// These, ascending.
    Some(Vec<UserIndex>),
}

impl Authors {
    fn of(settings: &Settings, graph: &Graph) -> Self {
        match settings.followers_per_post {
            None => Self::All,
            Some(mean) => Self::Some(followed_by(graph, mean)),
        }
    }

    fn draw(&self, random: &mut Xoshiro256PlusPlus, graph: &Graph) -> UserIndex {
        match self {
            Self::All => below(random, u64::from(graph.user_count())) as UserIndex,
            Self::Some(authors) => authors[below(random, authors.len() as u64) as usize],
        }
    }
}

/// The most followed accounts: so many of them that they have about `mean` followers on
/// average, and one at least. All accounts, where `mean` is below that of all.
fn followed_by(graph: &Graph, mean: f64) -> Vec<UserIndex> {
    let mut sum = 0.0;
    let mut authors: Vec<UserIndex> = (1..)
        .zip(most_followed_first(graph))
        .take_while(|(count, (followers, _))| {
            sum += f64::from(*followers);
            *count == 1 || sum / f64::from(*count) >= mean
        })
        .map(|(_, (_, user))| user)
        .collect();
    authors.sort_unstable();
    authors
}

fn most_followed_first(graph: &Graph) -> Vec<(u32, UserIndex)> {
    let mut accounts: Vec<(u32, UserIndex)> =
        (0..graph.user_count()).map(|user| (graph.follower_count(user), user)).collect();
    accounts.sort_unstable_by(|a, b| b.cmp(a));
    accounts
}

fn popular(settings: &Settings, graph: &Graph) -> Vec<UserIndex> {
    let shares = [settings.pulls_percent, settings.mentions_percent, settings.messages_percent];
    if shares.iter().all(|percent| *percent == 0) {
        return Vec::new();
    }
    most_followed_first(graph).into_iter().take(POPULAR_COUNT).map(|(_, user)| user).collect()
}

impl Workload {
    /// Reads the input and plans the load. Blocks, for seconds if the input is
    /// large; `on_line` is told how many lines of it have been read, and
    /// fails where nobody waits for them any more.
    ///
    /// # Errors
    /// If the input cannot be used.
    pub fn plan(
        settings: &Settings,
        text_chars_max: usize,
        on_line: impl FnMut(u64) -> Result<(), FileError>,
    ) -> Result<Self, LoadError> {
        let (mentions_percent, id_offset) = (settings.mentions_percent, settings.id_offset);
        // The runs without an offset keep the names that they have had.
        let offset_part = (id_offset > 0).then_some(id_offset);
        let (graph, posts, skipped_follow_count, fingerprint) = match &settings.source {
            Source::Synthetic { users, posts } => {
                let population = Population::new(settings.seed, *users).shifted(id_offset);
                let graph = Graph::Synthetic(population.ok_or_else(|| {
                    LoadError::BadSettings("--id-offset puts ids past 2^64 - 1".to_owned())
                })?);
                let count = posts.unwrap_or_else(|| posts_by_default(&graph));
                let parts = [1, u64::from(*users)].into_iter().chain(offset_part);
                let fingerprint = fingerprint(&parts.collect::<Vec<_>>());
                let authors = Authors::of(settings, &graph);
                let posts = Posts::Drawn { count, authors, mentions_percent };
                (graph, posts, 0, fingerprint)
            }
            Source::EdgeList { file, posts } => {
                let list = edge_list::read(file.clone(), id_offset, on_line)
                    .map_err(EdgeListError::from)?;
                if list.edges.is_empty() {
                    return Err(LoadError::BadSettings(format!(
                        "{} holds no follows",
                        file.display()
                    )));
                }
                let skipped = list.self_follow_count + list.duplicate_count;
                let graph = Graph::Listed(ListedGraph::new(&list.edges, [])?);
                let count = posts.unwrap_or_else(|| posts_by_default(&graph));
                let fingerprint = fingerprint(&[2, list.fingerprint, id_offset]);
                let authors = Authors::of(settings, &graph);
                let posts = Posts::Drawn { count, authors, mentions_percent };
                (graph, posts, skipped, fingerprint)
            }
            Source::Trace { file, speed } => {
                let trace = trace::read(file.clone(), id_offset, on_line)?;
                let posts = Posts::Traced { posts: trace.posts, speed: *speed };
                let graph = Graph::Listed(trace.graph);
                let parts = [3, trace.fingerprint].into_iter().chain(offset_part);
                let fingerprint = fingerprint(&parts.collect::<Vec<_>>());
                (graph, posts, trace.self_pair_count, fingerprint)
            }
        };
        let run = settings.run.clone().unwrap_or_else(|| {
            let parts = match &posts {
                Posts::Drawn { count, .. } => {
                    vec![settings.seed, u64::from(*count), u64::from(settings.churn_percent)]
                }
                Posts::Traced { .. } => Vec::new(),
            };
            let mean = settings.followers_per_post.map(f64::to_bits);
            let parts: Vec<u64> = [fingerprint]
                .into_iter()
                .chain(parts)
                .chain(mean)
                .chain(shares(settings))
                .collect();
            format!("{:016x}", self::fingerprint(&parts))
        });
        let (seed, popular) = (settings.seed, popular(settings, &graph));
        let graph = Arc::new(graph);
        Ok(Self { graph, run, skipped_follow_count, seed, posts, popular, text_chars_max })
    }

    /// The most followed accounts; none where the settings need none.
    pub(super) fn popular(&self) -> &[UserIndex] {
        &self.popular
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// How many posts there are, numbered from 0.
    pub fn post_count(&self) -> u32 {
        match &self.posts {
            Posts::Drawn { count, .. } => *count,
            Posts::Traced { posts, .. } => posts.len() as u32,
        }
    }

    /// When a post is due after the beginning, if the load itself says so.
    pub(super) fn due(&self, number: u32) -> Option<Duration> {
        match &self.posts {
            Posts::Drawn { .. } => None,
            Posts::Traced { posts, speed } => {
                speed.map(|speed| posts[number as usize].at.div_f64(speed))
            }
        }
    }

    /// Who writes a post.
    pub fn author(&self, number: u32) -> UserIndex {
        match &self.posts {
            Posts::Drawn { authors, .. } => {
                let mut random = generator(self.seed, Purpose::Posts, u64::from(number));
                authors.draw(&mut random, &self.graph)
            }
            Posts::Traced { posts, .. } => posts[number as usize].author,
        }
    }

    /// The earlier post that a post repeats or answers; it must be acknowledged
    /// before this one can be sent.
    pub(super) fn reference(&self, number: u32) -> Option<u32> {
        match &self.posts {
            Posts::Drawn { .. } => None,
            Posts::Traced { posts, .. } => match posts[number as usize].kind {
                TraceKind::Repost(post) | TraceKind::Reply(post) => Some(post),
                TraceKind::Plain | TraceKind::Mention(_) => None,
            },
        }
    }

    /// The same as the server takes it: a repost stands for what it repeats.
    pub(super) fn meant(&self, number: u32) -> Option<u32> {
        let mut meant = self.reference(number)?;
        while let Some(repeated) = self.repeats(meant) {
            meant = repeated;
        }
        Some(meant)
    }

    /// What a plain repost repeats.
    pub(super) fn repeats(&self, number: u32) -> Option<u32> {
        match &self.posts {
            Posts::Traced { posts, .. } => match posts[number as usize].kind {
                TraceKind::Repost(post) => Some(post),
                _ => None,
            },
            Posts::Drawn { .. } => None,
        }
    }

    /// The request that publishes a post, the same every time. `reference` is the
    /// id of the post that [`Self::reference`] names.
    pub(super) fn request(&self, number: u32, reference: Option<PostId>) -> PublishPostRequest {
        let mut request = PublishPostRequest {
            author_id: self.graph.id(self.author(number)).0,
            origin: Origin::Shared.into(),
            request_id: format!("{}-{number}", self.run),
            mentioned_ids: self
                .mentions(number)
                .iter()
                .map(|user| self.graph.id(*user).0)
                .collect(),
            ..PublishPostRequest::default()
        };
        let reference = reference.map_or(0, |post| post.0);
        let text = match &self.posts {
            Posts::Drawn { .. } => self.synthetic_text(number),
            Posts::Traced { posts, .. } => match posts[number as usize].kind {
                TraceKind::Plain => format!("action {number}"),
                TraceKind::Mention(user) => format!("@{} action {number}", self.graph.id(user)),
                TraceKind::Reply(_) => {
                    request.reply_to_id = reference;
                    format!("answer {number}")
                }
                TraceKind::Repost(_) => {
                    request.repost_of_id = reference;
                    String::new()
                }
            },
        };
        request.text = text.chars().take(self.text_chars_max).collect();
        request
    }

    /// One of the most followed accounts as often as any other.
    fn somebody(&self, random: &mut Xoshiro256PlusPlus) -> UserIndex {
        if below(random, 2) == 0 {
            self.popular[below(random, self.popular.len() as u64) as usize]
        } else {
            below(random, u64::from(self.graph.user_count())) as UserIndex
        }
    }

    /// Some 20 to 140 characters that begin with the post's number.
    fn synthetic_text(&self, number: u32) -> String {
        let mut random = generator(!self.seed, Purpose::Posts, u64::from(number));
        let length = 20 + below(&mut random, 121) as usize;
        let mut text = format!("#{number}");
        while text.len() < length {
            text.push(' ');
            text.push_str(WORDS[below(&mut random, WORDS.len() as u64) as usize]);
        }
        text.chars().take(length).collect()
    }
}

fn posts_by_default(graph: &Graph) -> u32 {
    let users = f64::from(graph.user_count());
    let mean_followers = graph.follow_count_estimate() as f64 / users;
    (users * (POSTS_PER_TIMELINE / mean_followers).max(1.0)).ceil() as u32
}

/// What tells a run from others of the same posts: with a seed, where a trace has none.
fn shares(settings: &Settings) -> Vec<u64> {
    let shares = [
        (1, settings.pulls_percent),
        (2, settings.hides_percent),
        (3, settings.mentions_percent),
        (4, settings.messages_percent),
    ];
    let shares = shares.into_iter().filter(|(_, percent)| *percent > 0);
    let mut parts: Vec<u64> =
        shares.map(|(kind, percent)| kind << 8 | u64::from(percent)).collect();
    if !parts.is_empty() {
        parts.push(settings.seed);
    }
    parts
}

fn fingerprint(parts: &[u64]) -> u64 {
    let mut fingerprint = Fingerprint::default();
    parts.iter().for_each(|part| fingerprint.add(&part.to_le_bytes()));
    fingerprint.0
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::client::Target;
    use crate::client::text_file::tests::file_of;

    pub(crate) fn synthetic_settings(users: u32, posts: u32) -> Settings {
        let source = Source::Synthetic { users, posts: Some(posts) };
        Settings { source, ..Settings::synthetic(Target::new("http://unused"), users) }
    }

    pub(crate) fn planned(settings: &Settings) -> Workload {
        Workload::plan(settings, 140, |_| Ok(())).expect("a plan")
    }

    fn synthetic(users: u32, posts: u32) -> Workload {
        planned(&synthetic_settings(users, posts))
    }

    #[test]
    fn the_same_load_has_the_same_requests_and_another_has_others() {
        let (a, b) = (synthetic(100, 50), synthetic(100, 50));
        for number in 0..50 {
            let request = a.request(number, None);
            assert_eq!(request, b.request(number, None));
            assert!((1..=140).contains(&request.text.chars().count()));
            assert!((1..=100).contains(&request.author_id));
            assert!(request.request_id.len() <= 64);
        }
        assert_ne!(a.run, synthetic(100, 51).run);
        assert_ne!(a.run, synthetic(101, 50).run);
        let pulls = Settings { pulls_percent: 1, ..synthetic_settings(100, 50) };
        let hides = Settings { hides_percent: 1, ..synthetic_settings(100, 50) };
        let mentions = Settings { mentions_percent: 1, ..synthetic_settings(100, 50) };
        let messages = Settings { messages_percent: 1, ..synthetic_settings(100, 50) };
        let mut runs =
            [pulls, hides, mentions, messages].map(|settings| planned(&settings).run).to_vec();
        runs.extend([a.run, b.run]);
        runs.sort_unstable();
        runs.dedup();
        assert_eq!(runs.len(), 5);
    }

    #[test]
    fn authors_are_chosen_so_that_posts_have_as_many_followers_as_asked_for() {
        let graph = Graph::Synthetic(Population::new(1, 20_000));
        for mean in [100.0, 403.0, 1_000.0] {
            let authors = followed_by(&graph, mean);
            assert!(authors.is_sorted_by(|a, b| a < b));
            let followers: u32 = authors.iter().map(|author| graph.follower_count(*author)).sum();
            let found = f64::from(followers) / authors.len() as f64;
            assert!((mean..mean * 1.05).contains(&found), "{found} for {mean}");
        }
        assert_eq!(followed_by(&graph, 1e9).len(), 1);
        assert_eq!(followed_by(&graph, 0.1).len(), 20_000);
    }

    #[test]
    fn a_trace_refers_to_the_posts_it_names() {
        let file = file_of(b"10 20 100 MT\n30 10 102 RT\n20 10 104 RE\n");
        let mut settings = Settings::synthetic(Target::new("http://unused"), 2);
        settings.source = Source::Trace { file: file.path().to_owned(), speed: Some(2.0) };
        let load = Workload::plan(&settings, 140, |_| Ok(())).expect("a plan");
        assert_eq!(
            (load.reference(0), load.reference(1), load.reference(2)),
            (None, Some(0), Some(0))
        );
        assert_eq!(load.due(2), Some(Duration::from_secs(2)));
        let mention = load.request(0, None);
        assert_eq!((&*mention.text, &*mention.mentioned_ids), ("@20 action 0", &[20][..]));
        let repost = load.request(1, Some(PostId(7)));
        assert_eq!((repost.author_id, repost.text.as_str(), repost.repost_of_id), (30, "", 7));
        assert_eq!(load.request(2, Some(PostId(7))).reply_to_id, 7);
    }

    #[test]
    fn shifted_load_is_the_same_with_other_ids() {
        let file = file_of(b"10 20 100 MT\n30 10 102 RT\n20 10 104 RE\n");
        let trace = Source::Trace { file: file.path().to_owned(), speed: None };
        let synthetic = synthetic_settings(30, 50);
        let trace = Settings { source: trace, ..synthetic.clone() };
        for settings in [synthetic, trace] {
            let plain = planned(&settings);
            let id_offset = u64::MAX - 30;
            let shifted = planned(&Settings { id_offset, ..settings });
            assert_ne!(plain.run, shifted.run, "they are other posts");
            for number in 0..plain.post_count() {
                let (one, other) = (plain.request(number, None), shifted.request(number, None));
                assert_eq!(other.author_id, one.author_id + id_offset);
                assert!(one.mentioned_ids.iter().map(|id| id + id_offset).eq(other.mentioned_ids));
            }
        }
    }

    #[test]
    fn a_sparse_graph_gets_more_posts_than_accounts() {
        let file = file_of(b"1 2\n2 1\n3 1\n");
        let mut settings = Settings::synthetic(Target::new("http://unused"), 2);
        settings.source = Source::EdgeList { file: file.path().to_owned(), posts: None };
        let load = Workload::plan(&settings, 140, |_| Ok(())).expect("a plan");
        assert_eq!(load.post_count(), 72);
    }
}
