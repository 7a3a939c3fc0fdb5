//! The little JSON that an envelope needs.

use std::fmt::Write as _;

/// Writes a string with its quotes.
pub(super) fn string(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a string cannot fail.
            control if control < ' ' => drop(write!(out, "\\u{:04x}", u32::from(control))),
            letter => out.push(letter),
        }
    }
    out.push('"');
}

/// Writes a field, with a comma before it: null, text, or in base64 under another name.
pub(super) fn bytes(out: &mut String, name: &str, value: Option<&[u8]>) {
    out.push_str(",\"");
    out.push_str(name);
    match value.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => out.push_str("\":null"),
        Some((_, Ok(text))) => {
            out.push_str("\":");
            string(out, text);
        }
        Some((bytes, Err(_))) => {
            out.push_str("_base64\":\"");
            base64(out, bytes);
            out.push('"');
        }
    }
}

fn base64(out: &mut String, bytes: &[u8]) {
    for piece in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|at| piece.get(at).copied().unwrap_or(0));
        let word = u32::from_be_bytes([0, a, b, c]);
        for place in 0..4 {
            let digit = (word >> (18 - 6 * place)) as u8 & 63;
            let padding = place > piece.len();
            out.push(if padding { '=' } else { base64_digit(digit) });
        }
    }
}

fn base64_digit(digit: u8) -> char {
    char::from(match digit {
        0..26 => b'A' + digit,
        26..52 => b'a' + (digit - 26),
        52..62 => b'0' + (digit - 52),
        62 => b'+',
        _ => b'/',
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut out = String::new();
            base64(&mut out, plain.as_bytes());
            assert_eq!(out, coded);
        }
    }

    #[test]
    fn control_letters_are_escaped() {
        let mut out = String::new();
        string(&mut out, "a\u{1}\"\\\t\u{1f600}");
        assert_eq!(out, "\"a\\u0001\\\"\\\\\\t\u{1f600}\"");
    }
}
