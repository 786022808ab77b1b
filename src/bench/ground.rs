//! What every scenario finds: the settings, a Redis, a place for logs, and the posts of
//! the load; and what the ones before have measured.

use std::sync::Arc;

use tempfile::TempDir;

use super::{
    BenchError, LogPlace, Settings,
    args::{FOLLOWERS_PER_POST_DEFAULT, POSTS_DEFAULT},
    drain::DrainedRedis,
    log::Logs,
    open_loop::Seen,
    redis::BenchRedis,
    roost::Roost,
    town::Town,
    workspace::dir_in,
};
use crate::{
    client::progress::Reporter,
    event_log::EventLog,
    load::{self, Graph, Source, Workload},
    store::redis::{self as redis_store, RedisStore},
    writes::TEXT_CHARS_MAX_DEFAULT,
};

/// Of posts that have been drawn the average may be off by so much, as a share of it.
const FOLLOWERS_NEAR: f64 = 0.1;

/// What every scenario finds.
pub(super) struct Ground<'a> {
    pub(super) settings: &'a Settings,
    pub(super) redis: BenchRedis,
    pub(super) logs: Logs,
    /// The load's, once they were asked for.
    town: Option<(Arc<Town>, Arc<Graph>)>,
    /// What *drain* has measured on Redis, for those who stand beside it.
    pub(super) drained: Option<DrainedRedis>,
    reporter: &'a mut dyn Reporter,
}

impl<'a> Ground<'a> {
    pub(super) async fn prepare(
        settings: &'a Settings,
        reporter: &'a mut dyn Reporter,
    ) -> Result<Self, BenchError> {
        let redis = match &settings.redis {
            Some(urls) => BenchRedis::given(urls).await?,
            None => BenchRedis::start(&settings.workspace).await?,
        };
        match &settings.log {
            LogPlace::Embedded => {}
            LogPlace::Kafka { .. } => reporter.begin("asking Kafka for a topic", None),
            LogPlace::OwnKafka { .. } => reporter.begin("starting Kafka", None),
        }
        let logs = Logs::open(&settings.log, settings.partitions, &settings.workspace).await?;
        Ok(Self { settings, redis, logs, town: None, drained: None, reporter })
    }

    /// Says what is being done now.
    pub(super) fn say(&mut self, phase: &str) {
        self.reporter.begin(phase, None);
    }

    /// What was said to be done is over.
    pub(super) fn rest(&mut self) {
        self.reporter.end();
    }

    /// A directory that is empty.
    pub(super) fn dir(&self) -> Result<TempDir, BenchError> {
        dir_in(&self.settings.workspace)
    }

    /// The posts of the load, with those who read them.
    pub(super) async fn town(&mut self) -> Result<Arc<Town>, BenchError> {
        Ok(self.planned().await?.0)
    }

    /// Whether posts are followed as in the demonstration that goals are taken from.
    pub(super) fn has_usual_followers(&self) -> bool {
        self.settings.load.followers_per_post == Some(FOLLOWERS_PER_POST_DEFAULT)
    }

    /// All the follows of the load.
    pub(super) async fn graph(&mut self) -> Result<Arc<Graph>, BenchError> {
        Ok(self.planned().await?.1)
    }

    async fn planned(&mut self) -> Result<(Arc<Town>, Arc<Graph>), BenchError> {
        if let Some(planned) = &self.town {
            return Ok(planned.clone());
        }
        self.say("planning the posts");
        let load = self.settings.load.clone();
        let make = |load: &Workload| (Arc::new(Town::of(load)), Arc::clone(&load.graph));
        let planned = plan(load, make).await?;
        if let Some(asked) = self.settings.load.followers_per_post {
            let mean = planned.0.followers_per_post();
            if (mean / asked - 1.0).abs() > FOLLOWERS_NEAR {
                self.reporter.line(&format!(
                    "posts have {mean:.0} followers on average instead of {asked}: no choice of \
                     this graph's most followed accounts comes nearer"
                ));
            }
        }
        Ok(self.town.insert(planned).clone())
    }

    /// The same for a synthetic population of another size.
    pub(super) async fn town_of(&mut self, users: u32) -> Result<Town, BenchError> {
        self.say(&format!("planning the posts of {users} accounts"));
        let posts = match self.settings.load.source {
            Source::Synthetic { posts, .. } | Source::EdgeList { posts, .. } => posts,
            Source::Trace { .. } => None,
        };
        let source = Source::Synthetic { users, posts: posts.or(Some(POSTS_DEFAULT)) };
        let load = &self.settings.load;
        let followers_per_post = load.followers_per_post.or(Some(FOLLOWERS_PER_POST_DEFAULT));
        plan(load::Settings { source, followers_per_post, ..load.clone() }, Town::of).await
    }

    /// A Roost that works on an empty log and an empty Redis.
    pub(super) async fn roost(&mut self) -> Result<Roost<RedisStore>, BenchError> {
        Ok(self.watched_roost().await?.0)
    }

    /// The same, with the posts that reach all their readers.
    pub(super) async fn watched_roost(&mut self) -> Result<(Roost<RedisStore>, Seen), BenchError> {
        self.redis.empty().await?;
        let log = Arc::new(self.logs.new_log().await?);
        let (config, name) = (self.redis.config(), "bench".to_owned());
        let settings = redis_store::Settings::new(config, name, log.partitions());
        let store = Arc::new(RedisStore::open(settings).await?);
        let seen = Seen::default();
        let noting = seen.clone();
        let roost = Roost::start_watched(log, store, move |posts| noting.note(posts))?;
        Ok((roost, seen))
    }

    /// Drops what the scenarios have left behind.
    pub(super) async fn clear(self) -> Result<(), BenchError> {
        self.reporter.end();
        let emptied = self.redis.empty().await;
        self.logs.drop_all().await?;
        emptied
    }
}

/// Plans a load and makes something of it, off the runtime's threads: it takes seconds.
pub(super) async fn plan<T: Send + 'static>(
    load: load::Settings,
    make: impl FnOnce(&Workload) -> T + Send + 'static,
) -> Result<T, BenchError> {
    let planning = tokio::task::spawn_blocking(move || {
        Workload::plan(&load, TEXT_CHARS_MAX_DEFAULT, |_| Ok(())).map(|load| make(&load))
    });
    Ok(planning.await.map_err(|_| BenchError::Panicked)??)
}
