//! Whether something printed what a page says that it prints.

/// Whether all that was printed is what was expected.
pub fn is_whole(expected: &str, printed: &str) -> bool {
    lines_match(&lines(expected), &lines(printed))
}

/// Whether what was printed has the expected lines somewhere.
pub fn is_part(expected: &str, printed: &str) -> bool {
    let mut around = lines(expected);
    around.insert(0, ANY.into());
    around.push(ANY.into());
    lines_match(&around, &lines(printed))
}

const ANY: &str = "…";

/// The lines with every gap as one space, without empty ones at the end.
fn lines(text: &str) -> Vec<String> {
    let one_space = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.trim_end().lines().map(one_space).collect()
}

fn lines_match(expected: &[String], printed: &[String]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == ANY => {
            (0..=printed.len()).any(|skipped| lines_match(rest, &printed[skipped..]))
        }
        Some((first, rest)) => printed
            .split_first()
            .is_some_and(|(line, left)| line_matches(first, line) && lines_match(rest, left)),
    }
}

fn line_matches(expected: &str, line: &str) -> bool {
    match expected.split_once(ANY) {
        None => expected == line,
        Some((before, behind)) => line.strip_prefix(before).is_some_and(|rest| {
            let mut starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            starts.any(|at| line_matches(behind, &rest[at..]))
        }),
    }
}

#[test]
fn dots_stand_for_anything() {
    for (expected, printed, matches) in [
        ("a  b\n", "a b", true),
        ("a …\n", "a b c\n\n", true),
        ("a … c", "a b d", false),
        ("…\nz", "a\nb\nz", true),
        ("a", "a\nb", false),
        ("a\n…", "a", true),
        ("a", "", false),
    ] {
        assert_eq!(is_whole(expected, printed), matches, "{expected} {printed}");
    }
    assert!(is_part("b …", "a\nb c\nd") && !is_part("c", "a\nb c"));
}
