//! Names of files, as clients say them, made into names that are safe wherever the file goes.
//!
//! A name is cleaned, not refused: whoever stands in a store with a photo can't rename it, and the bytes
//! matter more than what they are called.

/// The longest name, in bytes.
pub(super) const MAX_NAME: usize = 200;
/// The longest ending, with its point, that outlives shortening.
const MAX_ENDING: usize = 16;

/// What Windows takes for devices, whatever stands behind a point.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

/// A name without folders, control characters, marks of writing direction and what file systems
/// forbid; never empty, at most [`MAX_NAME`] bytes.
pub(super) fn clean(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).find(|part| !is_nothing(part));
    let kept: String = last.unwrap_or_default().chars().filter_map(safe).collect();
    let kept = kept.trim_matches(|c: char| c.is_whitespace() || c == '.');
    match kept {
        "" => "file".into(),
        kept if is_device(kept) => shortened(&format!("_{kept}")),
        kept => shortened(kept),
    }
}

fn is_nothing(part: &str) -> bool {
    matches!(part.trim(), "" | "." | "..")
}

/// The character, another in its place, or none.
fn safe(c: char) -> Option<char> {
    match c {
        '<' | '>' | ':' | '"' | '|' | '?' | '*' => Some('_'),
        char::REPLACEMENT_CHARACTER => Some('_'),
        c if c.is_control() || is_invisible(c) => None,
        c if c.is_whitespace() => Some(' '),
        c => Some(c),
    }
}

/// What changes how others are shown, or is not shown at all: marks of direction, joiners, tags, variation
/// selectors, private use.
fn is_invisible(c: char) -> bool {
    matches!(u32::from(c),
        0xad | 0x34f | 0x61c | 0x180b..=0x180f | 0x200b..=0x200f | 0x2028..=0x202e
        | 0x2060..=0x206f | 0xe000..=0xf8ff | 0xfe00..=0xfe0f | 0xfeff | 0xfff0..=0xfffc
        | 0xe0000..=0xe0fff | 0xf0000..)
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end();
    let stem = stem.to_ascii_lowercase();
    let is_port = |prefix| {
        let rest = stem.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.len() == 1 && rest.as_bytes()[0].is_ascii_digit())
    };
    DEVICES.contains(&&*stem) || is_port("com") || is_port("lpt")
}

/// At most [`MAX_NAME`] bytes, with the ending that says what it is.
fn shortened(name: &str) -> String {
    if name.len() <= MAX_NAME {
        return name.to_owned();
    }
    let ending = name.rfind('.').map_or("", |at| &name[at..]);
    let ending = if ending.len() <= MAX_ENDING {
        ending
    } else {
        ""
    };
    let stem = head(&name[..name.len() - ending.len()], MAX_NAME - ending.len());
    format!("{}{ending}", stem.trim_end())
}

fn head(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tricks_are_taken_out_and_the_rest_stays() {
        for (name, cleaned) in [
            ("photo.jpg", "photo.jpg"),
            ("Größe 写真.pdf", "Größe 写真.pdf"),
            ("../../etc/passwd", "passwd"),
            ("C:\\fakepath\\a.pdf", "a.pdf"),
            ("a/..", "a"),
            ("..", "file"),
            ("", "file"),
            (" . ", "file"),
            (".bashrc", "bashrc"),
            ("a.pdf.", "a.pdf"),
            ("invoice\u{202e}fdp.exe", "invoicefdp.exe"),
            ("a\r\nSet-Cookie: x\0.txt", "aSet-Cookie_ x.txt"),
            ("a:b|c?.txt", "a_b_c_.txt"),
            ("NUL", "_NUL"),
            ("com1.txt", "_com1.txt"),
            ("comet.txt", "comet.txt"),
            ("zero\u{200b}width\u{feff}", "zerowidth"),
        ] {
            assert_eq!(clean(name), cleaned, "{name:?}");
        }
    }

    #[test]
    fn a_long_name_keeps_its_ending() {
        let cleaned = clean(&format!("{}.jpeg", "ä".repeat(300)));
        assert!(
            cleaned.len() <= MAX_NAME && cleaned.ends_with("ä.jpeg"),
            "{cleaned}"
        );
        assert!(clean(&"x".repeat(1000)).len() == MAX_NAME);
    }

    proptest! {
        #[test]
        fn a_cleaned_name_is_always_safe_and_clean_already(name in ".*") {
            let cleaned = clean(&name);
            prop_assert!(!cleaned.is_empty() && cleaned.len() <= MAX_NAME);
            prop_assert!(!cleaned.starts_with('.') && !cleaned.contains(['/', '\\']));
            prop_assert!(cleaned.chars().all(|c| safe(c) == Some(c)));
            prop_assert_eq!(clean(&cleaned), cleaned);
        }
    }
}
