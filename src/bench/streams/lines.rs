//! Connections that many streams share, and that can be cut.

use std::{io, net::SocketAddr};

use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Uri};
use tower::service_fn;

use crate::{
    bench::{BenchError, streams::cuttable::Cuttable},
    client::{ClientError, Target},
    proto::v1::timeline_service_client::TimelineServiceClient,
};

/// Streams to a connection: a server takes 1,000.
const STREAMS_A_LINE: usize = 250;
/// So many at the least, so that a cut does not end every stream.
const LINES_MIN: usize = 4;
/// What a slow client takes before it reads: less than a hundred posts.
const SLOW_WINDOW_BYTES: u32 = 16 << 10;

/// A connection, made again after it was cut.
pub(super) struct Line {
    channel: Channel,
    /// Cuts the connection that there is now.
    cut: watch::Sender<CancellationToken>,
}

impl Line {
    /// Enough of them for so many streams.
    pub(super) async fn for_streams(
        address: SocketAddr,
        streams: usize,
    ) -> Result<Vec<Self>, BenchError> {
        let mut lines = Vec::new();
        for _ in 0..streams.div_ceil(STREAMS_A_LINE).max(LINES_MIN) {
            lines.push(Self::connect(address, false).await?);
        }
        Ok(lines)
    }

    /// One that takes little of what its streams do not read.
    pub(super) async fn slow(address: SocketAddr) -> Result<Self, BenchError> {
        Self::connect(address, true).await
    }

    async fn connect(address: SocketAddr, is_slow: bool) -> Result<Self, BenchError> {
        let target = Target::new(format!("http://{address}"));
        let mut endpoint = target.endpoint()?;
        if is_slow {
            endpoint = endpoint.initial_stream_window_size(SLOW_WINDOW_BYTES);
        }
        let (cut, cuts) = watch::channel(CancellationToken::new());
        let connector = service_fn(move |_: Uri| {
            let cut = cuts.borrow().clone();
            async move {
                let connection = TcpStream::connect(address).await?;
                connection.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(Cuttable::new(connection, cut)))
            }
        });
        let channel = endpoint.connect_with_connector(connector).await.map_err(|error| {
            ClientError::Unreachable { target: target.url.clone(), reason: error.to_string() }
        })?;
        Ok(Self { channel, cut })
    }

    pub(super) fn client(&self) -> TimelineServiceClient<Channel> {
        TimelineServiceClient::new(self.channel.clone())
    }

    /// Ends every stream on it where it stands.
    pub(super) fn cut(&self) {
        self.cut.send_replace(CancellationToken::new()).cancel();
    }
}
