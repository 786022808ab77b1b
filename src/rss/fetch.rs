//! Fetching a feed over HTTP or HTTPS, with a limit to everything that a server can send.
//!
//! Redirects are followed here, so that every hop is checked and counted, and a body is
//! unpacked as it comes, so that a small one does not become a large one unseen. There are
//! no cookies, no proxies, and no connections kept: a feed is fetched every few minutes.

use std::{error::Error, iter, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls_native_certs::load_native_certs;
use tokio::time::timeout;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use url::Url;

use super::{
    RssError,
    body::Body,
    connect::Connector,
    destination::{AllowedHosts, ForbiddenAddress},
    exchange::{
        FetchError, REDIRECTS_MAX, check_status, is_permanent, is_redirect, next_hop, quote,
        request, text, validators,
    },
    shown_url::shown,
    state::Validators,
};

/// The longest head of an answer, and the most headers in it. Both are far more than servers
/// send, and less than the 24,576 headers that the map of them can hold.
const HEAD_BYTES_MAX: usize = 256 << 10;
const HEADERS_MAX: usize = 8_192;

/// A feed, as it came.
#[derive(Debug)]
pub(super) struct Answer {
    /// Where it was in the end.
    pub(super) url: Url,
    /// The header of that name.
    pub(super) content_type: Option<String>,
    pub(super) body: Vec<u8>,
    pub(super) validators: Option<Validators>,
    /// Where it has moved to, if every redirect was for good.
    pub(super) moved_to: Option<String>,
}

/// A client for feeds.
pub(super) struct Fetcher {
    client: Client<HttpsConnector<Connector>, Empty<Bytes>>,
    timeout: Duration,
}

impl Fetcher {
    /// One that gives up after `timeout`, for a feed with all its redirects, and that connects
    /// to public addresses and to `allowed` ones.
    ///
    /// # Errors
    /// If TLS cannot be used.
    pub(super) fn new(timeout: Duration, allowed: AllowedHosts) -> Result<Self, RssError> {
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls()?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Connector::new(Arc::new(allowed)));
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http1_max_headers(HEADERS_MAX)
            // As curl, browsers and Go do. A connection brings one answer only, so that nothing
            // can hide behind another one's end.
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_ignore_invalid_headers_in_responses(true)
            .build(https);
        Ok(Self { client, timeout })
    }

    /// Fetches a feed; `None` if it has not changed since `known`. `now` is in seconds since
    /// 1970.
    ///
    /// # Errors
    /// If there is none.
    pub(super) async fn fetch(
        &self,
        feed: &Url,
        known: Option<&Validators>,
        now: u64,
    ) -> Result<Option<Answer>, FetchError> {
        let fetched = timeout(self.timeout, self.follow(feed, known, now)).await;
        fetched.unwrap_or(Err(FetchError::Slow(self.timeout)))
    }

    /// Follows redirects to the feed.
    async fn follow(
        &self,
        feed: &Url,
        known: Option<&Validators>,
        now: u64,
    ) -> Result<Option<Answer>, FetchError> {
        let (mut url, mut for_good) = (feed.clone(), true);
        for _ in 0..=REDIRECTS_MAX {
            // Another address may use the same names for other answers.
            let known = known.filter(|known| known.url == url.as_str());
            let response = self.client.request(request(&url, known)?).await;
            let response = response.map_err(|error| failure(&url, &error))?;
            let status = response.status();
            if is_redirect(status) {
                for_good &= is_permanent(status);
                url = next_hop(&url, response.headers())?;
                continue;
            }
            if status == StatusCode::NOT_MODIFIED && known.is_some() {
                return Ok(None);
            }
            check_status(status, response.headers(), now)?;
            let moved_to = (for_good && url != *feed).then(|| url.to_string());
            let validators = validators(&url, response.headers());
            let content_type = text(response.headers(), &header::CONTENT_TYPE).map(str::to_owned);
            let body = read(response).await?;
            return Ok(Some(Answer { url, content_type, body, validators, moved_to }));
        }
        Err(FetchError::EndlessRedirect(shown(&url)))
    }
}

fn tls() -> Result<ClientConfig, RssError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(load_native_certs().certs);
    if roots.is_empty() {
        tracing::warn!(
            "this machine trusts no authority, so that no feed can be read over https; install \
             ca-certificates, or name a file of certificates in SSL_CERT_FILE"
        );
    }
    // The provider is named, so that another one in the program changes nothing.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| RssError::Tls(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

async fn read<B>(response: Response<B>) -> Result<Vec<u8>, FetchError>
where
    B: http_body::Body<Data = Bytes, Error: Error + 'static> + Unpin,
{
    let mut body = Body::new(text(response.headers(), &header::CONTENT_ENCODING));
    let mut incoming = response.into_body();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| FetchError::Broken(root_cause(&error)))?;
        if let Ok(data) = frame.into_data() {
            body.push(&data)?;
        }
    }
    Ok(body.finish()?)
}

/// Why nothing came from a URL.
fn failure(url: &Url, error: &(dyn Error + 'static)) -> FetchError {
    let mut causes = iter::successors(Some(error), |&error| error.source());
    match causes.find_map(|cause| cause.downcast_ref::<ForbiddenAddress>()) {
        Some(forbidden) => FetchError::Forbidden { url: shown(url), source: forbidden.clone() },
        None => FetchError::Broken(root_cause(error)),
    }
}

/// The innermost error is the one that says something.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    quote(&cause.to_string())
}
