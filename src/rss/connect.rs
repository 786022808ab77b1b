//! Connecting to the web server of a feed, at addresses that a feed may be fetched from.
//!
//! The check is made on the addresses that are then connected to, for every connection: a
//! name is resolved once, so that its second answer cannot differ from the one that was
//! checked. Every redirect makes a connection of its own.

use std::{
    error::Error,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    vec,
};

use http::Uri;
use hyper_util::{
    client::legacy::connect::{
        HttpConnector,
        dns::{GaiResolver, Name},
    },
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower::Service;

use super::destination::AllowedHosts;

type BoxError = Box<dyn Error + Send + Sync>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Connects to globally reachable and allowed addresses only.
#[derive(Clone)]
pub(super) struct Connector {
    http: HttpConnector<Resolver>,
    allowed: Arc<AllowedHosts>,
}

impl Connector {
    pub(super) fn new(allowed: Arc<AllowedHosts>) -> Self {
        let resolver = Resolver { system: GaiResolver::new(), allowed: Arc::clone(&allowed) };
        let mut http = HttpConnector::new_with_resolver(resolver);
        // The scheme is looked at before, and https comes here too.
        http.enforce_http(false);
        Self { http, allowed }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = BoxFuture<TokioIo<TcpStream>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(context).map_err(BoxError::from)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        // The connector asks its resolver for names only.
        let checked = match uri.host().and_then(|host| Some((host, literal(host)?))) {
            Some((host, address)) => self.allowed.check(host, address),
            None => Ok(()),
        };
        match checked {
            Ok(()) => {
                let connecting = self.http.call(uri);
                Box::pin(async move { connecting.await.map_err(BoxError::from) })
            }
            Err(forbidden) => Box::pin(async move { Err(BoxError::from(forbidden)) }),
        }
    }
}

/// Resolves names as the system does, to those addresses that are allowed.
#[derive(Clone)]
struct Resolver {
    system: GaiResolver,
    allowed: Arc<AllowedHosts>,
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<vec::IntoIter<SocketAddr>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.system.poll_ready(context).map_err(BoxError::from)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (resolving, allowed) = (self.system.call(name.clone()), Arc::clone(&self.allowed));
        Box::pin(async move {
            let addresses = allowed.filter(name.as_str(), resolving.await?)?;
            Ok(addresses.into_iter())
        })
    }
}

/// The address that a host of a URL is, with an IPv6 one in brackets.
fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}
