//! Where Redis is and how to get in: read from URLs, all problems at once.
//!
//! ```text
//!  redis://[[user]:password@]host[:port][/database]    one server
//!  rediss://…                                          over TLS
//!  redis://a:6379,redis://b:6379, redis://a:6379?cluster   a Cluster
//! ```
//!
//! A password stands in the URL, or in a file of its own, and nowhere else: not in an error,
//! not in what `Debug` prints. What would break the list of URLs is percent-encoded in it, as
//! a comma is with `%2C`.

use std::{fmt, fs, path::Path, sync::Arc};

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};
use tokio_rustls::rustls::ClientConfig;

use super::{slots::NodeAddress, tls};

/// A Redis that Roost may use: one server, or some nodes of a Cluster.
#[derive(Clone)]
pub struct RedisConfig {
    pub(super) urls: Vec<ConnectionInfo>,
    pub(super) seeds: Vec<NodeAddress>,
    pub(super) cluster: bool,
    pub(super) tls: Option<Arc<ClientConfig>>,
    ca_pem: Option<Vec<u8>>,
}

/// What to do where a user or a password may have broken a URL.
const ENCODING: &str = "if a user or a password has one of @ : / # ? % or a comma, write it \
                        percent-encoded (%40 %3A %2F %23 %3F %25 %2C), or give the password as a \
                        file with --redis-password-file";

/// What is wrong with the settings, all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address of Redis cannot be used: {}", problems.join("; "))]
pub struct RedisConfigError {
    /// One sentence each, none of which holds a password.
    pub problems: Vec<String>,
}

impl RedisConfig {
    /// Reads comma-separated URLs and, where the server's certificate is not
    /// signed by an authority that this machine trusts, the PEM file of the one
    /// that signed it.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn from_urls(urls: &str, ca_file: Option<&Path>) -> Result<Self, RedisConfigError> {
        let mut problems = Vec::new();
        let texts: Vec<&str> = urls.split(',').map(str::trim).collect();
        let mut asks_for_cluster = false;
        let mut is_broken_by_login = false;
        let mut infos = Vec::new();
        for (place, text) in texts.iter().enumerate() {
            match read_url(text) {
                Ok((info, cluster)) => {
                    asks_for_cluster |= cluster;
                    infos.push(info);
                }
                Err(reason) => {
                    is_broken_by_login |= text.contains('@');
                    problems.push(match texts.len() {
                        1 => format!("the URL {reason}"),
                        count => format!("URL {} of {count} {reason}", place + 1),
                    });
                }
            }
        }
        if is_broken_by_login {
            problems.push(ENCODING.to_owned());
        }
        let cluster = asks_for_cluster || texts.len() > 1;
        problems.extend(disagreements(&infos, cluster));

        let over_tls = infos.iter().any(is_tls);
        let ca_pem = ca_file.and_then(|file| match fs::read(file) {
            Ok(pem) => Some(pem),
            Err(error) => {
                problems.push(format!("the CA file {} cannot be read: {error}", file.display()));
                None
            }
        });
        if ca_file.is_some() && !over_tls && problems.is_empty() {
            problems.push("a CA file is of use only with rediss:// URLs".to_owned());
        }
        let tls = over_tls.then(|| tls::client_config(ca_pem.as_deref())).transpose();
        let tls = tls.unwrap_or_else(|reason| {
            problems.push(reason);
            None
        });

        if !problems.is_empty() {
            return Err(RedisConfigError { problems });
        }
        let seeds = infos.iter().filter_map(address).collect();
        Ok(Self { urls: infos, seeds, cluster, tls, ca_pem })
    }

    /// The same with this user and this password, which then stand in no URL.
    ///
    /// # Errors
    /// If a URL has one too.
    pub fn with_login(
        self,
        user: Option<&str>,
        password: Option<&str>,
    ) -> Result<Self, RedisConfigError> {
        let mut problems = Vec::new();
        if user.is_some() && self.username().is_some() {
            problems.push("a URL names a user, and --redis-user another".to_owned());
        }
        if password.is_some() && self.password().is_some() {
            problems.push("a URL has a password, and --redis-password-file another".to_owned());
        }
        if !problems.is_empty() {
            return Err(RedisConfigError { problems });
        }
        Ok(self.map_login(|mut login| {
            if let Some(user) = user {
                login = login.set_username(user);
            }
            match password {
                Some(password) => login.set_password(password),
                None => login,
            }
        }))
    }

    /// The same as one server without databases.
    pub(super) fn of_one_server(&self) -> Self {
        Self { cluster: false, ..self.clone() }.map_login(|login| login.set_db(0))
    }

    /// The same without a user and a password.
    pub(super) fn without_login(self) -> Self {
        self.map_login(|login| RedisConnectionInfo::default().set_db(login.db()))
    }

    fn map_login(mut self, map: impl Fn(RedisConnectionInfo) -> RedisConnectionInfo) -> Self {
        let urls = self.urls.into_iter();
        self.urls = urls
            .map(|url| {
                let login = map(url.redis_settings().clone());
                url.set_redis_settings(login)
            })
            .collect();
        self
    }

    /// Whether it is a Cluster.
    pub fn is_cluster(&self) -> bool {
        self.cluster
    }

    /// Whether a connection has more to say than commands: over TLS, who it is, or which
    /// database it is for.
    pub fn needs_introduction(&self) -> bool {
        self.tls.is_some() || self.password().is_some() || self.database() != 0
    }

    /// The URLs as the redis crate takes them, for its own connections.
    pub fn connection_infos(&self) -> &[ConnectionInfo] {
        &self.urls
    }

    /// The authority that signed the server's certificate, in PEM, if the
    /// machine's own trust is not to be asked.
    pub fn ca_pem(&self) -> Option<&[u8]> {
        self.ca_pem.as_deref()
    }

    /// Whether a password is set.
    pub fn has_password(&self) -> bool {
        self.password().is_some()
    }

    pub(super) fn username(&self) -> Option<&str> {
        self.urls.first()?.redis_settings().username()
    }

    pub(super) fn password(&self) -> Option<&str> {
        self.urls.first()?.redis_settings().password()
    }

    pub(super) fn database(&self) -> i64 {
        self.urls.first().map_or(0, |url| url.redis_settings().db())
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("seeds", &self.seeds)
            .field("cluster", &self.cluster)
            .field("tls", &self.tls.is_some())
            .field("user", &self.username())
            .field("database", &self.database())
            .finish_non_exhaustive()
    }
}

/// One URL and whether it asks for a Cluster, or what is wrong with it.
fn read_url(text: &str) -> Result<(ConnectionInfo, bool), String> {
    if !text.starts_with("redis://") && !text.starts_with("rediss://") {
        return Err("does not begin with redis:// or rediss://".to_owned());
    }
    let url = redis::parse_redis_url(text)
        .ok_or("is not of the form redis://[user:password@]host[:port][/database]")?;
    let mut cluster = false;
    for (option, value) in url.query_pairs() {
        match (&*option, &*value) {
            ("cluster", "" | "true") => cluster = true,
            ("cluster", _) => return Err("has a value for ?cluster, which takes none".to_owned()),
            _ => return Err("has an option other than ?cluster".to_owned()),
        }
    }
    if url.fragment().is_some() {
        return Err("has a part after #; a certificate is always verified".to_owned());
    }
    // The text of the error is the crate's own and may one day quote the URL.
    let info = url
        .into_connection_info()
        .map_err(|_| "needs the form redis://[user:password@]host[:port][/database]".to_owned())?;
    if info.redis_settings().db() < 0 {
        return Err("has a negative database".to_owned());
    }
    Ok((info, cluster))
}

/// What the URLs do not have in common though they must.
fn disagreements(infos: &[ConnectionInfo], cluster: bool) -> Vec<String> {
    let mut problems = Vec::new();
    let Some((first, others)) = infos.split_first() else { return problems };
    let redis = first.redis_settings();
    if others.iter().any(|other| is_tls(other) != is_tls(first)) {
        problems.push("some URLs are redis:// and some rediss://".to_owned());
    }
    if others.iter().any(|other| {
        let other = other.redis_settings();
        (other.username(), other.password()) != (redis.username(), redis.password())
    }) {
        problems.push("the URLs have different users or passwords".to_owned());
    }
    if cluster && infos.iter().any(|info| info.redis_settings().db() != 0) {
        problems.push("a URL names a database, and a Cluster has only database 0".to_owned());
    }
    problems
}

fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

fn address(info: &ConnectionInfo) -> Option<NodeAddress> {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some(NodeAddress::new(host, *port))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(urls: &str) -> Vec<String> {
        RedisConfig::from_urls(urls, None).expect_err(urls).problems
    }

    #[test]
    fn urls_are_read() {
        let config =
            RedisConfig::from_urls("redis://ann:s%2Cecret@db.example:7000/3", None).unwrap();
        assert_eq!(config.seeds, [NodeAddress::new("db.example", 7000)]);
        assert_eq!((config.username(), config.password()), (Some("ann"), Some("s,ecret")));
        assert_eq!((config.database(), config.cluster), (3, false));

        let authority =
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/redis_push/tls/ca.pem"));
        let config = RedisConfig::from_urls("rediss://[::1]?cluster", Some(authority)).unwrap();
        assert_eq!(config.seeds, [NodeAddress::new("::1", 6379)]);
        assert!(config.cluster && config.tls.is_some());
        assert!(RedisConfig::from_urls("redis://a, redis://b:1", None).unwrap().cluster);
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let found =
            problems("redis://a/x,http://b,redis://u:p@c/1,redis://d#insecure,redis://e?db=1");
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(found[1].starts_with("URL 2 of 5 does not begin with redis://"), "{found:?}");
        assert!(found[4].contains("only database 0"), "{found:?}");
        let no_tls = RedisConfig::from_urls("redis://a", Some(Path::new("Cargo.toml")));
        assert!(no_tls.unwrap_err().to_string().contains("rediss://"));
        for bad in ["", "redis://", "redis://a:99999", "redis://0.0.0.0", "redis://a/-1"] {
            assert_eq!(problems(bad).len(), 1, "{bad}");
        }
        let missing = RedisConfig::from_urls("rediss://a", Some(Path::new("/does/not/exist.pem")));
        assert!(missing.unwrap_err().to_string().contains("exist.pem"));
    }

    #[test]
    fn login_of_its_own_is_used_and_stands_in_no_url() {
        let config = |url| RedisConfig::from_urls(url, None).expect("good");
        let with = config("redis://ann@a:1/2").with_login(None, Some("s/e#c@r:e,t?%")).unwrap();
        assert_eq!((with.username(), with.password()), (Some("ann"), Some("s/e#c@r:e,t?%")));
        assert!(with.needs_introduction() && with.database() == 2);
        let with = config("redis://a,redis://b").with_login(Some("ann"), Some("x")).unwrap();
        let logins = with.connection_infos().iter().map(|info| info.redis_settings());
        assert!(logins.clone().count() == 2);
        assert!(
            logins.into_iter().all(|it| it.username().zip(it.password()) == Some(("ann", "x")))
        );
        let twice = config("redis://ann:hunter2@a").with_login(Some("bob"), Some("hunter3"));
        let error = twice.expect_err("two of each");
        assert_eq!(error.problems.len(), 2, "{error}");
        assert!(!error.to_string().contains("hunter"), "{error}");
        assert!(config("redis://a").with_login(None, None).unwrap().password().is_none());
    }

    #[test]
    fn url_broken_by_its_password_says_how_to_encode_it() {
        for url in [
            "redis://:p@ss:w/rd#1@127.0.0.1:17300",
            "redis://:p/x@a:1",
            "redis://:p#x@a:1",
            "redis://:p?x@a:1",
            "redis://:12/x@a:1",
            "redis://ann:12/x@a:1",
            "redis://ann:12#x@a:1",
            "redis://ann:12?x@a:1",
            "redis://:hun,ter2@a",
        ] {
            let error = RedisConfig::from_urls(url, None).expect_err(url).to_string();
            assert!(error.contains("%2F") && error.contains("--redis-password-file"), "{error}");
        }
        let encoded = "redis://:%40%3A%2F%23%3F%25%2C@a:1";
        let config = RedisConfig::from_urls(encoded, None).expect("encoded");
        assert_eq!(config.password(), Some("@:/#?%,"));
        assert!(!problems("redis://a/x")[0].contains("%2F"), "no password is in it");
    }

    #[test]
    fn a_password_is_never_shown() {
        let config = RedisConfig::from_urls("redis://ann:hunter2@a", None).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        for urls in [
            "redis://ann:hunter2@a:port",
            "redis://ann:hunter2@a?x",
            "redis://ann:hunter2@a/hunter2",
            "redis://:hun,hunter2@a",
            "http://ann:hunter2@a",
            "redis://ann:hunter2@",
        ] {
            let error = RedisConfig::from_urls(urls, None).expect_err(urls);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
