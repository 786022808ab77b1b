//! The loop that accepts connections. It ends only when it is told to.

use std::{
    future::Future,
    io,
    time::{Duration, Instant},
};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{ConnectionSlot, ConnectionSlots};

/// How long to wait where the system has no room for another connection.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(50);
/// How often the log says so at most.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Accepts connections until `stop`, and serves each in a task of its own; waits until all of
/// them have ended. Where there is no slot for one it is closed at once.
pub async fn accept<F>(
    listener: TcpListener,
    slots: ConnectionSlots,
    stop: CancellationToken,
    serve: impl Fn(TcpStream, ConnectionSlot) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let tasks = TaskTracker::new();
    let mut warned_at: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let now = Instant::now();
        match accepted {
            Ok((socket, peer)) => {
                // A socket that cannot be set up is broken, which its first read will tell.
                let _ = socket.set_nodelay(true);
                match slots.take(peer.ip(), now) {
                    Ok(slot) => drop(tasks.spawn(serve(socket, slot))),
                    Err(refusal) => {
                        tracing::debug!(%peer, ?refusal, "a connection is refused");
                    }
                }
            }
            Err(error) if is_of_connection(&error) => {}
            // Out of descriptors or memory. The connection waits in the listener's backlog.
            Err(error) => {
                slots.metrics().accept_failures.inc();
                slots.evict_idle(now);
                if warned_at.is_none_or(|at| now.duration_since(at) >= WARN_EVERY) {
                    warned_at = Some(now);
                    tracing::warn!(
                        %error,
                        "no connection can be accepted; raise the limit of open files (ulimit -n)"
                    );
                }
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(NO_ROOM_PAUSE) => {}
                }
            }
        }
    }
    // New clients are to hear at once that nothing listens.
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// Whether accepting failed because of the connection itself.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
