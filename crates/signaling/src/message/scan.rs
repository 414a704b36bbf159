//! Looking for single characters. Every message is read several times over on its way, in values of some tens of bytes
//! that nearly always are ASCII: what searches bytes costs a fraction of what searches for `char`s, and what is begun in
//! no time a fraction of what looks at many of them at once.

use memchr::arch::all::memchr::{One, Three, Two};

/// RFC 3261 25.1 `token`, by byte.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
        byte += 1;
    }
    table
};

/// RFC 3261 25.1 `token`.
pub(crate) fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Where the first `byte` of a short text is.
pub(crate) fn find(byte: u8, text: &[u8]) -> Option<usize> {
    One::new(byte).find(text)
}

/// Where the first of two is.
pub(crate) fn find2(one: u8, other: u8, text: &[u8]) -> Option<usize> {
    Two::new(one, other).find(text)
}

/// Splits at the first `byte`, which must be ASCII.
pub(crate) fn cut(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = find(byte, text.as_bytes())?;
    Some((&text[..at], &text[at + 1..]))
}

/// Splits at the first space or tab.
pub(crate) fn cut_blank(text: &str) -> Option<(&str, &str)> {
    let at = find2(b' ', b'\t', text.as_bytes())?;
    Some((&text[..at], &text[at + 1..]))
}

/// The first `wanted` outside quoted strings and angle brackets.
pub(crate) fn find_outside(text: &str, wanted: u8) -> Option<usize> {
    let bytes = text.as_bytes();
    // Most values hold none of what hides a character.
    let first = Three::new(wanted, b'"', b'<').find(bytes)?;
    if bytes[first] == wanted {
        return Some(first);
    }
    let (mut quoted, mut escaped, mut angled) = (false, false, false);
    for (at, &byte) in bytes.iter().enumerate().skip(first) {
        if escaped {
            escaped = false;
        } else if quoted {
            match byte {
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
        } else if byte == wanted && !angled {
            return Some(at);
        } else {
            match byte {
                b'"' => quoted = true,
                b'<' => angled = true,
                b'>' => angled = false,
                _ => {}
            }
        }
    }
    None
}

/// Splits at `separator` outside quoted strings and angle brackets.
pub(crate) fn split_outside(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match find_outside(text, separator) {
            Some(at) => {
                rest = Some(&text[at + 1..]);
                Some(&text[..at])
            }
            None => {
                rest = None;
                Some(text)
            }
        }
    })
}

/// The items of a parameter list; semicolons inside quotes do not separate.
pub(crate) fn split_params(params: &str) -> impl Iterator<Item = &str> {
    split_outside(params, b';')
}

/// Looks a parameter up in `a=b;c`; names are case-insensitive. A quoted value comes without its quotes.
pub(crate) fn param<'a>(params: &'a str, name: &str) -> Option<&'a str> {
    split_params(params).find_map(|item| {
        let (key, value) = cut(item, b'=').unwrap_or((item, ""));
        key.trim_ascii().eq_ignore_ascii_case(name).then(|| {
            let value = value.trim_ascii();
            value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value)
        })
    })
}

/// Whether one of the bytes is what is looked for, in a text that hardly ever holds it: all are looked at, many at once.
pub(crate) fn holds(bytes: &[u8], is_wanted: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(false, |found, &byte| found | is_wanted(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_or_bracketed_does_not_separate() {
        let parts: Vec<&str> = split_outside("a,\"b,\\\",c\",<d,e>,f", b',').collect();
        assert_eq!(parts, ["a", "\"b,\\\",c\"", "<d,e>", "f"]);
        assert_eq!(find_outside("x;y", b';'), Some(1));
        assert_eq!((find_outside("\"x;y", b';'), find_outside("", b';')), (None, None));
        assert_eq!(param("a=1; B = \"x;y\" ;c", "b"), Some("x;y"));
        assert_eq!((param("a=1;c", "C"), param("a=1", "d")), (Some(""), None));
    }

    #[test]
    fn cuts_are_made_once() {
        assert_eq!((cut("a:b:c", b':'), cut("a", b':')), (Some(("a", "b:c")), None));
        assert_eq!(cut_blank("1\tINVITE x"), Some(("1", "INVITE x")));
        assert!(is_token(b'~') && !is_token(b' ') && !is_token(b'@') && !is_token(0xc3));
    }
}
