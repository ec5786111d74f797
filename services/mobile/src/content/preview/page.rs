//! A preview as people see it in a browser: plain, without scripts, and with every text escaped.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

const STYLE: &str = include_str!("page.css");

/// The page of a preview, as `service/mobile` describes it.
pub(crate) fn page(preview: &Value) -> String {
    let text = |name: &str| escaped(preview[name].as_str().unwrap_or_default());
    let title = text("entry");
    let mut html = head(&title);
    let _ = write!(
        html,
        "<header><p class=\"note\">{}</p><h1>{title}</h1></header><table>",
        text("note"),
    );
    for (label, name) in [
        ("Type", "type"),
        ("Slot", "slot"),
        ("Shows from", "from"),
        ("Shows until", "until"),
        ("Link ends", "expires"),
    ] {
        if preview[name].is_string() {
            let _ = write!(html, "<tr><th>{label}</th><td>{}</td></tr>", text(name));
        }
    }
    html += "</table>";
    for localized in preview["locales"].as_array().into_iter().flatten() {
        section(&mut html, localized);
    }
    html + "</body></html>\n"
}

/// The page of a link that leads nowhere: what happened, and how to mend it.
pub(crate) fn refusal(message: &str, mend: &str) -> String {
    let (message, mend) = (escaped(message), escaped(mend));
    let head = head("nothing to see");
    format!("{head}<p class=\"note\">{message}</p><p>{mend}</p></body></html>\n")
}

/// The beginning of a page, to the beginning of its body. The title is escaped.
fn head(title: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\">\
         <title>Preview: {title}</title><style>{STYLE}</style></head><body>"
    )
}

/// What a browser may load on the page: its own style, and images of the same host.
pub(crate) fn policy() -> String {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; img-src 'self'; style-src 'sha256-{style}'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    )
}

fn section(html: &mut String, localized: &Value) {
    let locale = escaped(localized["locale"].as_str().unwrap_or_default());
    let _ = write!(html, "<section lang=\"{locale}\"><h2>{locale}</h2>");
    show(html, &localized["fields"]);
    *html += "</section>";
}

fn show(html: &mut String, value: &Value) {
    match value {
        Value::Object(object) if is_image(object) => image(html, object),
        Value::Object(object) => {
            *html += "<dl>";
            for (name, value) in object {
                let _ = write!(html, "<dt>{}</dt><dd>", escaped(name));
                show(html, value);
                *html += "</dd>";
            }
            *html += "</dl>";
        }
        Value::Array(items) => {
            *html += "<ol>";
            for item in items {
                *html += "<li>";
                show(html, item);
                *html += "</li>";
            }
            *html += "</ol>";
        }
        Value::String(text) => *html += &escaped(text),
        other => {
            let _ = write!(html, "<code>{}</code>", escaped(&other.to_string()));
        }
    }
}

fn is_image(object: &Map<String, Value>) -> bool {
    object.contains_key("src") && object.contains_key("variants")
}

fn image(html: &mut String, image: &Map<String, Value>) {
    let text = |name: &str| escaped(image.get(name).and_then(Value::as_str).unwrap_or_default());
    let number = |name: &str| image.get(name).and_then(Value::as_u64).unwrap_or_default();
    let widths = image["variants"].as_array().into_iter().flatten();
    let widths: Vec<String> = widths.map(|one| one["width"].to_string()).collect();
    let _ = write!(
        html,
        "<figure><img src=\"{}\" alt=\"{}\" width=\"{}\" height=\"{}\"><figcaption>{}<br>\
         <small>widths {}</small></figcaption></figure>",
        text("src"),
        text("alt"),
        number("width"),
        number("height"),
        text("alt"),
        escaped(&widths.join(", ")),
    );
}

/// The text where markup would be read: also within the quotes of an attribute.
fn escaped(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut safe, c| {
            match c {
                '&' => safe += "&amp;",
                '<' => safe += "&lt;",
                '>' => safe += "&gt;",
                '"' => safe += "&quot;",
                '\'' => safe += "&#39;",
                c => safe.push(c),
            }
            safe
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn preview(text: &str) -> Value {
        json!({
            "entry": text, "type": text, "slot": text, "note": text, "from": text,
            "locales": [{"locale": text, "fields": {
                (text): text,
                "image": {"src": text, "alt": text, "width": 1, "height": 1, "variants": [{"width": text}]},
                "list": [text, 1, null],
            }}],
        })
    }

    proptest! {
        #[test]
        fn no_text_becomes_markup(text in "[<>&\"'a-z/= ]{0,30}") {
            let tags = |html: &str| {
                let parts = html.split('<').skip(1);
                let mut tags: Vec<_> = parts.map(|part| part.split(['>', ' ']).next().unwrap().to_owned()).collect();
                // Members of an object stand in the order of their names.
                tags.sort();
                tags
            };
            let (plain, other) = (page(&preview("x")), page(&preview(&text)));
            prop_assert_eq!(tags(&plain), tags(&other));
            prop_assert_eq!(plain.matches('"').count(), other.matches('"').count());
        }
    }

    #[test]
    fn the_policy_allows_the_style_of_the_page_and_no_script() {
        let policy = policy();
        let style = STANDARD.encode(Sha256::digest(STYLE));
        assert!(page(&json!({})).contains(&format!("<style>{STYLE}</style>")));
        assert!(
            policy.contains(&style) && policy.contains("default-src 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("script"));
    }
}
