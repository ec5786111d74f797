use std::ops::Range;

/// A social security number has so many digits, a card more.
pub(super) const FEWEST: usize = 9;
/// How many digits cards have.
const CARD: Range<usize> = 13..20;

/// Whether a number has enough digits to be one of a card.
pub(super) fn is_long(number: &serde_json::Number) -> bool {
    const SHORTEST: f64 = 1e12;
    number
        .as_f64()
        .is_none_or(|number| number.abs() >= SHORTEST)
}

/// Finds the numbers of cards, checked by their last digit, and of social security, whatever stands
/// between their groups.
pub(super) fn find(text: &str, found: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += escape(&bytes[at..]).max(1);
            continue;
        }
        let (end, digits) = chain(bytes, at, |_| {});
        if digits >= FEWEST {
            let mut groups = Vec::new();
            chain(bytes, at, |group| groups.push(group));
            cards(bytes, &groups, found);
            social(bytes, &groups, found);
        }
        at = end;
    }
}

/// Reads groups of digits with one separator between each; returns what follows, and how many digits
/// there are.
fn chain(bytes: &[u8], mut at: usize, mut group: impl FnMut(Range<usize>)) -> (usize, usize) {
    let mut all = 0;
    loop {
        let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit());
        let count = digits.count();
        let end = at + count;
        all += count;
        group(at..end);
        let next = end + separator(&bytes[end..]);
        if next == end || !bytes.get(next).is_some_and(u8::is_ascii_digit) {
            return (end, all);
        }
        at = next;
    }
}

/// How long the separator is that stands here: a space, a dash or a dot, also as typographers and URLs
/// write them, and what is not seen.
fn separator(bytes: &[u8]) -> usize {
    match bytes {
        [b' ' | b'-' | b'.' | b'_' | b'+' | b'/', ..] => 1,
        [0xc2, 0xa0 | 0xad, ..] => 2,
        [
            b'%',
            b'2',
            b'0' | b'B' | b'b' | b'D' | b'd' | b'E' | b'e',
            ..,
        ] => 3,
        // U+2000 to U+2015 and U+202F: spaces, what is not seen, dashes.
        [0xe2, 0x80, 0x80..=0x95 | 0xaf, ..] => 3,
        _ => 0,
    }
}

/// How long the escape is that stands here; its digits are none of a number.
fn escape(bytes: &[u8]) -> usize {
    let is_hex = |range: Range<usize>| {
        let digits = bytes.get(range);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    match bytes {
        [b'%', ..] if is_hex(1..3) => 3,
        [b'\\', b'u', ..] if is_hex(2..6) => 6,
        [b'\\', b'x', ..] if is_hex(2..4) => 4,
        _ => 0,
    }
}

fn cards(bytes: &[u8], groups: &[Range<usize>], found: &mut Vec<Range<usize>>) {
    let mut first = 0;
    while first < groups.len() {
        match card(bytes, &groups[first..]) {
            Some(count) => {
                found.push(groups[first].start..groups[first + count - 1].end);
                first += count;
            }
            None => first += 1,
        }
    }
}

/// How many groups, from the first one, are the number of a card. Groups of one or two digits are lists of
/// numbers and addresses.
fn card(bytes: &[u8], groups: &[Range<usize>]) -> Option<usize> {
    let (mut all, mut count) = ([0; CARD.end], 0);
    if groups[0].len() < 4 {
        return None;
    }
    for (at, group) in groups.iter().enumerate() {
        if group.len() < 3 || count + group.len() >= CARD.end {
            return None;
        }
        for digit in &bytes[group.clone()] {
            all[count] = digit - b'0';
            count += 1;
        }
        let digits = &all[..count];
        if CARD.contains(&count) && is_brand(digits) && is_checked(digits) {
            return Some(at + 1);
        }
    }
    None
}

/// Whether an issuer of cards has numbers that begin so, and are so long. Most times and counters of so
/// many digits begin otherwise.
fn is_brand(digits: &[u8]) -> bool {
    let begin = digits[..4]
        .iter()
        .fold(0, |number, digit| number * 10 + u32::from(*digit));
    match begin {
        4000..=4999 => [13, 16, 19].contains(&digits.len()),
        3400..=3499 | 3700..=3799 => digits.len() == 15,
        3000..=3099 | 3600..=3699 | 3800..=3999 => (14..=19).contains(&digits.len()),
        3528..=3589 | 2221..=2720 => digits.len() >= 16,
        5000..=5099 | 5600..=5999 | 6000..=6999 => true,
        5100..=5599 => digits.len() == 16,
        _ => false,
    }
}

/// Luhn's check.
fn is_checked(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit @ 0..5) => digit * 2,
            (_, digit) => digit * 2 - 9,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Three, two and four digits, as 078-05-1120.
fn social(bytes: &[u8], groups: &[Range<usize>], found: &mut Vec<Range<usize>>) {
    for three in groups.windows(3) {
        let [area, group, serial] = [0, 1, 2].map(|at| &bytes[three[at].clone()]);
        let is_long = [area.len(), group.len(), serial.len()] == [3, 2, 4];
        if is_long && area != b"000" && area != b"666" && group != b"00" && serial != b"0000" {
            found.push(three[0].start..three[2].end);
        }
    }
}
