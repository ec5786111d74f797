use std::collections::BTreeSet;

use serde::Deserialize;
use serde_path_to_error as path_to_error;

use super::MAX_RULES;
use super::rule::Rule;
use crate::error::{Code, Error};

/// The largest file of rules, in bytes.
const MAX_FILE: usize = 1024 * 1024;

/// What is wrong with a file of rules: which rule, which field, what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct InvalidRules {
    /// "line 3", or "rule `canary`, weights".
    place: String,
    message: String,
    mend: &'static str,
}

impl InvalidRules {
    fn of_rule(rule: &str, field: &str, message: impl Into<String>, mend: &'static str) -> Self {
        let place = match field {
            "" | "." => rule.to_owned(),
            field => format!("{rule}, {field}"),
        };
        let message = message.into();
        Self {
            place,
            message,
            mend,
        }
    }
}

impl From<InvalidRules> for Error {
    fn from(error: InvalidRules) -> Self {
        Self::new(Code::InvalidArgument, "invalid_rules", error.to_string()).mend(error.mend)
    }
}

/// A file: any number of `[[rule]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<toml::Table>,
}

/// Reads and checks a file of rules.
///
/// # Errors
///
/// Of the first mistake: which rule and which field, what is wrong, and what to write instead.
pub fn parse(text: &str) -> Result<Vec<Rule>, InvalidRules> {
    if text.len() > MAX_FILE {
        let message = format!("it has more than {MAX_FILE} bytes");
        return Err(InvalidRules::of_rule("the file", "", message, "divide it"));
    }
    let file: File = toml::from_str(text).map_err(|error| not_toml(text, &error))?;
    if file.rule.len() > MAX_RULES {
        let message = format!("it has more than {MAX_RULES} rules");
        return Err(InvalidRules::of_rule(
            "the file",
            "",
            message,
            "write fewer",
        ));
    }
    let mut names = BTreeSet::new();
    let rules = file.rule.into_iter().enumerate();
    let rules: Result<Vec<_>, _> = rules.map(|(at, table)| read(at, table)).collect();
    let rules = rules?;
    match rules.iter().find(|rule| !names.insert(&rule.name)) {
        Some(twice) => Err(InvalidRules::of_rule(
            &named(twice.name.as_str()),
            "name",
            "another rule of the file has it, too",
            "give each rule a name of its own",
        )),
        None => Ok(rules),
    }
}

fn read(at: usize, table: toml::Table) -> Result<Rule, InvalidRules> {
    let rule = match table.get("name").and_then(toml::Value::as_str) {
        Some(name) => named(name),
        None => format!("rule number {}", at + 1),
    };
    let read: Result<Rule, _> = path_to_error::deserialize(toml::Value::Table(table));
    let read = read.map_err(|error| {
        let field = error.path().to_string();
        let message = error.inner().to_string();
        let message = message.lines().next().unwrap_or_default();
        InvalidRules::of_rule(&rule, &field, message, "")
    })?;
    match read.check() {
        Ok(()) => Ok(read),
        Err((field, message, mend)) => Err(InvalidRules::of_rule(&rule, field, message, mend)),
    }
}

/// The name came from outside: it is cut, and what could forge a line is escaped.
fn named(name: &str) -> String {
    let name: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    format!("rule `{name}`")
}

fn not_toml(text: &str, error: &toml::de::Error) -> InvalidRules {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    let line = text.as_bytes()[..at]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1;
    let message = error.message().replace('\n', " ");
    let mend = "write each rule as [[rule]], with name = \"…\" and service = \"TIER/NAME\"";
    InvalidRules::of_rule(&format!("line {line}"), "", message, mend)
}

impl Rule {
    /// The rule as a file has it, below its `[[rule]]`.
    pub fn to_toml(&self) -> String {
        #[derive(serde::Serialize)]
        struct One<'a> {
            rule: [&'a Rule; 1],
        }
        // A rule is made of texts, numbers and tables with names, which TOML all has.
        toml::to_string(&One { rule: [self] }).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: &str = r#"
        [[rule]]
        name = "canary"
        service = "api/shop"
        priority = 10
        sticky = "header user-id"
        salt = "experiment/new-checkout"
        timeout = "2s"
        weights = { "1.4.2" = 94.5, "1.5.0" = 5.5 }

        [rule.match]
        path = "/api/shop/v1/"
        hosts = ["shop.example.com", "*.shop.example.com"]
        methods = ["GET", "POST"]
        callers = ["outside", "api/*", "orchestration/cart"]
        headers = { x-beta = "*" }
        query = { preview = "1" }
        users = { percent = 10, by = "cookie session" }

        [rule.request]
        remove = ["x-debug"]
        set = { x-arm = "new" }
        add = { via = "hydrant" }

        [rule.answer]
        set = { cache-control = "no-store" }

        [[rule]]
        name = "moved"
        service = "api/shop"
        match.path = "/api/shop/old/"
        redirect = { to = "https://shop.example.com/new/{rest}", status = 308 }

        [[rule]]
        name = "patient"
        service = "api/shop"
        match.path = "/api/shop/v1/"
        rewrite = "/api/shop/v2/"
        retry = { attempts = 3, on = ["connect", "503"], per_try_timeout = "500ms", non_idempotent = true }
        avoid = { servers = ["web-2"], zones = ["eu-1"] }

        [[rule]]
        name = "pinned"
        service = "api/shop"
        pin = { version = "1.5.0", else = "refuse" }
        limit = { rate = "5/m", burst = 2, by = "header user-id" }
    "#;

    #[test]
    fn a_rule_reads_as_it_is_written() {
        let rules = parse(FULL).unwrap();
        assert_eq!(rules.len(), 4);
        for rule in rules {
            let toml = rule.to_toml();
            assert_eq!(parse(&toml).unwrap(), std::slice::from_ref(&rule), "{toml}");
            let json = serde_json::to_string(&rule).unwrap();
            assert_eq!(serde_json::from_str::<Rule>(&json).unwrap(), rule);
        }
    }

    /// An older node reads a rule as long as it says nothing that this node does not know, and refuses it else.
    #[test]
    fn a_rule_is_kept_with_no_more_than_it_says() {
        let text = "[[rule]]\nname = \"a\"\nservice = \"api/b\"\ntimeout = \"2s\"\n";
        let rule = parse(text).unwrap().remove(0);
        let kept = serde_json::to_string(&rule).unwrap();
        let expected = r#"{"name":"a","service":"api/b","timeout":"2s"}"#;
        assert_eq!(kept, expected);
        let newer = kept.replace("timeout", "teleport");
        assert!(serde_json::from_str::<Rule>(&newer).is_err());
    }

    /// The file with one rule, with these lines.
    fn mistake(lines: &str) -> String {
        let text = format!("[[rule]]\nname = \"a\"\nservice = \"api/shop\"\n{lines}\n");
        Error::from(parse(&text).unwrap_err()).to_string()
    }

    #[test]
    fn a_mistake_says_which_rule_and_field_and_what_to_write() {
        for (lines, expected) in [
            (
                "",
                "rule `a`, name: it does nothing; write what becomes of the requests: weights, avoid, pin, limit, rewrite, retry, timeout, request, answer or redirect",
            ),
            (
                "wieghts = {}",
                "rule `a`, wieghts: unknown field `wieghts`, expected one of",
            ),
            (
                "timeout = \"2\"",
                "rule `a`, timeout: `2` is not a time: write a whole number and one of ms, s and m",
            ),
            (
                "timeout = 2",
                "rule `a`, timeout: invalid type: integer `2`, expected a string",
            ),
            (
                "weights = { \"1.0.0\" = 90 }",
                "rule `a`, weights: they sum to 90 %; write percentages that sum to 100",
            ),
            (
                "weights = { \"1.0\" = 100 }",
                "rule `a`, weights.1.0: `1.0` is not a version: it is a semantic version, as 1.4.2",
            ),
            (
                "weights = { \"1.0.0\" = 100.001 }",
                "rule `a`, weights.1.0.0: `100.001` is not a share in percent: write",
            ),
            (
                "timeout = \"2s\"\nsticky = \"user\"",
                "rule `a`, sticky: `user` is not a source of an id: write 'header NAME'",
            ),
            (
                "timeout = \"2s\"\nsticky = \"address\"",
                "rule `a`, sticky: it is for rules with weights; write weights too",
            ),
            (
                "timeout = \"2s\"\nmatch.path = \"/api/shopping/\"",
                "rule `a`, match.path: it does not begin with the rule's own service; begin it",
            ),
            (
                "timeout = \"2s\"\nmatch.method = \"GET\"",
                "rule `a`, match.method: unknown field `method`, expected one of",
            ),
            (
                "timeout = \"2s\"\nmatch.headers = { hydrant-caller = \"operator\" }",
                "rule `a`, match.headers: hydrant-caller says nothing",
            ),
            (
                "request.set = { host = \"x\" }",
                "rule `a`, request: host frames a message",
            ),
            (
                "request.set = { X-Beta = \"x\" }",
                "rule `a`, request.set.X-Beta: `X-Beta` is not a header name: write",
            ),
            (
                "request.set = { x = \"a\\nb\" }",
                "rule `a`, request.set.x: `a\\nb` is not a header value: write",
            ),
            (
                "redirect = { to = \"https://x\", status = 200 }",
                "rule `a`, redirect: 200 does not send anybody elsewhere",
            ),
            (
                "redirect = { to = \"shop.example.com\" }",
                "rule `a`, redirect: `to` is neither a URL with a host nor a path",
            ),
            (
                "redirect = { to = \"/x\" }\ntimeout = \"2s\"",
                "rule `a`, redirect: no instance gets the request, so timeout has no effect",
            ),
            (
                "rewrite = \"/api/shop/v2/\"",
                "rule `a`, rewrite: it takes the place of the rule's path, and there is none; write match.path",
            ),
            (
                "match.path = \"/api/shop/v1/\"\nrewrite = \"/api/cart/v2/\"",
                "rule `a`, rewrite: it does not begin with the rule's own service; begin it with /TIER",
            ),
            (
                "match.path = \"/api/shop/v1/\"\nrewrite = \"/api/shop/v2\"",
                "rule `a`, rewrite: what is behind match.path would stick to its last part; end it with '/'",
            ),
            (
                "match.path = \"/api/shop/v1/\"\nrewrite = \"/api/shop/../\"",
                "rule `a`, rewrite: it is not a path that everybody reads alike; write at most 1024",
            ),
            (
                "retry = { attempts = 5 }",
                "rule `a`, retry.attempts: a request is not tried 5 times; write 1 to 4, the first try counted",
            ),
            (
                "retry = { on = [] }",
                "rule `a`, retry.on: nothing is tried again; name what is, or write attempts = 1",
            ),
            (
                "retry = { on = [\"200\"] }",
                "rule `a`, retry.on[0]: `200` is not a reason to try again: write connect, reset or a status",
            ),
            (
                "limit = { rate = \"5\" }",
                "rule `a`, limit.rate: `5` is not a rate: write a whole number up to 1000000 and one of /s, /m and /h",
            ),
            (
                "limit = { rate = \"5/s\", burst = 0 }",
                "rule `a`, limit.burst: 0 can't come at once; write 1 to 1000000",
            ),
            (
                "limit = { rate = \"5/s\", by = \"user\" }",
                "rule `a`, limit.by: `user` is not a way to count: write 'all', 'caller', 'address', 'header NAME'",
            ),
            (
                "avoid = { servers = [] }",
                "rule `a`, avoid: it names no server and no zone; write servers = [\"web-2\"] or zones = [\"eu-1\"]",
            ),
            (
                "pin = { server = \"web-2\", version = \"1.0.0\", else = \"refuse\" }",
                "rule `a`, pin: it names 2 places; write one of version, server and instance",
            ),
            (
                "pin = { server = \"web-2\" }",
                "rule `a`, pin: missing field `else`",
            ),
            (
                "pin = { server = \"web-2\", else = \"wait\" }",
                "rule `a`, pin.else: unknown variant `wait`, expected `others` or `refuse`",
            ),
            (
                "weights = { \"1.0.0\" = 100 }\navoid = { servers = [\"web-2\"] }",
                "rule `a`, avoid: weights says where a request goes, too; leave one of them out, or write two rules",
            ),
            (
                "timeout = \"1s\"\nretry = { per_try_timeout = \"1s\" }",
                "rule `a`, retry.per_try_timeout: nothing of the rule's timeout, 1s, is left after the first try; ",
            ),
        ] {
            let error = mistake(lines);
            assert!(error.starts_with(expected), "{lines}\n{error}");
        }
        let service = parse("[[rule]]\nname = \"a\"\nservice = \"shop\"\n").unwrap_err();
        assert!(
            service
                .to_string()
                .starts_with("rule `a`, service: `shop` is not"),
            "{service}"
        );
        let nameless = parse("[[rule]]\nservice = \"api/shop\"\n").unwrap_err();
        assert!(
            nameless
                .to_string()
                .starts_with("rule number 1: missing field `name`"),
            "{nameless}"
        );
        let not_toml = parse("[[rule]]\nname = \"a\"\n\nservice = api\n").unwrap_err();
        assert!(not_toml.to_string().starts_with("line 4: "), "{not_toml}");
        let twice = parse(&(FULL.to_owned() + FULL)).unwrap_err();
        assert!(
            twice
                .to_string()
                .starts_with("rule `canary`, name: another rule"),
            "{twice}"
        );
    }

    /// What a client writes never names the host that it is sent to.
    #[test]
    fn a_redirect_keeps_its_host() {
        for bad in [
            "https://shop.example.com{rest}",
            "https://{rest}",
            "/{path}",
            "//x/",
            "{rest}",
            "https:///x",
        ] {
            let error = mistake(&format!(
                "match.path = \"/api/shop/\"\nredirect = {{ to = \"{bad}\" }}"
            ));
            assert!(error.starts_with("rule `a`, redirect: "), "{bad}: {error}");
        }
        let to = |to: &str| super::super::Redirect {
            to: to.into(),
            status: 302,
        };
        let target = "/api/shop/a?b=c";
        assert_eq!(
            to("https://x/{rest}").location(target, 10),
            "https://x/a?b=c"
        );
        assert_eq!(
            to("https://x{path}").location(target, 10),
            "https://x/api/shop/a?b=c"
        );
        assert_eq!(to("/sorry").location(target, 0), "/sorry");
    }

    /// Pieces of rules, put together at random.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(FULL.lines().map(str::trim).collect::<Vec<_>>());
        let noise = prop_oneof![4 => piece.prop_map(str::to_owned), 1 => "\\PC{0,20}"];
        prop::collection::vec(noise, 0..30).prop_map(|pieces| pieces.join("\n"))
    }

    fn holds(text: &str) {
        let Ok(rules) = parse(text) else { return };
        for rule in rules {
            assert_eq!(parse(&rule.to_toml()).unwrap(), [rule]);
        }
    }

    proptest! {
        #[test]
        fn what_is_read_can_be_written_and_read_again(text in pieces()) {
            holds(&text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
            holds(&text);
        }

        #[test]
        fn every_share_reads_as_it_is_written(slots in 0u16..=10_000) {
            let other = f64::from(10_000 - slots) / 100.0;
            let one = f64::from(slots) / 100.0;
            let text = format!(
                "[[rule]]\nname = \"a\"\nservice = \"api/b\"\nweights = {{ \"1.0.0\" = {one}, \"2.0.0\" = {other} }}"
            );
            let rules = parse(&text).unwrap();
            assert_eq!(rules[0].weights.values().next().unwrap().slots(), slots);
            holds(&text);
        }
    }
}
