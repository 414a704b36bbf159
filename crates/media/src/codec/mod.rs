//! Codecs of the SIP leg. G.711 and G.722 are ours, Opus is libopus.

pub mod g711;
pub mod g722;

use crate::resample::Rate;

/// An audio codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Opus (RFC 6716, RFC 7587), spoken as 16 kHz mono.
    Opus,
    /// G.722 at 64 kbit/s, 16 kHz; its RTP clock says 8 kHz (RFC 3551 4.5.2).
    G722,
    /// G.711 µ-law, 8 kHz.
    Pcmu,
    /// G.711 A-law, 8 kHz.
    Pcma,
}

/// Longest Opus packet, in samples at 16 kHz: 120 ms (RFC 6716 2.1.4).
const MAX_OPUS_SAMPLES: usize = 1_920;
/// Longest Opus packet we make, in bytes: far above 60 ms at our bit rate.
const MAX_OPUS_BYTES: usize = 1_000;
/// Bits a second: wideband speech is transparent there, with room for in-band error correction.
const OPUS_BITRATE: u32 = 28_000;
/// Above it quality rises little and time much.
const OPUS_COMPLEXITY: u8 = 5;
/// Loss that the in-band error correction is made for, in percent.
const OPUS_EXPECTED_LOSS: u8 = 10;

impl Codec {
    /// Every codec, in our order of preference.
    pub const ALL: &'static [Self] = &[Self::Opus, Self::G722, Self::Pcmu, Self::Pcma];

    /// Encoding name as in `a=rtpmap`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::G722 => "G722",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }

    /// What stands in `a=rtpmap` after the payload type.
    #[must_use]
    pub fn rtpmap(self) -> &'static str {
        match self {
            Self::Opus => "opus/48000/2",
            Self::G722 => "G722/8000",
            Self::Pcmu => "PCMU/8000",
            Self::Pcma => "PCMA/8000",
        }
    }

    /// What stands in our `a=fmtp`, when anything does.
    #[must_use]
    pub fn fmtp(self) -> Option<&'static str> {
        (self == Self::Opus).then_some("useinbandfec=1")
    }

    /// RTP clock rate in hertz.
    #[must_use]
    pub fn clock_rate(self) -> u32 {
        if self == Self::Opus { 48_000 } else { 8_000 }
    }

    /// Sample rate of the audio we encode and decode.
    #[must_use]
    pub fn rate(self) -> Rate {
        match self {
            Self::Opus | Self::G722 => Rate::Hz16000,
            Self::Pcmu | Self::Pcma => Rate::Hz8000,
        }
    }

    /// Static payload type (RFC 3551 6); `None` for Opus.
    #[must_use]
    pub fn static_payload_type(self) -> Option<u8> {
        match self {
            Self::Opus => None,
            Self::G722 => Some(9),
            Self::Pcmu => Some(0),
            Self::Pcma => Some(8),
        }
    }

    /// The longest packet not over `ms` that it has, in milliseconds: 10 to 60.
    #[must_use]
    pub fn packet_ms(self, ms: u32) -> u32 {
        match (self, ms / 10) {
            (_, 0 | 1) => 10,
            // Opus frames have these lengths (RFC 6716 2.1.4).
            (Self::Opus, 2 | 3) => 20,
            (Self::Opus, 4 | 5) => 40,
            (_, tens) => (tens * 10).min(60),
        }
    }

    /// How much audio a payload holds, in units of the RTP clock; `None` when it is not one of this codec.
    #[must_use]
    pub fn duration(self, payload: &[u8]) -> Option<u32> {
        if payload.is_empty() {
            return None;
        }
        match self {
            Self::Opus => opusic_c::utils::get_nb_samples(payload, opusic_c::SampleRate::Hz48000)
                .ok()
                .and_then(|samples| u32::try_from(samples).ok())
                .filter(|samples| *samples > 0),
            Self::G722 | Self::Pcmu | Self::Pcma => u32::try_from(payload.len()).ok(),
        }
    }

    /// An encoder whose past is silence.
    #[must_use]
    pub fn encoder(self) -> Encoder {
        match self {
            Self::Pcmu => Encoder::Pcmu,
            Self::Pcma => Encoder::Pcma,
            Self::G722 => Encoder::G722(Box::new(g722::Encoder::new())),
            Self::Opus => Encoder::Opus(opus_encoder()),
        }
    }

    /// A decoder whose past is silence.
    #[must_use]
    pub fn decoder(self) -> Decoder {
        match self {
            Self::Pcmu => Decoder::Pcmu,
            Self::Pcma => Decoder::Pcma,
            Self::G722 => Decoder::G722(Box::new(g722::Decoder::new())),
            Self::Opus => Decoder::Opus(
                opusic_c::Decoder::new(opusic_c::Channels::Mono, opusic_c::SampleRate::Hz16000).ok(),
            ),
        }
    }
}

fn opus_encoder() -> Option<opusic_c::Encoder> {
    let mut encoder = opusic_c::Encoder::new(
        opusic_c::Channels::Mono,
        opusic_c::SampleRate::Hz16000,
        opusic_c::Application::Voip,
    )
    .ok()?;
    // All in range, so none is refused; a default in the place of one would do as well.
    let _ = encoder.set_bitrate(opusic_c::Bitrate::Value(OPUS_BITRATE));
    let _ = encoder.set_complexity(OPUS_COMPLEXITY);
    let _ = encoder.set_inband_fec(opusic_c::InbandFec::Mode1);
    let _ = encoder.set_packet_loss(OPUS_EXPECTED_LOSS);
    Some(encoder)
}

/// One stream's encoder.
pub enum Encoder {
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722.
    G722(Box<g722::Encoder>),
    /// Opus; `None` when there was no memory for it, which says nothing.
    Opus(Option<opusic_c::Encoder>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

impl Encoder {
    /// Appends the payload of one packet: 10 to 60 ms at [`Codec::rate`].
    pub fn encode(&mut self, samples: &[i16], out: &mut Vec<u8>) {
        match self {
            Self::Pcmu => out.extend(samples.iter().map(|&s| g711::encode_ulaw(s))),
            Self::Pcma => out.extend(samples.iter().map(|&s| g711::encode_alaw(s))),
            Self::G722(encoder) => encoder.encode(samples, out),
            Self::Opus(encoder) => {
                // libopus' wrapper takes the bits of 16-bit samples as unsigned.
                let mut bits = [0_u16; MAX_OPUS_SAMPLES];
                let length = samples.len().min(bits.len());
                for (slot, sample) in bits.iter_mut().zip(samples) {
                    *slot = sample.cast_unsigned();
                }
                let start = out.len();
                out.resize(start + MAX_OPUS_BYTES, 0);
                let made = encoder
                    .as_mut()
                    .and_then(|e| e.encode_to_slice(&bits[..length], &mut out[start..]).ok())
                    .unwrap_or(0);
                out.truncate(start + made);
            }
        }
    }
}

/// One stream's decoder.
pub enum Decoder {
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722.
    G722(Box<g722::Decoder>),
    /// Opus; `None` when there was no memory for it, which hears nothing.
    Opus(Option<opusic_c::Decoder>),
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder")
    }
}

impl Decoder {
    /// Appends a payload's samples, at [`Codec::rate`]. A damaged payload appends none.
    pub fn decode(&mut self, payload: &[u8], out: &mut Vec<i16>) {
        match self {
            Self::Pcmu => out.extend(payload.iter().map(|&b| g711::decode_ulaw(b))),
            Self::Pcma => out.extend(payload.iter().map(|&b| g711::decode_alaw(b))),
            Self::G722(decoder) => decoder.decode(payload, out),
            Self::Opus(decoder) => {
                if let Some(decoder) = decoder {
                    opus_decode(decoder, payload, MAX_OPUS_SAMPLES, false, out);
                }
            }
        }
    }

    /// The codec's own concealment of `samples` samples, helped by the packet after the lost one when that is there
    /// (RFC 6716 4.4). `false` when it has none.
    pub fn conceal(&mut self, samples: usize, next: Option<&[u8]>, out: &mut Vec<i16>) -> bool {
        let Self::Opus(Some(decoder)) = self else { return false };
        let corrected = next.is_some_and(|next| opus_decode(decoder, next, samples, true, out));
        corrected || opus_decode(decoder, &[], samples, false, out)
    }
}

fn opus_decode(
    decoder: &mut opusic_c::Decoder,
    payload: &[u8],
    samples: usize,
    correct: bool,
    out: &mut Vec<i16>,
) -> bool {
    let mut bits = [0_u16; MAX_OPUS_SAMPLES];
    let limit = samples.min(bits.len());
    let Ok(made) = decoder.decode_to_slice(payload, &mut bits[..limit], correct) else { return false };
    out.extend(bits.iter().take(made).map(|bits| bits.cast_signed()));
    made > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{level_db, total_db};

    fn tone(rate: u32, hz: f32, ms: u32) -> Vec<i16> {
        (0..rate / 1_000 * ms)
            .map(|n| (10_000.0 * (std::f32::consts::TAU * hz * n as f32 / rate as f32).sin()) as i16)
            .collect()
    }

    /// One second of a tone through encoder and decoder in packets of `ms`, without its first 200 ms.
    fn through(codec: Codec, hz: f32, ms: u32) -> Vec<i16> {
        let rate = codec.rate();
        let (mut encoder, mut decoder) = (codec.encoder(), codec.decoder());
        let mut out = Vec::new();
        for frame in tone(rate.hz(), hz, 960).chunks(rate.samples(ms)) {
            let mut payload = Vec::new();
            encoder.encode(frame, &mut payload);
            assert_eq!(codec.duration(&payload), Some(codec.clock_rate() / 1_000 * ms), "{codec:?}");
            decoder.decode(&payload, &mut out);
        }
        assert_eq!(out.len(), rate.samples(960), "{codec:?}");
        out.split_off(rate.samples(200))
    }

    #[test]
    fn tones_come_through_every_codec_at_every_packet_length() {
        for &codec in Codec::ALL {
            for ms in [10, 20, 40, 60] {
                assert_eq!(codec.packet_ms(ms), ms);
                for hz in [440.0, if codec.rate() == Rate::Hz16000 { 6_000.0 } else { 3_000.0 }] {
                    let heard = through(codec, hz, ms);
                    let level = level_db(&heard, codec.rate().hz(), hz);
                    assert!((level + 10.3).abs() < 1.5, "{codec:?} {hz} Hz {ms} ms: {level:.1} dB");
                    assert!(total_db(&heard) - level < 0.6, "{codec:?} {hz} Hz {ms} ms");
                }
            }
        }
        assert_eq!(
            (Codec::Opus.packet_ms(30), Codec::Opus.packet_ms(50), Codec::Pcmu.packet_ms(30)),
            (20, 40, 30)
        );
    }

    #[test]
    fn opus_conceals_and_corrects_and_the_others_leave_it_to_us() {
        let rate = Codec::Opus.rate();
        let (mut encoder, mut decoder) = (Codec::Opus.encoder(), Codec::Opus.decoder());
        let mut packets = Vec::new();
        for frame in tone(rate.hz(), 440.0, 400).chunks(rate.samples(20)) {
            let mut payload = Vec::new();
            encoder.encode(frame, &mut payload);
            packets.push(payload);
        }
        for (n, packet) in packets.iter().enumerate() {
            let mut out = Vec::new();
            if n == 10 {
                assert!(decoder.conceal(320, packets.get(11).map(Vec::as_slice), &mut out));
                assert!(level_db(&out, 16_000, 440.0) > -14.0);
            } else {
                decoder.decode(packet, &mut out);
            }
            assert_eq!(out.len(), 320);
        }
        assert!(!Codec::G722.decoder().conceal(320, None, &mut Vec::new()));
    }

    #[test]
    fn damaged_payloads_are_survived() {
        for &codec in Codec::ALL {
            let mut decoder = codec.decoder();
            let mut out = Vec::new();
            for n in 0..2_000_usize {
                let payload: Vec<u8> = (0..n % 97).map(|k| (k * 31 + n * 17) as u8).collect();
                let _ = codec.duration(&payload);
                decoder.decode(&payload, &mut out);
                out.clear();
            }
        }
    }
}
