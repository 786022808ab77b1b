//! Looks every second whether the disk has room left, and says so where it has not.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{free_space::DiskReserve, telemetry::Readiness};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What the warning is called in `/readyz`.
const WARNING: &str = "disk";

/// Watches until `stop` is cancelled.
pub(super) async fn watch(reserve: DiskReserve, readiness: Readiness, stop: CancellationToken) {
    loop {
        let looking = reserve.clone();
        let has_changed = tokio::task::spawn_blocking(move || looking.look()).await;
        if has_changed.unwrap_or(false) {
            let refusal = reserve.refusal();
            match &refusal {
                Some(refusal) => tracing::error!("{refusal}"),
                None => tracing::info!("the disk has room again: writes are taken"),
            }
            readiness.set_warning(WARNING, refusal);
        }
        if stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
            return;
        }
    }
}
