//! What must not be shown of a message: credentials (RFC 3261 20.7, 20.28), and keys in session descriptions (RFC 4568,
//! RFC 4567, RFC 4566 5.12).

/// Headers whose value is a credential, or derived from one.
const SECRET_HEADERS: [&[u8]; 3] = [b"authorization", b"proxy-authorization", b"authentication-info"];
/// Lines of a session description that are a key from here on.
const SECRET_LINES: [&[u8]; 2] = [b"k=", b"a=key-mgmt:"];
/// Before a key of an `a=crypto` line.
const INLINE: &[u8] = b"inline:";

/// A copy of a message with its secrets replaced by `*`, byte for byte, so that lengths stay true. Works on anything,
/// well-formed or not: whatever might be read as a secret is one.
#[must_use]
pub fn masked(message: &[u8]) -> Vec<u8> {
    let mut copy = message.to_vec();
    let (mut begins, mut colon, mut in_secret) = (0, None, false);
    for at in memchr::memchr3_iter(b'\n', b'\r', b':', message).chain(std::iter::once(message.len())) {
        if message.get(at) == Some(&b':') {
            colon.get_or_insert(at - begins);
            mask_inline(&mut copy, at);
            continue;
        }
        // After a CR comes an empty piece before the LF, which ends nothing.
        if let Some(line) = copy.get_mut(begins..at).filter(|line| !line.is_empty()) {
            mask_line(line, colon, &mut in_secret);
        }
        (begins, colon) = (at + 1, None);
    }
    copy
}

/// Masks a line whose first colon is known.
fn mask_line(line: &mut [u8], colon: Option<usize>, in_secret: &mut bool) {
    // What no secret begins with, and no line that goes on with one.
    let begins = |b: &u8| matches!(b, b'a' | b'A' | b'p' | b'P' | b'k' | b'K') || b.is_ascii_whitespace();
    if !line.first().is_some_and(begins) {
        *in_secret = false;
        return;
    }
    let folded = matches!(line.first(), Some(b' ' | b'\t'));
    if folded && *in_secret {
        blank(line);
        return;
    }
    if let Some(prefix) = SECRET_LINES.iter().find(|prefix| starts_with(line, prefix)) {
        blank(&mut line[prefix.len()..]);
    }
    *in_secret = colon.is_some_and(|colon| {
        let name = line[..colon].trim_ascii();
        SECRET_HEADERS.iter().any(|secret| name.eq_ignore_ascii_case(secret))
    });
    if let Some(colon) = colon.filter(|_| *in_secret) {
        let value = &mut line[colon + 1..];
        // The scheme alone tells nothing.
        let digest = value.trim_ascii_start();
        let scheme = if starts_with(digest, b"digest ") { value.len() - digest.len() + 7 } else { 0 };
        blank(&mut value[scheme..]);
    }
}

fn starts_with(line: &[u8], prefix: &[u8]) -> bool {
    line.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn blank(bytes: &mut [u8]) {
    bytes.iter_mut().filter(|b| !b.is_ascii_whitespace()).for_each(|b| *b = b'*');
}

/// Masks the key after a colon, up to what ends one, when the word before it is `inline`.
fn mask_inline(bytes: &mut [u8], colon: usize) {
    let (before, key) = bytes.split_at_mut(colon + 1);
    let word = before.len().checked_sub(INLINE.len()).and_then(|from| before.get(from..));
    if !word.is_some_and(|word| word.eq_ignore_ascii_case(INLINE)) {
        return;
    }
    let blanks = key.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let ends = |b: &u8| matches!(b, b'|' | b';' | b'\r' | b'\n' | b' ' | b'\t');
    let end = key.iter().skip(blanks).position(ends).map_or(key.len(), |length| blanks + length);
    blank(&mut key[..end]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(message: &str) -> String {
        let masked = masked(message.as_bytes());
        assert_eq!(masked.len(), message.len());
        String::from_utf8(masked).unwrap()
    }

    #[test]
    fn credentials_and_keys_are_gone_and_everything_else_stands() {
        let message = "INVITE sip:a@b SIP/2.0\r\nFrom: <sip:a@b>;tag=authorization: x\r\nauthorization : Digest username=\"a\",\r\n response=\"aaaa\"\r\n\tcnonce=\"bbbb\"\r\nPROXY-Authorization:Basic Y2Fycmllcg==\r\nAuthentication-Info: rspauth=\"cc\"\r\nX-Key: 1\r\n\r\nv=0\r\nk=base64:c2VjcmV0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:S3cr3tK3y|2^20|1:4;INLINE:0ther FEC\r\na=key-mgmt:mikey AQAFgM0X\r\nm=audio 1 RTP/SAVP 0\r\n";
        let shown = text(message);
        for secret in
            ["aaaa", "bbbb", "username", "Y2Fy", "cc\"", "c2VjcmV0", "S3cr3tK3y", "0ther", "AQAFgM0X"]
        {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
        for plain in [
            "tag=authorization: x\r\nauthorization : Digest **",
            "X-Key: 1\r\n\r\nv=0\r\nk=*",
            "inline:*********|2^20|1:4;INLINE:***** FEC",
            "m=audio 1 RTP/SAVP 0",
        ] {
            assert!(shown.contains(plain), "{plain}: {shown}");
        }
    }

    #[test]
    fn line_ends_of_every_kind_hide_nothing() {
        for end in ["\n", "\r", "\r\n"] {
            let shown = text(
                &["X: 1", "Authorization: Digest response=s3cret", " more=s3cret", "Y: s3en", ""].join(end),
            );
            assert!(!shown.contains("s3cret") && shown.contains("Y: s3en"), "{shown:?}");
        }
        assert_eq!(text("inline:"), "inline:");
        assert_eq!(text("Authorization:"), "Authorization:");
        assert_eq!(masked(b"\xff\xfeinline:\xff\xff"), b"\xff\xfeinline:**");
    }
}
