//! Faults of Kafka, and of the way there.

use futures::future;
use serde_json::json;
use tokio::time;

use super::World;
use crate::{
    failure::Result,
    plan::Draws,
    record::{Details, details},
    services::KAFKA,
};

impl World {
    pub(super) async fn stop_kafka(&self, draws: &mut Draws) -> Result<Details> {
        let away = draws.ms(0..4_000);
        self.services.stop(KAFKA).await?;
        time::sleep(away).await;
        self.services.start(KAFKA).await?;
        Ok(details(json!({ "what": KAFKA, "away_seconds": away.as_secs_f64() })))
    }

    pub(super) async fn kill_kafka(&self, draws: &mut Draws) -> Result<Details> {
        let away = draws.ms(0..4_000);
        self.services.kill(KAFKA).await?;
        time::sleep(away).await;
        self.services.start(KAFKA).await?;
        Ok(details(json!({ "what": KAFKA, "away_seconds": away.as_secs_f64() })))
    }

    pub(super) async fn cut_kafka(&self, draws: &mut Draws) -> Result<Details> {
        let refused = draws.ms(0..2_000);
        future::join_all(self.kafka.iter().map(|broker| broker.cut(refused))).await;
        Ok(details(json!({
            "what": "all connections to kafka",
            "refused_seconds": refused.as_secs_f64(),
        })))
    }

    pub(super) async fn delay_kafka(&self, draws: &mut Draws) -> Result<Details> {
        let (delay, lasts) = (draws.ms(20..300), draws.ms(2_000..6_000));
        future::join_all(self.kafka.iter().map(|broker| broker.delay(delay, lasts))).await;
        Ok(details(json!({
            "what": "all connections to kafka",
            "delay_seconds": delay.as_secs_f64(),
        })))
    }
}
