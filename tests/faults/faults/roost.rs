//! Faults of Roost's own processes.

use std::{sync::Arc, time::Instant};

use serde_json::json;
use tokio::time;

use super::World;
use crate::{
    failure::Result,
    fleet::{API_NODES, Node, SESSION},
    plan::Draws,
    record::{Details, details},
};

/// A worker that is removed from so few is replaced.
const WORKERS_MIN: usize = 2;

impl World {
    pub(super) async fn kill_worker(&self, node: &Node, draws: &mut Draws) -> Result<Details> {
        let away = draws.ms(0..3_000);
        node.kill()?;
        time::sleep(away).await;
        node.start()?;
        Ok(details(json!({ "what": node.name, "away_seconds": away.as_secs_f64() })))
    }

    pub(super) async fn pause_worker(&self, node: &Node, draws: &mut Draws) -> Result<Details> {
        let paused = SESSION + draws.ms(2_000..6_000);
        node.signal("STOP");
        time::sleep(paused).await;
        node.signal("CONT");
        Ok(details(json!({ "what": node.name, "paused_seconds": paused.as_secs_f64() })))
    }

    pub(super) async fn add_worker(&self) -> Result<Details> {
        let node = self.fleet.add_worker().await?;
        let workers = self.fleet.workers().len();
        Ok(details(json!({ "what": node.name, "workers": workers })))
    }

    pub(super) async fn remove_worker(&self, node: &Arc<Node>) -> Result<Details> {
        self.fleet.forget_worker(node);
        let in_order = node.end().await?;
        let replaced_by = if self.fleet.workers().len() < WORKERS_MIN {
            Some(self.fleet.add_worker().await?.name.clone())
        } else {
            None
        };
        let workers = self.fleet.workers().len();
        Ok(details(json!({
            "what": node.name,
            "in_order": in_order,
            "replaced_by": replaced_by,
            "workers": workers,
        })))
    }

    pub(super) async fn kill_api(&self, draws: &mut Draws) -> Result<Details> {
        let node = &self.fleet.api_nodes[draws.number(0..u64::from(API_NODES)) as usize];
        let away = draws.ms(0..2_000);
        node.kill()?;
        time::sleep(away).await;
        node.start()?;
        let begun = Instant::now();
        node.serves().await?;
        Ok(details(json!({
            "what": node.name,
            "away_seconds": away.as_secs_f64(),
            "served_after_seconds": begun.elapsed().as_secs_f64(),
        })))
    }
}
