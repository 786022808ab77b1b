//! Whom a connection over TLS believes.

use std::sync::Arc;

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Trusts the authorities in `ca_pem`, or else those that the machine trusts, as
/// the redis crate does on its connections. Certificates of clients are not
/// supported.
///
/// # Errors
/// A sentence about what is wrong with the authorities.
pub fn client_config(ca_pem: Option<&[u8]>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match ca_pem {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate =
                    certificate.map_err(|error| format!("the CA file is not PEM: {error}"))?;
                roots
                    .add(certificate)
                    .map_err(|error| format!("the CA file holds no authority: {error}"))?;
            }
            if roots.is_empty() {
                return Err("the CA file holds no certificate".to_owned());
            }
        }
        None => {
            let native = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(native.certs);
            if roots.is_empty() {
                return Err("this machine trusts no authority, so that no certificate can be \
                            verified; install ca-certificates or name a CA file"
                    .to_owned());
            }
        }
    }
    with_roots(roots)
}

/// Trusts no authority: to learn whether a server speaks TLS, and no more.
///
/// # Errors
/// A sentence about why TLS cannot be used.
pub fn of_nobody_trusted() -> Result<Arc<ClientConfig>, String> {
    with_roots(RootCertStore::empty())
}

fn with_roots(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    // The provider is named, so that another one in the program changes nothing.
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
        .map_err(|error| format!("TLS cannot be used: {error}"))
}
