//! Metrics, liveness and readiness over HTTP.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | every metric, in the text format of OpenMetrics, which Prometheus reads |
//! | `/livez` | 200 as long as the process and its runtime answer at all |
//! | `/readyz` | 200 while the process does what its role says; 503 and why not otherwise. Either is followed by a line for each warning |

use std::{fmt, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text, registry::Registry};

use super::Readiness;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const ELSEWHERE: &str = "there are /metrics, /livez and /readyz here\n";

/// What answers these paths.
pub fn router(registry: Registry, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(metrics).with_state(Arc::new(registry)))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready).with_state(readiness))
        .fallback(|| async { (StatusCode::NOT_FOUND, ELSEWHERE) })
}

async fn metrics(
    State(registry): State<Arc<Registry>>,
) -> Result<impl IntoResponse, (StatusCode, String)> {
    let mut text = String::new();
    text::encode(&mut text, &registry).map_err(|error: fmt::Error| {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics cannot be written: {error}\n"))
    })?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text))
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let (status, mut text) = match readiness.reason() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    };
    for warning in readiness.warnings() {
        text.push_str(&format!("warning: {warning}\n"));
    }
    (status, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_ready_is_503_with_the_reason_until_it_is() {
        let readiness = Readiness::not_yet("it opens its log");
        let ask = || futures::executor::block_on(ready(State(readiness.clone())));
        assert_eq!(
            ask(),
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: it opens its log\n".into())
        );
        readiness.set_unready("7 events are left".to_owned());
        assert_eq!(ask().1, "not ready: 7 events are left\n");
        readiness.set_ready();
        assert_eq!(ask(), (StatusCode::OK, "ready\n".into()));
        readiness.set_warning("disk", Some("it is full".to_owned()));
        assert_eq!(ask(), (StatusCode::OK, "ready\nwarning: it is full\n".into()));
        readiness.set_warning("disk", None);
        assert_eq!(ask().1, "ready\n");
    }
}
