//! SIP without IO (RFC 3261 and its extensions): messages, transactions, dialogs and INVITE sessions as state
//! machines. Bytes, instants and seeds come in; bytes to send, events and the next timeout come out. No socket, no
//! clock and no random generator is touched, so every timer can be tested in virtual time.

mod dialog;
pub mod digest;
pub mod hop;
pub mod message;
mod options;
pub mod register;
mod session;
pub mod stateless;
pub mod transaction;

pub use hop::{Hop, Transmit, Transport, Way};
pub use message::{
    CSeq, HeaderName, Malformed, Message, Method, NameAddr, Peek, Replaces, Request, RequestBuilder,
    Response, ResponseBuilder, StatusCode, StreamItem, StreamParser, Uri, Via, masked,
};
pub use options::Options;
pub use session::{
    Departed, EndCause, Ended, Event, Identity, Invite, Reason, Referral, Refusal, Session, SessionTimer,
    is_too_short,
};
