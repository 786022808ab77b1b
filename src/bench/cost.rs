//! The CPU time that something costs: this process's, and Redis's where there is one.

use std::time::Duration;

use super::{BenchError, machine::own_cpu, redis::BenchRedis};

/// CPU time that was used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Of this process.
    pub(super) own: Duration,
    pub(super) redis: Option<Duration>,
}

impl Cost {
    /// All that was used until now.
    pub(super) async fn until_now(redis: Option<&BenchRedis>) -> Result<Self, BenchError> {
        let redis = match redis {
            Some(redis) => Some(redis.usage().await?.cpu),
            None => None,
        };
        Ok(Self { own: own_cpu(), redis })
    }

    /// What was used since an earlier look.
    pub(super) fn since(&self, before: &Self) -> Self {
        let redis = self.redis.zip(before.redis);
        Self {
            own: self.own.saturating_sub(before.own),
            redis: redis.map(|(now, before)| now.saturating_sub(before)),
        }
    }
}
