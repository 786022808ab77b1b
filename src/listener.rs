//! Accepts connections, as many as the process can serve, and bounds how long one may
//! stay without being of use.
//!
//! ```text
//!  listener ─► accept ─► slot? ─► (TLS) ─► HTTP/1 or HTTP/2 over a guarded socket
//!                │         └─ full: evict the oldest idle connection, or close at once
//!                └─ EMFILE: evict an idle connection, wait, go on
//! ```
//!
//! Both listeners of a process, gRPC and metrics, use it. What is spoken on a connection is
//! the caller's: it gets the socket and a [`ConnectionSlot`], so a TLS handshake can stand
//! between the two.

mod accept;
mod activity;
mod descriptors;
mod guarded_io;
mod http1;
mod slots;

use std::time::Duration;

pub use self::{
    accept::accept,
    activity::Activity,
    descriptors::{Descriptors, raise_descriptor_limit},
    guarded_io::GuardedIo,
    http1::serve_http1,
    slots::{ConnectionSlot, ConnectionSlots, Refusal},
};

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionTimes {
    /// From accepting a connection until its client has sent the preface of HTTP/2.
    pub handshake_max: Duration,
    /// Until the headers of an HTTP/1 request are complete; also how long such a connection
    /// waits for its next request.
    pub header_max: Duration,
    /// Without a call. The connection is then closed in order, and clients connect again.
    pub idle_max: Duration,
    /// Without the socket taking a byte of what is to be written.
    pub write_stall_max: Duration,
    /// From one HTTP/2 PING to the next.
    pub ping_interval: Duration,
    /// Until a PING is answered; otherwise the connection is closed.
    pub ping_timeout: Duration,
}

impl Default for ConnectionTimes {
    fn default() -> Self {
        Self {
            handshake_max: Duration::from_secs(10),
            header_max: Duration::from_secs(10),
            idle_max: Duration::from_secs(15 * 60),
            write_stall_max: Duration::from_secs(20),
            ping_interval: Duration::from_secs(60),
            ping_timeout: Duration::from_secs(20),
        }
    }
}
