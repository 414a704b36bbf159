//! TLS: certificates and who trusts whom (RFC 3261 26.3, RFC 5922). Read at start, again when a file changes and when
//! the node is told to; open connections go on with what they began with.

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use cluster::TlsSession;
use model::Timestamp;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{Acceptor, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, Error, ProtocolVersion, RootCertStore, ServerConfig,
};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, client, server};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::StartError;
use crate::settings::TlsSettings;

/// How often the files are looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(2);
/// Largest PEM file, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// Longest subject shown, in characters.
const MAX_SUBJECT: usize = 256;

/// The node's side of TLS.
pub(crate) struct Tls {
    settings: TlsSettings,
    current: ArcSwap<Configs>,
    seen: Mutex<Vec<Seen>>,
}

struct Configs {
    /// `None` without a certificate of ours.
    server: Option<Arc<ServerConfig>>,
    client: Arc<ClientConfig>,
}

/// A file as it was when it was read.
type Seen = Option<(SystemTime, u64)>;

fn fault(key: &'static str, path: &Path, problem: impl Into<String>) -> StartError {
    StartError { key, value: path.display().to_string(), problem: problem.into() }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, StartError> {
    let size = std::fs::metadata(path).map_err(|e| fault(key, path, format!("cannot be read: {e}")))?.len();
    if size > MAX_FILE {
        return Err(fault(key, path, format!("is larger than {MAX_FILE} bytes")));
    }
    std::fs::read(path).map_err(|e| fault(key, path, format!("cannot be read: {e}")))
}

/// The certificates of a PEM file, at least one.
pub(crate) fn certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(key, path)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(fault(key, path, "must hold at least one certificate in PEM")),
        Err(error) => Err(fault(key, path, format!("must be certificates in PEM: {error}"))),
    }
}

fn roots(key: &'static str, path: &Path, into: &mut RootCertStore) -> Result<(), StartError> {
    for certificate in certificates(key, path)? {
        into.add(certificate).map_err(|e| fault(key, path, format!("holds no usable root: {e}")))?;
    }
    Ok(())
}

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The node's certificate and key, when they are set.
fn own(settings: &TlsSettings) -> Result<Option<Own>, StartError> {
    let (Some(cert), Some(key)) = (&settings.cert, &settings.key) else { return Ok(None) };
    let chain = certificates("sip.tls_cert", cert)?;
    let private = PrivateKeyDer::from_pem_slice(&read("sip.tls_key", key)?)
        .map_err(|e| fault("sip.tls_key", key, format!("must be a private key in PEM: {e}")))?;
    Ok(Some((chain, private)))
}

fn configs(settings: &TlsSettings) -> Result<Configs, StartError> {
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    let own = own(settings)?;
    let of_pair = |error: Error| {
        let path = settings.key.as_deref().unwrap_or(Path::new(""));
        fault("sip.tls_key", path, format!("does not go with sip.tls_cert: {error}"))
    };
    let versions = |error: Error| fault("sip.tls", Path::new(""), error.to_string());
    let server = match &own {
        None => None,
        Some((chain, key)) => {
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
            let builder = builder.with_safe_default_protocol_versions().map_err(versions)?;
            let builder = match &settings.client_ca {
                None => builder.with_no_client_auth(),
                Some(path) => {
                    let mut store = RootCertStore::empty();
                    roots("sip.tls_client_ca", path, &mut store)?;
                    let verifier =
                        WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider));
                    let verifier = verifier.build();
                    builder.with_client_cert_verifier(
                        verifier.map_err(|e| fault("sip.tls_client_ca", path, e.to_string()))?,
                    )
                }
            };
            Some(Arc::new(builder.with_single_cert(chain.clone(), key.clone_key()).map_err(of_pair)?))
        }
    };
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &settings.ca {
        roots("sip.tls_ca", path, &mut store)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(versions)?;
    let builder = if store.is_empty() {
        // Nothing is trusted: every carrier's certificate is refused, none passed over.
        builder.with_root_certificates(store)
    } else {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build();
        builder.with_webpki_verifier(verifier.map_err(|e| fault("sip.tls_ca", Path::new(""), e.to_string()))?)
    };
    let client = match own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(of_pair)?,
    };
    Ok(Configs { server, client: Arc::new(client) })
}

impl Tls {
    /// Reads what the settings name.
    pub(crate) fn load(settings: TlsSettings) -> Result<Self, StartError> {
        let seen = Mutex::new(look(&settings));
        let current = ArcSwap::from_pointee(configs(&settings)?);
        Ok(Self { settings, current, seen })
    }

    /// Reads the files again, when `always` or when one has changed. What cannot be used leaves everything as it was.
    pub(crate) fn reload(&self, always: bool) {
        let now = look(&self.settings);
        let changed = std::mem::replace(&mut *self.seen.lock(), now.clone()) != now;
        if !changed && !always {
            return;
        }
        match configs(&self.settings) {
            Ok(configs) => {
                self.current.store(Arc::new(configs));
                if changed {
                    tracing::info!("TLS certificates are read anew; open connections go on");
                }
            }
            Err(error) => tracing::error!(%error, "TLS certificates stay as they were"),
        }
    }

    /// The server's half of a handshake. Whether it goes on is asked when the client has said hello, before anything
    /// is computed; `None` when it does not.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        may_go_on: impl FnOnce() -> bool,
    ) -> io::Result<Option<server::TlsStream<TcpStream>>> {
        let config = self.current.load().server.clone();
        let config = config.ok_or_else(|| io::Error::other("there is no certificate"))?;
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        if !may_go_on() {
            return Ok(None);
        }
        hello.into_stream(config).await.map(Some)
    }

    /// The client's half: the peer must show a certificate for `name` of an issuer we trust.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        name: &str,
    ) -> io::Result<(client::TlsStream<TcpStream>, TlsSession)> {
        let config = Arc::clone(&self.current.load().client);
        let host = name.trim_matches(['[', ']']).trim_end_matches('.');
        let server_name = match host.parse::<IpAddr>() {
            Ok(ip) => ServerName::from(ip),
            Err(_) => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let shaken = TlsConnector::from(config).connect(server_name, stream).await;
        let stream = shaken.map_err(|error| explained(error, host))?;
        let (_, connection) = stream.get_ref();
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        let Described { subject, not_after, .. } = leaf.map(|leaf| describe(leaf)).unwrap_or_default();
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3".to_owned(),
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2".to_owned(),
            other => format!("{other:?}"),
        };
        Ok((stream, TlsSession { version, subject, not_after }))
    }
}

fn look(settings: &TlsSettings) -> Vec<Seen> {
    let files = [&settings.cert, &settings.key, &settings.ca, &settings.client_ca];
    let seen = |path: &PathBuf| std::fs::metadata(path).and_then(|m| Ok((m.modified()?, m.len()))).ok();
    files.into_iter().map(|file| file.as_ref().and_then(seen)).collect()
}

/// A failed handshake in words an operator can act on.
fn explained(error: io::Error, host: &str) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let Some(Error::InvalidCertificate(problem)) = inner else {
        return io::Error::new(error.kind(), format!("the TLS handshake failed: {error}"));
    };
    let words = match problem {
        CertificateError::UnknownIssuer => {
            "is of an issuer that neither the system's roots nor sip.tls_ca hold".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("is not for {host}")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet".to_owned()
        }
        other => format!("cannot be used: {other}"),
    };
    io::Error::new(error.kind(), format!("the peer's TLS certificate {words}"))
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its subject, such as `CN=sip.carrier.example`.
    pub subject: String,
    /// When it ends.
    pub not_after: Timestamp,
    /// Hosts and addresses it is for.
    pub names: Vec<String>,
}

impl Default for Described {
    fn default() -> Self {
        Self { subject: String::new(), not_after: Timestamp(0), names: Vec::new() }
    }
}

/// Reads a certificate in DER; what cannot be read stays empty.
fn describe(der: &[u8]) -> Described {
    use x509_parser::extensions::GeneralName;
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Described::default() };
    let mut subject = String::new();
    let _ = write!(subject, "{}", certificate.subject());
    let clean = |text: &str| text.chars().filter(|c| !c.is_control()).take(MAX_SUBJECT).collect::<String>();
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let names = alternatives.into_iter().flat_map(|found| &found.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(clean(name)),
        GeneralName::IPAddress([a, b, c, d]) => Some(IpAddr::from([*a, *b, *c, *d]).to_string()),
        GeneralName::IPAddress(bytes) => {
            <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string())
        }
        _ => None,
    });
    let names = names.collect();
    let seconds = certificate.validity().not_after.timestamp();
    Described { subject: clean(&subject), not_after: Timestamp(seconds.saturating_mul(1_000_000)), names }
}

/// The first certificate of a PEM file, and whether it goes with the key: what `tandem doctor` looks at.
pub fn check(settings: &TlsSettings) -> Result<Option<Described>, StartError> {
    configs(settings)?;
    let Some(path) = &settings.cert else { return Ok(None) };
    Ok(certificates("sip.tls_cert", path)?.first().map(|der| describe(der)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tokio::net::TcpListener;

    /// A directory with a CA's root, and certificates it has signed.
    struct Authority {
        directory: tempfile::TempDir,
        issuer: CertifiedIssuer<'static, KeyPair>,
    }

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
            Self { directory, issuer }
        }

        fn path(&self, file: &str) -> PathBuf {
            self.directory.path().join(file)
        }

        fn sign(&self, host: &str) {
            let key = KeyPair::generate().unwrap();
            let certificate =
                CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
            std::fs::write(self.path("cert.pem"), certificate.pem()).unwrap();
            std::fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
        }

        fn settings(&self) -> TlsSettings {
            TlsSettings {
                cert: Some(self.path("cert.pem")),
                key: Some(self.path("key.pem")),
                ca: Some(self.path("ca.pem")),
                client_ca: None,
            }
        }
    }

    /// One handshake between two nodes.
    async fn shake(server: &Tls, client: &Tls, name: &str) -> Result<TlsSession, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accept = async { server.accept(listener.accept().await.unwrap().0, || true).await };
        let connect = async { client.connect(TcpStream::connect(address).await.unwrap(), name).await };
        let (accepted, connected) = tokio::join!(accept, connect);
        let (mut connected, session) = connected.map_err(|e| e.to_string())?;
        // In TLS 1.3 a server that wants a certificate says no after the client is done.
        use tokio::io::AsyncReadExt as _;
        match accepted {
            Ok(_) => Ok(session),
            Err(_) => Err(connected.read_u8().await.unwrap_err().to_string()),
        }
    }

    #[tokio::test]
    async fn a_certificate_must_be_for_the_host_and_of_a_known_issuer() {
        let authority = Authority::new();
        authority.sign("sip.carrier.example");
        let node = Tls::load(authority.settings()).unwrap();
        let session = shake(&node, &node, "sip.carrier.example").await.unwrap();
        assert_eq!(session.version, "TLSv1.3");
        assert!(session.not_after > Timestamp::now());
        let other = shake(&node, &node, "sip.other.example").await.unwrap_err();
        assert!(other.contains("is not for sip.other.example"), "{other}");
        let stranger = Tls::load(TlsSettings { ca: None, ..authority.settings() }).unwrap();
        let unknown = shake(&node, &stranger, "sip.carrier.example").await.unwrap_err();
        assert!(unknown.contains("sip.tls_ca"), "{unknown}");
    }

    #[tokio::test]
    async fn a_node_that_asks_for_certificates_takes_no_client_without() {
        let authority = Authority::new();
        authority.sign("localhost");
        let asks = TlsSettings { client_ca: Some(authority.path("ca.pem")), ..authority.settings() };
        let asks = Tls::load(asks).unwrap();
        let with = Tls::load(authority.settings()).unwrap();
        let without = Tls::load(TlsSettings { cert: None, key: None, ..authority.settings() }).unwrap();
        assert!(shake(&asks, &with, "localhost").await.is_ok());
        assert!(shake(&asks, &without, "localhost").await.is_err());
    }

    #[tokio::test]
    async fn new_files_are_taken_and_broken_ones_are_not() {
        let authority = Authority::new();
        authority.sign("old.example");
        let node = Tls::load(authority.settings()).unwrap();
        authority.sign("new.example");
        node.reload(true);
        assert!(shake(&node, &node, "new.example").await.is_ok());
        std::fs::write(authority.path("key.pem"), "not a key").unwrap();
        node.reload(false);
        assert!(shake(&node, &node, "new.example").await.is_ok());
        let broken = Tls::load(authority.settings()).err().unwrap();
        assert_eq!(broken.key, "sip.tls_key");
    }

    #[test]
    fn a_certificate_says_what_it_is_for() {
        let authority = Authority::new();
        authority.sign("sip.node.example");
        let described = check(&authority.settings()).unwrap().unwrap();
        assert_eq!(described.names, ["sip.node.example"]);
        assert!(described.not_after > Timestamp::now());
        let other = Authority::new();
        other.sign("x.example");
        let mixed = TlsSettings { key: Some(other.path("key.pem")), ..authority.settings() };
        assert_eq!(check(&mixed).unwrap_err().key, "sip.tls_key");
    }
}
