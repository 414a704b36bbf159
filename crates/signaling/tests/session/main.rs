//! INVITE sessions in virtual time: two of them, or one and a scripted peer, over a link that loses, repeats, delays
//! and reorders by a seed. Nothing sleeps.
#![allow(clippy::unwrap_used, clippy::panic)]

mod abandon;
mod bounds;
mod departed;
mod digest;
mod forks;
mod in_dialog;
mod ladders;
mod link;
mod random;
mod refer;
mod refresh;
mod reliable;
mod sequence;
mod stream;
mod sweep;
mod timers;
