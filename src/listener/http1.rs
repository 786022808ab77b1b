//! A connection of HTTP/1.

use std::convert::Infallible;

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::{ConnectionSlot, ConnectionTimes, GuardedIo};

/// Bytes of a request's head, and of what is buffered of an answer.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Answers the requests of one connection with `service` until its client goes, it is idle
/// for too long or makes room for another; once `stop` is cancelled the request under way is
/// the last.
pub async fn serve_http1<C, S, B>(
    connection: C,
    slot: ConnectionSlot,
    service: S,
    times: ConnectionTimes,
    stop: CancellationToken,
) where
    C: AsyncRead + AsyncWrite + Unpin + Send,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let activity = slot.activity().clone();
    let io = GuardedIo::new(connection, activity, times.write_stall_max);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(times.header_max)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let mut is_stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if ended.is_err_and(|error| error.is_timeout()) {
                    slot.closed("headers");
                }
                return;
            }
            () = slot.evicted() => return,
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
