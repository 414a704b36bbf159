//! Media without IO: SDP offers and answers (RFC 3264, RFC 4566), RTP (RFC 3550), SRTP (RFC 3711), G.711, telephone-events
//! (RFC 4733), and the RTP session of one leg. Bytes, instants and seeds come in; packets to send and events come out.

pub mod beep;
pub mod codec;
mod conceal;
pub mod conference;
pub mod denoise;
pub mod detect;
pub mod dtmf;
pub mod dtmf_sender;
pub mod dtmf_tones;
pub mod e_model;
pub mod jitter_buffer;
pub mod line;
pub mod link;
pub mod monitor;
pub mod offer_answer;
pub mod player;
pub mod playout;
pub mod quality;
pub mod recording;
pub mod resample;
pub mod rtcp;
pub mod rtp;
pub mod sdp;
pub mod session;
pub mod srtp;
pub mod wav;
