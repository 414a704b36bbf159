//! Recordings as bytes: stereo WAV, or Opus in Ogg (RFC 7845). Whoever writes them can stop at any byte: what is
//! written until then can be played.

use opusic_c::{Application, Bitrate, Channels, Encoder, SampleRate};

use crate::resample::Rate;

/// Length of the WAV header; it is written again as the file grows.
pub const WAV_HEADER: usize = 44;
/// Samples a channel in an Opus packet: 20 ms at 16 kHz.
const OPUS_FRAME: usize = 320;
/// Packets of a page: 200 ms, so that a crash costs no more than that and a write.
const PAGE_PACKETS: usize = 10;
/// What a decoder drops at the beginning, in samples at 48 kHz: libopus' look-ahead, 6.5 ms.
const PRE_SKIP: u16 = 312;
/// Bits a second of both channels: speech is transparent there.
const OPUS_BITRATE: u32 = 48_000;
const MAX_PACKET: usize = 1_200;

/// A recording in progress.
pub enum Recording {
    /// PCM of 16 bits.
    Wav {
        /// Samples a second.
        rate: Rate,
        /// Bytes of audio so far.
        bytes: u32,
    },
    /// Opus in Ogg.
    Ogg(Box<Ogg>),
}

/// See [`Recording::Ogg`].
pub struct Ogg {
    /// `None` when libopus had no memory: then nothing is recorded.
    encoder: Option<Encoder>,
    serial: u32,
    sequence: u32,
    /// Samples at 48 kHz so far.
    granule: u64,
    pending: Vec<i16>,
    page: Vec<u8>,
    lacing: Vec<u8>,
    packets: usize,
}

impl Recording {
    /// A WAV file.
    #[must_use]
    pub fn wav(rate: Rate) -> Self {
        Self::Wav { rate, bytes: 0 }
    }

    /// An Ogg file of audio at 16 kHz; `serial` names its stream.
    #[must_use]
    pub fn ogg(serial: u32) -> Self {
        let encoder = Encoder::new(Channels::Stereo, SampleRate::Hz16000, Application::Voip).ok();
        let mut encoder = encoder;
        if let Some(encoder) = &mut encoder {
            let _ = encoder.set_bitrate(Bitrate::Value(OPUS_BITRATE));
            let _ = encoder.set_complexity(3);
        }
        Self::Ogg(Box::new(Ogg {
            encoder,
            serial,
            sequence: 0,
            granule: 0,
            pending: Vec::new(),
            page: Vec::new(),
            lacing: Vec::new(),
            packets: 0,
        }))
    }

    /// The file's beginning.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Wav { .. } => out.extend_from_slice(&self.header().unwrap_or([0; WAV_HEADER])),
            Self::Ogg(ogg) => {
                let mut head = b"OpusHead\x01\x02".to_vec();
                head.extend_from_slice(&PRE_SKIP.to_le_bytes());
                head.extend_from_slice(&16_000_u32.to_le_bytes());
                head.extend_from_slice(&[0, 0, 0]);
                ogg.packet(&head);
                ogg.flush(2, 0, out);
                let vendor = b"tandem";
                let mut tags = b"OpusTags".to_vec();
                tags.extend_from_slice(&(vendor.len() as u32).to_le_bytes());
                tags.extend_from_slice(vendor);
                tags.extend_from_slice(&0_u32.to_le_bytes());
                ogg.packet(&tags);
                ogg.flush(0, 0, out);
            }
        }
    }

    /// Appends interleaved samples.
    pub fn audio(&mut self, samples: &[i16], out: &mut Vec<u8>) {
        match self {
            Self::Wav { bytes, .. } => {
                out.extend(samples.iter().flat_map(|s| s.to_le_bytes()));
                *bytes = bytes.saturating_add(u32::try_from(samples.len() * 2).unwrap_or(u32::MAX));
            }
            Self::Ogg(ogg) => {
                ogg.pending.extend_from_slice(samples);
                while ogg.pending.len() >= 2 * OPUS_FRAME {
                    ogg.frame(out);
                }
            }
        }
    }

    /// The header that fits what was written so far, for the file's beginning; `None` when it does not change.
    #[must_use]
    pub fn header(&self) -> Option<[u8; WAV_HEADER]> {
        let Self::Wav { rate, bytes } = *self else { return None };
        let mut header = [0; WAV_HEADER];
        let rate = rate.hz();
        let fields: [&[u8]; 13] = [
            b"RIFF",
            &bytes.saturating_add(36).to_le_bytes(),
            b"WAVE",
            b"fmt ",
            &16_u32.to_le_bytes(),
            &1_u16.to_le_bytes(),
            &2_u16.to_le_bytes(),
            &rate.to_le_bytes(),
            &(rate * 4).to_le_bytes(),
            &4_u16.to_le_bytes(),
            &16_u16.to_le_bytes(),
            b"data",
            &bytes.to_le_bytes(),
        ];
        let mut at = 0;
        for field in fields {
            // In range: the fields are 44 bytes in all.
            header[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        Some(header)
    }

    /// The file's end.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if let Self::Ogg(ogg) = self {
            if !ogg.pending.is_empty() {
                ogg.pending.resize(2 * OPUS_FRAME, 0);
                ogg.frame(out);
            }
            let granule = ogg.granule;
            ogg.flush(4, granule, out);
        }
    }
}

impl Ogg {
    fn frame(&mut self, out: &mut Vec<u8>) {
        let bits: Vec<u16> = self.pending.drain(..2 * OPUS_FRAME).map(i16::cast_unsigned).collect();
        let mut packet = [0; MAX_PACKET];
        let made = self.encoder.as_mut().and_then(|e| e.encode_to_slice(&bits, &mut packet).ok());
        let Some(packet) = made.and_then(|made| packet.get(..made)) else { return };
        let packet = packet.to_vec();
        self.packet(&packet);
        self.granule += 3 * OPUS_FRAME as u64;
        if self.packets >= PAGE_PACKETS {
            let granule = self.granule;
            self.flush(0, granule, out);
        }
    }

    fn packet(&mut self, packet: &[u8]) {
        self.lacing.extend(std::iter::repeat_n(255, packet.len() / 255));
        self.lacing.push((packet.len() % 255) as u8);
        self.page.extend_from_slice(packet);
        self.packets += 1;
    }

    /// Ends the page (RFC 3533 6).
    fn flush(&mut self, flags: u8, granule: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(b"OggS\0");
        out.push(flags);
        out.extend_from_slice(&granule.to_le_bytes());
        out.extend_from_slice(&self.serial.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        // A page has at most ten packets of five segments each.
        out.push(self.lacing.len() as u8);
        out.append(&mut self.lacing);
        out.append(&mut self.page);
        let checksum = crc(&out[start..]);
        out[start + 22..start + 26].copy_from_slice(&checksum.to_le_bytes());
        self.sequence += 1;
        self.packets = 0;
    }
}

/// Ogg's checksum: polynomial 0x04c11db7, not reflected, from zero.
fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0_u32, |crc, byte| {
        let mut crc = crc ^ u32::from(*byte) << 24;
        for _ in 0..8 {
            crc = if crc & 0x8000_0000 == 0 { crc << 1 } else { (crc << 1) ^ 0x04c1_1db7 };
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wav_file_cut_anywhere_behind_its_header_is_read() {
        let mut recording = Recording::wav(Rate::Hz8000);
        let mut file = Vec::new();
        recording.begin(&mut file);
        recording.audio(&[1, -1].repeat(8_000), &mut file);
        file[..WAV_HEADER].copy_from_slice(&recording.header().unwrap());
        recording.audio(&[2, -2].repeat(100), &mut file);
        let mut reader = hound::WavReader::new(&file[..]).unwrap();
        assert_eq!((reader.spec().channels, reader.spec().sample_rate, reader.duration()), (2, 8_000, 8_000));
        assert!(reader.samples::<i16>().all(|s| s.is_ok()));
    }

    #[test]
    fn pages_have_their_checksums_and_hold_all_packets() {
        assert_eq!(crc(b"OggS"), 0x5fb0_a94f);
        let mut recording = Recording::ogg(7);
        let mut file = Vec::new();
        recording.begin(&mut file);
        recording.audio(&[0; 2 * 16_000 + 10], &mut file);
        recording.end(&mut file);
        let mut rest = &file[..];
        let mut granules = Vec::new();
        while !rest.is_empty() {
            assert_eq!(&rest[..4], b"OggS");
            let segments = usize::from(rest[26]);
            let body: usize = rest[27..27 + segments].iter().map(|l| usize::from(*l)).sum();
            let length = 27 + segments + body;
            let mut page = rest[..length].to_vec();
            let stated = u32::from_le_bytes(page[22..26].try_into().unwrap());
            page[22..26].fill(0);
            assert_eq!(crc(&page), stated);
            granules.push(u64::from_le_bytes(page[6..14].try_into().unwrap()));
            rest = &rest[length..];
        }
        assert_eq!((granules.len(), granules.last()), (8, Some(&(51 * 960))));
    }
}
