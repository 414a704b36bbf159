//! The connection to an agent: to an address that tenants may reach, WebSocket or AudioSocket, read and written by one
//! task without either waiting for the other.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{Sink as _, Stream as _};
use model::{CarrierAddress, PrivateTargets, Secret, Timestamp};
use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};

use super::dialect::Outgoing;
use crate::audiosocket::{Frames, Unread, keep_alive};
use crate::edge::USER_AGENT;

/// Largest message taken: two minutes of PCM at 16 kHz.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// What may wait to be written: several seconds of the caller in any dialect.
const MAX_UNWRITTEN: usize = 1024 * 1024;
/// Read at once: several frames of audio. The buffer is cleared each time, so a larger one costs.
const READ_BUFFER: usize = 4 * 1024;
/// Longest a name may take to resolve, and a connection to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// Where an agent is, and how we show who we are.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// `ws://` or `wss://`.
    WebSocket { url: String, proof: Proof },
    /// `host:port`, raw TCP in frames of AudioSocket.
    AudioSocket { address: String },
}

/// What the upgrade carries.
#[derive(Debug, Clone)]
pub(super) enum Proof {
    None,
    /// `X-Twilio-Signature`: HMAC-SHA1 of the URL, in Base64.
    Twilio(Secret),
    /// `X-Tandem-Signature: t=…,v1=…`: HMAC-SHA256 of the time and the URL, in hexadecimal.
    Tandem(Secret),
    /// `Authorization: Bearer`, and the header of OpenAI's beta.
    Bearer {
        key: Option<Secret>,
        beta: bool,
    },
}

/// A received message.
#[derive(Debug)]
pub(super) enum Frame {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// A sign of life that says nothing.
    Alive,
}

/// Why nothing more comes. One sentence without a final full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gone {
    /// The agent said goodbye.
    pub(super) clean: bool,
    /// The connection broke, which may be the network's fault: another one may do better.
    pub(super) lost: bool,
    pub(super) why: String,
}

impl Gone {
    /// The agent is at fault.
    pub(super) fn broken(why: impl Into<String>) -> Self {
        Self { clean: false, lost: false, why: why.into() }
    }

    fn lost(why: impl Into<String>) -> Self {
        Self { clean: false, lost: true, why: why.into() }
    }
}

/// A TCP stream with or without TLS.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// An open connection.
pub(super) enum Connection {
    WebSocket(Box<WebSocketStream<Wire>>),
    AudioSocket(Frames),
}

/// Connects. The error is one sentence without a final full stop, and holds no secret.
pub(super) async fn connect(target: &Target, targets: &PrivateTargets) -> Result<Connection, String> {
    match target {
        Target::AudioSocket { address } => {
            let address: CarrierAddress =
                address.parse().map_err(|_| format!("{address:?} is not an address with a port"))?;
            let port = address.port.unwrap_or(0);
            let stream = dial(&address.host, port, targets).await?;
            Ok(Connection::AudioSocket(Frames::new(stream)))
        }
        Target::WebSocket { url, proof } => {
            let mut request = url
                .as_str()
                .into_client_request()
                .map_err(|error| format!("the agent's URL cannot be used: {error}"))?;
            let uri = request.uri().clone();
            let secure = uri.scheme_str() == Some("wss");
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
            let headers = request.headers_mut();
            headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
            for (name, value) in proof.headers(url) {
                let mut value = HeaderValue::try_from(value)
                    .map_err(|_| "the agent's secret cannot stand in a header".to_owned())?;
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            let stream = dial(&host, port, targets).await?;
            let wire = if secure { tls(stream, host).await? } else { Wire::Plain(stream) };
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_BUFFER)
                .write_buffer_size(0)
                .max_write_buffer_size(MAX_UNWRITTEN)
                .max_message_size(Some(MAX_MESSAGE))
                .max_frame_size(Some(MAX_MESSAGE));
            let upgrade = tokio_tungstenite::client_async_with_config(request, wire, Some(config));
            match tokio::time::timeout(CONNECT, upgrade).await {
                Ok(Ok((socket, _))) => Ok(Connection::WebSocket(Box::new(socket))),
                Ok(Err(Error::Http(answer))) => {
                    Err(format!("the agent answered the WebSocket upgrade with {}", answer.status().as_u16()))
                }
                Ok(Err(error)) => Err(format!("the agent did not take the WebSocket upgrade: {error}")),
                Err(_) => Err("the agent did not answer the WebSocket upgrade within 5 s".to_owned()),
            }
        }
    }
}

impl Proof {
    fn headers(&self, url: &str) -> Vec<(&'static str, String)> {
        match self {
            Self::None => Vec::new(),
            Self::Twilio(secret) => vec![("x-twilio-signature", twilio_signature(secret, url))],
            Self::Tandem(secret) => {
                let time = Timestamp::now().0.div_euclid(1_000_000);
                vec![("x-tandem-signature", tandem_signature(secret, time, url))]
            }
            Self::Bearer { key, beta } => key
                .iter()
                .map(|key| ("authorization", format!("Bearer {}", key.expose())))
                .chain(beta.then(|| ("openai-beta", "realtime=v1".to_owned())))
                .collect(),
        }
    }
}

fn twilio_signature(secret: &Secret, url: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes());
    STANDARD.encode(hmac::sign(&key, url.as_bytes()))
}

fn tandem_signature(secret: &Secret, time: i64, url: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let tag = hmac::sign(&key, format!("{time}.{url}").as_bytes());
    let tag: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={time},v1={tag}")
}

/// Connects to the first address of a name that tenants may reach.
async fn dial(host: &str, port: u16, targets: &PrivateTargets) -> Result<TcpStream, String> {
    let resolved = tokio::time::timeout(CONNECT, tokio::net::lookup_host((host, port))).await;
    let addresses = match resolved {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Err(format!("the agent's host {host} does not resolve: {error}")),
        Err(_) => return Err(format!("the agent's host {host} does not resolve within 5 s")),
    };
    let mut problem = format!("the agent's host {host} has no address");
    for address in addresses {
        if let Err(refused) = targets.check(address.ip()) {
            problem = format!("the agent's address {} {refused}", address.ip());
            continue;
        }
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let ready = stream.set_nodelay(true).and_then(|()| keep_alive(&stream));
                return ready.map(|()| stream).map_err(|e| format!("the agent's connection failed: {e}"));
            }
            Ok(Err(error)) => problem = format!("no connection to the agent at {address}: {error}"),
            Err(_) => problem = format!("no connection to the agent at {address} within 5 s"),
        }
    }
    Err(problem)
}

/// The system's trust, read once.
static TLS: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();

async fn tls(stream: TcpStream, host: String) -> Result<Wire, String> {
    let config = TLS.get_or_init(|| {
        ClientConfig::with_platform_verifier().map(Arc::new).map_err(|e| format!("TLS cannot be set up: {e}"))
    });
    let connector = TlsConnector::from(config.clone()?);
    let name = ServerName::try_from(host).map_err(|_| "the agent's host is no name for TLS".to_owned())?;
    match tokio::time::timeout(CONNECT, connector.connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(Wire::Tls(Box::new(stream))),
        Ok(Err(error)) => Err(format!("TLS with the agent failed: {error}")),
        Err(_) => Err("TLS with the agent did not come about within 5 s".to_owned()),
    }
}

impl Connection {
    /// Takes a message to write; [`Connection::poll_flush`] writes it.
    pub(super) fn send(&mut self, message: Outgoing) -> Result<(), Gone> {
        match (self, message) {
            (Self::WebSocket(socket), Outgoing::Text(text)) => start(socket, Message::text(text)),
            (Self::WebSocket(socket), Outgoing::Binary(bytes)) => start(socket, Message::binary(bytes)),
            (Self::AudioSocket(socket), Outgoing::Binary(bytes)) => {
                socket.push(&bytes).map_err(|Unread| Gone::broken("the agent reads too slowly"))
            }
            // No such message is made for this protocol.
            (Self::AudioSocket(_), Outgoing::Text(_)) => Ok(()),
        }
    }

    /// Asks for a sign of life, where the protocol has a way to.
    pub(super) fn ping(&mut self) -> Result<(), Gone> {
        match self {
            Self::WebSocket(socket) => start(socket, Message::Ping(Bytes::new())),
            Self::AudioSocket(_) => Ok(()),
        }
    }

    /// Whether a peer that says nothing can be told from a dead one.
    pub(super) fn answers_pings(&self) -> bool {
        matches!(self, Self::WebSocket(_))
    }

    /// Says goodbye.
    pub(super) fn close(&mut self, broken: Option<&str>) {
        if let Self::WebSocket(socket) = self {
            let (code, reason) = match broken {
                // RFC 6455 5.5: at most 123 bytes.
                Some(why) => (CloseCode::Policy, why.chars().take(120).filter(char::is_ascii).collect()),
                None => (CloseCode::Normal, String::new()),
            };
            let _ = start(socket, Message::Close(Some(CloseFrame { code, reason: reason.into() })));
        }
    }

    /// Writes what waits. Ready when nothing does.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match self {
            Self::WebSocket(socket) => Pin::new(socket).poll_flush(context).map_err(|e| gone(&e)),
            Self::AudioSocket(socket) => socket.poll_flush(context).map_err(|error| lost(&error)),
        }
    }

    /// The next message.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Frame, Gone>> {
        match self {
            Self::WebSocket(socket) => Poll::Ready(match ready!(Pin::new(socket).poll_next(context)) {
                Some(Ok(Message::Text(text))) => Ok(Frame::Text(text)),
                Some(Ok(Message::Binary(bytes))) => Ok(Frame::Binary(bytes)),
                Some(Ok(Message::Close(frame))) => Err(closed(frame.as_ref())),
                Some(Ok(_)) => Ok(Frame::Alive),
                Some(Err(error)) => Err(gone(&error)),
                None => Err(Gone::lost("the agent closed the connection")),
            }),
            Self::AudioSocket(socket) => Poll::Ready(match ready!(socket.poll_next(context)) {
                Ok(Some(frame)) => Ok(Frame::Binary(frame)),
                // Closing is how this protocol hangs up.
                Ok(None) => {
                    Err(Gone { clean: true, lost: false, why: "the agent closed the connection".to_owned() })
                }
                Err(error) => Err(lost(&error)),
            }),
        }
    }
}

fn start(socket: &mut WebSocketStream<Wire>, message: Message) -> Result<(), Gone> {
    Pin::new(socket).start_send(message).map_err(|error| gone(&error))
}

fn closed(frame: Option<&CloseFrame>) -> Gone {
    match frame {
        // A close without a code is a goodbye too (RFC 6455 7.1.5).
        None => Gone { clean: true, lost: false, why: "the agent closed the connection".to_owned() },
        Some(frame) => {
            let code = u16::from(frame.code);
            let reason: String = frame.reason.chars().filter(|c| !c.is_control()).take(120).collect();
            let words = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            Gone {
                clean: matches!(code, 1000 | 1001 | 1005),
                lost: false,
                why: format!("the agent closed the connection with {code}{words}"),
            }
        }
    }
}

fn lost(error: &io::Error) -> Gone {
    Gone::lost(format!("the connection to the agent broke: {error}"))
}

fn gone(error: &Error) -> Gone {
    match error {
        Error::Io(error) => lost(error),
        Error::WriteBufferFull(_) => Gone::broken("the agent reads too slowly"),
        Error::Capacity(error) => Gone::broken(format!("the agent sent too much at once: {error}")),
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            Gone::lost("the agent closed the connection without a goodbye")
        }
        other => Gone::broken(format!("the agent broke the WebSocket protocol: {other}")),
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures() {
        // Twilio's documented scheme: HMAC-SHA1 over the URL, checked with an independent implementation.
        let secret = Secret::new("12345".to_owned());
        assert_eq!(
            twilio_signature(&secret, "wss://mycompany.com/myapp.php?foo=1&bar=2"),
            "b3plRhGrh/DaMK9JgYYfERBwpcA="
        );
        assert_eq!(
            tandem_signature(&secret, 1, "ws://x/"),
            "t=1,v1=1ebad13034ede1297cf5ce3702e300762f9d4fd028ad249cd4560c993b85490f"
        );
    }

    #[tokio::test]
    async fn private_targets_are_not_reached_where_they_are_denied() {
        for url in ["ws://127.0.0.1:9/", "ws://[::1]:9/", "ws://localhost:9/", "ws://169.254.169.254/"] {
            let target = Target::WebSocket { url: url.to_owned(), proof: Proof::None };
            let error = connect(&target, &PrivateTargets::Deny).await.err().unwrap();
            assert!(error.contains("not allow") || error.contains("never allowed"), "{url}: {error}");
        }
        let target = Target::AudioSocket { address: "127.0.0.1:9".to_owned() };
        assert!(connect(&target, &PrivateTargets::Deny).await.err().unwrap().contains("not allow"));
    }
}
