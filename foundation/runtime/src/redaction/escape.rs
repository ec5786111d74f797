use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with nothing in it that could forge a line, steer a terminal or be markup: control
/// characters and what turns the direction of text around as `\u{a}`, markup as `&lt;`.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(is_escaped) else {
        return Cow::Borrowed(text);
    };
    let mut escaped = String::with_capacity(text.len() + 16);
    escaped.push_str(&text[..first]);
    for next in text[first..].chars() {
        match next {
            '\t' => escaped.push(' '),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // Writing to a string can't fail.
            next if is_escaped(next) => {
                let _ = write!(escaped, "\\u{{{:x}}}", u32::from(next));
            }
            next => escaped.push(next),
        }
    }
    Cow::Owned(escaped)
}

/// Control characters, line separators, what is not seen, what turns the direction around, markup.
pub(super) fn is_escaped(c: char) -> bool {
    match c {
        '<' | '>' => true,
        ' '..='~' => false,
        _ => c.is_control() || is_unseen(c),
    }
}

fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
