//! Rust as text: prose masked, words found whole, functions measured.
//!
//! Masking blanks comments, strings and characters and keeps every line's number, so a rule may look
//! for a word and count braces without a parser. It does not expand macros nor resolve names: what a
//! type is, clippy knows.

/// Shorter files (a program's entry, a crate's door) may say all in a few words.
const ESSAY_FROM_LINES: usize = 40;
/// What a sentence that says what the file is for takes at the least, in bytes.
const ESSAY_BYTES: usize = 40;

pub(crate) fn has_essay(text: &str) -> bool {
    let said: usize = text
        .lines()
        .take_while(|l| l.starts_with("//!"))
        .map(str::len)
        .sum();
    said >= if text.lines().count() > ESSAY_FROM_LINES {
        ESSAY_BYTES
    } else {
        10
    }
}

/// `needle` in `line`, not as a part of a longer word.
pub(crate) fn contains_word(line: &str, needle: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(needle).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(word);
        let after = line[at + needle.len()..].chars().next().is_some_and(word);
        !(before && needle.starts_with(word) || after && needle.ends_with(word))
    })
}

/// A home or work folder named from the file system's root.
pub(crate) fn machine_path(line: &str) -> Option<&'static str> {
    let paths = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
    ];
    let inside = |c: char| c.is_alphanumeric() || "._-}>)".contains(c);
    paths.into_iter().find(|p| {
        line.match_indices(p)
            .any(|(at, _)| !line[..at].chars().next_back().is_some_and(inside))
    })
}

/// The text with comments, strings and characters blanked; every line keeps its number.
pub(crate) fn mask(text: &str) -> String {
    let (src, mut out, mut i) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while i < src.len() {
        let n = opaque_len(&src[i..], i.checked_sub(1).map(|p| src[p]));
        if n == 0 {
            out.push(src[i]);
            i += 1;
        } else {
            out.extend(
                src[i..i + n]
                    .iter()
                    .map(|b| if *b == b'\n' { b'\n' } else { b' ' }),
            );
            i += n;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// How many bytes from here are comment, string or character; 0 where code goes on.
fn opaque_len(s: &[u8], before: Option<u8>) -> usize {
    let in_word = before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    let to = |end: &[u8], from: usize| {
        s[from..]
            .windows(end.len())
            .position(|w| w == end)
            .map_or(s.len(), |p| from + p + end.len())
    };
    match s {
        [b'/', b'/', ..] => s.iter().position(|b| *b == b'\n').unwrap_or(s.len()),
        [b'/', b'*', ..] => to(b"*/", 2),
        [b'r', b'"' | b'#', ..] | [b'b', b'r', b'"' | b'#', ..]
            if !in_word || before == Some(b'b') =>
        {
            let start = if s[0] == b'b' { 2 } else { 1 };
            let hashes = s[start..].iter().take_while(|b| **b == b'#').count();
            if s.get(start + hashes) != Some(&b'"') {
                return 0; // r#ident
            }
            let end: Vec<u8> = std::iter::once(b'"')
                .chain(std::iter::repeat_n(b'#', hashes))
                .collect();
            to(&end, start + hashes + 1)
        }
        [b'"', ..] => quoted(s, b'"'),
        [b'\'', b'\\', ..] => quoted(s, b'\''),
        // A character is closed after one UTF-8 sequence; anything else is a lifetime.
        [b'\'', ..] => (2..=5)
            .find(|n| {
                s.get(*n) == Some(&b'\'')
                    && std::str::from_utf8(&s[1..*n]).is_ok_and(|c| c.chars().count() == 1)
            })
            .map_or(0, |n| n + 1),
        _ => 0,
    }
}

fn quoted(s: &[u8], quote: u8) -> usize {
    let mut i = 1;
    while i < s.len() && s[i] != quote {
        i += if s[i] == b'\\' { 2 } else { 1 };
    }
    (i + 1).min(s.len())
}

/// (line, name, lines) of every function with a body in masked text.
pub(crate) fn functions(masked: &str) -> Vec<(usize, String, usize)> {
    let line_of = |at: usize| masked[..at].matches('\n').count() + 1;
    let mut found = Vec::new();
    for (at, _) in masked.match_indices("fn ") {
        let name: String = masked[at + 3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if name.is_empty()
            || masked[..at]
                .chars()
                .next_back()
                .is_some_and(|c| c.is_alphanumeric() || c == '_')
        {
            continue;
        }
        let (mut depth, mut nested) = (0_usize, 0_usize);
        for (i, c) in masked[at..].char_indices() {
            match c {
                '(' | '[' => nested += 1,
                ')' | ']' => nested = nested.saturating_sub(1),
                ';' if depth == 0 && nested == 0 => break,
                '{' => depth += 1,
                '}' if depth > 1 => depth -= 1,
                '}' => {
                    found.push((line_of(at), name, line_of(at + i) - line_of(at) + 1));
                    break;
                }
                _ => {}
            }
        }
    }
    found
}
