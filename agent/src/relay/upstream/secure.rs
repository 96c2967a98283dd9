//! TLS with upstreams, and who the relay is to them.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme};

use super::super::settings::{Certificate, UpstreamSettings};

/// User and password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: String,
}

impl Credentials {
    /// Reads them from a file of two lines, which only its owner may read.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let show = path.display();
        let fail = |error: io::Error| format!("cannot read {show}: {error}");
        let meta = std::fs::metadata(path).map_err(fail)?;
        if meta.mode() & 0o077 != 0 {
            return Err(format!("{show} can be read by others than its owner; chmod 600 it"));
        }
        let text = std::fs::read_to_string(path).map_err(fail)?;
        let mut lines = text.lines();
        match (lines.next(), lines.next(), lines.next()) {
            (Some(user), Some(password), None) if !user.is_empty() && !password.is_empty() => {
                Ok(Self { user: user.to_owned(), password: password.to_owned() })
            }
            _ => Err(format!("{show} must have two lines: the user, and the password")),
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How an upstream is spoken to in TLS.
pub(super) fn client(settings: &UpstreamSettings) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?;
    let config = if settings.tls.verifies() {
        builder.with_root_certificates(roots(settings.ca_file.as_deref())?).with_no_client_auth()
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))).with_no_client_auth()
    };
    Ok(Arc::new(config))
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        // Where the system keeps them is for the crate to know: it differs from one distribution to the next.
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        return match added {
            0 => Err("the system has no certificate authorities; name some by ca_file".to_owned()),
            _ => Ok(roots),
        };
    };
    for certificate in chain(file)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(roots)
}

/// The certificates of a file.
fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let fail = |error: &dyn std::fmt::Display| format!("cannot read certificates from {}: {error}", file.display());
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(|error| fail(&error))?.collect();
    match read.map_err(|error| fail(&error))? {
        none if none.is_empty() => Err(fail(&"there are none")),
        chain => Ok(chain),
    }
}

/// How the relay's own clients are spoken to in TLS.
pub(in super::super) fn server(certificate: &Certificate) -> Result<Arc<ServerConfig>, String> {
    let chain = chain(&certificate.chain)?;
    let show = certificate.key.display();
    let key = PrivateKeyDer::from_pem_file(&certificate.key)
        .map_err(|error| format!("cannot read the key in {show}: {error}"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| format!("{} and {show} are no certificate and key: {error}", certificate.chain.display()))?;
    Ok(Arc::new(config))
}

/// Takes every certificate: opportunistic TLS keeps those out who only listen (RFC 7435).
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The base64 of some bytes (RFC 4648 §4).
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn base64_as_in_rfc_4648() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (text, base) in cases {
            assert_eq!(base64(text.as_bytes()), base);
        }
    }

    #[test]
    fn credentials_are_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth");
        std::fs::write(&path, "portreeve\nsecret word\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Credentials::read(&path).unwrap_err().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let read = Credentials::read(&path).unwrap();
        assert_eq!((read.user.as_str(), read.password.as_str()), ("portreeve", "secret word"));
        assert!(!format!("{read:?}").contains("secret"));
        std::fs::write(&path, "only one\n").unwrap();
        assert!(Credentials::read(&path).unwrap_err().contains("two lines"));
    }
}
