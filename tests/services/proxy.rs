//! A TCP proxy that can be cut.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// Passes connections on from one address to another, until it is cut.
pub struct Proxy {
    from: SocketAddr,
    to: SocketAddr,
    running: Option<JoinHandle<()>>,
}

impl Proxy {
    pub async fn start(from: SocketAddr, to: SocketAddr) -> Self {
        let mut proxy = Self { from, to, running: None };
        proxy.mend().await;
        proxy
    }

    /// Breaks all connections, and refuses new ones.
    pub async fn cut(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            // Its end is what was asked for.
            let _ = running.await;
        }
    }

    /// Takes connections again.
    pub async fn mend(&mut self) {
        let listener = TcpListener::bind(self.from).await.unwrap();
        let to = self.to;
        self.running = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut server = TcpStream::connect(to).await?;
                    client.set_nodelay(true)?;
                    server.set_nodelay(true)?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        }));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}
