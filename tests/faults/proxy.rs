//! A TCP proxy that can break its connections, refuse new ones, and be slow.

use std::{net::SocketAddr, time::Duration};

use futures::future;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time,
};

use crate::failure::{Doing, Result};

/// What happens to what passes; a connection lives while `cuts` stays the same.
#[derive(Clone, Copy, Default)]
struct State {
    cuts: u64,
    refuses: bool,
    /// Before every piece, in each direction.
    delay: Duration,
}

pub struct Proxy {
    pub address: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(from: SocketAddr, to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(from).await.doing(format_args!("a proxy on {from}"))?;
        let address = listener.local_addr().doing("a proxy's address")?;
        let (state, seen) = watch::channel(State::default());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !seen.borrow().refuses {
                    tokio::spawn(pass(client, to, seen.clone()));
                }
            }
        });
        Ok(Self { address, state, task })
    }

    /// One for each pair of addresses.
    pub async fn start_all(from: &[SocketAddr], to: &[SocketAddr]) -> Result<Vec<Self>> {
        future::try_join_all(from.iter().zip(to).map(|(from, to)| Self::start(*from, *to))).await
    }

    /// Breaks all connections, and new ones as well for so long.
    pub async fn cut(&self, refused_for: Duration) {
        self.state.send_modify(|state| {
            state.cuts += 1;
            state.refuses = true;
        });
        time::sleep(refused_for).await;
        self.state.send_modify(|state| state.refuses = false);
    }

    /// Holds everything up, in each direction, for so long.
    pub async fn delay(&self, delay: Duration, lasts: Duration) {
        self.state.send_modify(|state| state.delay = delay);
        time::sleep(lasts).await;
        self.state.send_modify(|state| state.delay = Duration::ZERO);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, to: SocketAddr, mut state: watch::Receiver<State>) {
    // Who is refused sees a connection that is closed.
    let Ok(server) = TcpStream::connect(to).await else { return };
    // A connection without it is slower, and no less right.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let begun = state.borrow().cuts;
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    tokio::select! {
        () = copy(from_client, to_server, state.clone()) => {}
        () = copy(from_server, to_client, state.clone()) => {}
        _ = state.wait_for(|state| state.cuts != begun) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: watch::Receiver<State>) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut piece).await {
        let delay = state.borrow().delay;
        if !delay.is_zero() {
            time::sleep(delay).await;
        }
        if to.write_all(&piece[..len]).await.is_err() {
            return;
        }
    }
}
